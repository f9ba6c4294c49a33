//! What can be changed, and how mistakes are answered.

use super::*;

#[tokio::test]
async fn an_override_reaches_the_breaker_with_its_reason_and_duration() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let path = "POST /api/v1/upstreams/github/breaker";

    let short = r#"{"state":"open","reason":" vendor down ","for":"30m","route":"search"}"#;
    let answer = served.send(path, &[], short).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["name"]), (200, &"github".into()));
    served.send(path, &[], r#"{"state":"auto","reason":"over"}"#).await;

    let expected = [
        r#"github ForceBreaker { state: Open, reason: "vendor down", for_: 1800s, route: Some("search") }"#,
        r#"github ForceBreaker { state: Auto, reason: "over", for_: 3600s, route: None }"#,
    ];
    assert_eq!(fake.asked(), expected);
}

#[tokio::test]
async fn a_mistake_in_a_body_is_named_and_changes_nothing() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let path = "POST /api/v1/upstreams/github/breaker";
    for (body, said) in [
        (r#"{"state":"ajar","reason":"x"}"#, "ajar"),
        (r#"{"state":"open"}"#, "reason"),
        (r#"{"state":"open","reason":" "}"#, "`reason`"),
        (r#"{"state":"open","reason":"a\nb"}"#, "`reason`"),
        (r#"{"state":"open","reason":"x","for":"soon"}"#, "soon"),
        (r#"{"state":"open","reason":"x","for":"0s"}"#, "0s"),
        (r#"{"state":"open","reason":"x","until":"1h"}"#, "until"),
        ("{", "EOF"),
    ] {
        let answer = served.send(path, &[], body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "bad_request"),
            "{body}"
        );
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(said), "{body}: {detail}");
    }
    let form = served.send(path, &[("content-type", "text/plain")], "{}").await;
    assert_eq!((form.status.as_u16(), form.code().as_str()), (415, "unsupported_media_type"));
    let large = served.send(path, &[], &"x".repeat(20_000)).await;
    assert_eq!((large.status.as_u16(), large.code().as_str()), (413, "bad_body"));
    assert_eq!(fake.asked(), [""; 0]);
}

#[tokio::test]
async fn an_unknown_upstream_is_answered_with_the_known_ones() {
    let served = Served::open(&Fake::new());
    for (line, body) in [
        ("GET /api/v1/upstreams/gitlab", ""),
        ("POST /api/v1/upstreams/gitlab/breaker", r#"{"state":"open","reason":"x"}"#),
        ("POST /api/v1/upstreams/gitlab/cooldown/clear", ""),
    ] {
        let answer = served.send(line, &[], body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "unknown_upstream"));
        let problem = answer.json();
        assert_eq!(problem["known"], serde_json::json!(["github", "jira"]));
        assert_eq!(problem["detail"], "There is no upstream gitlab. Configured: github, jira.");
    }
}

#[tokio::test]
async fn cooldowns_reload_and_quit_need_no_body() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    for (line, status) in [
        ("POST /api/v1/upstreams/jira/cooldown/clear", 200),
        ("POST /api/v1/reload", 200),
        ("POST /api/v1/quit", 202),
    ] {
        assert_eq!(served.send(line, &[("content-type", "")], "").await.status, status, "{line}");
    }
    let scoped = r#"{"scope":"route search"}"#;
    served.send("POST /api/v1/upstreams/jira/cooldown/clear", &[], scoped).await;
    let expected = ["jira clear None", "reload", "quit", r#"jira clear Some("route search")"#];
    assert_eq!(fake.asked(), expected);
}

#[tokio::test]
async fn a_get_changes_nothing_and_says_what_would() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    for path in ["/api/v1/quit", "/api/v1/reload", "/api/v1/upstreams/github/breaker"] {
        let answer = served.send(&format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
        assert_eq!(answer.headers["allow"], "POST", "{path}");
    }
    assert_eq!(fake.asked(), [""; 0]);
}
