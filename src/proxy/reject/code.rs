//! The table of refusals: name, status, title, error token and verdict of every code, and what
//! those words are for the upstream's own failures.
//!
//! It is the table of the product's contract. Dashboards, alerts and callers match on it, so rows
//! may be added and titles bettered, but a name or a status never changes.

use http::StatusCode;

use super::Code;
use crate::policy::outcome::Class;

/// What a caller should make of a failure; `Forbear-Verdict` and `verdict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may work later. Says nothing of whether a repeat is safe: the caller knows its request.
    Retryable,
    /// The same request will fail again.
    Permanent,
    /// Too fast; it works once the time has come.
    Throttled,
    /// Hours or days until it works.
    QuotaExhausted,
    /// The credential was refused.
    Credential,
}

impl Verdict {
    /// The word in headers and bodies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
            Self::Throttled => "throttled",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Credential => "credential",
        }
    }

    /// The verdict on an answer that was given to the client; `None` where nothing failed.
    pub fn of(class: Class) -> Option<Self> {
        match class {
            Class::Ok | Class::Client => None,
            Class::Permanent => Some(Self::Permanent),
            Class::Credential => Some(Self::Credential),
            Class::Throttled => Some(Self::Throttled),
            Class::Exhausted => Some(Self::QuotaExhausted),
            Class::Transient
            | Class::Misdirected
            | Class::Unhealthy
            | Class::Overloaded
            | Class::TimedOut
            | Class::Stale => Some(Self::Retryable),
        }
    }
}

impl Code {
    /// Every code, in the order of the table.
    pub const ALL: [Self; 16] = [
        Self::BreakerOpen,
        Self::Cooldown,
        Self::QuotaExhausted,
        Self::Paced,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::CredentialLocked,
        Self::RetriesExhausted,
        Self::UpstreamUnreachable,
        Self::Deadline,
        Self::Draining,
        Self::Loop,
        Self::NoRoute,
        Self::BadRequest,
        Self::TooLarge,
        Self::Internal,
    ];

