//! The request gate: what of a client's head may pass, and the head that goes to the upstream.
//!
//! The outgoing head is built from nothing. What is not copied on purpose is not sent: framing and
//! connection fields are decided anew by the transport, so that a disagreement between two parsers
//! has nothing to live on (RFC 9110 7.6, RFC 9112 6.3 and 11.2). The incoming head stays whole, to
//! build the next attempt from.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri, Version};

use super::reject::{Code, Rejection, shown};
use super::survey::{self, Kind, Survey};
use crate::config::settings::UpstreamConfig;
use crate::gateway::renewal::Injected;
use crate::gateway::route::default_port;

/// Field lines of a request at most: HTTP/1.1 and HTTP/2 alike, twice what busy browsers send.
pub const FIELDS_MAX: usize = 128;

/// forbear's name in `Via` and `Proxy-Status`.
pub const VIA_NAME: &str = "forbear";

/// Whether a field belongs to one connection: those of RFC 9110 7.6.1, and of older specifications.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::TRANSFER_ENCODING
        || matches!(survey::kind(name.as_str()), Some(Kind::Connection | Kind::Hop))
}

/// What `Connection` may not take out of a message, since its meaning or its safety would change
/// under us: framing, destination, credential, and the promise that a repeat is harmless.
const NEVER_NOMINATED: [&str; 4] = ["authorization", "content-length", "host", "idempotency-key"];

/// What is needed of one upstream to write its request heads; built once per configuration.
#[derive(Clone, Debug)]
pub struct UpstreamHead {
    base_path: String,
    /// The value of `Host`; the scheme's own port is left out.
    authority: HeaderValue,
    /// The value of `Forbear-Upstream`.
    pub(super) name: HeaderValue,
    /// The value is marked sensitive, so that it prints as `Sensitive`.
    pub injected: Option<Arc<Injected>>,
}

impl UpstreamHead {
    /// Reads what it needs of the configuration; `None` if a host, credential or base path in it
    /// is not legal on the wire, which loading a configuration rules out.
    pub fn new(config: &UpstreamConfig) -> Option<Self> {
        let origin = &config.origin;
        let host = if origin.host.contains(':') {
            format!("[{}]", origin.host)
        } else {
            origin.host.clone()
        };
        let authority = if origin.port == default_port(origin.scheme) {
            host
        } else {
            format!("{host}:{}", origin.port)
        };
        let injected = match &config.credential {
            Some(credential) => {
                let mut value = HeaderValue::from_str(credential.value.reveal()).ok()?;
                value.set_sensitive(true);
                let name = HeaderName::from_bytes(credential.header.as_bytes()).ok()?;
                Some(Arc::new((name, value)))
            }
            None => None,
        };
        PathAndQuery::try_from(format!("{}/", config.base_path)).ok()?;
        Some(Self {
            base_path: config.base_path.clone(),
            authority: HeaderValue::from_str(&authority).ok()?,
            name: HeaderValue::from_str(&config.name).ok()?,
            injected,
        })
    }
}

/// Checks what can be checked before a route is known: framing, expectations, loops, bounds.
/// [`super::target::Target::parse`] checks target and `Host`.
///
/// # Errors
///
/// A refusal; where the length of the message is in doubt it also ends the connection.
pub fn check(parts: &Parts, seen: Survey) -> Result<(), Rejection> {
    if parts.headers.len() > FIELDS_MAX {
        let detail =
            format!("the head has {} fields; at most {FIELDS_MAX} fit", parts.headers.len());
        return Err(Rejection::new(Code::TooLarge, detail)
            .with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            .closing());
    }
    if seen.saw(Kind::Framing) {
        check_framing(parts)?;
    }
    if seen.saw(Kind::Via) && has_own_via(&parts.headers) {
        return Err(Rejection::looped());
    }
    let is_other = |value: &&HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if seen.saw(Kind::Expect)
        && let Some(other) = parts.headers.get_all(header::EXPECT).iter().find(is_other)
    {
        let found = shown(other.as_bytes());
        let detail = format!("Expect is `{found}`; forbear only knows `100-continue`");
        return Err(Rejection::bad_request(detail)
            .with_status(StatusCode::EXPECTATION_FAILED)
            .closing());
    }
    if parts.method == Method::OPTIONS && max_forwards(&parts.headers) == Some(0) {
        return Err(Rejection::bad_request(
            "Max-Forwards is 0, so this OPTIONS ends here, and forbear has no options of its own",
        ));
    }
    Ok(())
}

