//! Waits that would end too late are not started, and an upstream's word is never shortened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forbear::demo::script::Step;
use tokio::sync::Notify;

use crate::support::forbear::Forbear;
use crate::support::raw::{Move, RawClient, RawOrigin};
use crate::support::world::{World, answer, problem, request, retry_after, waited_ms};

/// Enough for an answer that needs no wait, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A world whose upstream has just asked for 30 s of silence, on all routes of one credential.
async fn parked(rest: &str) -> World {
    let world = World::calm(rest).await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "30")], "")]);
    let first = world.ask("GET /api/items/1", &["Forbear-Wait: none"], b"").await;
    assert_eq!(first.status, 429);
    assert_eq!(first.field("forbear-decision"), Some("deadline_too_near"));
    assert!(retry_after(&first) >= 30);
    world
}

#[tokio::test]
async fn whoever_cannot_wait_that_long_is_refused_at_once_with_the_truth() {
    for limit in [
        "Forbear-Wait: none",
        "Forbear-Wait: 20s",
        "Forbear-Deadline: 20s",
        "Forbear-Deadline: 1500ms",
        "x-stainless-read-timeout: 10",
    ] {
        let world = parked("").await;
        let started = Instant::now();
        let refusal = world.ask("GET /api/items/2", &[limit], b"").await;
        assert!(started.elapsed() < AT_ONCE, "{limit}: refused after {:?}", started.elapsed());
        assert_eq!(refusal.status, 429, "{limit}: {refusal:?}");
        let body = problem(&refusal);
        assert_eq!(body["code"], "cooldown", "{limit}");
        assert_eq!(body["hint"]["source"], "retry-after", "{limit}");
        let told = body["retry_after_ms"].as_u64().unwrap();
        assert!((28_000..=32_000).contains(&told), "{limit}: {told}");
        assert_eq!(waited_ms(&refusal, ""), 0, "{limit}");
        assert_eq!(world.api.counters().requests, 1, "{limit}");
    }
}

#[tokio::test]
async fn a_max_wait_shorter_than_the_hint_refuses_at_once() {
    let world = parked("max_wait = \"10s\"\n").await;
    let started = Instant::now();
    let refusal = world.get("/api/items/2").await;
    assert!(started.elapsed() < AT_ONCE);
    assert_eq!(problem(&refusal)["code"], "cooldown");
}

#[tokio::test]
async fn a_backoff_that_would_end_after_the_deadline_is_not_started() {
    let world =
        World::calm("[upstreams.api.retry]\nbackoff = \"fixed\"\nbackoff_base = \"5s\"\n").await;
    for limit in ["Forbear-Deadline: 3s", "Forbear-Wait: none", "Forbear-Wait: 4s"] {
        let started = Instant::now();
        let response = world.ask("GET /api/status/500", &[limit], b"").await;
        assert!(started.elapsed() < AT_ONCE, "{limit}");
        assert_eq!(response.status, 500, "{limit}: the upstream's own word");
        assert_eq!(response.field("forbear-decision"), Some("deadline_too_near"), "{limit}");
        assert_eq!(response.field("forbear-attempts"), Some("1"), "{limit}");
    }
}

#[tokio::test]
async fn an_attempt_ends_with_the_deadline_and_says_so() {
    let world = World::calm("").await;
    world.api.script("/slow", [Step::Hang(Arc::default())]);
    let started = Instant::now();
    let refusal = world.ask("GET /api/slow", &["Forbear-Deadline: 500ms"], b"").await;
    let took = started.elapsed();
    assert_eq!(refusal.status, 504, "{refusal:?}");
    assert_eq!(problem(&refusal)["code"], "deadline");
    let bounds = Duration::from_millis(440)..Duration::from_millis(900);
    assert!(bounds.contains(&took), "nine tenths of 500 ms, but it took {took:?}");
}

