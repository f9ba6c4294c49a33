//! From finished stories to OTLP, as JSON: one span per exchange, per attempt and per wait.
//!
//! Names are those of OpenTelemetry's semantic conventions for HTTP where there is one, and begin
//! with `forbear.` elsewhere. No query, field or body is ever in a span, so that `url.full`, which
//! could only be told in part, is left out. An attempt reaches to the head of its response, as in
//! the log. When each attempt was sent is known; its waits are told as sums per kind, which are laid
//! out in one order, so that the last ends where the attempt begins.
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::{Finished, SpanId, Trace};
use crate::policy::outcome::{Class, WaitKind, Waits};
use crate::policy::time::WallTime;
use crate::telemetry::names;
use crate::telemetry::story::{AttemptStory, Ending, Story};

/// A wait shorter than this is scheduling, and no word in `Forbear-Decision` either.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// Bytes of a path that are told; a caller could fill the collector with them otherwise.
const PATH_BYTES_MAX: usize = 1024;
/// Children are numbered; attempts count from 1 and take the numbers of a byte, waits those after.
const FIRST_WAIT: u64 = 256;

/// The body of one export request.
pub fn export(service_name: &str, finished: &[Finished]) -> Vec<u8> {
    let mut spans = Vec::new();
    for one in finished {
        if let Some(trace) = &one.story.trace {
            tell(one, trace, &mut spans);
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        Attribute::text("service.name", service_name),
        Attribute::text("service.version", version),
    ];
    let scope = Scope { name: "forbear", version };
    let resource_spans = [ResourceSpans {
        resource: Resource { attributes },
        scope_spans: [ScopeSpans { scope, spans }],
    }];
    // Numbers and texts alone cannot fail.
    serde_json::to_vec(&Request { resource_spans }).unwrap_or_default()
}

/// All spans of one exchange.
fn tell<'a>(finished: &'a Finished, trace: &Trace, spans: &mut Vec<Span<'a>>) {
    let story = &finished.story;
    spans.push(exchange(story, trace));
    let mut at = Duration::ZERO;
    let mut accounted = Waits::default();
    for attempt in &story.attempts {
        let begin = attempt.sent_after.saturating_sub(attempt.waited.total());
        waits(story, trace, &attempt.waited, begin, Some(attempt.n), spans);
        accounted.add(&attempt.waited);
        spans.push(attempt_span(finished, trace, attempt));
        at = attempt.sent_after.saturating_add(attempt.took);
    }
    let rest = story.waited.since(&accounted);
    let pending = story.notes.sending.then(|| story.next_attempt());
    waits(story, trace, &rest, at, pending, spans);
    if let Some(n) = pending {
        let attributes = vec![Attribute::text("error.type", "client_disconnect")];
        let begin = at.saturating_add(rest.total());
        spans.push(Span {
            status: Some(Status::ERROR),
            ..client(finished, trace, n, (begin, story.took.max(begin)), attributes)
        });
    }
}

fn exchange<'a>(story: &'a Story, trace: &Trace) -> Span<'a> {
    let mut attributes = vec![
        Attribute::text("url.path", path(story)),
        Attribute::text("url.scheme", "http"),
        Attribute::text("forbear.request_id", story.id.as_str()),
        Attribute::text("forbear.decision", story.decision.name()),
        Attribute::text("forbear.outcome", names::outcome(story.ending)),
        Attribute::int("forbear.attempts", story.attempts.len() as u64),
    ];
    let method = method(story, &mut attributes);
    if story.status != 0 {
        attributes.push(Attribute::int("http.response.status_code", story.status.into()));
    }
    let texts = [
        ("forbear.upstream", story.upstream.as_deref()),
        ("forbear.route", story.route.as_deref()),
        ("forbear.run", story.run.as_deref()),
        ("forbear.flow", story.flow.as_deref()),
        ("forbear.shadow", story.shadow.map(WaitKind::name)),
    ];
    let told = texts.into_iter().filter_map(|(key, text)| Some(Attribute::text(key, text?)));
    attributes.extend(told);
    let error: Option<Cow<'static, str>> = match story.ending {
        // A request that the upstream finds wrong was carried out well.
        Ending::Ok | Ending::ClientError => None,
        Ending::Rejected(code) => {
            attributes.push(Attribute::text("forbear.code", code));
            Some(code.into())
        }
        Ending::Throttled | Ending::ServerError if story.status >= 400 => {
            Some(story.status.to_string().into())
        }
        Ending::Throttled | Ending::ServerError | Ending::BodyError | Ending::ClientDisconnect => {
            Some(names::outcome(story.ending))
        }
    };
    let status = error.as_ref().map(|_| Status::ERROR);
    attributes.extend(error.map(|error| Attribute::text("error.type", error)));
    let name = match &story.upstream {
        Some(upstream) => format!("{method} {upstream}").into(),
        None => method.into(),
    };
    let parent = trace.parent;
    let made = Made { span: trace.span, parent, name, kind: Kind::Server };
    Span { status, ..made.span(story, trace, (Duration::ZERO, story.took), attributes) }
}

