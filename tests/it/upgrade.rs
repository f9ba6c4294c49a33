//! Other protocols on the same connection: nothing goes up before the 101, and what is refused
//! leaves HTTP as it was.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::support::forbear::Forbear;
use crate::support::raw::{End, Move, RawClient, RawOrigin};
use crate::support::strict::{Attack, LAST, PLAIN};

const ASK: &str =
    "GET /api/chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const GRANTED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

async fn before(script: Vec<Move>) -> (Forbear, RawOrigin) {
    let origin = RawOrigin::start(vec![script]).await;
    let forbear = Forbear::start(&format!("{PLAIN}[upstreams.api]\nurl = \"{}\"\n", origin.url()));
    (forbear, origin)
}

#[tokio::test]
async fn no_byte_goes_up_before_the_101_and_all_of_them_after_it() {
    let release = Arc::new(Notify::new());
    let script = vec![
        Move::AwaitHead,
        Move::AwaitRelease(release.clone()),
        Move::Write([GRANTED.as_bytes(), b"first"].concat()),
        Move::AwaitText("hello\0\r\n\r\n"),
        Move::text("bye"),
        Move::AwaitEof,
    ];
    let (forbear, origin) = before(script).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send([ASK.as_bytes(), b"hello\0\r\n\r\n"].concat()).await;
    origin.until_received(0, "\r\n\r\n").await;
    // Whatever was going to come too early has had time to.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let mut other = RawClient::connect(forbear.proxy()).await;
    other.ask("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(origin.received_text(0).ends_with("\r\n\r\n"));
    assert!(!origin.received_text(0).contains("hello"), "{}", origin.received_text(0));
    release.notify_one();
    let switched = client.response().await;
    assert_eq!((switched.status, switched.field("upgrade")), (101, Some("websocket")));
    origin.until_received(0, "hello\0\r\n\r\n").await;
    client.finish().await;
    let (rest, _) = client.rest().await;
    assert_eq!(rest, b"firstbye");
    assert_eq!(origin.until_ended(0).await, End::Eof);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_refused_upgrade_leaves_http_and_the_next_request_is_read_as_one() {
    let attack = Attack::start().await;
    for fields in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: foo/2\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: a, b\r\n",
        "Connection: Upgrade\r\nUpgrade: \r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: x\r\n",
    ] {
        let bytes = format!("GET /api/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        attack.served(fields, bytes, "GET /x").await;
        let smuggled = format!(
            "GET /api/x HTTP/1.1\r\nHost: a\r\n{fields}\r\nGET /api/../admin HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let outcome = attack.run(smuggled).await;
        assert!(outcome.lines().iter().all(|line| !line.contains("admin")), "{fields:?}");
        assert_eq!(outcome.statuses().get(..2), Some(&[200, 400][..]), "{fields:?}");
    }
    let body = "POST /api/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Content-Length: 3\r\n\r\nabc";
    let seen = attack.served("with a body", body, "POST /x").await;
    assert_eq!(seen.body, b"abc");
    let nowhere = ASK.replace("/api/chat", "/nowhere");
    let outcome = attack.run(nowhere).await;
    assert_eq!(outcome.statuses()[0], 404);
    let old =
        "GET /api/x HTTP/1.0\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n";
    attack.served("HTTP/1.0", old, "GET /x").await;
}

#[tokio::test]
async fn a_101_that_was_not_asked_for_or_names_another_protocol_is_no_answer() {
    for (request, answer) in [
        ("GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n", GRANTED.to_owned()),
        ("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", GRANTED.to_owned()),
        (ASK, GRANTED.replace("Upgrade: websocket", "Upgrade: other")),
        (ASK, GRANTED.replace("Upgrade: websocket\r\n", "")),
    ] {
        let script = vec![
            Move::AwaitHead,
            Move::text(&answer),
            Move::text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTALE"),
            Move::AwaitEof,
        ];
        let (forbear, origin) = before(script).await;
        let mut client = RawClient::connect(forbear.proxy()).await;
        let got = client.ask(request).await;
        assert_eq!(got.status, 502, "{answer:?}: {}", got.head);
        assert!(!got.text().contains("STALE"));
        origin.until_ended(0).await;
    }
}

#[tokio::test]
async fn either_side_that_leaves_ends_the_tunnel_and_gives_its_place_back() {
    for resets in [false, true] {
        let script = vec![Move::AwaitHead, Move::text(GRANTED), Move::AwaitEof];
        let (forbear, origin) = before(script).await;
        let mut client = RawClient::connect(forbear.proxy()).await;
        assert_eq!(client.ask(ASK).await.status, 101);
        if resets {
            client.reset();
        } else {
            drop(client);
        }
        origin.until_ended(0).await;
        forbear.until("no exchange in flight", |it| it.view("api").in_flight == 0).await;
    }
    let (forbear, _origin) = before(vec![Move::AwaitHead, Move::text(GRANTED), Move::Close]).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    assert_eq!(client.ask(ASK).await.status, 101);
    let (rest, _) = client.rest().await;
    assert!(rest.is_empty());
    let attack = Attack::start().await;
    assert_eq!(attack.run_alone(LAST).await.statuses(), [200]);
}
