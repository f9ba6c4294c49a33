//! Every refusal that can be produced, with all that the contract says of it, and the last word
//! of the upstream where there is one.

use std::sync::Arc;

use forbear::demo::script::Step;
use serde_json::Value;
use tokio::sync::Notify;

use crate::support::raw::{RawClient, RawResponse};
use crate::support::world::{World, answer, problem, request, retry_after};

const NO_WAIT: [&str; 1] = ["Forbear-Wait: none"];

/// A row of the contract's table.
struct Row {
    code: &'static str,
    status: u16,
    error: &'static str,
    verdict: &'static str,
    /// Whether waiting helps, so that a time must be named.
    waiting_helps: bool,
}

/// Checks what the contract promises of every refusal, and returns its body.
fn check(response: &RawResponse, row: &Row) -> Value {
    let Row { code, status, error, verdict, waiting_helps } = *row;
    assert_eq!(response.status, status, "{code}: {response:?}");
    let body = problem(response);
    let id = response.field("forbear-request-id").unwrap();
    assert_eq!(body["type"], format!("urn:forbear:{}", code.replace('_', "-")));
    assert_eq!(body["code"], code);
    assert_eq!(body["status"], status, "{code}");
    assert_eq!(body["verdict"], verdict, "{code}");
    assert_eq!(body["instance"], format!("urn:forbear:req:{id}"), "{code}");
    for text in ["title", "detail"] {
        assert!(body[text].as_str().is_some_and(|text| text.len() > 5), "{code}: {body}");
    }
    assert!(body["attempts"].is_array() && body["waited_ms"]["queue"].is_u64(), "{code}: {body}");
    assert_eq!(response.field("forbear-decision"), Some(code));
    assert_eq!(response.field("forbear-verdict"), Some(verdict), "{code}");
    let shown = response.field("proxy-status").unwrap_or_default();
    assert!(shown.starts_with(&format!("forbear; error={error}; details=")), "{code}: {shown}");
    let field = response.field("retry-after");
    assert_eq!(field.is_some(), waiting_helps, "{code}: Retry-After {field:?}");
    if waiting_helps {
        let ms = body["retry_after_ms"].as_u64().unwrap();
        assert_eq!(retry_after(response), ms.div_ceil(1_000).max(1), "{code}");
        assert_eq!(body["retry_at"].as_str(), response.field("forbear-retry-at"), "{code}");
    }
    body
}

#[tokio::test]
async fn an_open_breaker_says_until_when() {
    let world = World::calm(
        "[upstreams.api.retry]\nattempts_max = 1\n\
         [upstreams.api.breaker]\nconsecutive_failures = 1\n",
    )
    .await;
    world.get("/api/status/500").await;
    let row = Row {
        code: "breaker_open",
        status: 503,
        error: "destination_unavailable",
        verdict: "retryable",
        waiting_helps: true,
    };
    let body = check(&world.ask("GET /api/items/1", &NO_WAIT, b"").await, &row);
    assert_eq!((&body["scope"], &body["upstream"]), (&"upstream".into(), &"api".into()));
}

#[tokio::test]
async fn a_cooldown_says_what_the_upstream_said() {
    let world = World::calm("").await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "90")], "")]);
    world.ask("GET /api/items/1", &NO_WAIT, b"").await;
    let row = Row {
        code: "cooldown",
        status: 429,
        error: "proxy_internal_response",
        verdict: "throttled",
        waiting_helps: true,
    };
    let body = check(&world.ask("GET /api/items/1", &NO_WAIT, b"").await, &row);
    assert_eq!(body["hint"]["source"], "retry-after");
    assert!(body["hint"]["received_at"].is_string(), "{body}");
}

#[tokio::test]
async fn a_quota_that_is_used_up_for_hours_is_named_as_such() {
    let world = World::calm("").await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "7200")], "")]);
    let first = world.get("/api/items/1").await;
    assert_eq!(first.field("forbear-verdict"), Some("quota_exhausted"));
    let row = Row {
        code: "quota_exhausted",
        status: 429,
        error: "proxy_internal_response",
        verdict: "quota_exhausted",
        waiting_helps: true,
    };
    let refusal = world.get("/api/items/1").await;
    check(&refusal, &row);
    assert!(retry_after(&refusal) > 7_190);
}

