//! The end in good order: what is under way is finished, and the exit code is 0.

use std::sync::Arc;
use std::time::Duration;

use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::binary::{Binary, get};
use crate::support::raw::{RawClient, RawResponse};

/// Much less than the usual drain time, and enough for a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A forbear in front of an API that answers `/items/1` only once it is released.
struct Stage {
    binary: Binary,
    api: FakeApi,
    release: Arc<Notify>,
}

impl Stage {
    /// With these settings in `[proxy]` and these of the upstream.
    async fn set(proxy: &str, upstream: &str) -> Self {
        let api = FakeApi::start(ApiSettings::default()).await.unwrap();
        let release = Arc::new(Notify::new());
        api.script("/items/1", [Step::Hang(release.clone())]);
        let configuration = format!(
            "[proxy]\n{proxy}\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [upstreams.api]\nurl = \"{}\"\n{upstream}\n",
            api.url()
        );
        Self { binary: Binary::start(&configuration).await, api, release }
    }

    /// Sends a request and returns once the API has it.
    async fn hang(&self) -> RawClient {
        let mut client = RawClient::connect(self.binary.proxy()).await;
        client.send("GET /api/items/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        self.api.until("the request at the API", |seen| seen.requests == 1).await.unwrap();
        client
    }

    /// Tells it to end, and returns once it has heard that.
    async fn terminate(&self) {
        self.binary.signal(Signal::TERM);
        self.binary.until_printed("the drain", |line| line.contains("draining: ")).await;
    }

    async fn ends_well(mut self) {
        let status = timeout(SOON, self.binary.ended()).await;
        assert_eq!(status.expect("it ends soon").code(), Some(0));
    }
}

fn assert_whole(response: &RawResponse) {
    assert_eq!(response.status, 200, "{}", response.head);
    assert_eq!(response.text().trim(), "{\"item\":1}");
}

#[tokio::test]
async fn with_nothing_in_flight_the_end_comes_soon() {
    for signal in [Signal::TERM, Signal::INT] {
        let stage = Stage::set("", "").await;
        stage.binary.signal(signal);
        stage.ends_well().await;
    }
}

#[tokio::test]
async fn quitting_through_the_admin_api_is_the_same_as_the_signal() {
    let stage = Stage::set("drain_idle = \"10ms\"", "").await;
    let mut client = stage.hang().await;
    assert_eq!(stage.binary.post("/api/v1/quit", "").await.status, 202);
    stage.binary.until_printed("the drain", |line| line.contains("draining: ")).await;
    stage.release.notify_one();
    assert_whole(&client.response().await);
    stage.ends_well().await;
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_newcomers_are_served_meanwhile() {
    let stage = Stage::set("drain_timeout = \"5s\"\ndrain_idle = \"10ms\"", "").await;
    let mut client = stage.hang().await;
    stage.terminate().await;
    // The application beside may still be draining through forbear.
    for _ in 0..3 {
        assert_eq!(stage.binary.get("/api/items/2").await.status, 200);
    }
    stage.release.notify_one();
    assert_whole(&client.response().await);
    stage.ends_well().await;
}

#[tokio::test]
async fn readiness_goes_at_once_and_life_does_not() {
    let stage = Stage::set("", "").await;
    let binary = &stage.binary;
    assert_eq!(binary.admin_get("/readyz").await.status, 200);
    let _client = stage.hang().await;
    stage.terminate().await;
    for address in [binary.admin(), binary.address("metrics")] {
        assert_eq!(get(address, "/readyz").await.status, 503);
        assert_eq!(get(address, "/healthz").await.status, 200);
    }
    assert!((binary.metric("forbear_draining").await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn near_the_end_what_still_waits_is_refused_and_what_is_in_flight_gets_the_rest() {
    let stage = Stage::set("drain_timeout = \"5s\"", "in_flight_max = 1").await;
    let mut sent = stage.hang().await;
    let mut waiting = RawClient::connect(stage.binary.proxy()).await;
    waiting.send("GET /api/items/3 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stage.binary.until_view("api", "a queued exchange", |view| view["queued"] == 1).await;
    stage.terminate().await;
    let refused = waiting.response().await;
    assert_eq!(refused.status, 503, "{}", refused.head);
    assert_eq!(refused.field("retry-after"), Some("5"));
    assert!(refused.text().contains("\"code\":\"draining\""), "{}", refused.text());
    let newcomer = stage.binary.get("/api/items/4").await;
    assert_eq!((newcomer.status, newcomer.field("retry-after")), (503, Some("5")));
    stage.release.notify_one();
    assert_whole(&sent.response().await);
    assert_eq!(stage.api.counters().requests, 1);
    stage.ends_well().await;
}

#[tokio::test]
async fn an_exchange_at_an_upstream_that_was_removed_is_refused_as_well() {
    let stage = Stage::set("drain_timeout = \"5s\"", "in_flight_max = 1").await;
    let mut sent = stage.hang().await;
    let mut waiting = RawClient::connect(stage.binary.proxy()).await;
    waiting.send("GET /api/items/3 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stage.binary.until_view("api", "a queued exchange", |view| view["queued"] == 1).await;
    let listen = stage.binary.address("metrics");
    let without = format!(
        "[proxy]\ndrain_timeout = \"5s\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [upstreams.other]\nurl = \"http://{listen}\"\n"
    );
    let answer = stage.binary.reload(&without).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    stage.terminate().await;
    let refused = waiting.response().await;
    assert!(refused.text().contains("\"code\":\"draining\""), "{}", refused.text());
    stage.release.notify_one();
    assert_whole(&sent.response().await);
    stage.ends_well().await;
}

#[tokio::test]
async fn an_exchange_that_outlasts_the_drain_time_is_cut_and_the_exit_code_is_0() {
    let stage = Stage::set("drain_timeout = \"1s\"", "").await;
    let mut client = stage.hang().await;
    stage.terminate().await;
    client.closed().await;
    stage.ends_well().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let stage = Stage::set("", "").await;
        let mut client = stage.hang().await;
        stage.terminate().await;
        stage.binary.signal(signal);
        client.closed().await;
        stage.ends_well().await;
    }
}

#[tokio::test]
async fn an_idle_connection_holds_nothing_up() {
    let stage = Stage::set("drain_idle = \"10ms\"", "").await;
    let mut idle = RawClient::connect(stage.binary.proxy()).await;
    let answer = idle.ask("GET /api/items/2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    let mut silent = RawClient::connect(stage.binary.proxy()).await;
    stage.binary.signal(Signal::TERM);
    idle.closed().await;
    silent.closed().await;
    stage.ends_well().await;
}
