//! Thirty-two clients that know nothing of each other against APIs that limit and fail.
//!
//! Nothing is lost, nobody is locked out, and what the API refuses is a small share. Requests that
//! were on their way when the API first said "wait" are unavoidable: they reach it together with
//! the first, within [`ON_THE_WAY`]; any refused later in the same pause broke the promise.

use std::time::{Duration, Instant};

use forbear::demo::api::FakeApi;
use forbear::demo::hints::Hints;
use forbear::demo::limiter::Limiter;
use forbear::demo::settings::{ApiSettings, Outage};
use tokio::task::JoinSet;

use crate::support::raw::RawClient;
use crate::support::world::{World, answer, request};

const CLIENTS: u32 = 32;

/// How long an answer takes from the API to forbear's decision at most, on a busy machine.
const ON_THE_WAY: Duration = Duration::from_millis(100);

/// The job: every client asks for its items one after the other. All answers must be good.
async fn everything_arrives(settings: ApiSettings, per_client: u32, rest: &str) -> World {
    let world = World::start(settings, rest).await;
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let proxy = world.forbear.proxy();
        clients.spawn(async move {
            let mut client = RawClient::connect(proxy).await;
            for item in 0..per_client {
                let line = format!("GET /api/items/{}", number * per_client + item);
                let answer = client.ask(request(&line, &[], b"")).await;
                assert_eq!(answer.status, 200, "{line}: {answer:?}");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let seen = world.api.counters();
    println!("{seen:?} after {:?}", started.elapsed());
    assert_eq!(seen.good, CLIENTS * per_client, "each item once");
    world
}

/// The API's own count of what it refused.
fn refusals_are_few(api: &FakeApi) {
    let seen = api.counters();
    assert!(seen.refused * 10 <= seen.good, "more than a tenth was refused: {seen:?}");
    let mut first_of_pause: Option<Duration> = None;
    let mut on_the_way = 0;
    for record in api.log().iter().filter(|record| record.status == Some(429)) {
        match first_of_pause {
            Some(first) if record.at < first + ON_THE_WAY => on_the_way += 1,
            Some(_) | None => first_of_pause = Some(record.at),
        }
    }
    assert!(
        seen.refused_during_pause <= on_the_way,
        "refused in a pause though only {on_the_way} were on their way: {seen:?}"
    );
}

fn limited(limiter: Limiter, hints: Hints) -> ApiSettings {
    ApiSettings { limiter, hints, latency: Duration::from_millis(5), ..ApiSettings::default() }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_fixed_window_that_tells_seconds_loses_nothing() {
    let limiter = Limiter::FixedWindow { limit: 150, window: SECOND };
    let world = everything_arrives(limited(limiter, Hints::RetryAfterSeconds), 12, "").await;
    refusals_are_few(&world.api);
}

#[tokio::test]
async fn a_fixed_window_that_tells_milliseconds_loses_nothing() {
    let limiter = Limiter::FixedWindow { limit: 150, window: SECOND };
    let world = everything_arrives(limited(limiter, Hints::RetryAfterMs), 12, "").await;
    refusals_are_few(&world.api);
}

#[tokio::test]
async fn a_fixed_window_with_quota_fields_loses_nothing() {
    let limiter = Limiter::FixedWindow { limit: 150, window: SECOND };
    let world = everything_arrives(limited(limiter, Hints::RateLimitFields), 12, "").await;
    refusals_are_few(&world.api);
}

#[tokio::test]
async fn a_token_bucket_that_tells_milliseconds_loses_nothing() {
    let limiter = Limiter::TokenBucket { rate_per_s: 100, burst: 50 };
    let world = everything_arrives(limited(limiter, Hints::RetryAfterMs), 10, "").await;
    refusals_are_few(&world.api);
}

#[tokio::test]
async fn a_token_bucket_that_tells_seconds_loses_nothing() {
    let limiter = Limiter::TokenBucket { rate_per_s: 100, burst: 50 };
    let world = everything_arrives(limited(limiter, Hints::RetryAfterSeconds), 8, "").await;
    refusals_are_few(&world.api);
}

#[tokio::test]
async fn a_bare_429_above_four_at_once_loses_nothing() {
    let limiter = Limiter::Concurrency { limit: 4 };
    let world = everything_arrives(limited(limiter, Hints::None), 12, "").await;
    let seen = world.api.counters();
    assert!(seen.refused * 10 <= seen.good, "more than a tenth was refused: {seen:?}");
}

#[tokio::test]
async fn an_api_that_lengthens_the_pause_for_each_request_in_it_never_locks_anyone_out() {
    let penalty = Duration::from_millis(50);
    let limiter = Limiter::Punishing { limit: 150, window: SECOND, penalty };
    for hints in [Hints::RetryAfterMs, Hints::RateLimitFields] {
        let world = everything_arrives(limited(limiter, hints), 8, "").await;
        refusals_are_few(&world.api);
    }
}

#[tokio::test]
async fn two_seconds_of_outage_lose_nothing() {
    // A reset of a pooled connection may mean that alone, so it is tried once more on a new one.
    for (outage, tries) in [(Outage::Unavailable, 1), (Outage::Reset, 2)] {
        let settings = ApiSettings {
            latency: Duration::from_millis(20),
            outages: vec![Duration::from_millis(200)..Duration::from_millis(2_200)],
            outage,
            ..ApiSettings::default()
        };
        let rest = "[upstreams.api.breaker]\nopen_for = \"500ms\"\nopen_for_max = \"1s\"\n";
        let world = everything_arrives(settings, 10, rest).await;
        let seen = world.api.counters();
        let wasted = seen.failed + seen.resets;
        // Those that were on their way (16 places in flight, each with a pooled connection that is
        // found dead), and a few probes. Without a breaker it would be thousands.
        let unavoidable = tries * (16 + 24);
        assert!(wasted <= unavoidable, "an API that was down was asked {wasted} times: {seen:?}");
    }
}

#[tokio::test]
async fn one_wrong_date_does_not_move_a_moment_that_is_named() {
    let world = World::calm("").await;
    // The clock of this API is years behind, as all of its answers agree.
    let date = ("date", "Fri, 01 Jan 2010 00:00:00 GMT");
    let quota = [
        ("x-ratelimit-limit", "100"),
        ("x-ratelimit-remaining", "90"),
        ("x-ratelimit-reset", "1262304060"),
    ];
    let usual = || answer(200, &[&[date][..], &quota].concat(), "");
    world.api.script("/usual", [usual(), usual(), usual()]);
    for _ in 0..3 {
        assert_eq!(world.get("/api/usual").await.status, 200);
    }
    let wrong = ("date", "Thu, 31 Dec 2009 00:00:00 GMT");
    let refusal = answer(429, &[wrong, ("retry-after", date.1)], "");
    world.api.script("/limited", [refusal, usual()]);

    let response = world.get("/api/limited").await;

    // By its own date it would have to wait for a day.
    assert_eq!((response.status, response.field("forbear-attempts")), (200, Some("2")));
}