#[tokio::test]
async fn a_quota_without_a_place_says_when_there_is_one() {
    let world = World::calm("").await;
    let fields =
        [("ratelimit-limit", "10"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "30")];
    world.api.script("/items/1", [answer(200, &fields, "")]);
    assert_eq!(world.get("/api/items/1").await.status, 200);
    let row = Row {
        code: "paced",
        status: 429,
        error: "proxy_internal_response",
        verdict: "throttled",
        waiting_helps: true,
    };
    check(&world.ask("GET /api/items/1", &NO_WAIT, b"").await, &row);
    assert_eq!(world.api.counters().requests, 1);
}

#[tokio::test]
async fn a_full_queue_and_a_place_that_did_not_come_in_time_are_told_apart() {
    for (settings, code, key) in [
        ("in_flight_max = 1\nqueue_max = 0\n", "queue_full", None),
        ("in_flight_max = 1\n", "queue_timeout", None),
        ("key = \"one\"\n[keys.one]\nin_flight_max = 1\n", "queue_timeout", Some("one")),
    ] {
        let world = World::calm(settings).await;
        world.api.script("/slow", [Step::Hang(Arc::default())]);
        let mut held = RawClient::connect(world.forbear.proxy()).await;
        held.send(request("GET /api/slow", &[], b"")).await;
        world.api.until("the held request", |seen| seen.requests == 1).await.unwrap();
        let row = Row {
            code,
            status: 503,
            error: "connection_limit_reached",
            verdict: "retryable",
            waiting_helps: true,
        };
        let refusal = world.ask("GET /api/items/1", &["Forbear-Wait: 50ms"], b"").await;
        assert_eq!(check(&refusal, &row)["key"].as_str(), key);
    }
}

#[tokio::test]
async fn a_failure_without_a_response_is_told_as_what_it_was() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::calm(&format!(
        "attempt_timeout = \"100ms\"\n[upstreams.api.retry]\nattempts_max = 1\n\
         [upstreams.gone]\nurl = \"http://{closed}\"\nretry.attempts_max = 1\n"
    ))
    .await;
    world.api.script("/reset", [Step::Reset]);
    world.api.script("/slow", [Step::Hang(Arc::default())]);
    for (path, code, status, error) in [
        ("/api/reset", "retries_exhausted", 502, "connection_terminated"),
        ("/gone/x", "upstream_unreachable", 502, "connection_refused"),
        ("/api/slow", "deadline", 504, "http_response_timeout"),
    ] {
        let row = Row { code, status, error, verdict: "retryable", waiting_helps: false };
        let refusal = world.get(path).await;
        let body = check(&refusal, &row);
        assert_eq!(refusal.field("forbear-attempts"), Some("1"));
        assert_eq!(body["attempts"][0]["n"], 1, "{body}");
    }
}

#[tokio::test]
async fn a_request_that_is_at_fault_is_told_what_would_be_right() {
    let world = World::calm("").await;
    let long = format!("X-Long: {}", "x".repeat(200_000));
    for (line, fields, code, status, error, word) in [
        ("GET /api/x", "Via: 1.1 forbear", "loop", 508, "proxy_loop_detected", "Via"),
        ("GET /nowhere/x", "A: b", "no_route", 404, "destination_not_found", "/api"),
        ("GET /api/x", "Forbear-Wait: soon", "bad_request", 400, "http_request_error", "none"),
        ("GET /api/x", "Forbear-Keys: a", "bad_request", 400, "http_request_error", "forbear-key"),
        ("GET /api/../x", "A: b", "bad_request", 400, "http_request_error", ".."),
        ("GET /api/x", long.as_str(), "too_large", 431, "http_request_error", ""),
    ] {
        let row = Row { code, status, error, verdict: "permanent", waiting_helps: false };
        let body = check(&world.ask(line, &[fields], b"").await, &row);
        assert!(body["detail"].as_str().unwrap().contains(word), "{body}");
    }
    assert_eq!(world.api.counters().requests, 0);
}

