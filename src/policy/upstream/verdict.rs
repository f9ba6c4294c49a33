//! What the adapter reports of an attempt, and what it is told to do next.

use std::time::Duration;

use crate::policy::outcome::Outcome;
use crate::policy::retry::{RepeatKind, Replay, RetryMode};
use crate::policy::time::{Draw, MonoTime};

/// What the adapter saw of one attempt.
#[derive(Clone, Debug)]
pub struct Report {
    /// Decided by the classifier.
    pub outcome: Outcome,
    /// Differs between exchanges; for a streak "from at least two".
    pub exchange: u64,
    /// From sending to the head or the failure.
    pub took: Duration,
    /// Whether the body can be sent again.
    pub replay: Replay,
    /// The caller's own word.
    pub retry_mode: RetryMode,
    /// For the breaker's jitter and the backoff.
    pub draws: [Draw; 2],
}

/// What becomes of the exchange.
#[derive(Debug)]
pub enum Verdict {
    /// Give the answer to the client; it is what was wanted, or the client's own fault.
    Relay,
    /// It is a failure, and there is no further attempt.
    GiveUp(GiveUp),
    /// Discard it and go back to the line.
    Retry(RetryPlan),
}

/// Why a failure is given to the client. `opens` is when another request would be let through, if
/// the upstream or its breaker stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// A repeat would not be safe, not help, or is not wanted.
    NotRetryable {
        /// See above.
        opens: Option<MonoTime>,
    },
    /// All attempts were used.
    AttemptsSpent {
        /// See above.
        opens: Option<MonoTime>,
    },
    /// The body cannot be sent again.
    BodyNotReplayable {
        /// See above.
        opens: Option<MonoTime>,
    },
    /// Retries are too large a share of the traffic.
    BudgetSpent {
        /// See above.
        opens: Option<MonoTime>,
    },
    /// The next attempt would be later than the exchange may be held.
    DeadlineTooNear {
        /// When it could go.
        at: MonoTime,
    },
}

/// The next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPlan {
    /// The exchange's own pause; cooldowns and the breaker are asked in line.
    pub not_before: MonoTime,
    /// Not over a pooled connection.
    pub fresh: bool,
    /// Why it is permitted.
    pub kind: RepeatKind,
}
