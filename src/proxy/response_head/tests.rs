//! What of an upstream's head goes down, and what is added.

use std::sync::Arc;

use http::Response;

use super::*;
use crate::policy::outcome::{Class, Sent};
use crate::telemetry::story::{AttemptStory, Decision, Ending, RequestId};

const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

/// An exchange with one attempt of each class.
pub(crate) fn story(attempts: &[(Class, Option<u16>)]) -> Story {
    let attempt = |(index, (class, status)): (usize, &(Class, Option<u16>))| AttemptStory {
        n: u8::try_from(index + 1).unwrap(),
        status: *status,
        class: *class,
        sent: if status.is_some() { Sent::Answered } else { Sent::Partly },
        error: None,
        sent_after: Duration::ZERO,
        took: Duration::from_micros(12_900),
        hint: None,
        told: Default::default(),
        waited: Waits::default(),
    };
    Story {
        id: RequestId::new(NOW, 7),
        started: NOW,
        upstream: Some(Arc::from("github")),
        route: Some(Arc::from("default")),
        method: Method::GET,
        path: "/x".to_owned(),
        keys: Vec::new(),
        flow: None,
        run: None,
        trace: None,
        attempts: attempts.iter().enumerate().map(attempt).collect(),
        waited: Waits::default(),
        decision: Decision::Pass,
        status: 200,
        ending: Ending::Ok,
        bytes_up: 0,
        bytes_down: 0,
        took: Duration::ZERO,
        streamed: Duration::ZERO,
        notes: Default::default(),
        shadow: None,
    }
}

