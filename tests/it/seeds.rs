//! The cases that forbear was made for, each as its own promise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::forbear::Forbear;
use crate::support::raw::RawClient;
use crate::support::world::{World, client_process, printed, problem, request, retry_after};

/// Three failures in a row open the breaker, and no retry hides one.
const THREE_FAILURES: &str = "[upstreams.api.retry]\nattempts_max = 1\n\
     [upstreams.api.breaker]\nconsecutive_failures = 3\nopen_for = \"60s\"\n";

#[tokio::test]
async fn one_failure_in_each_of_three_processes_opens_the_breaker_for_all() {
    let world = World::calm(THREE_FAILURES).await;
    for _ in 0..3 {
        assert_eq!(world.breaker(), "closed");
        let client = client_process(world.forbear.proxy(), "GET /api/status/500", &[]);
        let answer = printed(client).await;
        assert!(answer.contains("HTTP/1.1 500"), "{answer}");
    }
    assert_eq!(world.breaker(), "open");
    let client = client_process(world.forbear.proxy(), "GET /api/items/1", &["Forbear-Wait: none"]);
    let answer = printed(client).await;
    assert!(answer.contains("\"code\":\"breaker_open\""), "{answer}");
    assert_eq!(world.api.counters().requests, 3, "the fourth process never reached the API");
}

#[tokio::test]
async fn answers_of_503_open_the_breaker_though_no_client_raises() {
    let world = World::calm(THREE_FAILURES).await;
    let mut client = RawClient::connect(world.forbear.proxy()).await;
    for _ in 0..3 {
        let answer = client.ask(request("GET /api/status/503", &[], b"")).await;
        assert_eq!((answer.status, answer.text()), (503, "{\"status\":503}".to_owned()));
    }
    assert_eq!(world.breaker(), "open");
}

#[tokio::test]
async fn five_attempts_with_a_fixed_wait_reach_a_failing_api_exactly_five_times() {
    let world = World::calm(
        "[upstreams.api.retry]\nattempts_max = 5\nbackoff = \"fixed\"\nbackoff_base = \"150ms\"\n",
    )
    .await;
    let answer = world.get("/api/status/500").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.field("forbear-attempts"), Some("5"));
    assert_eq!(answer.field("forbear-decision"), Some("attempts_spent"));
    let times: Vec<Duration> = world.api.log().iter().map(|record| record.at).collect();
    assert_eq!(times.len(), 5);
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap >= Duration::from_millis(149), "an attempt came after {gap:?}");
    }
}

#[tokio::test]
async fn requests_with_the_same_key_never_overlap_and_those_without_do() {
    let settings = ApiSettings { latency: Duration::from_millis(20), ..ApiSettings::default() };
    let world = World::start(settings, "[keys.ingestion]\nin_flight_max = 1\n").await;
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let proxy = world.forbear.proxy();
        clients.spawn(async move {
            let mut client = RawClient::connect(proxy).await;
            for _ in 0..10 {
                let fields = ["Forbear-Key: ingestion"];
                let answer = client.ask(request("GET /api/items/1", &fields, b"")).await;
                assert_eq!(answer.status, 200);
            }
        });
    }
    clients.join_all().await;
    assert_eq!(world.api.counters().overlap_max, 1);
    assert_eq!(world.api.counters().good, 20);

    let release = Arc::new(Notify::new());
    world.api.script("/items/2", [Step::Hang(release.clone())]);
    let (held, ()) = tokio::join!(world.get("/api/items/2"), async {
        world.api.until("the held one", |seen| seen.requests == 21).await.unwrap();
        assert_eq!(world.get("/api/items/1").await.status, 200);
        release.notify_one();
    });
    assert_eq!(held.status, 200);
    assert_eq!(world.api.counters().overlap_max, 2, "the API itself lets requests overlap");
}

#[tokio::test]
async fn three_upstreams_share_one_process_limit() {
    let settings = ApiSettings { latency: Duration::from_millis(10), ..ApiSettings::default() };
    let api = FakeApi::start(settings).await.unwrap();
    let upstreams: String = ["a", "b", "c"]
        .map(|name| format!("[upstreams.{name}]\nurl = \"{}\"\n", api.url()))
        .concat();
    let forbear = Forbear::start(&format!("{upstreams}[limits]\nin_flight_max = 1\n"));
    let mut clients = JoinSet::new();
    for name in ["a", "b", "c", "a", "b", "c"] {
        let proxy = forbear.proxy();
        clients.spawn(async move {
            let mut client = RawClient::connect(proxy).await;
            for _ in 0..5 {
                let line = format!("GET /{name}/items/1");
                assert_eq!(client.ask(request(&line, &[], b"")).await.status, 200);
            }
        });
    }
    clients.join_all().await;
    assert_eq!(api.counters().overlap_max, 1);
    assert_eq!(api.counters().good, 30, "and nobody starves");
}

#[tokio::test]
async fn a_clients_own_mistake_is_never_repeated_and_never_counts_as_a_failure() {
    let world = World::calm(
        "[upstreams.api.breaker]\nconsecutive_failures = 2\nsamples_min = 2\nfailure_rate = 0.1\n",
    )
    .await;
    for status in [400, 422] {
        for _ in 0..5 {
            let answer = world.get(&format!("/api/status/{status}")).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.field("forbear-attempts"), Some("1"));
            assert_eq!(answer.field("forbear-verdict"), Some("permanent"));
        }
        assert_eq!(world.hits(&format!("/status/{status}")), 5);
    }
    let view = world.forbear.view("api");
    let breaker = view.breaker.first().unwrap();
    assert_eq!((breaker.state.name(), breaker.failure_ratio), ("closed", 0.0));
}

#[tokio::test]
async fn a_refusal_names_when_to_come_back_and_who_comes_then_is_let_through() {
    let world = World::calm(
        "[upstreams.api.retry]\nattempts_max = 1\n\
         [upstreams.api.breaker]\nconsecutive_failures = 1\nopen_for = \"1200ms\"\n",
    )
    .await;
    assert_eq!(world.get("/api/status/500").await.status, 500);
    let refused_at = Instant::now();
    let refusal = world.ask("GET /api/items/1", &["Forbear-Wait: none"], b"").await;
    let answered_at = Instant::now();
    let told_ms = problem(&refusal)["retry_after_ms"].as_u64().unwrap();
    assert_eq!(refusal.status, 503);
    assert_eq!(retry_after(&refusal), told_ms.div_ceil(1000), "the field is rounded up");
    assert!((700..=1_500).contains(&told_ms), "open for 1.2 s with a jitter of a fifth: {told_ms}");

    let early = refused_at + Duration::from_millis(told_ms / 2);
    tokio::time::sleep_until(early.into()).await;
    assert_eq!(world.ask("GET /api/items/1", &["Forbear-Wait: none"], b"").await.status, 503);

    tokio::time::sleep_until(
        // It counts from when the refusal was written, which was before it was here.
        (answered_at + Duration::from_millis(told_ms)).into(),
    )
    .await;
    let answer = world.ask("GET /api/items/1", &["Forbear-Wait: none"], b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