/// hyper refuses a part of these itself; a gate must not depend on it.
fn check_framing(parts: &Parts) -> Result<(), Rejection> {
    let refuse = |detail: &str| Err(Rejection::bad_request(detail).closing());
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(_), _) if parts.version != Version::HTTP_11 => {
            return refuse("Transfer-Encoding exists in HTTP/1.1 only");
        }
        (Some(_), Some(_)) => return refuse("more than one Transfer-Encoding field"),
        (Some(coding), None) if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            let detail = "a transfer coding other than `chunked`";
            return Err(Rejection::bad_request(detail)
                .with_status(StatusCode::NOT_IMPLEMENTED)
                .closing());
        }
        (Some(_), None) if parts.headers.contains_key(header::CONTENT_LENGTH) => {
            return refuse("both Transfer-Encoding and Content-Length; send one of them");
        }
        (Some(_) | None, None) | (None, Some(_)) => {}
    }
    match content_length(&parts.headers) {
        Err(_) => refuse("Content-Length is not one plain number"),
        Ok(Some(_)) if parts.headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 => {
            refuse("more than one Content-Length field")
        }
        Ok(_) => Ok(()),
    }
}

/// The one length that all `Content-Length` fields state (RFC 9110 8.6).
pub(super) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let digits = std::str::from_utf8(member.trim_ascii()).unwrap_or_default();
            // Signs would pass the standard parser.
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let stated = digits.parse::<u64>().ok().filter(|_| plain);
            let stated = stated.ok_or("an invalid Content-Length")?;
            if length.is_some_and(|length| length != stated) {
                return Err("conflicting Content-Length fields");
            }
            length = Some(stated);
        }
    }
    Ok(length)
}

/// Whether a `Via` field says that the message passed a forbear (RFC 9110 7.6.3).
pub fn has_own_via(headers: &HeaderMap) -> bool {
    headers.get_all(header::VIA).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|member| {
            let mut words = member.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let received_by = words.nth(1).unwrap_or_default();
            received_by.eq_ignore_ascii_case(VIA_NAME.as_bytes())
        })
    })
}

/// forbear's member of `Via`, for a message that was received in `version`.
pub(super) fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 forbear",
        Version::HTTP_2 => "2.0 forbear",
        _ => "1.1 forbear",
    })
}

/// Whether a field is part of forbear's own vocabulary.
pub(super) fn is_forbear(name: &HeaderName) -> bool {
    name.as_str().starts_with("forbear-")
}

fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::MAX_FORWARDS)?.to_str().ok()?.parse().ok()
}

/// The protocol that a request asks to switch to, if forbear passes the wish on: `websocket` and
/// the like, without a request body. A switch to another version of HTTP or to TLS would take the
/// requests inside out of sight, so that wish is dropped and the request served as it is.
pub fn upgrade(parts: &Parts, seen: Survey) -> Option<HeaderValue> {
    let headers = &parts.headers;
    let wished = seen.saw(Kind::Connection)
        && Nominated::connection(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    if !wished || parts.version != Version::HTTP_11 {
        return None;
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || content_length(headers).is_ok_and(|length| length.unwrap_or(0) > 0);
    if has_body {
        return None;
    }
    let mut fields = headers.get_all(header::UPGRADE).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let text = field.to_str().ok()?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+/".contains(&byte);
    let name = text.split('/').next().unwrap_or_default();
    let out_of_sight =
        ["h2c", "h2", "http", "tls"].iter().any(|other| name.eq_ignore_ascii_case(other));
    (!text.is_empty() && text.bytes().all(is_token) && !out_of_sight).then(|| field.clone())
}

/// The fields that `Connection` names besides the well-known ones.
#[derive(Default)]
pub(super) struct Nominated<'a>(Vec<&'a [u8]>);

impl<'a> Nominated<'a> {
    /// Allocates only where something unusual is named.
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let usual: [&[u8]; 5] = [b"", b"close", b"keep-alive", b"upgrade", b"te"];
        Self(
            Self::connection(headers)
                .filter(|option| !usual.iter().any(|usual| option.eq_ignore_ascii_case(usual)))
                .filter(|option| {
                    !NEVER_NOMINATED.iter().any(|name| option.eq_ignore_ascii_case(name.as_bytes()))
                })
                .collect(),
        )
    }

    /// Every option of every `Connection` field.
    fn connection(headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
    }

    fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }

    /// Those that are names of fields.
    pub(super) fn names(&self) -> Vec<HeaderName> {
        self.0.iter().filter_map(|option| HeaderName::from_bytes(option).ok()).collect()
    }
}

