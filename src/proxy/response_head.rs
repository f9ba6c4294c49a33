//! The response gate: what of an upstream's head goes down, and what forbear adds to it.
//!
//! Fields that describe the upstream's connection stay there, framing is decided anew by whoever
//! sends the body, and a head that contradicts itself is refused instead of repaired (RFC 9112
//! 6.3): the next reader might repair it otherwise. Fields with addresses are noticed here, and
//! are the business of `links`.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Method, StatusCode, Version};

use super::head::{Nominated, VIA_NAME, content_length, is_forbear, is_hop_by_hop, via};
use super::reject::{Verdict, shown_up_to};
use super::survey::{Kind, Survey};
use crate::policy::outcome::{WaitKind, Waits};
use crate::policy::time::WallTime;
use crate::telemetry::story::Story;

const REQUEST_ID: HeaderName = HeaderName::from_static("forbear-request-id");
const UPSTREAM: HeaderName = HeaderName::from_static("forbear-upstream");
const ATTEMPTS: HeaderName = HeaderName::from_static("forbear-attempts");
const DECISION: HeaderName = HeaderName::from_static("forbear-decision");
const WAITED_MS: HeaderName = HeaderName::from_static("forbear-waited-ms");
const VERDICT: HeaderName = HeaderName::from_static("forbear-verdict");
const RETRY_AT: HeaderName = HeaderName::from_static("forbear-retry-at");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// What some SDKs read before `Retry-After`.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Bytes of a refusal's sentence in `Proxy-Status`; the body has all of it.
const DETAILS_BYTES_MAX: usize = 200;

/// What follows a response head on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The upstream's body, whatever its length.
    Body,
    /// Nothing, whatever the head says (RFC 9112 6.3): HEAD, 204, 304.
    Nothing,
    /// The bytes of another protocol.
    Upgraded,
}

/// What there is to know of a head that may go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What follows it.
    pub follows: Follows,
    /// Whether it has a field with addresses that clients follow.
    pub has_links: bool,
}

