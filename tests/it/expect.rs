//! `Expect: 100-continue`: the client is told to go on once, and only when its body is wanted.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::support::forbear::Forbear;
use crate::support::raw::{Move, RawClient, RawOrigin};
use crate::support::strict::{Attack, LAST, PLAIN};

fn post(target: &str, fields: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n")
}

#[tokio::test]
async fn go_on_is_said_once_and_the_body_arrives() {
    let attack = Attack::start().await;
    for (fields, body) in [
        ("Content-Length: 3\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let mut client = RawClient::connect(attack.forbear.proxy()).await;
        client.send(post("/api/x", fields)).await;
        assert_eq!(client.response().await.status, 100, "{fields}");
        client.send(body).await;
        assert_eq!(client.response().await.status, 200, "{fields}");
        let seen = attack.origin.take();
        assert_eq!((seen.len(), &seen[0].body[..]), (1, &b"abc"[..]), "{fields}");
        assert!(seen[0].all("expect").is_empty(), "{fields}");
        assert_eq!(client.ask(LAST).await.status, 200, "{fields}: the next one");
        attack.origin.take();
    }
}

#[tokio::test]
async fn without_a_body_nothing_is_said_and_the_answer_comes() {
    let attack = Attack::start().await;
    for fields in ["", "Content-Length: 0\r\n"] {
        attack.served(fields, post("/api/x", fields), "POST /x").await;
    }
    let old =
        "POST /api/x HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
    let outcome = attack.run_alone(old).await;
    assert_eq!(outcome.statuses(), [200], "HTTP/1.0 knows no 100: {}", outcome.text);
}

#[tokio::test]
async fn a_body_that_comes_without_waiting_is_taken() {
    let attack = Attack::start().await;
    let outcome = attack.run(post("/api/x", "Content-Length: 3\r\n") + "abc").await;
    let finals: Vec<u16> = outcome.statuses().into_iter().filter(|status| *status >= 200).collect();
    assert_eq!(finals, [200, 200], "{}", outcome.text);
    assert_eq!(outcome.seen[0].body, b"abc");
}

#[tokio::test]
async fn a_refusal_comes_instead_of_go_on_and_closes() {
    let attack = Attack::start().await;
    for (name, bytes, status) in [
        ("no route", post("/nowhere", "Content-Length: 5\r\n"), 404),
        ("a faulty field", post("/api/x", "Content-Length: 5\r\nForbear-Wait: x\r\n"), 400),
        ("a loop", post("/api/x", "Content-Length: 5\r\nVia: 1.1 forbear\r\n"), 508),
        ("bad framing", post("/api/x", "Content-Length: 5\r\nContent-Length: 5\r\n"), 400),
    ] {
        let outcome = attack.run_alone(bytes).await;
        assert_eq!(outcome.statuses(), [status], "{name}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{name}");
    }
    for expect in ["200-ok", "100-continue, x", "x", ""] {
        let bytes = format!(
            "POST /api/x HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 1\r\n\r\nx"
        );
        attack.refused(expect, bytes, 417).await;
    }
}

#[tokio::test]
async fn go_on_is_not_said_before_the_attempt_is_under_way() {
    // One place in flight, which a first exchange holds.
    let release = Arc::new(Notify::new());
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let script = vec![
        Move::AwaitHead,
        Move::AwaitRelease(release.clone()),
        Move::text(first),
        Move::AwaitText("hello"),
        Move::text(first),
        Move::AwaitEof,
    ];
    let origin = RawOrigin::start(vec![script]).await;
    let forbear = Forbear::start(&format!(
        "{PLAIN}[upstreams.api]\nurl = \"{}\"\nin_flight_max = 1\n",
        origin.url()
    ));
    let mut holder = RawClient::connect(forbear.proxy()).await;
    holder.send("GET /api/first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.until_received(0, "/first").await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(post("/api/x", "Content-Length: 5\r\n")).await;
    forbear.until("the second to wait", |forbear| forbear.metrics().contains("queue")).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), client.response());
    assert!(early.await.is_err(), "told to go on although nothing is dispatched");
    release.notify_one();
    assert_eq!(holder.response().await.status, 200);
    assert_eq!(client.response().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.response().await.status, 200);
}
