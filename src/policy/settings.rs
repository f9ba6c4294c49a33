//! The policy's own settings, complete and valid. `config` builds them; every policy call gets
//! them as an argument, so that a reload changes the rules also for those who already wait.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

/// Everything that decides how one upstream is treated.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamSettings {
    /// Attempts in flight to this upstream at most; at least 1.
    pub in_flight_max: u32,
    /// Exchanges waiting at most; 0 refuses whatever cannot go at once.
    pub queue_max: u32,
    /// The upstream's own breaker.
    pub breaker: BreakerSettings,
    /// Index 0 is what no configured route matches, named `default`; never empty.
    pub routes: Vec<RouteSettings>,
    /// Buckets that routes of the API share, by name.
    pub buckets: Vec<Arc<str>>,
    /// Limits that the operator knows.
    pub quotas: Vec<QuotaSettings>,
    /// How quotas are spent of which only answers tell.
    pub pacing: Pacing,
}

/// A limit that the operator knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaSettings {
    /// What tells it from others.
    pub name: Arc<str>,
    /// The bucket or route that it limits; if there is none of that name, all that goes with one
    /// credential.
    pub limits: Arc<str>,
    /// Units in any time of length `per`; at least 1.
    pub requests: u64,
    /// The window; more than zero.
    pub per: Duration,
    /// How it is spent.
    pub pacing: Pacing,
}

/// How a quota is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// As it is wanted, until nothing is left.
    #[default]
    Observe,
    /// Spread evenly over the time until it is renewed; a twentieth may go at once.
    Smooth,
    /// It is ignored.
    Off,
}

/// How one route group is treated; every value is resolved, nothing is inherited at run time.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSettings {
    /// Unique within the upstream.
    pub name: Arc<str>,
    /// Attempts in flight on this route at most, besides the upstream's limit.
    pub in_flight_max: Option<u32>,
    /// Longest an exchange is held in all its waits together.
    pub max_wait: Duration,
    /// When and how an attempt is repeated.
    pub retry: RetrySettings,
    /// A breaker of the route's own; `None` shares the upstream's.
    pub breaker: Option<BreakerSettings>,
    /// Whether decisions are carried out.
    pub mode: Mode,
}

/// Whether a decision is carried out or only written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Decide and act.
    Enforce,
    /// Decide and record; the exchange goes through as if nothing had been decided.
    Shadow,
}

/// When and how an attempt is repeated.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySettings {
    /// Attempts in total, the first included; 1 switches retries off.
    pub attempts_max: NonZeroU8,
    /// Whether refusals by a rate limit use up attempts, too.
    pub throttled_counts: bool,
    /// Whether a 503 with `Retry-After` is taken as "not processed" for unsafe methods.
    pub unsafe_503: bool,
    /// How long to wait between attempts without a hint.
    pub backoff: Backoff,
    /// Retries sent per first attempt, over a sliding minute; 0.0 to 1.0.
    pub budget_ratio: f64,
    /// Retries per minute that are always allowed.
    pub budget_floor_per_minute: u32,
}

/// The shape of the waits between attempts.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// How the waits grow.
    pub family: BackoffFamily,
    /// The first wait, or its bound; more than zero.
    pub base: Duration,
    /// No wait is longer.
    pub max: Duration,
}

/// How waits grow with n, the number of the retry, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub enum BackoffFamily {
    /// max(100 ms, U(0, min(max, base·2^(n−1)))).
    FullJitter,
    /// min(max, U(base, 3·previous)).
    DecorrelatedJitter,
    /// min(max, base·2^(n−1)).
    Exponential,
    /// min(max, base·n).
    Linear,
    /// base.
    Fixed,
    /// U(0, base).
    Uniform,
    /// The n-th of the list; the last repeats. Never empty.
    Steps(Vec<Duration>),
}

/// When a breaker opens and how it closes again.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row, from at least two exchanges; 0 switches this detector off.
    pub consecutive_failures: u32,
    /// Share of failures in the window, (0, 1]; above 1.0 switches this detector off.
    pub failure_rate: f64,
    /// The window of the rate detector.
    pub window: Duration,
    /// Attempts in the window before the rate says anything.
    pub samples_min: u32,
    /// The first open time; doubles with each re-opening.
    pub open_for: Duration,
    /// No open time is longer, unless the upstream itself named one.
    pub open_for_max: Duration,
    /// Successful probes until it closes; at least 1.
    pub successes_to_close: u32,
    /// Answers slower than this count for the slow detector; `None` switches it off.
    pub slow_after: Option<Duration>,
    /// Share of slow answers among at least twenty that opens it.
    pub slow_rate: f64,
}

/// A limit on a set of exchanges across upstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySettings {
    /// `ingestion`, or `tenant:*`: one pool for each value.
    pub pattern: Arc<str>,
    /// Exchanges in flight at most; at least 1.
    pub in_flight_max: u32,
    /// Whether exchanges are sent strictly in the order of arrival; then the limit is 1.
    pub ordered: bool,
}

/// Limits of the whole process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Attempts in flight at most.
    pub in_flight_max: u32,
    /// Exchanges waiting at most.
    pub queue_max: u32,
    /// Bytes held for replay at most.
    pub replay_memory_max: u64,
    /// Declared concurrency keys.
    pub keys: Vec<KeySettings>,
}
