//! Addresses in the body of a response: read it within bounds, change what is one, adjust the head.
//!
//! A page of a list is a small JSON document; forbear waits for its end as the client would. What is
//! larger, slower, in another coding or no JSON streams on unchanged, and is counted. Where no
//! address has to be changed, the client gets the very bytes that came, compressed or not.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http_body::Body as _;

use super::{json, spliced, way_back};
use crate::gateway::route::{Back, WayBack};
use crate::policy::profile::LinkKind;
use crate::proxy::exchange::Exchange;
use crate::proxy::reading::{Coding, coding, is_json};
use crate::serve::connection::Connection;
use crate::transport::ResponseBody;

/// Bytes of a body at most, as it came and unpacked: a page of a hundred items has a tenth of it,
/// and walking it takes a millisecond or two.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The end of a body is waited for so long after its head; what is not there by then streams on.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// What describes the very bytes of a body, and is wrong once one is changed (RFC 9110 7.7).
const DESCRIBING: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Why a body that may have links was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untouched {
    /// `Cache-Control: no-transform`.
    NoTransform,
    /// Not identity and not gzip, or broken.
    Coding,
    /// A part of a document.
    Partial,
    /// Beyond [`BODY_BYTES_MAX`].
    TooLarge,
    /// Beyond [`BODY_TIME_MAX`].
    TooSlow,
    /// It says that it is.
    NotJson,
}

impl Untouched {
    /// One of [`crate::telemetry::names::LINK_REASONS`].
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoTransform => "no_transform",
            Self::Coding => "coding",
            Self::Partial => "partial",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::NotJson => "not_json",
        }
    }
}

/// Whether it is a success that brings JSON. Streams of events and of lines are none.
pub(super) fn may_have_links(parts: &Parts, body: &ResponseBody) -> bool {
    parts.status.is_success() && is_json(&parts.headers) && !body.is_end_stream()
}

/// Changes the addresses in a body.
pub(super) async fn edit(
    exchange: &Exchange<'_>,
    connection: &Connection,
    parts: &mut Parts,
    body: &mut ResponseBody,
) -> Result<(), Untouched> {
    let headers = &parts.headers;
    // Of the response it is an order, of the request a wish (RFC 9111 5.2.1.6, 5.2.2.6).
    if [headers, &exchange.parts.headers].into_iter().any(forbids_change) {
        return Err(Untouched::NoTransform);
    }
    if parts.status == StatusCode::PARTIAL_CONTENT || headers.contains_key(header::CONTENT_RANGE) {
        return Err(Untouched::Partial);
    }
    let coding = coding(headers).ok_or(Untouched::Coding)?;
    if coding == Coding::Gzip && refuses_identity(&exchange.parts.headers) {
        return Err(Untouched::Coding);
    }
    let size = body.size_hint().lower();
    if usize::try_from(size).map_or(true, |size| size > BODY_BYTES_MAX) {
        return Err(Untouched::TooLarge);
    }
    let now = exchange.gateway.common.clock.now();
    let time_max = BODY_TIME_MAX.min(exchange.deadline.since(now));
    body.read_ahead(BODY_BYTES_MAX + 1, time_max).await;
    let whole = match (body.whole(), body.ahead()) {
        (Some(whole), _) if whole.len() <= BODY_BYTES_MAX => whole,
        (None, Some(ahead)) if ahead.len() <= BODY_BYTES_MAX => return Err(Untouched::TooSlow),
        (None, None) => return Err(Untouched::TooSlow),
        (Some(_) | None, _) => return Err(Untouched::TooLarge),
    };
    let unpacked = match coding {
        Coding::Plain => None,
        Coding::Gzip => Some(unpacked(whole)?),
    };
    let plain = unpacked.as_deref().unwrap_or(whole);
    let text = std::str::from_utf8(plain).map_err(|_| Untouched::NotJson)?;
    let Some(back) = way_back(exchange, connection) else { return Ok(()) };
    if let Some(new) = edited(exchange, &back, text)? {
        describe(&mut parts.headers, new.len());
        body.replace_ahead(new.into_bytes());
    }
    Ok(())
}

/// The document with forbear's addresses; `None` if it stays as it is.
fn edited(
    exchange: &Exchange<'_>,
    back: &WayBack<'_>,
    text: &str,
) -> Result<Option<String>, Untouched> {
    let (dialect, metrics) = (&exchange.upstream.config.dialect, &exchange.upstream.metrics);
    let found = json::find(text, &dialect.links).ok_or(Untouched::NotJson)?;
    let mut edits = Vec::new();
    for link in &found {
        let address = match link.kind {
            LinkKind::UrlOrPath if link.text.starts_with('/') => back.of(&link.text),
            LinkKind::Url | LinkKind::UrlOrPath => back.of_url(&link.text),
            LinkKind::Session => back.of_session(&link.text, |host| dialect.has_origin(host)),
        };
        match address {
            Back::Kept => {}
            Back::Foreign => metrics.links_untouched("foreign"),
            Back::Unreachable => metrics.links_untouched("unreachable"),
            Back::Rewritten(new) => {
                edits.push((link.head(text, new.taken), json::escaped(&new.head)));
                metrics.link_rewritten("body");
            }
        }
    }
    Ok((!edits.is_empty()).then(|| spliced(text, &edits)))
}

/// All of what is written, if it is within bounds and unbroken.
fn unpacked(packed: &[u8]) -> Result<Vec<u8>, Untouched> {
    let mut plain = Vec::new();
    let bound = BODY_BYTES_MAX as u64 + 1;
    let read = MultiGzDecoder::new(packed).take(bound).read_to_end(&mut plain);
    read.map_err(|_| Untouched::Coding)?;
    if plain.len() > BODY_BYTES_MAX {
        return Err(Untouched::TooLarge);
    }
    Ok(plain)
}

/// Makes the head describe a changed body, which is sent unpacked: nobody gains by packing it for
/// the way to a neighbour. Its `ETag` still finds the same page, and no longer says that the bytes
/// are the same.
fn describe(headers: &mut HeaderMap, length: usize) {
    for name in &DESCRIBING {
        headers.remove(name);
    }
    if headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(tag) = headers.get_mut(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

fn forbids_change(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::CACHE_CONTROL).iter();
    let mut directives = fields.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Whether a client wants nothing unpacked (RFC 9110 12.5.3), which nobody does.
fn refuses_identity(headers: &HeaderMap) -> bool {
    let mut members = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    members.any(|member| {
        let member: String = member.chars().filter(|char| !char.is_whitespace()).collect();
        let (coding, weight) = member.split_once(";q=").unwrap_or((&member, "1"));
        matches!(coding, "identity" | "*") && weight.parse() == Ok(0.0_f32)
    })
}
