//! One look at the names of a message's fields, which says where a closer look is worth while.
//!
//! A gateway has questions about some forty fields. Most messages have one or two of these, and each
//! question costs a hash and a probe; one pass over the names answers all of them that are "no".

use http::HeaderMap;

/// Which kinds of fields a message has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey(u16);

/// Fields that are asked for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The length of the message.
    Framing = 1 << 0,
    /// Options of the connection.
    Connection = 1 << 1,
    Via = 1 << 2,
    Expect = 1 << 3,
    Cookie = 1 << 4,
    Trace = 1 << 5,
    /// Who calls.
    Credential = 1 << 6,
    /// What is asked of forbear, directly or in passing, and what only forbear may say.
    Directive = 1 << 7,
    /// What else belongs to the connection.
    Hop = 1 << 8,
    /// Addresses that clients follow.
    Link = 1 << 9,
}

impl Survey {
    /// Looks at each name once.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(
            headers
                .keys()
                .filter_map(|name| kind(name.as_str()))
                .fold(0, |all, it| all | it as u16),
        )
    }

    pub(super) fn saw(self, kind: Kind) -> bool {
        self.0 & kind as u16 != 0
    }
}

/// What is asked of a field of this name, if anything is.
pub(super) fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "content-length" | "transfer-encoding" => Kind::Framing,
        "connection" => Kind::Connection,
        "via" => Kind::Via,
        "expect" => Kind::Expect,
        "cookie" => Kind::Cookie,
        "traceparent" => Kind::Trace,
        "authorization" | "x-api-key" | "api-key" | "apikey" | "x-auth-token" | "private-token" => {
            Kind::Credential
        }
        "x-dagster-run-id"
        | "x-airflow-run-id"
        | "x-airflow-dag-run-id"
        | "amz-sdk-request"
        | "x-stainless-read-timeout" => Kind::Directive,
        "http2-settings"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authentication-info"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "upgrade" => Kind::Hop,
        "link" | "location" | "content-location" | "refresh" => Kind::Link,
        other if other.starts_with("forbear-") => Kind::Directive,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, header};

    use super::*;
    use crate::proxy::directives;
    use crate::proxy::exchange::CREDENTIAL_FIELDS;
    use crate::proxy::head::is_hop_by_hop;
    use crate::telemetry::trace::TRACEPARENT;

    fn with(name: HeaderName) -> Survey {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(name, HeaderValue::from_static("x"));
        Survey::of(&headers)
    }

    #[test]
    fn no_field_that_somebody_reads_is_overlooked() {
        let others = [
            (header::CONTENT_LENGTH, Kind::Framing),
            (header::TRANSFER_ENCODING, Kind::Framing),
            (header::CONNECTION, Kind::Connection),
            (header::VIA, Kind::Via),
            (header::EXPECT, Kind::Expect),
            (header::COOKIE, Kind::Cookie),
            (TRACEPARENT, Kind::Trace),
        ];
        let credentials = CREDENTIAL_FIELDS.map(|name| (name, Kind::Credential));
        let directives = directives::fields().map(|name| (name, Kind::Directive));
        for (name, kind) in others.into_iter().chain(credentials).chain(directives) {
            assert_eq!(with(name.clone()), Survey(kind as u16), "{name}");
        }
        assert_eq!(with(header::USER_AGENT), Survey::default());
    }
    #[test]
    fn what_must_not_pass_is_seen() {
        let names = [
            "connection",
            "http2-settings",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authentication-info",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
        ];
        for name in names.map(HeaderName::from_static) {
            assert!(is_hop_by_hop(&name), "{name}");
            assert_ne!(with(name.clone()), Survey::default(), "{name}");
        }
        for name in [header::LINK, header::LOCATION, header::CONTENT_LOCATION, header::REFRESH] {
            assert!(with(name).saw(Kind::Link));
        }
    }
}
