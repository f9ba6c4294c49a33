//! The bounds of a head, the order of answers, and what is left unread.

use super::attacks::{accepted, refused, with};
use super::*;

#[test]
fn a_head_has_bounds() {
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(len - 1));
    refused("a long target", target(16 * 1024 + 1), 414);
    refused("a target without end", "GET /".to_owned() + &"a".repeat(100_000), 414);
    let line = format!("GET /{}", "a".repeat(16 * 1024 - 1));
    accepted("the longest target", target(16 * 1024), &line);
    refused("129 fields", with(&"A: b\r\n".repeat(128)), 431);
    accepted("128 fields", with(&"A: b\r\n".repeat(127)), "POST /x");
    refused("a long field", with(&format!("A: {}\r\n", "b".repeat(70_000))), 431);
    refused("a field without end", with("A: ").trim_end().to_owned() + &"b".repeat(70_000), 431);
    let rest = 64 * 1024 - with("A: \r\n").len();
    accepted("the longest head", with(&format!("A: {}\r\n", "b".repeat(rest))), "POST /x");
    refused("one byte more", with(&format!("A: {}\r\n", "b".repeat(rest + 1))), 431);
}

#[tokio::test(start_paused = true)]
async fn a_bad_third_request_is_answered_third() {
    let mut line = connect();
    let good = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    line.send([good, good, "GET /b HTTP/1.1\r\nHost : x\r\n\r\n", good].concat()).await;
    assert_eq!(line.statuses().await, [200, 200, 400]);
    assert_eq!(line.recorder.lines(), ["GET /a", "GET /a"]);
    assert_eq!(*line.recorder.refused.lock().unwrap(), [400]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_reads_is_no_request() {
    let mut line = connect();
    let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let outer = format!("POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    line.send(outer + inner).await;
    assert_eq!(line.statuses().await, [200]);
    assert!(line.recorder.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_method_of_a_made_up_request_is_an_ordinary_method_for_a_client() {
    let mut line = connect();
    line.send("FORBEAR-REFUSED / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    line.send(LAST).await;
    assert_eq!(line.statuses().await, [200, 200]);
}
