//! What the end of an attempt means: exactly one row of the table for each.
//!
//! Everything that follows an attempt (breaker, cooldown, quota, retry, verdict) reads the
//! [`Outcome`] made here and never the status again, so the question "was that a failure?" has
//! one answer in the whole program. A refusal by a rate limit is no failure: see [`Health`].

use std::time::Duration;

use http::HeaderMap;

use super::hints;
use super::outcome::{Class, Health, HintSource, Outcome, Reading, Repeat, Sent};
use super::time::WallTime;

/// A refusal that lasts longer is an exhausted quota: nobody waits that long in a connection.
const EXHAUSTED_AFTER: Duration = Duration::from_secs(3600);

/// A time-out says something about the upstream only if it had this long, or the attempt's whole
/// time: a caller with half a second left must not open a breaker for everybody.
const FAIR_CHANCE: Duration = Duration::from_secs(10);

/// What the adapter saw of an attempt.
#[derive(Clone, Copy, Debug)]
pub enum Observed<'a> {
    /// A response head.
    Response {
        /// Its status.
        status: u16,
        /// Its fields.
        headers: &'a HeaderMap,
    },
    /// No response head.
    Failed {
        /// What went wrong.
        failure: Failure,
        /// Whether not one byte of the request was written.
        nothing_sent: bool,
    },
}

/// Why no response head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No address.
    Dns,
    /// No connection: refused, unreachable.
    Connect,
    /// This process had no descriptor, memory or port left; the upstream was not asked.
    OutOfResources,
    /// No connection in time.
    ConnectTimeout,
    /// The certificate is not good.
    TlsCertificate,
    /// Any other failure of the TLS handshake.
    TlsProtocol,
    /// A pooled connection was closed by the peer before a byte of the response.
    Stale,
    /// The connection ended after the request began.
    Reset,
    /// HTTP/2: the peer said that the request was not processed (RFC 9113 8.7).
    Refused,
    /// No head in time.
    HeadTimeout,
    /// What came was not HTTP.
    BadResponse,
    /// The downstream side left, or broke its own request body.
    Client,
}

/// Decides what an attempt's end means.
///
/// `attempt_took` is the time from sending to the head or the failure, `attempt_timeout` its limit.
pub fn classify(
    observed: Observed<'_>,
    received: WallTime,
    attempt_took: Duration,
    attempt_timeout: Duration,
) -> Outcome {
    match observed {
        Observed::Response { status, headers } => {
            answered(status, hints::read(status, headers, received))
        }
        Observed::Failed { failure, nothing_sent } => {
            let fair_chance = attempt_took >= attempt_timeout.min(FAIR_CHANCE);
            failed(failure, nothing_sent, fair_chance)
        }
    }
}

fn answered(status: u16, mut reading: Reading) -> Outcome {
    use {Class as C, Health as H, Repeat as R};
    let stated = reading.hint.is_some_and(|hint| match hint.source {
        HintSource::RetryAfterMs | HintSource::RetryAfterDelta | HintSource::RetryAfterDate => true,
        HintSource::RateLimitReset => false,
    });
    let used_up = reading.quota.is_some_and(|quota| quota.remaining == 0);
    let long = reading.hint.is_some_and(|hint| hint.wait > EXHAUSTED_AFTER);
    let (class, health, repeat) = match status {
        100..=399 => (C::Ok, H::Success, R::Never),
        429 if long => (C::Exhausted, H::Alive, R::Never),
        429 => (C::Throttled, H::Alive, R::Refused),
        403 if (stated || used_up) && long => (C::Exhausted, H::Alive, R::Never),
        403 if stated || used_up => (C::Throttled, H::Alive, R::Refused),
        401 | 403 => (C::Credential, H::Alive, R::Never),
        408 => (C::Transient, H::Neutral, R::BySafety),
        425 => (C::Transient, H::Neutral, R::Once),
        421 => (C::Misdirected, H::Neutral, R::Once),
        400..=499 => (C::Permanent, H::Success, R::Never),
        501 | 505 => (C::Permanent, H::Neutral, R::Never),
        503 if stated => (C::Unhealthy, H::Failure, R::BySafetyOrUnsafe503),
        529 => (C::Overloaded, H::HalfFailure, R::BySafety),
        // A status beyond 599 is to be taken as a 5xx (RFC 9110 15).
        _ => (C::Unhealthy, H::Failure, R::BySafety),
    };
    if class == C::Credential {
        // It was read before it was known that this is no refusal by a limit.
        reading.hint = None;
    }
    Outcome { class, health, sent: Sent::Answered, repeat, reading }
}