/// Builds the head of one attempt. The target is the upstream's base path, `path` and `query`, byte
/// for byte; `path` and `query` are those of a [`crate::gateway::route::Found`].
///
/// # Errors
///
/// With the base path the target is longer than a target can be.
pub fn upstream_request(
    parts: &Parts,
    seen: Survey,
    path: &str,
    query: Option<&str>,
    upstream: &UpstreamHead,
) -> Result<Request<()>, Rejection> {
    let target = upstream_target(&upstream.base_path, path, query).ok_or_else(|| {
        Rejection::new(Code::TooLarge, "the target is too long together with the upstream's path")
            .with_status(StatusCode::URI_TOO_LONG)
    })?;
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = target;
    *request.headers_mut() = upstream_headers(parts, seen, upstream);
    Ok(request)
}

fn upstream_target(base_path: &str, path: &str, query: Option<&str>) -> Option<Uri> {
    let path = if base_path.is_empty() && path.is_empty() { "/" } else { path };
    let query_bytes = query.map_or(0, |query| query.len() + 1);
    // Without room to spare, becoming `Bytes` is free.
    let mut text = String::with_capacity(base_path.len() + path.len() + query_bytes);
    text.push_str(base_path);
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(text)).map(Uri::from).ok()
}

fn upstream_headers(parts: &Parts, seen: Survey, upstream: &UpstreamHead) -> HeaderMap {
    let incoming = &parts.headers;
    let nominated =
        if seen.saw(Kind::Connection) { Nominated::of(incoming) } else { Nominated::default() };
    let injected = upstream.injected.as_ref().map(|injected| &injected.0);
    let mut headers = HeaderMap::with_capacity(incoming.len() + 3);
    headers.insert(header::HOST, upstream.authority.clone());
    for (name, value) in incoming {
        let dropped = is_dropped(name) || nominated.contains(name) || Some(name) == injected;
        if !dropped {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some((name, value)) = upstream.injected.as_deref() {
        headers.insert(name.clone(), value.clone());
    }
    if let Some(protocol) = upgrade(parts, seen) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    // gRPC needs it end to end. In HTTP/1.1 it would need a `Connection` of its own.
    if parts.version == Version::HTTP_2
        && incoming.get(header::TE).is_some_and(|te| te == "trailers")
    {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if seen.saw(Kind::Cookie)
        && let Some(cookie) = joined_cookies(&headers)
    {
        headers.insert(header::COOKIE, cookie);
    }
    // RFC 9110 7.6.2: for OPTIONS it counts the intermediaries, forbear among them.
    if parts.method == Method::OPTIONS
        && let Some(left) = max_forwards(incoming)
    {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
    }
    headers.append(header::VIA, via(parts.version));
    headers
}

/// What is never copied: the connection's fields, what forbear writes anew, what the transport
/// decides (`Content-Length`, `Trailer`, `Expect`), and what was meant for forbear.
fn is_dropped(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || matches!(name.as_str(), "host" | "content-length" | "expect" | "trailer")
        || is_forbear(name)
}

/// HTTP/2 may split cookies into several fields; HTTP/1.1 knows one only (RFC 9113 8.2.3).
fn joined_cookies(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(header::COOKIE);
    cookies.iter().nth(1)?;
    let values: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    // Joining legal values gives a legal value.
    HeaderValue::from_bytes(&values.join(&b"; "[..])).ok()
}

#[cfg(test)]
mod tests;
