//! What people and machines see of it: metrics, logs, stories.
//!
//! One finished [`story::Story`] feeds the counters, the access log and the response headers, so
//! they cannot disagree. Gauges are not kept at all: a scrape computes them from the state.

pub mod names;

pub mod story;

pub mod view;

pub mod metrics;

pub mod upstream;

mod series;

mod exposition;

pub mod scrape;

pub mod store;

pub mod writer;

pub mod log;

pub mod access;

pub mod trace;

#[cfg(test)]
pub(crate) mod tests;
