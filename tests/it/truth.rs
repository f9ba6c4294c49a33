//! What a refusal says is true, and of its own caller alone.

use std::time::Duration;

use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use http::HeaderValue;
use http::header::RETRY_AFTER;

use crate::support::forbear::Forbear;
use crate::support::raw::{RawClient, RawResponse};

async fn get(forbear: &Forbear, path: &str, fields: &str) -> RawResponse {
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
    client.response().await
}

fn json(response: &RawResponse) -> serde_json::Value {
    serde_json::from_slice(&response.body).unwrap()
}

#[tokio::test]
async fn a_deadline_of_zero_is_refused_and_nothing_is_sent() {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let forbear = Forbear::start(&format!("[upstreams.api]\nurl = \"{}\"\n", api.url()));
    let response = get(&forbear, "/api/x", "Forbear-Deadline: 0\r\n").await;
    assert_eq!(response.status, 504);
    assert_eq!(response.field("forbear-decision"), Some("deadline"));
    assert_eq!(response.field("forbear-attempts"), Some("0"));
    assert!(api.log().is_empty());
}

#[tokio::test]
async fn callers_in_a_hurry_do_not_open_the_breaker_for_the_others() {
    let slow = ApiSettings { latency: Duration::from_secs(30), ..ApiSettings::default() };
    let api = FakeApi::start(slow).await.unwrap();
    let forbear = Forbear::start(&format!(
        "[upstreams.api]\nurl = \"{}\"\nbreaker.consecutive_failures = 2\n",
        api.url()
    ));
    for _ in 0..4 {
        let response = get(&forbear, "/api/x", "Forbear-Deadline: 20ms\r\n").await;
        assert_eq!(response.field("forbear-decision"), Some("deadline"));
        assert_eq!(
            json(&response)["detail"],
            "Upstream api sent no response head before the caller's deadline."
        );
    }
    assert_eq!(forbear.view("api").breaker[0].state.name(), "closed");
}

#[tokio::test]
async fn a_refusal_tells_of_the_callers_own_cooldown_and_not_of_another_callers() {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let refuse = |seconds| {
        let wait = (RETRY_AFTER, HeaderValue::from_static(seconds));
        [Step::Status(429, vec![wait], "".into())]
    };
    api.script("/long", refuse("900"));
    api.script("/short", refuse("300"));
    let forbear = Forbear::start(&format!("[upstreams.api]\nurl = \"{}\"\n", api.url()));
    get(&forbear, "/api/long", "Authorization: one\r\n").await;
    get(&forbear, "/api/short", "Authorization: two\r\n").await;
    let scope = |response: RawResponse| json(&response)["scope"].as_str().unwrap().to_owned();
    let one = scope(get(&forbear, "/api/x", "Authorization: one\r\n").await);
    let two = scope(get(&forbear, "/api/x", "Authorization: two\r\n").await);
    assert_ne!(one, two);
}

#[tokio::test]
async fn a_retry_after_of_zero_does_not_start_a_storm() {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let now = || Step::Status(429, vec![(RETRY_AFTER, HeaderValue::from_static("0"))], "".into());
    api.script("/x", std::iter::repeat_with(now).take(300));
    let forbear = Forbear::start(&format!(
        "[upstreams.api]\nurl = \"{}\"\nmax_wait = \"500ms\"\nretry.backoff = \"fixed\"\n\
         retry.backoff_base = \"100ms\"\n",
        api.url()
    ));
    let response = get(&forbear, "/api/x", "").await;
    assert_eq!(response.status, 429);
    let attempts: u32 = response.field("forbear-attempts").unwrap().parse().unwrap();
    assert!((2..=6).contains(&attempts), "{attempts} attempts in half a second");
}

#[tokio::test]
async fn a_failure_that_was_shown_counts_as_one_though_its_body_is_not_read() {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let forbear = Forbear::start(&format!(
        "[upstreams.api]\nurl = \"{}\"\nretry.attempts_max = 1\n",
        api.url()
    ));
    // More than sockets hold, so that the end cannot have come.
    let long = bytes::Bytes::from(vec![b'x'; 16 << 20]);
    for (status, outcome) in [(200, "client_disconnect"), (500, "server_error")] {
        api.script("/items/1", [Step::Status(status, Vec::new(), long.clone())]);
        let mut client = RawClient::connect(forbear.proxy()).await;
        client.send("GET /api/items/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.until_text(&format!("HTTP/1.1 {status}")).await;
        client.reset();
        let series = format!("code=\"{status}\",method=\"GET\",outcome=\"{outcome}\"");
        let is_counted = |forbear: &Forbear| {
            forbear.metrics().lines().any(|line| line.contains(&series) && line.ends_with(" 1"))
        };
        forbear.until(&series, is_counted).await;
    }
}
