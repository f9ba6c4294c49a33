//! APIs that say what they have to say in the body, or as nobody else does: forbear acts on it, and
//! the client gets what the API sent, byte for byte.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use forbear::demo::script::Step;
use http::header::CONTENT_ENCODING;
use http::{HeaderName, HeaderValue};
use tokio::sync::Notify;

use crate::support::forbear::Forbear;
use crate::support::raw::{Move, RawClient, RawOrigin};
use crate::support::strict::PLAIN;
use crate::support::world::{World, answer, problem, request, waited_ms};

const JSON: (&str, &str) = ("content-type", "application/json");
const SECONDARY: &str = r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}"#;
const IN_WORDS: &str = r#"{"error":"Rate limit reached. Please try again in 0.3s."}"#;
const SLACK: &str = r#"{"ok":false,"error":"ratelimited"}"#;

/// Bytes without a pattern that repeats soon, and without any words.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// An origin that plays these moves after each request head, and forbear before it.
async fn before(profile: &str, moves: Vec<Move>) -> (Forbear, RawOrigin) {
    let script = [vec![Move::AwaitHead], moves].concat();
    let origin = RawOrigin::start(vec![script]).await;
    let url = origin.url();
    let forbear = Forbear::start(&format!(
        "{PLAIN}[upstreams.api]\nurl = \"{url}\"\nprofile = \"{profile}\"\n"
    ));
    (forbear, origin)
}

