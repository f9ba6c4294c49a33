//! forbear's own refusals: one type, one table, turned into a response in one place
//! ([`super::problem`]).
//!
//! A refusal says what was wrong or full, what would be right, and when. Text that a peer sent goes
//! into a sentence only through [`shown`].

mod code;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use self::code::Verdict;
use crate::gateway::route::{NoRoute, Routes};
use crate::policy::outcome::HintSource;
use crate::policy::time::WallTime;
use crate::transport::error::SendErrorKind;

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
    pub status: StatusCode,
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
    /// The field's name and what stood in it; `None` where nothing was kept.
    pub raw: Option<Arc<str>>,
    /// What it said, as a wait from the moment of receipt.
    pub wait: Duration,
    /// When it was received.
    pub received_at: WallTime,
}

/// How long a caller should stay away from a forbear that shuts down: its successor needs about
/// that long.
const DRAINING_WAIT: Duration = Duration::from_secs(5);

/// Prefixes named in the detail of `no_route` at most: enough to find one's own typing error.
const LISTED_MAX: usize = 20;

impl Rejection {
    /// A refusal with the usual status of `code` and nothing but a sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            detail: detail.into(),
            retry_at: None,
            scope: None,
            key: None,
            hint: None,
            proxy_error: None,
            close: false,
        }
    }

    /// The request itself is at fault.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    /// The routes lead nowhere.
    pub fn no_route(why: NoRoute, path: &str, routes: &Routes) -> Self {
        let listed: Vec<String> = routes
            .listing()
            .take(LISTED_MAX)
            .map(|(name, prefix)| format!("{prefix} ({name})"))
            .collect();
        let more = if routes.listing().nth(LISTED_MAX).is_some() { ", …" } else { "" };
        let known = if listed.is_empty() {
            "no upstream is configured".to_owned()
        } else {
            format!("configured: {}{more}", listed.join(", "))
        };
        let path = shown(path.as_bytes());
        match why {
            NoRoute::UnsafePath(what) => Self::bad_request(format!(
                "the path `{path}` has {what}, so that two servers could read it differently"
            )),
            NoRoute::Unmatched => {
                Self::new(Code::NoRoute, format!("`{path}` is under no upstream's prefix; {known}"))
            }
            NoRoute::ForeignOrigin => Self::new(
                Code::NoRoute,
                format!(
                    "the target names a server that is not configured, and forbear forwards only \
                     to configured upstreams; {known}"
                ),
            ),
            NoRoute::OutsideBase => Self::new(
                Code::NoRoute,
                format!("`{path}` is outside the path in that upstream's `url`; {known}"),
            ),
        }
    }

    /// A `Via` field says that the request was here before.
    pub fn looped() -> Self {
        Self::new(
            Code::Loop,
            "a Via field names forbear: the request came back to where it was sent from. Look for \
             an upstream whose url leads to a forbear",
        )
    }

    /// Shutting down.
    pub fn draining(now: WallTime) -> Self {
        Self::new(Code::Draining, "forbear is shutting down and starts nothing new")
            .with_retry_at(now, DRAINING_WAIT)
            .closing()
    }

    /// The upstream's answer cannot be given to anybody: it has `what`.
    pub fn bad_head(upstream: &str, what: &str) -> Self {
        let detail = format!("Upstream {upstream} sent a response that is no valid HTTP: {what}.");
        Self::failed(Code::RetriesExhausted, SendErrorKind::BadResponse, detail)
    }

    /// A panic was caught. Whatever it was about stays in the log.
    pub fn internal() -> Self {
        Self::new(
            Code::Internal,
            "a bug in forbear ended this exchange; the log has the same request id",
        )
        .closing()
    }

    /// The last or only attempt failed without a response head; the status is 504 where time ran
    /// out.
    pub fn failed(code: Code, kind: SendErrorKind, detail: impl Into<String>) -> Self {
        let mut rejection = Self::new(code, detail);
        if is_timeout(kind) {
            rejection.status = StatusCode::GATEWAY_TIMEOUT;
        }
        rejection.proxy_error = Some(proxy_error(kind));
        rejection
    }

    /// Sets a variant of the code's status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Says when it would work: `wait` from `now`.
    pub fn with_retry_at(mut self, now: WallTime, wait: Duration) -> Self {
        self.retry_at = Some((now + wait, wait));
        self
    }

    /// Names what is closed or full.
    pub fn with_scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// What the caller should make of it. A bad certificate is as bad the next time.
    pub fn verdict(&self) -> Verdict {
        if self.proxy_error == Some(proxy_error(SendErrorKind::TlsCertificate)) {
            return Verdict::Permanent;
        }
        self.code.verdict()
    }

    /// Ends the connection after the response.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