#[tokio::test]
async fn a_place_in_the_queue_is_given_up_when_the_wait_is_over() {
    let world = World::calm("in_flight_max = 1\n").await;
    let release = Arc::new(Notify::new());
    world.api.script("/slow", [Step::Hang(release.clone())]);
    let mut first = RawClient::connect(world.forbear.proxy()).await;
    first.send(request("GET /api/slow", &[], b"")).await;
    world.api.until("the held request", |seen| seen.requests == 1).await.unwrap();
    let started = Instant::now();
    let refusal = world.ask("GET /api/items/1", &["Forbear-Wait: 200ms"], b"").await;
    let took = started.elapsed();
    assert_eq!(problem(&refusal)["code"], "queue_timeout");
    assert!((Duration::from_millis(199)..AT_ONCE).contains(&took), "{took:?}");
    assert!((199..500).contains(&waited_ms(&refusal, "queue")), "{}", refusal.head);
    release.notify_one();
    assert_eq!(first.response().await.status, 200);
}

#[tokio::test]
async fn nothing_is_sent_before_the_moment_that_was_told() {
    let world = World::calm("").await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "1")], "")]);
    let (first, behind) = tokio::join!(world.get("/api/items/1"), async {
        let parked = |forbear: &Forbear| !forbear.view("api").cooldowns.is_empty();
        world.forbear.until("the cooldown", parked).await;
        world.get("/api/items/2").await
    });
    for response in [&first, &behind] {
        assert_eq!(response.status, 200);
        assert!(waited_ms(response, "cooldown") > 800, "{}", response.head);
    }
    let log = world.api.log();
    assert_eq!(log.len(), 3);
    for later in &log[1..] {
        let gap = later.at - log[0].at;
        assert!(gap >= Duration::from_secs(1), "{} came {gap:?} after the word", later.target);
    }
}

#[tokio::test]
async fn a_shorter_word_that_comes_later_shortens_nothing() {
    let refused = |field: &str| {
        Move::text(&format!("HTTP/1.1 429 No\r\n{field}\r\nContent-Length: 0\r\n\r\n"))
    };
    let good = [Move::AwaitHead, Move::text("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")];
    let releases = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let script = |word: &str, release: &Arc<Notify>| {
        let mut moves = vec![Move::AwaitHead, Move::AwaitRelease(release.clone()), refused(word)];
        moves.extend(good.iter().chain(&good).cloned());
        moves
    };
    let origin = RawOrigin::start(vec![
        script("Retry-After: 1", &releases[0]),
        script("Retry-After-Ms: 1", &releases[1]),
        good.to_vec(),
    ])
    .await;
    let forbear = Forbear::start(&format!("[upstreams.api]\nurl = \"{}\"\n", origin.url()));
    let mut clients = Vec::new();
    for number in 0..2 {
        let mut client = RawClient::connect(forbear.proxy()).await;
        client.send(request("GET /api/x", &[], b"")).await;
        origin.until_received(number, "\r\n\r\n").await;
        clients.push(client);
    }
    let told = Instant::now();
    releases[0].notify_one();
    forbear.until("the cooldown", |forbear| !forbear.view("api").cooldowns.is_empty()).await;
    releases[1].notify_one();
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
        assert!(told.elapsed() >= Duration::from_secs(1), "after {:?}", told.elapsed());
    }
}

#[tokio::test]
async fn one_hint_parks_its_route_and_its_credential_and_nothing_else() {
    let world = World::calm(
        "[[upstreams.api.routes]]\nname = \"items\"\nmatch = \"GET /items/*\"\n\
         [[upstreams.api.routes]]\nname = \"echo\"\nmatch = \"GET /echo\"\n",
    )
    .await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "30")], "")]);
    let mine = ["Authorization: Bearer mine", "Forbear-Wait: none"];
    let other = ["Authorization: Bearer other", "Forbear-Wait: none"];
    assert_eq!(world.ask("GET /api/items/1", &mine, b"").await.status, 429);

    let covered = world.ask("GET /api/items/2", &mine, b"").await;
    assert_eq!(problem(&covered)["code"], "cooldown");
    assert!(!covered.text().contains("Bearer"), "a secret has no place in a refusal");
    assert_eq!(world.ask("GET /api/items/2", &other, b"").await.status, 200);
    assert_eq!(world.ask("GET /api/echo", &mine, b"").await.status, 200);
    assert_eq!(world.ask("GET /api/echo", &other, b"").await.status, 200);
    assert_eq!(world.hits("/items/2"), 1);
}
