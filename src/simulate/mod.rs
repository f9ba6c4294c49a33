//! What would have happened: the policy under a virtual clock.
//!
//! The policy is pure, so the code that decides in the proxy also decides here, at any speed and
//! as often as wanted. `world` and `driver` are the asynchronous adapter without a runtime: whoever
//! would sleep on a timer is an event on a heap. `model` is an API that enforces limits and fails.
//! `workload` makes both from a profile or a limit, `past` and `infer` from what a ledger recorded,
//! and `figures` counts. One seed gives one history. The tests drive the same world, and
//! examine it at every step through [`world::Watch`].

pub mod model;

pub mod world;

mod watch;

mod driver;

pub mod figures;

pub mod infer;

pub mod past;

pub mod workload;

#[cfg(test)]
mod tests;
