//! A refusal as an HTTP response: `application/problem+json` (RFC 9457), a truthful `Retry-After`,
//! and `Proxy-Status` (RFC 9209).
//!
//! A field that has nothing to say is left out of the body, never `null`; `attempts` and
//! `waited_ms` are always there, if need be empty and zero, so that a reader may sum them up.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use super::reject::{HintRecord, Rejection, shown};
use super::response_head::{annotate_name, annotate_with, proxy_status_error, whole_seconds};
use crate::policy::outcome::{Sent, WaitKind, Waits};
use crate::telemetry::names;
use crate::telemetry::story::{AttemptStory, Story};

/// The response of a refusal. With `head_only` (a request with HEAD) it has the fields of the full
/// one, its length included, and no body (RFC 9110 9.3.2).
pub fn render(rejection: &Rejection, story: &Story, head_only: bool) -> Response<Bytes> {
    let body = body(rejection, story);
    let length = body.len();
    let mut response = Response::new(if head_only { Bytes::new() } else { body });
    *response.status_mut() = rejection.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VIA, HeaderValue::from_static("1.1 forbear"));
    if let Some((_, wait)) = rejection.retry_at {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if rejection.status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        headers.insert(header::ALLOW, allow);
    }
    if rejection.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let verdict = Some(rejection.verdict());
    let retry_at = rejection.retry_at.map(|(at, _)| at);
    let error = rejection.proxy_error.unwrap_or(rejection.code.proxy_status_error());
    let proxy_status = proxy_status_error(error, &rejection.detail);
    annotate_name(headers, story);
    annotate_with(headers, story, verdict, retry_at, Some(&proxy_status));
    response
}

/// The members of the body, in the order in which a person reads them.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: String,
    code: &'static str,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<ProblemHint>,
    attempts: Vec<ProblemAttempt>,
    waited_ms: ProblemWaits,
}

#[derive(Serialize)]
struct ProblemHint {
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    received_at: String,
}

#[derive(Serialize)]
struct ProblemAttempt {
    n: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: &'static str,
    ms: u64,
    sent: &'static str,
}

#[derive(Serialize)]
struct ProblemWaits {
    queue: u64,
    pacing: u64,
    cooldown: u64,
    backoff: u64,
    breaker: u64,
}

fn body(rejection: &Rejection, story: &Story) -> Bytes {
    let problem = Problem {
        r#type: rejection.code.type_urn(),
        title: rejection.code.title(),
        status: rejection.status.as_u16(),
        detail: &rejection.detail,
        instance: format!("urn:forbear:req:{}", story.id),
        code: rejection.code.name(),
        verdict: rejection.verdict().name(),
        retry_at: rejection.retry_at.map(|(at, _)| at.to_string()),
        // Up, as in `Retry-After`: a caller that obeys must not come a moment too early.
        retry_after_ms: rejection.retry_at.map(|(_, wait)| whole_ms_up(wait)),
        upstream: story.upstream.as_deref(),
        scope: rejection.scope.as_deref(),
        key: rejection.key.as_deref(),
        hint: rejection.hint.as_ref().map(problem_hint),
        attempts: story.attempts.iter().map(problem_attempt).collect(),
        waited_ms: problem_waits(&story.waited),
    };
    // Only maps with keys that are no strings can fail, and there is none.
    serde_json::to_vec(&problem).map_or_else(|_| Bytes::from_static(b"{}"), Bytes::from)
}

fn problem_hint(hint: &HintRecord) -> ProblemHint {
    ProblemHint {
        source: hint.source.name(),
        raw: hint.raw.as_ref().map(|raw| shown(raw.as_bytes())),
        received_at: hint.received_at.to_string(),
    }
}

fn problem_attempt(attempt: &AttemptStory) -> ProblemAttempt {
    ProblemAttempt {
        n: attempt.n,
        status: attempt.status,
        outcome: names::class(attempt.class),
        ms: whole_ms(attempt.took),
        sent: sent_name(attempt.sent),
    }
}

fn problem_waits(waited: &Waits) -> ProblemWaits {
    let ms = |kind| whole_ms(waited.of(kind));
    ProblemWaits {
        queue: ms(WaitKind::Queue),
        pacing: ms(WaitKind::Pacing),
        cooldown: ms(WaitKind::Cooldown),
        backoff: ms(WaitKind::Backoff),
        breaker: ms(WaitKind::Breaker),
    }
}

/// The word for how much of an attempt's request went out.
pub fn sent_name(sent: Sent) -> &'static str {
    match sent {
        Sent::Nothing => "nothing",
        Sent::Partly => "partly",
        Sent::Answered => "answered",
    }
}

/// Milliseconds that have passed: rounded down.
fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds to wait: rounded up.
fn whole_ms_up(span: Duration) -> u64 {
    whole_ms(span.saturating_add(Duration::from_nanos(999_999)))
}

#[cfg(test)]
mod tests;
