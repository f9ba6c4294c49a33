//! What stands behind a message on a connection: the next request, and never what was left of the
//! last one.

use crate::support::raw::{End, RawClient};
use crate::support::strict::{Attack, LAST, answers};

fn post(target: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

const HIDDEN: &str = "GET /api/hidden HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_small_body_behind_a_local_answer_is_read_and_the_connection_goes_on() {
    let attack = Attack::start().await;
    for (name, target, status) in [("no route", "/nowhere", 404), ("no route at all", "/", 404)] {
        attack.declined(name, post(target, HIDDEN.len()) + HIDDEN, status).await;
        let body = HIDDEN.repeat(1_000);
        attack.declined(name, post(target, body.len()) + &body, status).await;
        let chunked = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{HIDDEN}\r\n0\r\n\r\n",
            HIDDEN.len()
        );
        attack.declined(name, chunked, status).await;
    }
}

#[tokio::test]
async fn a_large_body_behind_a_local_answer_ends_the_connection_and_the_answer_can_be_read() {
    let attack = Attack::start().await;
    for size in [70 << 10, 300 << 10, 8 << 20] {
        let body = HIDDEN.repeat(size / HIDDEN.len());
        let outcome = attack.run(post("/nowhere", body.len()) + &body).await;
        assert_eq!(outcome.statuses(), [404], "{size}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{size}");
        assert!(outcome.text.to_ascii_lowercase().contains("connection: close"), "{size}");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_ends_the_connection_behind_the_answer() {
    let attack = Attack::start().await;
    for sent in ["", "GET /api/hidden HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let outcome = attack.run_alone(post("/nowhere", 10_000) + sent).await;
        assert_eq!(outcome.statuses(), [404], "{}", outcome.text);
        assert!(outcome.lines().is_empty());
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let attack = Attack::start().await;
    let row: String =
        (0..50).map(|n| format!("GET /api/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let outcome = attack.run(row).await;
    let wanted: Vec<String> =
        (0..50).map(|n| format!("GET /{n}")).chain(["GET /last".to_owned()]).collect();
    let bodies: Vec<&str> = outcome.answers.iter().map(|(_, body)| body.as_str()).collect();
    assert_eq!(bodies, wanted);
    assert_eq!(outcome.lines(), wanted);
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_pipeline_keeps_its_place() {
    let attack = Attack::start().await;
    let one = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let outcome = attack
        .run(one("/api/1") + &one("/nowhere") + &post("/nowhere", 3) + "abc" + &one("/api/2"))
        .await;
    assert_eq!(outcome.statuses(), [200, 404, 404, 200, 200], "{}", outcome.text);
    assert_eq!(outcome.lines(), ["GET /1", "GET /2", "GET /last"]);
    let broken = "GET /api/bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    let outcome = attack.run(one("/api/1") + broken + &one("/api/2")).await;
    assert_eq!(outcome.statuses(), [200, 400], "{}", outcome.text);
    assert_eq!(outcome.lines(), ["GET /1"]);
}

#[tokio::test]
async fn head_and_bodyless_answers_do_not_shift_the_next_one() {
    let attack = Attack::start().await;
    let mut client = RawClient::connect(attack.forbear.proxy()).await;
    for target in ["/api/x", "/nowhere", "/api/y"] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        client.response_to_head().await;
    }
    assert_eq!(client.ask(LAST).await.text(), "GET /last");
    assert_eq!(client.closed().await, End::Eof);
}

#[tokio::test]
async fn an_old_client_keeps_its_connection_only_if_it_asks() {
    let attack = Attack::start().await;
    let get = |fields: &str| format!("GET /api/x HTTP/1.0\r\n{fields}\r\n");
    let outcome = attack.run(get("Connection: keep-alive\r\n")).await;
    assert_eq!(outcome.statuses(), [200, 200], "{}", outcome.text);
    for fields in ["", "Connection: close\r\n", "Connection: keep-alive, close\r\n"] {
        let outcome = attack.run(get(fields)).await;
        assert_eq!(outcome.statuses(), [200], "{fields:?}: {}", outcome.text);
        assert_eq!(outcome.lines(), ["GET /x"], "{fields:?}");
    }
    let outcome =
        attack.run("GET /api/x HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n").await;
    assert_eq!(outcome.statuses(), [200], "{}", outcome.text);
}

#[tokio::test]
async fn many_exchanges_share_one_upstream_connection_whatever_came_between() {
    let attack = Attack::start().await;
    let mut client = RawClient::connect(attack.forbear.proxy()).await;
    for n in 0..40 {
        client
            .send(format!("POST /api/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"))
            .await;
        assert_eq!(client.response().await.text(), format!("POST /{n}"));
        client.send(post("/nowhere", 5) + "hello").await;
        assert_eq!(client.response().await.status, 404);
    }
    client.send(LAST).await;
    let (rest, _) = client.rest().await;
    assert_eq!(answers(&rest).len(), 1);
    assert_eq!((attack.origin.take().len(), attack.origin.connections()), (41, 1));
}
