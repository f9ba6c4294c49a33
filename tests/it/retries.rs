//! What is sent again: by method, idempotency key, the caller's word, status and bytes sent.

use std::sync::Arc;

use forbear::demo::record::fingerprint;
use forbear::demo::script::Step;

use crate::support::forbear::Forbear;
use crate::support::raw::{End, RawClient};
use crate::support::world::{World, answer, problem, request};

/// Quick repeats, and neither budget nor breaker between a test and what it looks at.
const FREELY: &str = "attempt_timeout = \"300ms\"\n\
     [upstreams.api.retry]\nbackoff = \"fixed\"\nbackoff_base = \"1ms\"\n\
     budget_floor_per_minute = 1000\nreplay_body_max = \"1KiB\"\n\
     [upstreams.api.breaker]\nconsecutive_failures = 0\nfailure_rate = \"off\"\n";

/// What may happen to the first attempt, and how often a safe, an idempotent and an unsafe request
/// then reach the API, which answers everything after that with 200.
fn table() -> Vec<(Step, [usize; 3])> {
    let status = |status: u16| answer(status, &[], "");
    let hinted = |status: u16| answer(status, &[("retry-after-ms", "20")], "");
    vec![
        (hinted(429), [2, 2, 2]),
        (hinted(503), [2, 2, 1]),
        (hinted(403), [2, 2, 2]),
        (status(500), [2, 2, 1]),
        (status(502), [2, 2, 1]),
        (status(503), [2, 2, 1]),
        (status(504), [2, 2, 1]),
        (status(520), [2, 2, 1]),
        (status(408), [2, 2, 1]),
        (status(425), [2, 2, 2]),
        (status(421), [2, 2, 2]),
        (Step::Reset, [2, 2, 1]),
        (Step::CloseBeforeHead, [2, 2, 1]),
        (Step::Hang(Arc::default()), [2, 2, 1]),
        (status(400), [1, 1, 1]),
        (status(401), [1, 1, 1]),
        (status(403), [1, 1, 1]),
        (status(404), [1, 1, 1]),
        (status(409), [1, 1, 1]),
        (status(422), [1, 1, 1]),
        (status(501), [1, 1, 1]),
        (status(505), [1, 1, 1]),
        (Step::Truncate, [1, 1, 1]),
    ]
}

/// Method, fields, and which column of the table holds for it.
const REQUESTS: [(&str, &[&str], usize); 10] = [
    ("GET", &[], 0),
    ("OPTIONS", &[], 0),
    ("PUT", &[], 1),
    ("DELETE", &[], 1),
    ("POST", &["Idempotency-Key: k-1"], 1),
    ("PATCH", &["Idempotency-Key: k-2"], 1),
    ("POST", &["Forbear-Retry: idempotent"], 1),
    ("POST", &[], 2),
    ("PATCH", &[], 2),
    ("PURGE", &[], 2),
];

#[tokio::test]
async fn each_request_is_repeated_as_its_method_its_key_and_its_caller_permit() {
    for (step, expected) in table() {
        let world = World::calm(FREELY).await;
        for (number, (method, fields, column)) in REQUESTS.iter().enumerate() {
            let path = format!("/items/{number}");
            world.api.script(&path, [step.clone()]);
            let mut client = RawClient::connect(world.forbear.proxy()).await;
            let body = format!("body of {method}");
            client.send(request(&format!("{method} /api{path}"), fields, body.as_bytes())).await;
            if matches!(step, Step::Truncate) {
                client.rest().await;
            } else {
                client.response().await;
            }
            let seen: Vec<_> =
                world.api.log().into_iter().filter(|record| record.target == path).collect();
            assert_eq!(seen.len(), expected[*column], "{method} {fields:?} after {step:?}");
            for record in &seen {
                let sent = Some((body.len(), fingerprint(body.as_bytes())));
                assert_eq!(record.body, sent, "{method} after {step:?}");
                assert_eq!(record.idempotency_key(), seen[0].idempotency_key());
                assert_eq!(record.field("forbear-retry"), None, "it is for forbear alone");
            }
        }
    }
}

#[tokio::test]
async fn a_caller_that_says_off_gets_one_attempt_and_safe_means_safe_methods_alone() {
    let refused = answer(429, &[("retry-after-ms", "1")], "");
    for (method, wish, expected) in [
        ("GET", "off", 1),
        ("PUT", "off", 1),
        ("POST", "off", 1),
        ("GET", "safe", 2),
        ("PUT", "safe", 1),
        ("POST", "safe", 1),
    ] {
        for step in [refused.clone(), answer(500, &[], "")] {
            let world = World::calm(FREELY).await;
            world.api.script("/items/1", [step]);
            let wish = format!("Forbear-Retry: {wish}");
            world.ask(&format!("{method} /api/items/1"), &[&wish], b"").await;
            assert_eq!(world.hits("/items/1"), expected, "{method} {wish}");
        }
    }
}

#[tokio::test]
async fn what_was_not_sent_is_sent_again_whatever_the_method() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let forbear = Forbear::start(&format!("[upstreams.api]\nurl = \"http://{closed}\"\n{FREELY}"));
    for method in ["GET", "PUT", "POST"] {
        let mut client = RawClient::connect(forbear.proxy()).await;
        let refusal = client.ask(request(&format!("{method} /api/x"), &[], b"1")).await;
        assert_eq!(refusal.field("forbear-attempts"), Some("4"), "{method}");
        let body = problem(&refusal);
        assert_eq!(body["code"], "upstream_unreachable");
        let attempts = body["attempts"].as_array().unwrap();
        assert!(attempts.iter().all(|attempt| attempt["sent"] == "nothing"), "{body}");
    }
}

