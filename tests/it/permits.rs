//! Places in flight and in the queue: freed when their client leaves, and no request sent twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forbear::demo::record::fingerprint;
use forbear::demo::script::Step;
use tokio::sync::Notify;

use crate::support::forbear::Forbear;
use crate::support::raw::{Move, RawClient, RawOrigin};
use crate::support::world::{World, answer, client_process, request, waited_ms};

/// One request at a time, so that a permit that is not freed is noticed by the next request.
const ONE: &str = "in_flight_max = 1\n";

/// The promise; measured from just before the client ends.
const FREED_WITHIN: Duration = Duration::from_millis(100);

/// A world whose only permit is held by a request that hangs for ever.
async fn held() -> World {
    let world = World::calm(ONE).await;
    world.api.script("/slow", [Step::Hang(Arc::default())]);
    world
}

/// Waits until the hanging request is at the API and another one waits behind it.
async fn with_one_behind(world: &World) -> RawClient {
    world.api.until("the held request", |seen| seen.requests == 1).await.unwrap();
    let mut behind = RawClient::connect(world.forbear.proxy()).await;
    behind.send(request("GET /api/items/1", &[], b"")).await;
    world.forbear.until("one in the queue", |forbear| forbear.view("api").queued == 1).await;
    behind
}

#[tokio::test]
async fn a_client_that_is_killed_frees_its_permit_within_100_ms() {
    let world = held().await;
    let mut killed = client_process(world.forbear.proxy(), "GET /api/slow", &[]);
    let mut behind = with_one_behind(&world).await;
    let started = Instant::now();
    killed.kill().unwrap();
    assert_eq!(behind.response().await.status, 200);
    let took = started.elapsed();
    assert!(took < FREED_WITHIN, "the permit was free after {took:?}");
    killed.wait().unwrap();
}

#[tokio::test]
async fn a_client_whose_connection_is_reset_frees_its_permit_within_100_ms() {
    let world = held().await;
    let mut leaving = RawClient::connect(world.forbear.proxy()).await;
    leaving.send(request("GET /api/slow", &[], b"")).await;
    let mut behind = with_one_behind(&world).await;
    let started = Instant::now();
    leaving.reset();
    assert_eq!(behind.response().await.status, 200);
    let took = started.elapsed();
    assert!(took < FREED_WITHIN, "the permit was free after {took:?}");
}

#[tokio::test]
async fn a_queued_client_that_leaves_is_removed_from_the_queue_and_never_sent() {
    let world = World::calm(ONE).await;
    let release = Arc::new(Notify::new());
    world.api.script("/slow", [Step::Hang(release.clone())]);
    let mut first = RawClient::connect(world.forbear.proxy()).await;
    first.send(request("GET /api/slow", &[], b"")).await;
    let leaving = with_one_behind(&world).await;
    leaving.reset();
    world.forbear.until("an empty queue", |forbear| forbear.view("api").queued == 0).await;
    release.notify_one();
    assert_eq!(first.response().await.status, 200);
    assert_eq!(world.get("/api/items/2").await.status, 200);
    assert_eq!(world.hits("/items/1"), 0);
}

#[tokio::test]
async fn a_client_that_leaves_during_backoff_causes_no_further_attempt() {
    let world =
        World::calm("[upstreams.api.retry]\nbackoff = \"fixed\"\nbackoff_base = \"300ms\"\n").await;
    let mut leaving = RawClient::connect(world.forbear.proxy()).await;
    leaving.send(request("GET /api/status/500", &[], b"")).await;
    world.api.until("the first attempt", |seen| seen.failed == 1).await.unwrap();
    world.forbear.until("the back-off", |forbear| forbear.view("api").in_flight == 0).await;
    leaving.reset();
    let over = |forbear: &Forbear| {
        forbear.metrics().lines().any(|line| {
            line.starts_with("forbear_requests_total{")
                && line.contains("outcome=\"client_disconnect\"")
                && line.ends_with(" 1")
        })
    };
    world.forbear.until("the end of the exchange", over).await;
    // Longer than the wait that the exchange had left.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.api.counters().requests, 1);
}

