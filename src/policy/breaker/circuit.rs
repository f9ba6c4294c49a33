//! The words of a breaker: what it shows, how it changes, why it holds, what can be forced.

use crate::policy::time::MonoTime;

/// What a breaker shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Traffic flows.
    Closed,
    /// Nothing flows.
    Open {
        /// When a probe may go.
        until: MonoTime,
    },
    /// One probe at a time.
    HalfOpen,
    /// Nothing flows, by hand.
    ForcedOpen {
        /// When the override ends.
        until: MonoTime,
    },
    /// Traffic flows whatever happens, by hand.
    ForcedClosed {
        /// When the override ends.
        until: MonoTime,
    },
}

impl Circuit {
    /// Which one, without times.
    pub fn name(self) -> CircuitName {
        match self {
            Self::Closed => CircuitName::Closed,
            Self::Open { .. } => CircuitName::Open,
            Self::HalfOpen => CircuitName::HalfOpen,
            Self::ForcedOpen { .. } => CircuitName::ForcedOpen,
            Self::ForcedClosed { .. } => CircuitName::ForcedClosed,
        }
    }
}

/// [`Circuit`] as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CircuitName {
    /// Traffic flows.
    Closed,
    /// Nothing flows.
    Open,
    /// One probe at a time.
    HalfOpen,
    /// Nothing flows, by hand.
    ForcedOpen,
    /// Traffic flows, by hand.
    ForcedClosed,
}

impl CircuitName {
    /// The word in logs, metrics and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }
}

/// A change of state, to be told to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: CircuitName,
    /// After.
    pub to: CircuitName,
    /// Why.
    pub reason: TransitionReason,
}

/// Why a breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransitionReason {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too large a share of failures.
    FailureRate,
    /// Too large a share of slow answers.
    SlowRate,
    /// The open time is over.
    OpenTimeOver,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// A probe was refused in a way that shows life: 429, 401, 403.
    ProbeAlive,
    /// A probe failed.
    ProbeFailed,
    /// By hand.
    Forced,
    /// The time of an override is over.
    ForceExpired,
}

impl TransitionReason {
    /// The word in logs and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::OpenTimeOver => "open_time_over",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::ProbeAlive => "probe_alive",
            Self::ProbeFailed => "probe_failed",
            Self::Forced => "forced",
            Self::ForceExpired => "force_expired",
        }
    }
}

/// Why nothing may be sent now, and when it is worth asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The open time runs.
    Open {
        /// Its end.
        until: MonoTime,
    },
    /// Half-open, and the place of the probe is taken or kept for a safer exchange.
    Probing {
        /// The end of the lease, or when this safety may probe.
        until: MonoTime,
    },
}

/// What an operator can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Nothing flows.
    Open,
    /// Traffic flows whatever happens.
    Closed,
    /// No override.
    Auto,
}
