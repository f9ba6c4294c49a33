//! The fake API, spoken to over its socket.

use tokio::sync::Notify;

use super::*;
use crate::demo::client::{Client, ClientError};
use crate::demo::hints::Hints;
use crate::demo::limiter::Limiter;
use crate::demo::settings::Faults;

async fn api(settings: ApiSettings) -> (FakeApi, Client) {
    let api = FakeApi::start(settings).await.expect("a loopback port is free");
    let client = Client::new(&api.url()).expect("the API's URL is one");
    (api, client)
}

async fn get(client: &mut Client, path: &str) -> Result<http::Response<Bytes>, ClientError> {
    client.send(Method::GET, path, Bytes::new()).await
}

fn window(limit: u32) -> ApiSettings {
    let limiter = Limiter::FixedWindow { limit, window: Duration::from_secs(3_600) };
    ApiSettings { limiter, hints: Hints::RateLimitFields, ..ApiSettings::default() }
}

#[tokio::test]
async fn each_path_answers_as_the_table_says() {
    let (_api, mut client) = api(ApiSettings::default()).await;
    for (path, status, body) in [
        ("/items/7", 200, r#"{"item":7}"#),
        ("/status/418", 418, r#"{"status":418}"#),
        ("/slow?ms=1", 200, r#"{"slept_ms":1}"#),
        ("/items/x", 404, r#"{"error":"no such path"}"#),
    ] {
        let response = get(&mut client, path).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.body().as_ref()),
            (status, body.as_bytes())
        );
    }
}

#[tokio::test]
async fn echo_tells_what_arrived() {
    let (api, mut client) = api(ApiSettings::default()).await;
    let response =
        client.send(Method::PUT, "/echo?a=%2F&b", Bytes::from_static(b"foobar")).await.unwrap();
    let echo: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    let expected = json!({
        "method": "PUT",
        "target": "/echo?a=%2F&b",
        "headers": [["host", api.addr.to_string()], ["content-length", "6"]],
        "body_length": 6,
        "body_hash": "85944171f73967e8",
    });
    assert_eq!(echo, expected);
}

#[tokio::test]
async fn what_is_beyond_the_limit_is_refused_counted_and_told_when_to_come_back() {
    let (api, mut client) = api(window(2)).await;
    let mut statuses = Vec::new();
    let mut remaining = Vec::new();
    for _ in 0..4 {
        let response = get(&mut client, "/items/1").await.unwrap();
        statuses.push(response.status().as_u16());
        remaining.push(response.headers()["ratelimit-remaining"].to_str().unwrap().to_owned());
        assert_eq!(response.headers().contains_key("retry-after"), response.status() == 429);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(remaining, ["1", "0", "0", "0"]);
    let counters = api.counters();
    assert_eq!((counters.requests, counters.good, counters.refused), (4, 2, 2));
    assert_eq!(counters.refused_during_pause, 1);
}

#[tokio::test]
async fn an_outage_fails_everything_and_spends_nothing_of_the_limit() {
    let forever = Duration::ZERO..Duration::MAX;
    for (outage, answered) in [(Outage::Unavailable, true), (Outage::Reset, false)] {
        let settings = ApiSettings { outages: vec![forever.clone()], outage, ..window(1) };
        let (api, mut client) = api(settings).await;
        for _ in 0..3 {
            let status = get(&mut client, "/items/1").await.map(|response| response.status());
            assert_eq!(status.ok().map(|status| status.as_u16()), answered.then_some(503));
        }
        assert_eq!(api.counters().refused, 0);
        assert_eq!(api.counters().failed + api.counters().resets, 3);
    }
}

#[tokio::test]
async fn faults_hit_every_nth_request() {
    let faults = Faults { reset_every: Some(3), error_every: Some(2) };
    let (api, mut client) = api(ApiSettings { faults, ..ApiSettings::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let response = get(&mut client, "/items/1").await;
        statuses.push(response.ok().map(|response| response.status().as_u16()));
    }
    assert_eq!(statuses, [Some(200), Some(500), None, Some(500)]);
    assert_eq!(api.counters().resets, 1);
}

#[tokio::test]
async fn side_effects_are_counted_by_body_also_when_the_answer_is_lost() {
    let (api, mut client) = api(ApiSettings::default()).await;
    api.script("/items", [Step::ResetAfterEffect, Step::Reset]);
    for body in ["a", "a", "a", "b"] {
        let _ = client.send(Method::POST, "/items", Bytes::from_static(body.as_bytes())).await;
    }
    assert_eq!((api.side_effects(b"a"), api.side_effects(b"b")), (2, 1));
    let log = api.log();
    let statuses: Vec<_> = log.iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [None, None, Some(201), Some(201)]);
    assert_eq!(log[0].body, Some((1, fingerprint(b"a"))));
}

#[tokio::test]
async fn scripted_steps_are_used_up_by_one_request_each() {
    let (api, mut client) = api(ApiSettings::default()).await;
    let fields = vec![(http::header::RETRY_AFTER, HeaderValue::from_static("7"))];
    api.script(
        "/items/1",
        [
            Step::Status(503, fields, Bytes::from_static(b"later")),
            Step::CloseBeforeHead,
            Step::Truncate,
            Step::Delay(Duration::from_millis(1)),
        ],
    );
    let scripted = get(&mut client, "/items/1").await.unwrap();
    assert_eq!((scripted.status().as_u16(), scripted.body().as_ref()), (503, b"later".as_ref()));
    assert_eq!(scripted.headers()["retry-after"], "7");
    assert!(get(&mut client, "/items/1").await.is_err(), "closed without an answer");
    assert!(get(&mut client, "/items/1").await.is_err(), "truncated");
    assert_eq!(api.log()[2].status, Some(200), "the truncated answer had a head");
    assert_eq!(get(&mut client, "/items/1").await.unwrap().status(), 200);
    assert_eq!(get(&mut client, "/items/1").await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_hanging_request_is_answered_once_released() {
    let (api, mut client) = api(ApiSettings::default()).await;
    let released = Arc::new(Notify::new());
    api.script("/items/1", [Step::Hang(Arc::clone(&released))]);
    let waiting = tokio::spawn(async move { get(&mut client, "/items/1").await });
    api.until("the request", |counters| counters.requests == 1).await.unwrap();
    assert!(!waiting.is_finished());
    released.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_concurrency_limit_counts_those_whose_client_has_gone_as_ended() {
    let settings =
        ApiSettings { limiter: Limiter::Concurrency { limit: 1 }, ..ApiSettings::default() };
    let (api, mut client) = api(settings).await;
    let mut other = Client::new(&api.url()).unwrap();
    let gone = tokio::spawn(async move { get(&mut client, "/slow?ms=3600000").await });
    api.until("the slow request", |counters| counters.requests == 1).await.unwrap();
    assert_eq!(get(&mut other, "/items/1").await.unwrap().status(), 429);
    assert_eq!(api.counters().overlap_max, 2);
    gone.abort();
    // The API notices by the end of the connection, which no counter shows.
    let admitted = async {
        while get(&mut other, "/items/1").await.unwrap().status() == 429 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(UNTIL_MAX, admitted).await.expect("the place is given back");
}
