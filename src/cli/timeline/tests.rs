//! What a person sees of one exchange, and of many.

use std::collections::BTreeMap;

use anstream::adapter::strip_str;

use super::*;
use crate::policy::time::WallTime;
use crate::store::view::HintView;
use crate::telemetry::view::Moment;

fn waited(kinds: &[(&str, f64)]) -> BTreeMap<String, f64> {
    kinds.iter().map(|(kind, ms)| ((*kind).to_owned(), *ms)).collect()
}

fn attempt(n: u8, status: Option<u16>, class: &str, ms: f64) -> AttemptView {
    AttemptView {
        n,
        waited_ms: BTreeMap::new(),
        status,
        class: class.to_owned(),
        error: None,
        sent: "answered".to_owned(),
        ms,
        hint: None,
        bucket: None,
        quota: None,
    }
}

/// As the README has it.
fn recovered() -> ExchangeView {
    let hint = HintView {
        source: "retry-after".into(),
        wait_ms: 30_000.0,
        raw: Some("retry-after: 30".to_owned()),
    };
    let first = AttemptView {
        waited_ms: waited(&[("queue", 3_200.0)]),
        hint: Some(hint),
        ..attempt(1, Some(429), "throttled", 12.0)
    };
    let quota = QuotaToldView {
        name: None,
        limit: Some(100),
        remaining: 12,
        reset_ms: Some(8_000.0),
        window_ms: None,
    };
    let second = AttemptView {
        waited_ms: waited(&[("cooldown", 30_400.0)]),
        quota: Some(quota),
        ..attempt(2, Some(200), "ok", 212.0)
    };
    ExchangeView {
        id: "01M7Z8W0VV80B3FNN5QW4EGXDX".to_owned(),
        started: Moment(WallTime { unix_ms: 1_768_471_200_000 }),
        took_ms: 33_830.0,
        upstream: Some("tickets".to_owned()),
        route: Some("default".to_owned()),
        method: "GET".to_owned(),
        path: "/tickets/42".to_owned(),
        credential: Some("2f3a9c".to_owned()),
        keys: vec!["ingestion".to_owned()],
        flow: None,
        run: Some("nightly-7".to_owned()),
        status: Some(200),
        outcome: "ok".to_owned(),
        decision: "retried".to_owned(),
        shadow: None,
        reason: None,
        retry_at: None,
        behind: Some(41),
        waited_ms: waited(&[("queue", 3_200.0), ("cooldown", 30_400.0)]),
        attempts: vec![first, second],
        streamed_ms: 4.0,
        own_ms: 2.0,
        bytes_up: 0,
        bytes_down: 12,
        weight: 1,
    }
}

fn seen(text: &str) -> String {
    strip_str(text).to_string()
}

#[test]
fn a_time_line_reads_at_a_glance_and_is_the_one_in_the_readme() {
    let drawn = timeline(&recovered());
    let plain = seen(&drawn);
    let readme = include_str!("../../../README.md");
    let shown = readme.split("$ forbear explain 01M7Z8W0VV80B3FNN5QW4EGXDX\n").nth(1).unwrap();
    assert_eq!(plain.trim_end(), shown.split("\n```").next().unwrap(), "{plain}");
    assert!(drawn.contains("\u{1b}[31mattempt 1: 429"), "a refusal is red");
    assert!(drawn.contains("\u{1b}[32mattempt 2: 200"), "an answer is green");
}

#[test]
fn what_an_answer_said_of_a_quota_is_told_as_far_as_it_said_it() {
    let said = |bucket, name: Option<&str>, limit, reset_ms| {
        let name = name.map(str::to_owned);
        told(bucket, &QuotaToldView { name, limit, remaining: 3, reset_ms, window_ms: None })
    };
    assert_eq!(said(None, None, None, None), "; quota said 3 left");
    let all = said(Some("search"), Some("minute"), Some(30), Some(90.0));
    assert_eq!(all, "; quota search minute said 3 of 30 left, renewed in 90 ms");
    assert_eq!(said(Some("\u{1b}[2J"), None, None, None), "; quota \u{fffd}[2J said 3 left");
}

#[test]
fn a_client_that_left_while_it_waited_is_told_of() {
    let left = ExchangeView {
        status: None,
        outcome: "client_disconnect".to_owned(),
        decision: "pass".to_owned(),
        behind: Some(1),
        keys: Vec::new(),
        attempts: Vec::new(),
        waited_ms: waited(&[("queue", 61_000.0), ("pacing", 300.0)]),
        ..recovered()
    };
    let plain = seen(&timeline(&left));
    assert!(plain.contains("GET /tickets/42 → client_disconnect after"), "{plain}");
    assert!(plain.contains("+0.000 s    61.0 s  queued behind 1 other\n"), "{plain}");
    assert!(plain.contains("+61.000 s    300 ms  paced"), "{plain}");
}

#[test]
fn an_attempt_without_an_answer_says_what_failed_and_what_was_sent() {
    let broken = AttemptView {
        error: Some("reset".to_owned()),
        sent: "partly".to_owned(),
        ..attempt(1, None, "unhealthy", 9.0)
    };
    let unfinished = attempt(2, None, "client", 700.0);
    let view = ExchangeView {
        attempts: vec![broken, unfinished],
        reason: Some("The \u{1b}[2Jbreaker is open.".to_owned()),
        retry_at: Some(Moment(WallTime { unix_ms: 1_768_471_260_000 })),
        weight: 21,
        ..recovered()
    };
    let plain = seen(&timeline(&view));
    assert!(plain.contains("attempt 1: no answer (reset); partly was sent"), "{plain}");
    assert!(plain.contains("attempt 2: the client did not wait for its end"), "{plain}");
    assert!(plain.contains("\nThe \u{fffd}[2Jbreaker is open.\n"), "{plain:?}");
    assert!(plain.contains("let through at 2026-01-15T10:01:00.000Z"), "{plain}");
    assert!(plain.contains("stands for 20 more"), "{plain}");
}

#[test]
fn a_list_has_a_line_for_each() {
    let lines = seen(&table(&[recovered(), recovered()]));
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.contains("GET /tickets/42  200     ok       retried   2"), "{lines}");
    assert_eq!(table(&[]), "No exchange in the ledger is like that.\n");
}

#[test]
fn spans_are_as_long_as_a_person_needs() {
    let spans = [0.04, 9.96, 212.4, 3_240.0, 119_900.0, 125_000.0].map(span);
    assert_eq!(spans, ["0.0 ms", "10.0 ms", "212 ms", "3.2 s", "119.9 s", "2 min 05 s"]);
}
