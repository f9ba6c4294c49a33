//! How long it would take: asked over the admin API and by the command. That what is told comes
//! true is held by the simulation, where no clock is in doubt.

use http::{HeaderName, HeaderValue};

use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;

use crate::support::binary::{Binary, command, err, get, out};
use crate::support::raw::RawClient;

/// An API of which three of a hundred are left for a minute, and one answer of it.
async fn after_one_answer() -> (FakeApi, Binary) {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let told = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "3")];
    let told = told.into_iter().chain([("x-ratelimit-reset", "60")]);
    let fields =
        told.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let answer = Step::Status(200, fields.collect(), bytes::Bytes::from_static(b"{}"));
    api.script("/items/1", [answer]);
    let forbear = Binary::start(&format!("[upstreams.api]\nurl = \"{}\"\n", api.url())).await;
    let request = "GET /api/items/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let response = RawClient::connect(forbear.proxy()).await.ask(request).await;
    assert_eq!(response.status, 200);
    (api, forbear)
}

#[tokio::test]
async fn a_quota_that_is_nearly_used_up_decides_how_long_it_takes() {
    let (_api, forbear) = after_one_answer().await;
    let ask = async |requests: u32| {
        let path = format!("/api/v1/preflight?upstream=api&requests={requests}");
        let answer = get(forbear.admin(), &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_str::<serde_json::Value>(&answer.text()).unwrap()
    };
    let three = ask(3).await;
    assert_eq!(three["bound_by"], "concurrency", "{three}");
    assert!(three["takes_ms"].as_u64().unwrap() < 30_000, "{three}");
    let many = ask(203).await;
    assert_eq!((&many["bound_by"], &many["scope"]), (&"quota".into(), &"route default".into()));
    // Three now, a hundred at the reset, and the rest a minute later.
    let takes = many["takes_ms"].as_u64().unwrap();
    assert!((90_000..=121_000).contains(&takes), "{many}");
}

#[tokio::test]
async fn the_command_tells_it_to_people_and_what_is_wrong_with_the_question() {
    let (_api, forbear) = after_one_answer().await;
    let run = async |args: &[&str]| {
        let mut command = command(["preflight"]);
        command.args(args).args(["--admin", &forbear.admin_url()]);
        command.output().await.unwrap()
    };
    let told = run(&["api", "--requests", "50"]).await;
    assert!(told.status.success(), "{}", err(&told));
    let text = out(&told);
    assert!(text.starts_with("50 more requests to api would take "), "{text}");
    assert!(text.contains("What decides is its quota (route default)."), "{text}");
    let unknown = run(&["apy", "--requests", "50"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("There is no upstream apy. Configured: api."));
    let route = run(&["api", "--requests", "50", "--route", "x"]).await;
    assert!(err(&route).contains("Upstream api has no route x. It has: default."));
    let none = run(&["api", "--requests", "0"]).await;
    assert_eq!(none.status.code(), Some(2));
    let path = "/api/v1/preflight?upstream=api";
    let answer = get(forbear.admin(), path).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("?upstream=NAME&requests=500"), "{}", answer.text());
}