/// Why an upstream's head is no valid response; the end of "the upstream's response has …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's response has {0}")]
pub struct BadHead(pub &'static str);

/// Makes an upstream's head fit for the client. `upgrade` is the protocol that the request asked
/// for, as [`super::head::upgrade`] read it. The version becomes HTTP/1.1, since each hop speaks
/// its own (RFC 9110 6.2).
///
/// # Errors
///
/// The head is contradictory or belongs to no final response; nothing of it may go down.
pub fn downstream_response(
    parts: &mut Parts,
    method: &Method,
    upgrade: Option<&HeaderValue>,
) -> Result<Passed, BadHead> {
    let follows = follows(parts, method, upgrade)?;
    let seen = Survey::of(&parts.headers);
    let mut chunked = false;
    let mut length = None;
    if seen.saw(Kind::Framing) {
        chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
        if chunked {
            check_transfer_encoding(parts)?;
        }
        length = content_length(&parts.headers).map_err(BadHead)?;
    }

    let headers = &mut parts.headers;
    strip(headers, seen);
    // With `Transfer-Encoding` a length is a lie or a leftover (RFC 9112 6.3); with 204 it is
    // forbidden (RFC 9110 8.6).
    let without_length = chunked || parts.status == StatusCode::NO_CONTENT;
    match length {
        Some(length) if !without_length => state_length(headers, length),
        Some(_) => drop(headers.remove(header::CONTENT_LENGTH)),
        None => {}
    }
    if let (Follows::Upgraded, Some(protocol)) = (follows, upgrade) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    headers.append(header::VIA, via(parts.version));
    parts.version = Version::HTTP_11;
    Ok(Passed { follows, has_links: seen.saw(Kind::Link) })
}

fn follows(
    parts: &Parts,
    method: &Method,
    upgrade: Option<&HeaderValue>,
) -> Result<Follows, BadHead> {
    match parts.status.as_u16() {
        101 => {
            let mut given = parts.headers.get_all(header::UPGRADE).iter();
            match (upgrade, given.next(), given.next()) {
                (Some(asked), Some(given), None)
                    if asked.as_bytes().eq_ignore_ascii_case(given.as_bytes()) =>
                {
                    Ok(Follows::Upgraded)
                }
                _ => Err(BadHead("status 101 for a protocol that was not asked for")),
            }
        }
        100..=199 => Err(BadHead("an interim status where the final one was due")),
        204 | 304 => Ok(Follows::Nothing),
        200..=599 if method == Method::HEAD => Ok(Follows::Nothing),
        200..=599 => Ok(Follows::Body),
        _ => Err(BadHead("a status outside 100 to 599")),
    }
}

/// One plain number, whatever form the upstream gave it.
fn state_length(headers: &mut HeaderMap, length: u64) {
    let mut stated = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = stated.next().map(HeaderValue::as_bytes);
    // What `content_length` accepts is digits, blanks and commas; digits alone are plain enough.
    let is_plain = first.is_some_and(|text| {
        text.iter().all(u8::is_ascii_digit) && (text == b"0" || !text.starts_with(b"0"))
    });
    if !is_plain || stated.next().is_some() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Only `chunked` is undone on receipt; with any other coding the body would be delivered in a
/// form that nobody names any more.
fn check_transfer_encoding(parts: &Parts) -> Result<(), BadHead> {
    if parts.version < Version::HTTP_11 {
        return Err(BadHead("Transfer-Encoding in HTTP/1.0"));
    }
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(BadHead("a Transfer-Encoding other than chunked")),
    }
}

/// Drops what belongs to the connection, what `Connection` names, and every `Forbear-*`: only
/// forbear itself may speak in that name.
fn strip(headers: &mut HeaderMap, seen: Survey) {
    if seen.saw(Kind::Connection) {
        for name in Nominated::of(headers).names() {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    if seen.saw(Kind::Framing) {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if seen.saw(Kind::Hop) || seen.saw(Kind::Directive) {
        let leaves = |name: &&HeaderName| is_hop_by_hop(name) || is_forbear(name);
        // There are one or two, so that looking again is cheaper than a list.
        while let Some(name) = headers.keys().find(leaves).cloned() {
            headers.remove(name);
        }
    }
}

/// Adds the story's fields to the answer of the upstream called `name`. `retry_at` is shown if the
/// answer is a failure.
pub fn annotate(
    headers: &mut HeaderMap,
    story: &Story,
    name: HeaderValue,
    retry_at: Option<WallTime>,
) {
    let verdict = story.attempts.last().and_then(|attempt| Verdict::of(attempt.class));
    let proxy_status = (story.attempts.len() > 1).then(|| {
        let received = story.attempts.last().and_then(|attempt| attempt.status);
        let mut text = VIA_NAME.to_owned();
        if let Some(status) = received {
            // Writing to a string cannot fail, here and below.
            let _ = write!(text, "; received-status={status}");
        }
        let _ = write!(text, "; details=\"{} attempts\"", story.attempts.len());
        text
    });
    headers.insert(UPSTREAM, name);
    annotate_with(headers, story, verdict, retry_at, proxy_status.as_deref());
}

/// Adds the upstream's name to an answer that is not its own.
pub(super) fn annotate_name(headers: &mut HeaderMap, story: &Story) {
    if let Some(upstream) = &story.upstream {
        insert_text(headers, UPSTREAM, upstream);
    }
}

/// Adds the story's fields to any response.
pub(super) fn annotate_with(
    headers: &mut HeaderMap,
    story: &Story,
    verdict: Option<Verdict>,
    retry_at: Option<WallTime>,
    proxy_status: Option<&str>,
) {
    insert_text(headers, REQUEST_ID, story.id.as_str());
    headers.insert(ATTEMPTS, small(story.attempts.len()));
    headers.insert(DECISION, HeaderValue::from_static(story.decision.name()));
    if let Some(waited) = waited_ms(&story.waited) {
        insert_text(headers, WAITED_MS, &waited);
    }
    if let Some(verdict) = verdict {
        headers.insert(VERDICT, HeaderValue::from_static(verdict.name()));
        if let Some(at) = retry_at {
            insert_text(headers, RETRY_AT, &at.to_string());
        }
    }
    if let Some(Ok(member)) = proxy_status.map(HeaderValue::from_str) {
        // A list, to which each intermediary adds itself (RFC 9209 2).
        headers.append(PROXY_STATUS, member);
    }
}

/// The usual counts need no memory of their own.
fn small(count: usize) -> HeaderValue {
    match count {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        2 => HeaderValue::from_static("2"),
        _ => HeaderValue::from(count),
    }
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // All of these are names of ours, checked when the configuration was read.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// `4022;queue=12;cooldown=4010`; `None` below a millisecond. The sum is that of the parts shown.
fn waited_ms(waited: &Waits) -> Option<String> {
    if waited.total() < Duration::from_millis(1) {
        return None;
    }
    let parts = WaitKind::ALL.map(|kind| (kind.name(), waited.of(kind).as_millis()));
    let mut text = parts.iter().map(|(_, ms)| ms).sum::<u128>().to_string();
    for (name, ms) in parts.iter().filter(|(_, ms)| *ms > 0) {
        let _ = write!(text, ";{name}={ms}");
    }
    (text != "0").then_some(text)
}

/// The member of `Proxy-Status` for a refusal (RFC 9209 2.3).
pub(super) fn proxy_status_error(error: &str, detail: &str) -> String {
    // A string of RFC 9651 3.3.3 is printable ASCII with two characters escaped.
    let details = shown_up_to(DETAILS_BYTES_MAX, detail.as_bytes())
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!("{VIA_NAME}; error={error}; details=\"{details}\"")
}

/// Seconds to wait: rounded up, so that a caller that obeys never comes too early, and at least
/// one, since 0 invites a loop.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    let started = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(started).max(1)
}

/// Raises `Retry-After` to `truth`, the wait from `now`, where the upstream's own is shorter,
/// missing or unreadable; never lowers it. Its rivals in milliseconds are raised with it, since
/// clients that know them read them first.
pub fn raise_retry_after(headers: &mut HeaderMap, truth: Duration, now: WallTime) {
    if truth.is_zero() {
        return;
    }
    let seconds = whole_seconds(truth);
    let stated = headers.get_all(header::RETRY_AFTER).iter();
    if stated.filter_map(|value| stated_seconds(value, headers, now)).max() < Some(seconds) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    let truth_ms = u64::try_from(truth.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    if let Some(stated) = headers.get(RETRY_AFTER_MS) {
        let stated = stated.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
        // A float keeps every wait below 285,000 years exact; the comparison needs no more.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        if !stated.is_some_and(|stated| stated >= truth_ms as f64) {
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(truth_ms));
        }
    }
}

/// Whole seconds that a `Retry-After` states, rounded down: what it surely says. A date counts
/// from the response's own `Date`, so that clocks need not agree (RFC 9110 10.2.3).
fn stated_seconds(value: &HeaderValue, headers: &HeaderMap, now: WallTime) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are a number that nothing is longer than.
        return Some(whole.parse().unwrap_or(u64::MAX));
    }
    let unix_seconds = |text: &str| {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
    };
    let date = headers.get(header::DATE).and_then(|date| unix_seconds(date.to_str().ok()?));
    let from = date.or_else(|| u64::try_from(now.unix_ms.div_euclid(1000)).ok())?;
    Some(unix_seconds(text)?.saturating_sub(from))
}

#[cfg(test)]
pub(crate) mod tests;
