//! The raw sockets, tried on each other.

use std::sync::Arc;

use tokio::sync::Notify;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn pair(script: Vec<Move>) -> (RawOrigin, RawClient) {
    let origin = RawOrigin::start(vec![script]).await;
    let client = RawClient::connect(origin.addr).await;
    (origin, client)
}

#[tokio::test]
async fn an_origin_records_each_byte_and_answers_each_head_in_turn() {
    let script = vec![Move::AwaitHead, Move::text(OK), Move::AwaitHead, Move::text(OK)];
    let (origin, mut client) = pair(script).await;
    client.send_pieces(["GET / HT", "TP/1.1\r\nHost: a\r", "\n\r\n"]).await;
    assert_eq!(client.response().await.text(), "ok");
    assert_eq!(client.ask(GET).await.status, 200);
    assert_eq!(client.closed().await, End::Eof, "a script that is over closes");
    assert_eq!(origin.received_text(0), format!("{GET}{GET}"));
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_reset_is_told_from_a_close() {
    for (last, expected) in [(Move::Reset, End::Reset), (Move::Close, End::Eof)] {
        let (_origin, mut client) = pair(vec![Move::AwaitHead, last]).await;
        client.send(GET).await;
        assert_eq!(client.closed().await, expected);
    }
}

#[tokio::test]
async fn an_origin_sees_how_a_client_goes() {
    let (origin, client) = pair(vec![Move::AwaitEof]).await;
    client.reset();
    assert_eq!(origin.until_ended(0).await, End::Reset);

    let (origin, mut client) = pair(vec![Move::AwaitEof, Move::text(OK)]).await;
    client.finish().await;
    assert_eq!(client.response().await.status, 200, "only one side was closed");
    assert_eq!(origin.until_ended(0).await, End::Eof);
}

#[tokio::test]
async fn each_framing_of_a_body_is_read_to_its_end_and_no_further() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nSum: 4\r\n\r\n";
    let rest = "HTTP/1.0 200 OK\r\n\r\nuntil the end";
    let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n";
    let bytes = [early, OK, head, chunked, rest].concat().into_bytes();
    let pause = Duration::from_nanos(1);
    let (_origin, mut client) = pair(vec![Move::WriteSlowly { bytes, piece: 7, pause }]).await;

    assert_eq!(client.response().await.field("link"), Some("x"));
    assert_eq!(client.response().await.text(), "ok");
    assert_eq!(client.response_to_head().await.body, b"");
    let response = client.response().await;
    assert_eq!(response.text(), "abcd");
    assert_eq!(response.trailers, [("Sum".to_owned(), "4".to_owned())]);
    assert_eq!(client.response().await.text(), "until the end");
}

#[tokio::test]
async fn an_origin_waits_until_it_is_released() {
    let released = Arc::new(Notify::new());
    let script = vec![
        Move::AwaitText("\r\n\r\n"),
        Move::AwaitBytes(3),
        Move::AwaitRelease(Arc::clone(&released)),
        Move::text(OK),
        Move::HalfClose,
        Move::AwaitEof,
    ];
    let (origin, mut client) = pair(script).await;
    client.send(format!("{GET}abc")).await;
    origin.until_received(0, "abc").await;
    released.notify_one();
    assert_eq!(client.rest().await, (OK.as_bytes().to_vec(), End::Eof));
}

#[tokio::test]
async fn the_last_script_serves_all_further_connections() {
    let answer = |text: &str| vec![Move::AwaitHead, Move::text(&OK.replace("ok", text))];
    let origin = RawOrigin::start(vec![answer("aa"), answer("bb")]).await;
    for expected in ["aa", "bb", "bb"] {
        let mut client = RawClient::connect(origin.addr).await;
        assert_eq!(client.ask(GET).await.text(), expected);
    }
    origin.until_connections(3).await;
}