    /// The name in bodies, headers, logs and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Cooldown => "cooldown",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Paced => "paced",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::CredentialLocked => "credential_locked",
            Self::RetriesExhausted => "retries_exhausted",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::Deadline => "deadline",
            Self::Draining => "draining",
            Self::Loop => "loop",
            Self::NoRoute => "no_route",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::Internal => "internal",
        }
    }

    /// `urn:forbear:` and the name with dashes (RFC 9457 3.1.1).
    pub fn type_urn(self) -> &'static str {
        match self {
            Self::BreakerOpen => "urn:forbear:breaker-open",
            Self::Cooldown => "urn:forbear:cooldown",
            Self::QuotaExhausted => "urn:forbear:quota-exhausted",
            Self::Paced => "urn:forbear:paced",
            Self::QueueFull => "urn:forbear:queue-full",
            Self::QueueTimeout => "urn:forbear:queue-timeout",
            Self::CredentialLocked => "urn:forbear:credential-locked",
            Self::RetriesExhausted => "urn:forbear:retries-exhausted",
            Self::UpstreamUnreachable => "urn:forbear:upstream-unreachable",
            Self::Deadline => "urn:forbear:deadline",
            Self::Draining => "urn:forbear:draining",
            Self::Loop => "urn:forbear:loop",
            Self::NoRoute => "urn:forbear:no-route",
            Self::BadRequest => "urn:forbear:bad-request",
            Self::TooLarge => "urn:forbear:too-large",
            Self::Internal => "urn:forbear:internal",
        }
    }

    /// A short sentence, the same for every occurrence (RFC 9457 3.1.3).
    pub fn title(self) -> &'static str {
        match self {
            Self::BreakerOpen => "The upstream is ill and its breaker is open",
            Self::Cooldown => "The upstream asked to wait",
            Self::QuotaExhausted => "The upstream's quota is used up",
            Self::Paced => "The next place in the quota is too far away",
            Self::QueueFull => "Too many requests are waiting",
            Self::QueueTimeout => "No place became free in time",
            Self::CredentialLocked => "The upstream keeps refusing this credential",
            Self::RetriesExhausted => "The last attempt failed without a response",
            Self::UpstreamUnreachable => "The upstream cannot be reached",
            Self::Deadline => "No response in time",
            Self::Draining => "forbear is shutting down",
            Self::Loop => "The request already passed through forbear",
            Self::NoRoute => "No configured upstream matches",
            Self::BadRequest => "The request cannot be forwarded as it is",
            Self::TooLarge => "The request is larger than forbear accepts",
            Self::Internal => "A bug in forbear",
        }
    }

    /// The usual status; a [`super::Rejection`] may carry a variant.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Cooldown | Self::QuotaExhausted | Self::Paced => StatusCode::TOO_MANY_REQUESTS,
            Self::BreakerOpen
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::CredentialLocked
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::RetriesExhausted | Self::UpstreamUnreachable => StatusCode::BAD_GATEWAY,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error token of `Proxy-Status` (RFC 9209 2.3); a failed attempt's own takes its place.
    pub fn proxy_status_error(self) -> &'static str {
        match self {
            Self::BreakerOpen | Self::UpstreamUnreachable => "destination_unavailable",
            Self::Cooldown | Self::QuotaExhausted | Self::Paced | Self::Draining => {
                "proxy_internal_response"
            }
            Self::QueueFull | Self::QueueTimeout => "connection_limit_reached",
            Self::CredentialLocked => "http_request_denied",
            Self::RetriesExhausted => "connection_terminated",
            Self::Deadline => "http_response_timeout",
            Self::Loop => "proxy_loop_detected",
            Self::NoRoute => "destination_not_found",
            Self::BadRequest | Self::TooLarge => "http_request_error",
            Self::Internal => "proxy_internal_error",
        }
    }

    /// What a caller should make of it.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::BreakerOpen
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::RetriesExhausted
            | Self::UpstreamUnreachable
            | Self::Deadline
            | Self::Draining => Verdict::Retryable,
            Self::Cooldown | Self::Paced => Verdict::Throttled,
            Self::QuotaExhausted => Verdict::QuotaExhausted,
            Self::CredentialLocked => Verdict::Credential,
            // A 500 is usually worth a repeat, but nobody can say what a bug did.
            Self::Loop | Self::NoRoute | Self::BadRequest | Self::TooLarge | Self::Internal => {
                Verdict::Permanent
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_a_row_with_a_name_and_a_type_of_its_own() {
        let names: HashSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        let types: HashSet<&str> = Code::ALL.iter().map(|code| code.type_urn()).collect();
        assert_eq!((names.len(), types.len()), (Code::ALL.len(), Code::ALL.len()));
        for code in Code::ALL {
            let urn = format!("urn:forbear:{}", code.name().replace('_', "-"));
            assert_eq!(code.type_urn(), urn);
            assert!(code.status().as_u16() >= 400 && !code.title().is_empty());
        }
    }

    #[test]
    fn the_table_of_refusals_is_the_contract() {
        for (code, status, name, error) in [
            (Code::BreakerOpen, 503, "breaker_open", "destination_unavailable"),
            (Code::Cooldown, 429, "cooldown", "proxy_internal_response"),
            (Code::QuotaExhausted, 429, "quota_exhausted", "proxy_internal_response"),
            (Code::Paced, 429, "paced", "proxy_internal_response"),
            (Code::QueueFull, 503, "queue_full", "connection_limit_reached"),
            (Code::QueueTimeout, 503, "queue_timeout", "connection_limit_reached"),
            (Code::CredentialLocked, 503, "credential_locked", "http_request_denied"),
            (Code::RetriesExhausted, 502, "retries_exhausted", "connection_terminated"),
            (Code::UpstreamUnreachable, 502, "upstream_unreachable", "destination_unavailable"),
            (Code::Deadline, 504, "deadline", "http_response_timeout"),
            (Code::Draining, 503, "draining", "proxy_internal_response"),
            (Code::Loop, 508, "loop", "proxy_loop_detected"),
            (Code::NoRoute, 404, "no_route", "destination_not_found"),
            (Code::BadRequest, 400, "bad_request", "http_request_error"),
            (Code::TooLarge, 413, "too_large", "http_request_error"),
            (Code::Internal, 500, "internal", "proxy_internal_error"),
        ] {
            assert_eq!(code.status(), status, "{name}");
            assert_eq!((code.name(), code.proxy_status_error()), (name, error));
        }
    }
}
