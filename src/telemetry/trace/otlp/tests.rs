//! What a collector is told of a story.

use serde_json::Value;

use super::*;
use crate::policy::outcome::Sent;
use crate::telemetry::story::Decision;
use crate::telemetry::tests::recovered;
use crate::telemetry::trace::{TRACEPARENT, Tracer};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// When the story of [`recovered`] began.
const STARTED: u64 = 1_768_471_200_123_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Queued 12 ms, throttled after 100 ms, held 4010 ms, answered after 230 ms.
fn story() -> Story {
    let mut story = recovered();
    let mut queue = Waits::default();
    queue.charge(WaitKind::Queue, ms(12));
    let mut cooldown = Waits::default();
    cooldown.charge(WaitKind::Cooldown, ms(4010));
    cooldown.charge(WaitKind::Backoff, Duration::from_micros(900));
    story.attempts[0].waited = queue;
    story.attempts[0].sent_after = ms(13);
    story.attempts[1].waited = cooldown;
    story.attempts[1].sent_after = ms(4124);
    story.waited = queue;
    story.waited.add(&cooldown);
    story.run = Some("nightly-7".into());
    let mut headers = http::HeaderMap::new();
    headers.insert(TRACEPARENT, http::HeaderValue::from_static(CALLER));
    let dropped = prometheus::IntCounter::new("dropped", "Dropped.").unwrap();
    let settings = crate::config::settings::TracingSettings {
        origin: crate::config::settings::Origin {
            scheme: crate::config::settings::Scheme::Http,
            host: "127.0.0.1".into(),
            port: 4318,
        },
        base_path: String::new(),
        headers: Vec::new(),
        service_name: "forbear".into(),
        sample: 1.0,
    };
    let tracer = Tracer::new(&settings, crate::telemetry::trace::Backlog::new(dropped));
    story.trace = Some(tracer.begin(&headers));
    story
}

fn spans(story: Story) -> Vec<Value> {
    let body = export("nightly", &[Finished { story, upstream: None }]);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let resource = &body["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name"), "nightly");
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    let ids: std::collections::HashSet<_> = spans.iter().map(|span| &span["spanId"]).collect();
    assert_eq!(ids.len(), spans.len(), "each has an id of its own");
    spans
}

fn attribute<'a>(of: &'a Value, key: &str) -> &'a str {
    let all = of["attributes"].as_array().unwrap();
    let value = all.iter().find(|attribute| attribute["key"] == key).map(|it| &it["value"]);
    let text = value.and_then(|value| value["stringValue"].as_str().or(value["intValue"].as_str()));
    text.unwrap_or("absent")
}

fn times(span: &Value) -> (u64, u64) {
    let ms = |name: &str| {
        let nanos: u64 = span[name].as_str().unwrap().parse().unwrap();
        (nanos - STARTED) / 1_000_000
    };
    (ms("startTimeUnixNano"), ms("endTimeUnixNano"))
}

#[test]
fn a_recovered_exchange_is_told_in_five_spans_at_their_times() {
    let spans = spans(story());
    let told: Vec<_> = spans
        .iter()
        .map(|span| (span["name"].as_str().unwrap(), span["kind"].as_u64().unwrap(), times(span)))
        .collect();
    assert_eq!(
        told,
        [
            ("GET github", 2, (0, 4353)),
            ("wait queue", 1, (1, 13)),
            ("GET", 3, (13, 113)),
            ("wait cooldown", 1, (113, 4123)),
            ("GET", 3, (4124, 4354)),
        ]
    );
    let [exchange, rest @ ..] = spans.as_slice() else { panic!("none") };
    assert_eq!(exchange["traceId"], CALLER[3..35]);
    assert_eq!(exchange["parentSpanId"], CALLER[36..52]);
    assert!(rest.iter().all(|span| span["parentSpanId"] == exchange["spanId"]));
    assert!(exchange["status"].is_null() && spans[4]["status"].is_null());
    assert_eq!(spans[2]["status"]["code"], 2);
    for (span, key, value) in [
        (exchange, "forbear.decision", "retried"),
        (exchange, "forbear.route", "search"),
        (exchange, "forbear.run", "nightly-7"),
        (exchange, "forbear.flow", "nightly"),
        (exchange, "forbear.code", "absent"),
        (exchange, "url.path", "/search/issues"),
        (exchange, "http.response.status_code", "200"),
        (&spans[1], "forbear.wait.attempt", "1"),
        (&spans[2], "http.response.status_code", "429"),
        (&spans[2], "http.request.resend_count", "absent"),
        (&spans[2], "error.type", "429"),
        (&spans[2], "forbear.hint.source", "retry-after"),
        (&spans[2], "forbear.hint.raw", "retry-after: 4"),
        (&spans[2], "forbear.hint.wait_ms", "4000"),
        (&spans[3], "forbear.wait.kind", "cooldown"),
        (&spans[3], "forbear.wait.attempt", "2"),
        (&spans[4], "http.request.resend_count", "1"),
        (&spans[4], "error.type", "absent"),
    ] {
        assert_eq!(attribute(span, key), value, "{key} in {span}");
    }
}

