//! Refusals as their readers see them.

use super::*;
use crate::gateway::route::tests::upstream;
use crate::gateway::route::{NoRoute, Routes};
use crate::policy::outcome::Class;
use crate::policy::outcome::HintSource;
use crate::policy::time::WallTime;
use crate::proxy::reject::Code;
use crate::proxy::response_head::tests::story;
use crate::telemetry::story::Decision;
use crate::transport::error::SendErrorKind;

const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

fn pretty(response: &Response<Bytes>) -> String {
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    serde_json::to_string_pretty(&body).unwrap()
}

fn field(response: &Response<Bytes>, name: &str) -> Option<String> {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn a_cooldown_tells_when_it_ends_why_and_what_was_tried() {
    let mut told = story(&[(Class::Throttled, Some(429)), (Class::TimedOut, None)]);
    told.decision = Decision::Rejected("cooldown");
    told.waited.charge(WaitKind::Cooldown, Duration::from_millis(4010));
    let mut rejection =
        Rejection::new(Code::Cooldown, "github asked to wait until 10:01:30; that is 89.2 s away")
            .with_retry_at(NOW, Duration::from_micros(89_200_001))
            .with_scope("route search");
    rejection.key = Some("ingestion".into());
    rejection.hint = Some(HintRecord {
        source: HintSource::RetryAfterDelta,
        raw: Some("90\r\n\"x\"".into()),
        wait: Duration::from_secs(90),
        received_at: NOW,
    });

    let response = render(&rejection, &told, false);

    assert_eq!(response.status(), 429);
    assert_eq!(field(&response, "retry-after").unwrap(), "90");
    assert_eq!(field(&response, "content-type").unwrap(), "application/problem+json");
    assert_eq!(field(&response, "cache-control").unwrap(), "no-store");
    assert_eq!(field(&response, "forbear-verdict").unwrap(), "throttled");
    assert_eq!(field(&response, "forbear-retry-at").unwrap(), "2026-01-15T10:01:29.200Z");
    assert_eq!(field(&response, "forbear-decision").unwrap(), "cooldown");
    assert_eq!(field(&response, "connection"), None);
    let expected = r#"{
  "attempts": [
    {
      "ms": 12,
      "n": 1,
      "outcome": "throttled",
      "sent": "answered",
      "status": 429
    },
    {
      "ms": 12,
      "n": 2,
      "outcome": "timed_out",
      "sent": "partly"
    }
  ],
  "code": "cooldown",
  "detail": "github asked to wait until 10:01:30; that is 89.2 s away",
  "hint": {
    "raw": "90??\"x\"",
    "received_at": "2026-01-15T10:00:00.000Z",
    "source": "retry-after"
  },
  "instance": "urn:forbear:req:01KF0HJ0800000000000000007",
  "key": "ingestion",
  "retry_after_ms": 89201,
  "retry_at": "2026-01-15T10:01:29.200Z",
  "scope": "route search",
  "status": 429,
  "title": "The upstream asked to wait",
  "type": "urn:forbear:cooldown",
  "upstream": "github",
  "verdict": "throttled",
  "waited_ms": {
    "backoff": 0,
    "breaker": 0,
    "cooldown": 4010,
    "pacing": 0,
    "queue": 0
  }
}"#;
    assert_eq!(pretty(&response), expected);
}

#[test]
fn an_unknown_path_is_told_what_is_configured_and_nothing_that_is_not_known() {
    let mut told = story(&[]);
    told.upstream = None;
    told.decision = Decision::Rejected("no_route");
    let routes = Routes::new(&[upstream("a", "http://a", &[]), upstream("b", "http://b", &[])]);
    let rejection = Rejection::no_route(NoRoute::Unmatched, "/wrong/\"x\"", &routes);

    let response = render(&rejection, &told, false);

    assert_eq!(response.status(), 404);
    assert_eq!(
        field(&response, "proxy-status").unwrap(),
        "forbear; error=destination_not_found; details=\"`/wrong/\\\"x\\\"` is under no upstream's \
         prefix; configured: /a (a), /b (b)\""
    );
    let expected = r#"{
  "attempts": [],
  "code": "no_route",
  "detail": "`/wrong/\"x\"` is under no upstream's prefix; configured: /a (a), /b (b)",
  "instance": "urn:forbear:req:01KF0HJ0800000000000000007",
  "status": 404,
  "title": "No configured upstream matches",
  "type": "urn:forbear:no-route",
  "verdict": "permanent",
  "waited_ms": {
    "backoff": 0,
    "breaker": 0,
    "cooldown": 0,
    "pacing": 0,
    "queue": 0
  }
}"#;
    assert_eq!(pretty(&response), expected);
}

#[test]
fn a_server_that_is_not_configured_is_refused_without_naming_a_way_to_it() {
    let routes = Routes::new(&[]);
    let rejection = Rejection::no_route(NoRoute::ForeignOrigin, "/x", &routes);
    assert_eq!(rejection.status, 404);
    assert!(rejection.detail.contains("only to configured upstreams"), "{}", rejection.detail);
    let unsafe_path = Rejection::no_route(NoRoute::UnsafePath("a backslash"), "/x", &routes);
    assert_eq!(unsafe_path.status, 400);
}

#[test]
fn a_refused_head_request_gets_the_fields_and_no_body() {
    let (full, head) = (
        render(&Rejection::draining(NOW), &story(&[]), false),
        render(&Rejection::draining(NOW), &story(&[]), true),
    );
    assert_eq!(full.headers(), head.headers());
    assert_eq!(field(&full, "content-length").unwrap(), full.body().len().to_string());
    assert!(head.body().is_empty());
    assert_eq!(field(&head, "connection").unwrap(), "close");
    assert_eq!(field(&head, "retry-after").unwrap(), "5");
}

#[test]
fn a_method_that_is_not_served_is_told_which_are() {
    let rejection = Rejection::bad_request("x").with_status(StatusCode::METHOD_NOT_ALLOWED);
    let response = render(&rejection, &story(&[]), false);
    assert_eq!(field(&response, "allow").unwrap(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
}

#[test]
fn proxy_status_names_the_transports_own_error() {
    let rejection =
        Rejection::failed(Code::RetriesExhausted, SendErrorKind::TlsCertificate, "a \\ b \u{e4}");
    let response = render(&rejection, &story(&[]), false);
    assert_eq!(
        field(&response, "proxy-status").unwrap(),
        "forbear; error=tls_certificate_error; details=\"a \\\\ b ??\""
    );
}

#[test]
fn every_code_renders_a_complete_response() {
    for code in Code::ALL {
        let response = render(&Rejection::new(code, "why"), &story(&[]), false);
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["code"], code.name());
        assert_eq!(body["status"], response.status().as_u16());
        for name in ["forbear-request-id", "forbear-attempts", "forbear-verdict", "proxy-status"] {
            assert!(field(&response, name).is_some(), "{name} of {}", code.name());
        }
    }
}
