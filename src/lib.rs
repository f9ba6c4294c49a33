//! forbear: a sidecar HTTP resilience proxy.

pub mod policy;

pub mod config;

pub mod transport;

pub mod telemetry;

pub mod gateway;

pub mod proxy;

pub mod serve;

pub mod admin;

pub mod sidecar;

pub mod demo;

pub mod cli;
