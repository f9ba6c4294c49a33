//! Clients that leave, stall or say nothing.

use tokio::time::timeout;

use super::*;

#[tokio::test]
async fn an_upstream_attempt_ends_at_once_when_its_client_resets() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    for (name, request, steps) in [
        ("waiting for the head", GET, vec![Move::AwaitEof]),
        ("within the body", GET, vec![Move::text(head), Move::AwaitEof]),
        (
            "within the upload",
            "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
            vec![Move::AwaitEof],
        ),
        (
            "within chunks",
            "POST /api/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            vec![Move::AwaitEof],
        ),
        (
            "with a request behind",
            "GET /api/x HTTP/1.1\r\nHost: a\r\n\r\nGET /api/y HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![Move::AwaitEof],
        ),
    ] {
        for resets in [true, false] {
            let (forbear, origin) = before(once(steps.clone())).await;
            let mut client = RawClient::connect(forbear.proxy()).await;
            client.send(request).await;
            origin.until_received(0, "\r\n\r\n").await;
            if name == "within the body" {
                client.until_text("hello").await;
            }
            if resets {
                client.reset();
            } else {
                drop(client);
            }
            // 100 ms is the promise; the rest is for a busy machine, far below the time limits.
            let ended = timeout(Duration::from_millis(500), origin.until_ended(0)).await;
            assert!(ended.is_ok(), "{name}, reset {resets}");
            assert!(!origin.received_text(0).contains("/y"));
            next_is_good(name, &forbear, &origin).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_head_leaves_nothing_behind() {
    let (forbear, origin) =
        before(vec![vec![Move::AwaitHead, Move::text(GOOD), Move::AwaitEof]]).await;
    for at in 0..GET.len() {
        let mut client = RawClient::connect(forbear.proxy()).await;
        client.send(&GET[..at]).await;
        if at % 2 == 0 {
            client.finish().await;
            let (rest, _) = client.rest().await;
            let text = String::from_utf8_lossy(&rest).into_owned();
            assert!(rest.is_empty() || text.starts_with("HTTP/1.1 400"), "{at}: {text}");
        } else {
            client.reset();
        }
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(RawClient::connect(forbear.proxy()).await.ask(GET).await.text(), "good");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_silent_client_and_a_slow_head_are_closed_in_time() {
    let (forbear, origin) = before(vec![vec![]]).await;
    let (mut silent, mut slow) =
        (RawClient::connect(forbear.proxy()).await, RawClient::connect(forbear.proxy()).await);
    slow.send("GET /api/x HTTP/1.1\r\nHo").await;
    let closed = async {
        assert_eq!(slow.response().await.status, 408);
        silent.closed().await;
    };
    // proxy.header_timeout is one second here.
    assert!(timeout(Duration::from_secs(4), closed).await.is_ok());
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_client_that_closes_its_side_has_gone() {
    let (forbear, origin) = before(once(vec![Move::AwaitEof])).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(GET).await;
    origin.until_received(0, "\r\n\r\n").await;
    client.finish().await;
    client.closed().await;
    origin.until_ended(0).await;
    next_is_good("half closed", &forbear, &origin).await;
}