#[tokio::test]
async fn a_403_whose_body_says_when_to_come_back_waits_and_is_sent_again() {
    let world = World::calm("").await;
    world.api.script("/items/1", [answer(403, &[JSON], IN_WORDS)]);
    let response = world.get("/api/items/1").await;
    assert_eq!((response.status, response.text().as_str()), (200, r#"{"item":1}"#));
    assert_eq!(response.field("forbear-attempts"), Some("2"));
    assert!(waited_ms(&response, "cooldown") >= 300, "{}", response.head);
    let log = world.api.log();
    assert!(log[1].at - log[0].at >= Duration::from_millis(300), "earlier than told");
    let metrics = world.forbear.metrics();
    let by_body = r#"forbear_retry_after_total{form="body",upstream="api"} 1"#;
    assert!(metrics.contains(by_body), "{metrics}");
}

#[tokio::test]
async fn a_secondary_limit_of_github_closes_the_scope_for_a_minute_and_the_refusal_says_why() {
    let world = World::calm("profile = \"github\"\n").await;
    world.api.script("/items/1", [answer(403, &[JSON], SECONDARY)]);
    let refused = world.get("/api/items/1").await;
    assert_eq!((refused.status, refused.text().as_str()), (403, SECONDARY));
    assert_eq!(refused.field("forbear-verdict"), Some("throttled"));
    assert_eq!(refused.field("forbear-decision"), Some("deadline_too_near"));
    let second = world.get("/api/items/1").await;
    assert_eq!((second.status, world.api.log().len()), (429, 1), "{}", second.head);
    let body = problem(&second);
    assert_eq!(body["code"], "cooldown");
    assert_eq!(body["hint"]["source"], "profile");
    assert_eq!(body["hint"]["raw"], "github");
    let wait = body["retry_after_ms"].as_u64().unwrap();
    assert!((50_000..=61_000).contains(&wait), "{wait}");
    assert_eq!(world.breaker(), "closed");
}

#[tokio::test]
async fn a_403_that_only_looks_like_a_limit_passes_unchanged() {
    let body = r#"{"message":"Resource not accessible by integration","documentation_url":"https://docs.github.com/rest/overview/resources-in-the-rest-api#rate-limiting"}"#;
    let world = World::calm("profile = \"github\"\n").await;
    world.api.script("/items/1", [answer(403, &[JSON, ("x-own", "1")], body)]);
    let response = world.get("/api/items/1").await;
    assert_eq!((response.status, response.text().as_str()), (403, body));
    assert_eq!(response.field("x-own"), Some("1"));
    assert_eq!(response.field("forbear-verdict"), Some("credential"));
    assert!(world.forbear.view("api").cooldowns.is_empty());
    assert_eq!(world.get("/api/items/1").await.status, 200, "nobody has to wait");
}

#[tokio::test]
async fn a_200_that_refuses_waits_as_its_retry_after_says() {
    let world = World::calm("profile = \"slack\"\n").await;
    world.api.script("/items/1", [answer(200, &[JSON, ("retry-after", "1")], SLACK)]);
    let response = world.ask("POST /api/items/1", &[], b"{}").await;
    assert_eq!((response.status, response.text().as_str()), (200, r#"{"item":1}"#));
    assert_eq!(response.field("forbear-attempts"), Some("2"));
    let log = world.api.log();
    assert!(log[1].at - log[0].at >= Duration::from_secs(1), "earlier than told");
}

#[tokio::test]
async fn a_200_that_serves_passes_whatever_its_profile_looks_for() {
    for body in [r#"{"ok":true}"#, r#"{"ok":false,"error":"channel_not_found"}"#] {
        let world = World::calm("profile = \"slack\"\n").await;
        world.api.script("/items/1", [answer(200, &[JSON], body)]);
        let response = world.get("/api/items/1").await;
        assert_eq!((response.status, response.text().as_str()), (200, body));
        assert_eq!(response.field("forbear-decision"), Some("pass"));
    }
}

#[tokio::test]
async fn a_success_without_a_small_length_is_not_held_back_to_be_looked_at() {
    let long = format!("{SLACK}{}", " ".repeat(20_000));
    let sized = |kind: &str, body: &str| {
        format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let chunked = format!(
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SLACK}\r\n0\r\n\r\n",
        SLACK.len()
    );
    let cases = [
        (sized("text/plain", SLACK), SLACK),
        (sized("application/json", &long), &long),
        (chunked, SLACK),
    ];
    for (rest, body) in cases {
        let text = format!("HTTP/1.1 200 OK\r\nRetry-After: 60\r\n{rest}");
        let (forbear, _origin) = before("slack", vec![Move::text(&text), Move::AwaitEof]).await;
        let got =
            RawClient::connect(forbear.proxy()).await.ask(request("GET /api/x", &[], b"")).await;
        assert_eq!((got.status, got.text()), (200, body.to_owned()));
        assert_eq!(got.field("forbear-decision"), Some("pass"), "{rest}");
    }
}

#[tokio::test]
async fn a_refusal_of_any_length_reaches_the_client_byte_for_byte() {
    for length in [1, 100, 16 << 10, (16 << 10) + 1, 300_000] {
        let bytes = noise(length);
        let world = World::calm("profile = \"github\"\n").await;
        let binary = (HeaderName::from_static("content-type"), HeaderValue::from_static("x/y"));
        world.api.script("/items/1", [Step::Status(403, vec![binary], bytes.clone().into())]);
        let response = world.get("/api/items/1").await;
        assert_eq!(response.status, 403);
        assert_eq!(response.field("content-length"), Some(length.to_string().as_str()));
        assert!(response.body == bytes, "{length} bytes were changed");
    }
}

#[tokio::test]
async fn a_chunked_refusal_reaches_the_client_whole_and_its_connection_is_used_again() {
    let bytes = noise(40_000);
    let mut answer = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in bytes.chunks(999) {
        answer.extend(format!("{:x}\r\n", piece.len()).bytes());
        answer.extend(piece);
        answer.extend(b"\r\n");
    }
    answer.extend(b"0\r\n\r\n");
    let twice =
        vec![Move::Write(answer.clone()), Move::AwaitHead, Move::Write(answer), Move::AwaitEof];
    let (forbear, origin) = before("github", twice).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    for _ in 0..2 {
        let got = client.ask(request("GET /api/x", &[], b"")).await;
        assert_eq!(got.status, 403);
        assert!(got.body == bytes, "the body was changed");
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_compressed_refusal_is_understood_and_not_touched() {
    let mut packed = Vec::new();
    let best = flate2::Compression::best();
    flate2::read::GzEncoder::new(SECONDARY.as_bytes(), best).read_to_end(&mut packed).unwrap();
    let coding = |name| (CONTENT_ENCODING, HeaderValue::from_static(name));
    for (name, body, verdict) in [
        ("gzip", packed, "throttled"),
        // What is no gzip, or packed in another way, is judged by its fields.
        ("gzip", SECONDARY.into(), "credential"),
        ("br", SECONDARY.into(), "credential"),
    ] {
        let world = World::calm("profile = \"github\"\n").await;
        let step = Step::Status(403, vec![coding(name)], body.clone().into());
        world.api.script("/items/1", [step]);
        let response = world.get("/api/items/1").await;
        assert_eq!((response.status, &response.body), (403, &body));
        assert_eq!(response.field("content-encoding"), Some(name));
        assert_eq!(response.field("forbear-verdict"), Some(verdict), "{name}");
    }
}

#[tokio::test]
async fn a_refusal_without_a_body_is_judged_by_its_fields() {
    let world = World::calm("profile = \"github\"\n").await;
    world.api.script("/items/1", [answer(403, &[JSON], SECONDARY)]);
    let mut client = RawClient::connect(world.forbear.proxy()).await;
    client.send(request("HEAD /api/items/1", &[], b"")).await;
    let response = client.response_to_head().await;
    assert_eq!(response.status, 403);
    assert_eq!(response.field("forbear-verdict"), Some("credential"));
    assert_eq!(client.ask(request("GET /api/items/1", &[], b"")).await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_not_waited_for_and_passes_when_it_comes() {
    let go_on = Arc::new(Notify::new());
    let moves = vec![
        Move::text("HTTP/1.1 403 No\r\nContent-Length: 8\r\n\r\nhalf"),
        Move::AwaitRelease(go_on.clone()),
        Move::text("rest"),
        Move::AwaitEof,
    ];
    let (forbear, _origin) = before("github", moves).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(request("GET /api/x", &[], b"")).await;
    // The origin holds the rest back until the client has the beginning.
    client.until_text("half").await;
    go_on.notify_one();
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (403, "halfrest"));
}

#[tokio::test]
async fn a_refusal_that_breaks_off_never_looks_whole() {
    let answer = "HTTP/1.1 403 No\r\nContent-Length: 10\r\n\r\nshort";
    let (forbear, _origin) = before("github", vec![Move::text(answer), Move::Close]).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(request("GET /api/x", &[], b"")).await;
    let (bytes, _) = client.rest().await;
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    assert!(text.starts_with("http/1.1 403") && text.contains("content-length: 10"), "{text}");
    assert!(text.ends_with("\r\n\r\nshort"), "{text}");
}

#[tokio::test]
async fn a_category_that_is_used_up_does_not_hold_back_requests_that_are_served() {
    const LIMITS: &str = "x-sentry-rate-limits";
    let world = World::calm("profile = \"sentry\"\n").await;
    world.api.script("/items/1", [answer(200, &[(LIMITS, "60:error:organization")], "1")]);
    assert_eq!(world.get("/api/items/1").await.text(), "1");
    let next = world.ask("GET /api/items/1", &["Forbear-Wait: none"], b"").await;
    assert_eq!(next.status, 200, "{}", next.head);
    // No category stands for all of them.
    world.api.script("/items/1", [answer(200, &[(LIMITS, "60::organization")], "1")]);
    assert_eq!(world.get("/api/items/1").await.text(), "1");
    let next = world.ask("GET /api/items/1", &["Forbear-Wait: none"], b"").await;
    assert_eq!(problem(&next)["code"], "paced");
}

#[tokio::test]
async fn a_refusal_quotes_the_field_that_decided() {
    let world = World::calm("").await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "900")], "")]);
    assert_eq!(world.get("/api/items/1").await.status, 429);
    let body = problem(&world.get("/api/items/1").await);
    assert_eq!(body["hint"]["source"], "retry-after");
    assert_eq!(body["hint"]["raw"], "retry-after: 900");
    let view = world.forbear.view("api");
    assert_eq!(view.cooldowns[0].raw.as_deref(), Some("retry-after: 900"));
}