fn attempt_span<'a>(finished: &'a Finished, trace: &Trace, attempt: &'a AttemptStory) -> Span<'a> {
    let mut attributes = vec![Attribute::text("forbear.class", names::class(attempt.class))];
    if let Some(status) = attempt.status {
        attributes.push(Attribute::int("http.response.status_code", status.into()));
    }
    if let Some(hint) = &attempt.hint {
        let wait = u64::try_from(hint.wait.as_millis()).unwrap_or(u64::MAX);
        attributes.push(Attribute::text("forbear.hint.source", hint.source.name()));
        attributes.push(Attribute::int("forbear.hint.wait_ms", wait));
        attributes.extend(hint.raw.as_deref().map(|raw| Attribute::text("forbear.hint.raw", raw)));
    }
    // A refusal may come with a 200, and is a failure all the same.
    let error: Option<Cow<'static, str>> = match (attempt.error, attempt.status) {
        (Some(error), _) => Some(error.into()),
        (None, Some(status)) if status >= 400 => Some(status.to_string().into()),
        (None, _) if attempt.class == Class::Ok => None,
        (None, _) => Some(names::class(attempt.class).into()),
    };
    let status = error.as_ref().map(|_| Status::ERROR);
    attributes.extend(error.map(|error| Attribute::text("error.type", error)));
    let end = attempt.sent_after.saturating_add(attempt.took);
    let span = client(finished, trace, attempt.n, (attempt.sent_after, end), attributes);
    Span { status, ..span }
}

/// One request to the upstream.
fn client<'a>(
    finished: &'a Finished,
    trace: &Trace,
    n: u8,
    at: (Duration, Duration),
    mut attributes: Vec<Attribute<'a>>,
) -> Span<'a> {
    let story = &finished.story;
    let name = method(story, &mut attributes).into();
    if let Some(upstream) = &finished.upstream {
        attributes.push(Attribute::text("server.address", upstream.origin.host.as_str()));
        attributes.push(Attribute::int("server.port", upstream.origin.port.into()));
        attributes.push(Attribute::text("forbear.upstream", &*upstream.name));
    }
    if n > 1 {
        attributes.push(Attribute::int("http.request.resend_count", u64::from(n) - 1));
    }
    let (span, parent) = (trace.attempt(n), Some(trace.span));
    Made { span, parent, name, kind: Kind::Client }.span(story, trace, at, attributes)
}

/// The waits of `account`, one after the other from `begin`; `n` is the attempt that they are for.
fn waits<'a>(
    story: &'a Story,
    trace: &Trace,
    account: &Waits,
    begin: Duration,
    n: Option<u8>,
    spans: &mut Vec<Span<'a>>,
) {
    let mut at = begin;
    for kind in WaitKind::ALL {
        let begin = at;
        at = at.saturating_add(account.of(kind));
        if account.of(kind) < WAIT_MIN {
            continue;
        }
        let mut attributes = vec![Attribute::text("forbear.wait.kind", kind.name())];
        attributes.extend(n.map(|n| Attribute::int("forbear.wait.attempt", n.into())));
        let number = FIRST_WAIT + spans.len() as u64;
        let name = format!("wait {}", kind.name()).into();
        let made = Made {
            span: trace.span.child(number),
            parent: Some(trace.span),
            name,
            kind: Kind::Internal,
        };
        spans.push(made.span(story, trace, (begin, at), attributes));
    }
}

/// What differs from span to span.
struct Made<'a> {
    span: SpanId,
    parent: Option<SpanId>,
    name: Cow<'a, str>,
    kind: Kind,
}

impl<'a> Made<'a> {
    /// The span from and to these moments of the exchange.
    fn span(
        self,
        story: &Story,
        trace: &Trace,
        (begin, end): (Duration, Duration),
        attributes: Vec<Attribute<'a>>,
    ) -> Span<'a> {
        Span {
            trace_id: trace.id.to_string(),
            span_id: self.span.to_string(),
            parent_span_id: self.parent.map(|parent| parent.to_string()),
            name: self.name,
            kind: self.kind as u8,
            start_time_unix_nano: nanos(story.started, begin),
            end_time_unix_nano: nanos(story.started, end),
            attributes,
            status: None,
        }
    }
}

/// Kinds of spans, by their numbers in OTLP.
#[derive(Clone, Copy)]
enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// A word of a closed set; what stands for the method in a span's name, too.
fn method<'a>(story: &'a Story, attributes: &mut Vec<Attribute<'a>>) -> &'static str {
    let known = names::METHODS.into_iter().find(|known| *known == story.method.as_str());
    attributes.push(Attribute::text("http.request.method", known.unwrap_or("_OTHER")));
    known.unwrap_or("HTTP")
}

/// Without the query, which the story should not have either.
fn path(story: &Story) -> &str {
    let path = story.path.split(['?', '#']).next().unwrap_or_default();
    let end = (0..=path.len().min(PATH_BYTES_MAX)).rev().find(|at| path.is_char_boundary(*at));
    path.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Unix time; JSON has no room for 64 bits but in a text.
fn nanos(started: WallTime, after: Duration) -> String {
    let began = Duration::from_millis(u64::try_from(started.unix_ms).unwrap_or(0));
    began.saturating_add(after).as_nanos().to_string()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<Span<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: Cow<'a, str>,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Clone, Copy, Serialize)]
struct Status {
    code: u8,
}

impl Status {
    const ERROR: Self = Self { code: 2 };
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: AttributeValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AttributeValue<'a> {
    StringValue(Cow<'a, str>),
    /// As a text, as all numbers of 64 bits.
    IntValue(String),
}

impl<'a> Attribute<'a> {
    fn text(key: &'static str, text: impl Into<Cow<'a, str>>) -> Self {
        Self { key, value: AttributeValue::StringValue(text.into()) }
    }

    fn int(key: &'static str, number: u64) -> Self {
        Self { key, value: AttributeValue::IntValue(number.to_string()) }
    }
}

#[cfg(test)]
mod tests;