#[test]
fn a_wait_in_vain_and_an_attempt_that_nobody_waited_for_are_told_too() {
    let mut left = story();
    left.attempts.truncate(1);
    left.notes.sending = true;
    (left.ending, left.status) = (Ending::ClientDisconnect, 0);
    let expected = left.trace.unwrap().attempt(2).to_string();
    let spans = spans(left);
    assert_eq!(spans.len(), 5);
    assert_eq!(times(&spans[3]), (113, 4123));
    assert_eq!((&spans[4]["kind"], &spans[4]["spanId"]), (&3.into(), &expected.into()));
    assert_eq!(attribute(&spans[4], "error.type"), "client_disconnect");
    assert_eq!(attribute(&spans[0], "http.response.status_code"), "absent");
    assert_eq!(spans[0]["status"]["code"], 2);
}

#[test]
fn failures_are_errors_with_a_type_and_mistakes_of_the_caller_are_not() {
    for (ending, status, error) in [
        (Ending::Ok, 200, "absent"),
        (Ending::ClientError, 404, "absent"),
        (Ending::Throttled, 429, "429"),
        (Ending::Throttled, 200, "throttled"),
        (Ending::ServerError, 503, "503"),
        (Ending::BodyError, 200, "body_error"),
        (Ending::Rejected("breaker_open"), 503, "breaker_open"),
    ] {
        let mut story = story();
        (story.ending, story.status) = (ending, status);
        let span = spans(story).swap_remove(0);
        assert_eq!(attribute(&span, "error.type"), error, "{ending:?}");
        assert_eq!(span["status"]["code"] == 2, error != "absent", "{ending:?}");
    }
}

#[test]
fn an_attempt_fails_by_its_error_its_status_or_what_the_answer_meant() {
    for (error, status, class, expected) in [
        (Some("reset"), None, Class::Unhealthy, "reset"),
        (None, Some(502), Class::Unhealthy, "502"),
        (None, Some(200), Class::Throttled, "throttled"),
        (None, Some(304), Class::Ok, "absent"),
    ] {
        let mut story = story();
        let attempt = AttemptStory {
            error,
            status,
            class,
            sent: Sent::Answered,
            ..story.attempts[1].clone()
        };
        story.attempts[1] = attempt;
        assert_eq!(attribute(&spans(story)[4], "error.type"), expected);
    }
}

#[test]
fn what_a_caller_makes_up_neither_shows_a_query_nor_makes_a_name() {
    let mut story = story();
    story.method = http::Method::from_bytes(b"X-MADE-UP").unwrap();
    story.path = format!("/{}?token=secret", "é".repeat(1000));
    story.upstream = None;
    story.decision = Decision::Rejected("no_route");
    let span = spans(story).swap_remove(0);
    assert_eq!(span["name"], "HTTP");
    assert_eq!(attribute(&span, "http.request.method"), "_OTHER");
    assert!(attribute(&span, "url.path").len() <= PATH_BYTES_MAX);
    assert!(!span.to_string().contains("secret"));
}