fn failed(failure: Failure, nothing_sent: bool, fair_chance: bool) -> Outcome {
    use {Class as C, Health as H, Repeat as R};
    let told = if nothing_sent { Sent::Nothing } else { Sent::Partly };
    let (class, health, sent, repeat) = match failure {
        Failure::Dns
        | Failure::Connect
        | Failure::ConnectTimeout
        | Failure::TlsProtocol
        | Failure::Refused => (C::Unhealthy, H::Failure, Sent::Nothing, R::BySafety),
        // No evidence about anybody but ourselves.
        Failure::OutOfResources => (C::Unhealthy, H::Neutral, Sent::Nothing, R::BySafety),
        // It will be as wrong the next time, and repeating hides what has to be repaired.
        Failure::TlsCertificate => (C::Unhealthy, H::Failure, Sent::Nothing, R::Never),
        Failure::Stale => (C::Stale, H::Neutral, told, R::BySafety),
        Failure::Reset | Failure::BadResponse => (C::Unhealthy, H::Failure, told, R::BySafety),
        Failure::HeadTimeout if fair_chance => (C::TimedOut, H::Failure, told, R::BySafety),
        Failure::HeadTimeout => (C::TimedOut, H::Neutral, told, R::BySafety),
        Failure::Client => (C::Client, H::Neutral, told, R::Never),
    };
    Outcome { class, health, sent, repeat, reading: Reading::default() }
}

/// Why an attempt was repeated; a label of the retry metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// 429.
    Status429,
    /// 503.
    Status503,
    /// Any other 5xx.
    Status5xx,
    /// No connection, or nothing of the request was sent.
    Connect,
    /// No head in time.
    Timeout,
    /// The connection ended too early, or spoke no HTTP.
    Reset,
    /// 403, 408, 421, 425 …
    Other,
}

impl RetryReason {
    /// All reasons, for metrics that exist at 0 from the start.
    pub const ALL: [Self; 7] = [
        Self::Status429,
        Self::Status503,
        Self::Status5xx,
        Self::Connect,
        Self::Timeout,
        Self::Reset,
        Self::Other,
    ];

    /// The value of the label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status429 => "status_429",
            Self::Status503 => "status_503",
            Self::Status5xx => "status_5xx",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Other => "other",
        }
    }

    /// As [`retry_reason`], and tells a failure to connect from a connection that broke.
    pub fn of(status: Option<u16>, outcome: &Outcome) -> Self {
        match (retry_reason(status, outcome.class), outcome.class, outcome.sent) {
            (Self::Reset, Class::Unhealthy, Sent::Nothing) => Self::Connect,
            (reason, _, _) => reason,
        }
    }
}

/// Why an attempt with this status, or without one, is repeated. Where the whole [`Outcome`] is
/// at hand, [`RetryReason::of`] is more exact.
pub fn retry_reason(status: Option<u16>, class: Class) -> RetryReason {
    match (status, class) {
        (Some(429), _) => RetryReason::Status429,
        (Some(503), _) => RetryReason::Status503,
        (Some(500..), _) => RetryReason::Status5xx,
        (None, Class::TimedOut) => RetryReason::Timeout,
        (None, Class::Unhealthy | Class::Stale) => RetryReason::Reset,
        (Some(_), _)
        | (
            None,
            Class::Ok
            | Class::Permanent
            | Class::Credential
            | Class::Throttled
            | Class::Exhausted
            | Class::Transient
            | Class::Misdirected
            | Class::Overloaded
            | Class::Client,
        ) => RetryReason::Other,
    }
}

#[cfg(test)]
mod tests;