#[tokio::test]
async fn the_latest_response_comes_unchanged_after_retries() {
    let world = World::calm(
        "[upstreams.api.retry]\nattempts_max = 3\nbackoff = \"fixed\"\nbackoff_base = \"1ms\"\n",
    )
    .await;
    let last = answer(
        502,
        &[("x-mine", "a"), ("x-mine", "b"), ("content-type", "text/x"), ("etag", "\"7\"")],
        "the third",
    );
    world.api.script("/items/1", [answer(500, &[], "1"), answer(503, &[], "2"), last]);
    let response = world.get("/api/items/1").await;
    assert_eq!((response.status, response.text()), (502, "the third".to_owned()));
    let mine: Vec<_> = response.fields.iter().filter(|(name, _)| name == "x-mine").collect();
    assert_eq!(mine.len(), 2);
    assert_eq!(response.field("content-type"), Some("text/x"));
    assert_eq!(response.field("etag"), Some("\"7\""));
    assert_eq!(response.field("retry-after"), None);
    assert_eq!(response.field("forbear-attempts"), Some("3"));
    let shown = response.field("proxy-status").unwrap();
    assert!(shown.starts_with("forbear; received-status=502"), "{shown}");
}

#[tokio::test]
async fn a_response_outlives_a_later_attempt_that_brought_none() {
    let world = World::calm(
        "[upstreams.api.retry]\nattempts_max = 2\nbackoff = \"fixed\"\nbackoff_base = \"1ms\"\n",
    )
    .await;
    // The first reset meets a pooled connection, which is replaced without counting an attempt.
    let first = answer(500, &[("x-mine", "a")], "kept");
    world.api.script("/items/1", [first, Step::Reset, Step::Reset]);
    let response = world.get("/api/items/1").await;
    assert_eq!((response.status, response.text()), (500, "kept".to_owned()));
    assert_eq!(response.field("x-mine"), Some("a"));
    assert_eq!(response.field("forbear-attempts"), Some("3"));
}

#[tokio::test]
async fn an_upstreams_retry_after_is_only_ever_raised() {
    let world = World::calm("").await;
    world.api.script(
        "/items/1",
        [
            answer(429, &[("retry-after", "40")], "long"),
            answer(429, &[("retry-after", "3")], "short"),
        ],
    );
    let long = world.ask("GET /api/items/1", &NO_WAIT, b"").await;
    assert_eq!((long.status, long.text()), (429, "long".to_owned()));
    assert!((40..=42).contains(&retry_after(&long)), "{}", long.head);

    // Not parked by the first: another credential, which has heard nothing yet.
    let fields = ["Authorization: Bearer x", "Forbear-Wait: none"];
    let short = world.ask("GET /api/items/1", &fields, b"").await;
    assert_eq!((short.status, short.text()), (429, "short".to_owned()));
    assert!((3..=5).contains(&retry_after(&short)), "{}", short.head);
}

#[tokio::test]
async fn a_forbear_that_shuts_down_refuses_who_waits_and_who_comes_and_lets_the_rest_end() {
    // So short that the time to refuse has come at once.
    let world = World::calm("in_flight_max = 1\n[proxy]\ndrain_timeout = \"2s\"\n").await;
    let release = Arc::new(Notify::new());
    world.api.script("/slow", [Step::Hang(release.clone())]);
    let proxy = world.forbear.proxy();
    let mut held = RawClient::connect(proxy).await;
    held.send(request("GET /api/slow", &[], b"")).await;
    world.api.until("the held request", |seen| seen.requests == 1).await.unwrap();
    let mut queued = RawClient::connect(proxy).await;
    queued.send(request("GET /api/items/1", &[], b"")).await;
    world.forbear.until("one in the queue", |forbear| forbear.view("api").queued == 1).await;
    let World { api, forbear } = world;

    let row = Row {
        code: "draining",
        status: 503,
        error: "proxy_internal_response",
        verdict: "retryable",
        waiting_helps: true,
    };
    let ((), ()) = tokio::join!(forbear.drain(), async {
        let refusal = queued.response().await;
        check(&refusal, &row);
        assert_eq!(retry_after(&refusal), 5);
        let mut newcomer = RawClient::connect(proxy).await;
        check(&newcomer.ask(request("GET /api/items/2", &[], b"")).await, &row);
        release.notify_one();
        assert_eq!(held.response().await.status, 200);
    });
    assert_eq!(api.counters().requests, 1);
}
