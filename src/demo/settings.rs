//! How the fake API behaves when no script says otherwise.

use std::ops::Range;
use std::time::Duration;

use super::hints::Hints;
use super::limiter::Limiter;

/// How the API behaves.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Which limit it enforces, on every path.
    pub limiter: Limiter,
    /// In which fields it tells so.
    pub hints: Hints,
    /// Time to work on an admitted request.
    pub latency: Duration,
    /// When it is down, counted from its first request. The limiter does not count requests in an
    /// outage.
    pub outages: Vec<Range<Duration>>,
    /// What a request meets in an outage.
    pub outage: Outage,
    /// Failures at fixed intervals.
    pub faults: Faults,
}

impl Default for ApiSettings {
    /// No limit, no latency, nothing fails.
    fn default() -> Self {
        Self {
            limiter: Limiter::None,
            hints: Hints::None,
            latency: Duration::ZERO,
            outages: Vec::new(),
            outage: Outage::Unavailable,
            faults: Faults::default(),
        }
    }
}

/// What a request meets in an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// 503 without a word on when to come back.
    Unavailable,
    /// A connection that is reset.
    Reset,
}

/// Failures that hit every n-th request; the limiter does not count those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reset the connection of every n-th request before anything is done.
    pub reset_every: Option<u32>,
    /// Answer every n-th request with 500.
    pub error_every: Option<u32>,
}