#[tokio::test]
async fn a_post_whose_answer_was_lost_is_not_sent_twice() {
    for lost in [Step::ResetAfterEffect, Step::CloseBeforeHead, Step::Reset] {
        let world = World::calm("").await;
        world.api.script("/items", [lost.clone()]);
        let answer = world.ask("POST /api/items", &[], b"one").await;
        assert_eq!(answer.status, 502, "{lost:?}: {answer:?}");
        assert_eq!(answer.field("forbear-attempts"), Some("1"));
        assert_eq!(world.api.counters().requests, 1, "{lost:?}");
        assert!(world.api.side_effects(b"one") <= 1);
    }
}

#[tokio::test]
async fn a_post_refused_with_429_is_sent_again_with_the_same_bytes() {
    let world = World::calm("").await;
    world.api.script("/items", [answer(429, &[("retry-after-ms", "200")], "slow down")]);
    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let response = world.ask("POST /api/items", &["X-Mine: 1"], &body).await;
    assert_eq!(response.status, 201);
    assert_eq!(response.field("forbear-decision"), Some("retried"));
    assert!(waited_ms(&response, "cooldown") >= 200, "{}", response.head);
    let log = world.api.log();
    assert_eq!(log.len(), 2);
    for record in &log {
        assert_eq!(record.body, Some((body.len(), fingerprint(&body))));
        assert_eq!(record.field("x-mine"), Some("1"));
    }
    assert!(log[1].at - log[0].at >= Duration::from_millis(199), "never earlier than told");
    assert_eq!(world.api.side_effects(&body), 1);
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// An origin whose first connection ends after one answer as `end` says; the second one is well.
async fn origin_that_closes(end: [Move; 2]) -> (RawOrigin, Forbear, RawClient) {
    let mut first = vec![Move::AwaitHead, Move::text(OK)];
    first.extend(end);
    let second = vec![Move::AwaitHead, Move::text(OK), Move::AwaitEof];
    let origin = RawOrigin::start(vec![first, second]).await;
    let forbear = Forbear::start(&format!("[upstreams.api]\nurl = \"{}\"\n", origin.url()));
    let mut client = RawClient::connect(forbear.proxy()).await;
    assert_eq!(client.ask(request("GET /api/warm", &[], b"")).await.status, 200);
    (origin, forbear, client)
}

#[tokio::test]
async fn a_post_after_a_pooled_connection_died_is_sent_exactly_once_and_succeeds() {
    let closing = Arc::new(Notify::new());
    let end = [Move::AwaitRelease(closing.clone()), Move::Close];
    let (origin, forbear, mut client) = origin_that_closes(end).await;
    closing.notify_one();
    let forgotten = |forbear: &Forbear| forbear.view("api").connections == 0;
    forbear.until("the end of the pooled connection", forgotten).await;
    let response = client.ask(request("POST /api/items", &[], b"one")).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert!(!origin.received_text(0).contains("POST"));
    assert_eq!(origin.received_text(1).matches("POST").count(), 1);
}

#[tokio::test]
async fn a_post_that_met_the_end_of_a_pooled_connection_is_not_repeated_but_a_get_is() {
    for (line, status) in [("POST /api/items", 502), ("GET /api/items", 200)] {
        let end = [Move::AwaitText("\r\n\r\n"), Move::Close];
        let (origin, _forbear, mut client) = origin_that_closes(end).await;
        let response = client.ask(request(line, &[], b"one")).await;
        assert_eq!(response.status, status, "{line}: {response:?}");
        let all = format!("{}{}", origin.received_text(0), origin.received_text(1));
        let sent = all.matches(" /items HTTP/1.1").count();
        assert_eq!(sent, if status == 502 { 1 } else { 2 }, "{all}");
    }
}