/// The error token of RFC 9209 2.3 for a failed attempt.
pub fn proxy_error(kind: SendErrorKind) -> &'static str {
    match kind {
        SendErrorKind::Dns => "dns_error",
        SendErrorKind::DnsTimeout => "dns_timeout",
        SendErrorKind::ConnectRefused => "connection_refused",
        SendErrorKind::OutOfResources => "proxy_internal_error",
        SendErrorKind::ConnectTimeout => "connection_timeout",
        SendErrorKind::Connect => "destination_unavailable",
        SendErrorKind::TlsCertificate => "tls_certificate_error",
        SendErrorKind::TlsProtocol => "tls_protocol_error",
        SendErrorKind::Stale | SendErrorKind::Reset | SendErrorKind::Refused => {
            "connection_terminated"
        }
        SendErrorKind::HeadTimeout => "http_response_timeout",
        SendErrorKind::BadResponse => "http_protocol_error",
        SendErrorKind::RequestBody => "http_request_error",
    }
}

fn is_timeout(kind: SendErrorKind) -> bool {
    match kind {
        SendErrorKind::DnsTimeout | SendErrorKind::ConnectTimeout | SendErrorKind::HeadTimeout => {
            true
        }
        SendErrorKind::Dns
        | SendErrorKind::ConnectRefused
        | SendErrorKind::OutOfResources
        | SendErrorKind::Connect
        | SendErrorKind::TlsCertificate
        | SendErrorKind::TlsProtocol
        | SendErrorKind::Stale
        | SendErrorKind::Reset
        | SendErrorKind::Refused
        | SendErrorKind::BadResponse
        | SendErrorKind::RequestBody => false,
    }
}

/// Bytes of a peer's text that are shown at most: enough to recognise it.
pub const SHOWN_BYTES_MAX: usize = 64;

/// A peer's text for people: printable ASCII stays, the rest becomes `?`, the end is cut off.
pub fn shown(text: &[u8]) -> String {
    shown_up_to(SHOWN_BYTES_MAX, text)
}

/// As [`shown`], with a bound of its own in bytes.
pub(super) fn shown_up_to(bytes_max: usize, text: &[u8]) -> String {
    let printable = |byte: &u8| {
        if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' }
    };
    let mut shown: String = text.iter().take(bytes_max).map(printable).collect();
    if text.len() > bytes_max {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_ran_out_of_time_is_a_504_and_any_other_failure_a_502() {
        for (kind, status, error) in [
            (SendErrorKind::ConnectTimeout, 504, "connection_timeout"),
            (SendErrorKind::DnsTimeout, 504, "dns_timeout"),
            (SendErrorKind::ConnectRefused, 502, "connection_refused"),
            (SendErrorKind::TlsCertificate, 502, "tls_certificate_error"),
        ] {
            let failed = Rejection::failed(Code::UpstreamUnreachable, kind, "x");
            assert_eq!((failed.status.as_u16(), failed.proxy_error), (status, Some(error)));
        }
    }

    #[test]
    fn a_peers_text_is_shown_printable_and_short() {
        assert_eq!(shown(b"a\r\nb\x1b\xff"), "a??b??");
        assert_eq!(shown(&[b'a'; 1000]).len(), SHOWN_BYTES_MAX + 3);
    }
}