fn response(status: u16, version: Version, fields: &[(&str, &str)]) -> Parts {
    let mut builder = Response::builder().status(status).version(version);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

/// What goes down of an answer to a GET, or why nothing does.
fn down(status: u16, version: Version, fields: &[(&str, &str)]) -> Result<Vec<String>, BadHead> {
    let mut parts = response(status, version, fields);
    downstream_response(&mut parts, &Method::GET, None)?;
    assert_eq!(parts.version, Version::HTTP_11);
    Ok(lines(&parts.headers))
}

#[test]
fn what_belongs_to_the_upstreams_connection_or_was_forged_does_not_go_down() {
    let fields = [
        ("connection", "close, X-Hop, content-length"),
        ("connection", "x-other"),
        ("x-hop", "gone"),
        ("x-other", "gone"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("proxy-authenticate", "Basic"),
        ("upgrade", "h2c"),
        ("forbear-decision", "forged"),
        ("forbear-anything", "forged"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-length", "3"),
        ("retry-after", "7"),
        ("trailer", "x-sum"),
        ("via", "1.1 varnish"),
    ];
    assert_eq!(
        down(200, Version::HTTP_11, &fields).unwrap(),
        [
            "content-length: 3",
            "retry-after: 7",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "trailer: x-sum",
            "via: 1.1 forbear",
            "via: 1.1 varnish",
        ]
    );
    assert_eq!(down(200, Version::HTTP_10, &[]).unwrap(), ["via: 1.0 forbear"]);
}

#[test]
fn framing_is_made_unambiguous_or_refused() {
    let new = Version::HTTP_11;
    let via = "via: 1.1 forbear".to_owned();
    let both = [("transfer-encoding", "chunked"), ("content-length", "3")];
    assert_eq!(down(200, new, &both).unwrap(), ["via: 1.1 forbear"]);
    let same = [("content-length", "3"), ("content-length", "3, 3")];
    assert_eq!(down(200, new, &same).unwrap(), ["content-length: 3".to_owned(), via.clone()]);
    assert_eq!(down(204, new, &[("content-length", "3")]).unwrap(), [via]);
    for (status, version, fields) in [
        (200, new, &[("content-length", "3"), ("content-length", "4")][..]),
        (200, new, &[("content-length", "3, 4")]),
        (200, new, &[("content-length", "-3")]),
        (200, new, &[("content-length", "three")]),
        (200, new, &[("transfer-encoding", "gzip, chunked")]),
        (200, new, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
        (200, Version::HTTP_10, &[("transfer-encoding", "chunked")]),
        (100, new, &[]),
        (103, new, &[]),
        (101, new, &[("upgrade", "websocket"), ("connection", "upgrade")]),
        (600, new, &[]),
        (999, new, &[]),
    ] {
        assert!(down(status, version, fields).is_err(), "{status} {fields:?}");
    }
}

#[test]
fn no_body_follows_where_none_can() {
    for (status, method, expected) in [
        (200, Method::GET, Follows::Body),
        (200, Method::HEAD, Follows::Nothing),
        (204, Method::GET, Follows::Nothing),
        (304, Method::GET, Follows::Nothing),
        (500, Method::POST, Follows::Body),
        (404, Method::HEAD, Follows::Nothing),
    ] {
        let mut parts = response(status, Version::HTTP_11, &[("content-length", "9")]);
        let passed = downstream_response(&mut parts, &method, None).unwrap();
        assert_eq!(passed.follows, expected, "{status}");
    }
}

#[test]
fn a_switch_of_protocols_goes_down_only_as_it_was_asked_for() {
    let asked = HeaderValue::from_static("websocket");
    let switch = |fields: &[(&str, &str)]| {
        let mut parts = response(101, Version::HTTP_11, fields);
        let follows = downstream_response(&mut parts, &Method::GET, Some(&asked))?.follows;
        Ok::<_, BadHead>((follows, lines(&parts.headers)))
    };
    let (follows, lines) =
        switch(&[("upgrade", "WebSocket"), ("connection", "Upgrade, x")]).unwrap();
    assert_eq!(follows, Follows::Upgraded);
    assert_eq!(lines, ["connection: upgrade", "upgrade: websocket", "via: 1.1 forbear"]);
    assert!(switch(&[("upgrade", "h2c")]).is_err());
    assert!(switch(&[]).is_err());
    assert!(switch(&[("upgrade", "websocket"), ("upgrade", "h2c")]).is_err());
}

#[test]
fn the_story_is_told_in_the_fields_of_every_response() {
    let mut told = story(&[(Class::Throttled, Some(429)), (Class::Unhealthy, Some(503))]);
    told.decision = Decision::AttemptsSpent;
    told.waited.charge(WaitKind::Queue, Duration::from_micros(12_900));
    told.waited.charge(WaitKind::Cooldown, Duration::from_millis(4010));
    let mut headers = HeaderMap::new();
    headers.insert(PROXY_STATUS, HeaderValue::from_static("cdn; error=dns_error"));
    annotate(&mut headers, &told, HeaderValue::from_static("github"), Some(NOW));
    assert_eq!(
        lines(&headers),
        [
            "forbear-attempts: 2",
            "forbear-decision: attempts_spent",
            "forbear-request-id: 01KF0HJ0800000000000000007",
            "forbear-retry-at: 2026-01-15T10:00:00.000Z",
            "forbear-upstream: github",
            "forbear-verdict: retryable",
            "forbear-waited-ms: 4022;queue=12;cooldown=4010",
            "proxy-status: cdn; error=dns_error",
            "proxy-status: forbear; received-status=503; details=\"2 attempts\"",
        ]
    );
}

#[test]
fn a_plain_success_says_nothing_of_waits_verdicts_or_proxy_status() {
    let mut told = story(&[(Class::Ok, Some(200))]);
    told.waited.charge(WaitKind::Queue, Duration::from_micros(999));
    let mut headers = HeaderMap::new();
    annotate(&mut headers, &told, HeaderValue::from_static("github"), Some(NOW));
    assert_eq!(
        lines(&headers),
        [
            "forbear-attempts: 1",
            "forbear-decision: pass",
            "forbear-request-id: 01KF0HJ0800000000000000007",
            "forbear-upstream: github",
        ]
    );
}

#[test]
fn retry_after_is_raised_to_the_truth_and_never_lowered() {
    let date = ("date", "Thu, 15 Jan 2026 09:00:00 GMT");
    for (truth_ms, fields, expected) in [
        (3200, &[][..], Some("4")),
        (3200, &[("retry-after", "3")], Some("4")),
        (3200, &[("retry-after", "4")], Some("4")),
        (3200, &[("retry-after", "60")], Some("60")),
        (3200, &[("retry-after", "3.9")], Some("4")),
        (3200, &[("retry-after", "soon")], Some("4")),
        (3200, &[("retry-after", "-9")], Some("4")),
        (3200, &[("retry-after", "99999999999999999999999")], Some("99999999999999999999999")),
        (1, &[], Some("1")),
        (0, &[], None),
        (0, &[("retry-after", "3")], Some("3")),
        (3200, &[("retry-after", "Thu, 15 Jan 2026 10:00:03 GMT")], Some("4")),
        (
            3200,
            &[("retry-after", "Thu, 15 Jan 2026 10:00:09 GMT")],
            Some("Thu, 15 Jan 2026 10:00:09 GMT"),
        ),
        (
            3200,
            &[date, ("retry-after", "Thu, 15 Jan 2026 09:00:09 GMT")],
            Some("Thu, 15 Jan 2026 09:00:09 GMT"),
        ),
        (3200, &[date, ("retry-after", "Thu, 15 Jan 2026 09:00:02 GMT")], Some("4")),
    ] {
        let mut headers = response(429, Version::HTTP_11, fields).headers;
        raise_retry_after(&mut headers, Duration::from_millis(truth_ms), NOW);
        let shown = headers.get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(shown, expected, "{truth_ms} {fields:?}");
    }
}

#[test]
fn a_wait_in_milliseconds_is_raised_with_it_where_the_upstream_sent_one() {
    for (stated, expected) in
        [("500", "3201"), ("9000", "9000"), ("3201.5", "3201.5"), ("x", "3201"), ("NaN", "3201")]
    {
        let mut headers = response(429, Version::HTTP_11, &[("retry-after-ms", stated)]).headers;
        raise_retry_after(&mut headers, Duration::from_millis(3200), NOW);
        assert_eq!(headers["retry-after-ms"], expected, "{stated}");
    }
}