#[tokio::test]
async fn a_body_is_sent_again_byte_for_byte_however_it_was_framed() {
    let body: Vec<u8> = (0..=255).rev().cycle().take(1_000).collect();
    let mut chunked =
        b"PUT /api/items/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for piece in body.chunks(77) {
        chunked.extend(format!("{:x}\r\n", piece.len()).bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    for whole in [request("PUT /api/items/1", &[], &body), chunked] {
        let world = World::calm(FREELY).await;
        world.api.script("/items/1", [Step::Reset, answer(500, &[], ""), answer(502, &[], "")]);
        let mut client = RawClient::connect(world.forbear.proxy()).await;
        assert_eq!(client.ask(whole).await.status, 200);
        let log = world.api.log();
        assert_eq!(log.len(), 4);
        for record in &log {
            assert_eq!(record.body, Some((body.len(), fingerprint(&body))));
        }
    }
}

#[tokio::test]
async fn a_body_over_the_bound_streams_through_once_and_is_never_repeated() {
    let body = vec![b'x'; 200_000];
    for step in [answer(500, &[], "no"), answer(429, &[("retry-after-ms", "1")], "no")] {
        let world = World::calm(FREELY).await;
        world.api.script("/items/1", [step]);
        let response = world.ask("PUT /api/items/1", &[], &body).await;
        assert_eq!(response.text(), "no");
        assert_eq!(response.field("forbear-decision"), Some("body_not_replayable"));
        let log = world.api.log();
        assert_eq!(log.len(), 1);
        assert_eq!(log[0].body, Some((body.len(), fingerprint(&body))));
    }
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_repeated_and_never_looks_complete() {
    let world = World::calm(FREELY).await;
    world.api.script("/items/1", [Step::Truncate]);
    let mut client = RawClient::connect(world.forbear.proxy()).await;
    client.send(request("GET /api/items/1", &[], b"")).await;
    let (bytes, end) = client.rest().await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.to_lowercase().contains("content-length: 1000"), "{text}");
    assert!(bytes.len() < 1_000, "{text}");
    assert!(matches!(end, End::Eof | End::Reset));
    assert_eq!(world.hits("/items/1"), 1);
}

#[tokio::test]
async fn an_api_that_fails_for_good_is_hardly_asked_more_than_without_forbear() {
    let world = World::calm(
        "[upstreams.api.retry]\nbackoff = \"fixed\"\nbackoff_base = \"1ms\"\n\
         [upstreams.api.breaker]\nconsecutive_failures = 0\nfailure_rate = \"off\"\n",
    )
    .await;
    let mut last = String::new();
    for _ in 0..60 {
        let response = world.get("/api/status/500").await;
        last = response.field("forbear-decision").unwrap().to_owned();
    }
    assert_eq!(last, "retry_budget_exhausted");
    let seen = world.api.counters().requests;
    assert!((61..=60 + 60 / 5 + 10).contains(&seen), "60 requests became {seen}");
}

#[tokio::test]
async fn a_request_without_a_key_is_given_one_where_that_is_wanted_and_the_same_on_every_attempt() {
    let generate = format!("{FREELY}[defaults.retry]\nidempotency_key = \"generate\"\n");
    for (rest, attempts) in [(FREELY, 1), (generate.as_str(), 3)] {
        let world = World::calm(rest).await;
        let steps = [500, 502, 200].map(|status| answer(status, &[], ""));
        world.api.script("/pay", steps);
        let first = world.ask("POST /api/pay", &[], b"5 coins").await;
        let log = world.api.log();
        assert_eq!(log.len(), attempts);
        if attempts == 1 {
            assert_eq!((first.status, log[0].idempotency_key()), (500, None));
            assert_eq!(first.field("forbear-idempotency-key"), None);
            continue;
        }
        assert_eq!(first.status, 200, "{}", first.head);
        let key = first.field("forbear-idempotency-key").unwrap();
        assert_eq!(key.len(), 36, "{key}");
        assert!(log.iter().all(|record| record.idempotency_key() == Some(key)), "{log:?}");

        // The next exchange has another one; a client's own is left alone; a GET needs none.
        let second = world.ask("PATCH /api/x", &[], b"").await;
        assert_ne!(second.field("forbear-idempotency-key"), Some(key));
        let own = world.ask("POST /api/x", &["Idempotency-Key: mine"], b"").await;
        let get = world.get("/api/x").await;
        for untouched in [own, get] {
            assert_eq!(untouched.field("forbear-idempotency-key"), None, "{}", untouched.head);
        }
        let sent: Vec<_> =
            world.api.log().iter().map(|it| it.idempotency_key().map(str::to_owned)).collect();
        assert_eq!(sent[4..], [Some("mine".to_owned()), None]);
        assert_eq!(sent[3].as_deref(), second.field("forbear-idempotency-key"));

        // Also told with a refusal: whether it was done is then the client's to find out.
        world.api.script("/gone", std::iter::repeat_with(|| Step::Reset).take(8));
        let refused = world.ask("POST /api/gone", &[], b"").await;
        assert_eq!(problem(&refused)["code"], "retries_exhausted");
        let key = refused.field("forbear-idempotency-key");
        assert!(key.is_some() && world.api.log().last().unwrap().idempotency_key() == key);
    }
}
