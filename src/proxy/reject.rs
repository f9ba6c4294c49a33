//! forbear's own refusals: one type, one table, turned into a response in one place.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::outcome::HintSource;
use crate::policy::time::WallTime;

/// The stable code of a refusal: the same in body, header, log and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Open for longer than the exchange may be held.
    BreakerOpen,
    /// The upstream's own wait is longer than that.
    Cooldown,
    /// Hours or days until the reset.
    QuotaExhausted,
    /// The next place in the quota is later than that.
    Paced,
    /// A bound on waiting exchanges was reached.
    QueueFull,
    /// No permit in time.
    QueueTimeout,
    /// Repeated 401 or 403 for this credential.
    CredentialLocked,
    /// The last attempt failed without a response.
    RetriesExhausted,
    /// DNS, connect or TLS failed.
    UpstreamUnreachable,
    /// Attempt or exchange ran out of time.
    Deadline,
    /// Shutting down.
    Draining,
    /// Own `Via` seen.
    Loop,
    /// Nothing matches.
    NoRoute,
    /// Framing, target or a `Forbear-*` field.
    BadRequest,
    /// A bound on head or body.
    TooLarge,
    /// A bug of forbear's own: a panic, caught.
    Internal,
}

/// A refusal, with everything that its body tells.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Which one.
    pub code: Code,
    /// Usually the code's own; 405, 408, 414 and 504 are variants of a code.
    pub status: http::StatusCode,
    /// A sentence with names and times.
    pub detail: String,
    /// When it would work, if that is known: the moment, and from now.
    pub retry_at: Option<(WallTime, Duration)>,
    /// Name of the scope that is closed: `upstream`, `route search`, `credential`.
    pub scope: Option<String>,
    /// The concurrency key that is full.
    pub key: Option<Arc<str>>,
    /// What the upstream said, if that is the reason.
    pub hint: Option<HintRecord>,
    /// Error token of RFC 9209, where it is not the code's own.
    pub proxy_error: Option<&'static str>,
    /// Whether the connection cannot be used again.
    pub close: bool,
}

/// A hint as it is shown.
#[derive(Clone, Debug)]
pub struct HintRecord {
    /// The field that decided.
    pub source: HintSource,
    /// What it said, as a wait from the moment of receipt.
    pub wait: Duration,
    /// When it was received.
    pub received_at: WallTime,
}
