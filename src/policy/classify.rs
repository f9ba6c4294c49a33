//! What the end of an attempt means: exactly one row of the table for each.
//!
//! Everything that follows an attempt (breaker, cooldown, quota, retry, verdict) reads the
//! [`Outcome`] made here and never the status again, so the question "was that a failure?" has
//! one answer in the whole program. A refusal by a rate limit is no failure: see [`Health`].

use std::time::Duration;

use http::HeaderMap;

use super::hints::{self, Interpretation, Response};
use super::outcome::{Class, Health, Outcome, Reading, Repeat, Sent};
use super::profile::{Answer, GENERIC, Profile};
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

/// Decides what an attempt's end means, for an API of which nothing is known.
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
            let response = Response { status, headers, body: None, received, server: None };
            answered(response, &GENERIC).0
        }
        Observed::Failed { failure, nothing_sent } => {
            let fair_chance = attempt_took >= attempt_timeout.min(FAIR_CHANCE);
            failed(failure, nothing_sent, fair_chance)
        }
    }
}

/// Decides what a response means, as its API's profile has it, and gives all that was read, too:
/// the raw text of the hint, every quota, and what could not be understood.
pub fn answered<'a>(response: Response<'a>, profile: &'a Profile) -> (Outcome, Interpretation<'a>) {
    let said = hints::interpret(response, profile);
    let reading = said.reading();
    let long = reading.hint.as_ref().is_some_and(|hint| hint.wait > EXHAUSTED_AFTER);
    let stated = reading.hint.as_ref().is_some_and(|hint| hint.source.is_stated());
    let (class, health, repeat) = match (said.answer, said.limited) {
        (Answer::Permanent | Answer::RateLimited, true) if long => {
            (Class::Exhausted, Health::Alive, Repeat::Never)
        }
        (Answer::Permanent, true) => (Class::Throttled, Health::Alive, Repeat::Never),
        (Answer::RateLimited, _) if profile.refused_may_be_processed => {
            (Class::Throttled, Health::Alive, Repeat::BySafety)
        }
        (Answer::RateLimited, _) => (Class::Throttled, Health::Alive, Repeat::Refused),
        (Answer::Ok, _) => (Class::Ok, Health::Success, Repeat::Never),
        (Answer::Auth, _) => (Class::Credential, Health::Alive, Repeat::Never),
        (Answer::Permanent, false) => permanent(response.status),
        (Answer::Transient, _) => transient(response.status, stated),
    };
    (Outcome { class, health, sent: Sent::Answered, repeat, reading }, said)
}

fn permanent(status: u16) -> (Class, Health, Repeat) {
    match status {
        421 => (Class::Misdirected, Health::Neutral, Repeat::Once),
        501 | 505 => (Class::Permanent, Health::Neutral, Repeat::Never),
        // The server itself says that a repeat is of no use; ill it is nevertheless.
        500.. => (Class::Unhealthy, Health::Failure, Repeat::Never),
        _ => (Class::Permanent, Health::Success, Repeat::Never),
    }
}

fn transient(status: u16, stated: bool) -> (Class, Health, Repeat) {
    match status {
        425 => (Class::Transient, Health::Neutral, Repeat::Once),
        // Below 500 it is the profile that says so: a lock, a lag.
        ..=499 => (Class::Transient, Health::Neutral, Repeat::BySafety),
        503 if stated => (Class::Unhealthy, Health::Failure, Repeat::BySafetyOrUnsafe503),
        529 => (Class::Overloaded, Health::HalfFailure, Repeat::BySafety),
        _ => (Class::Unhealthy, Health::Failure, Repeat::BySafety),
    }
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
