//! Pages that come in pieces, late or not at all: what is whole in time is changed, everything else
//! passes as it comes, and nobody's place is held for longer.

use std::sync::Arc;

use tokio::sync::Notify;

use super::untouched;
use crate::support::forbear::Forbear;
use crate::support::raw::{Move, RawClient, RawOrigin};
use crate::support::strict::PLAIN;
use crate::support::world::request;

/// An origin that plays these moves after each request head, and forbear before it.
async fn before(moves: Vec<Move>) -> (Forbear, RawOrigin) {
    let script = [vec![Move::AwaitHead], moves].concat();
    let origin = RawOrigin::start(vec![script]).await;
    let url = origin.url();
    let text = format!("{PLAIN}[upstreams.api]\nurl = \"{url}\"\nprofile = \"zendesk\"\n");
    (Forbear::start(&text), origin)
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

#[tokio::test]
async fn a_chunked_page_is_changed_and_its_connection_used_again() {
    let page = |url: &str| format!(r#"{{"next_page":"{url}/2"}}"#);
    // Another upstream's address, which is known before the origin listens.
    let known = "https://pages.example";
    let text = page(known);
    let mut answer = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    for piece in text.as_bytes().chunks(5) {
        let piece = std::str::from_utf8(piece).unwrap();
        answer += &format!("{:x}\r\n{piece}\r\n", piece.len());
    }
    answer += "0\r\n\r\n";
    let twice = [Move::AwaitHead, Move::text(&answer), Move::AwaitHead, Move::text(&answer)];
    let origin = RawOrigin::start(vec![[&twice[..], &[Move::AwaitEof]].concat()]).await;
    let forbear = Forbear::start(&format!(
        "{PLAIN}[upstreams.api]\nurl = \"{}\"\nprofile = \"zendesk\"\n\
         [upstreams.pages]\nurl = \"{known}\"\n",
        origin.url()
    ));
    let mut client = RawClient::connect(forbear.proxy()).await;
    for _ in 0..2 {
        let got = client.ask(request("GET /api/x", &[], b"")).await;
        assert_eq!((got.status, got.text()), (200, page("http://localhost/pages")));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_page_that_takes_longer_than_its_caller_has_streams_on_as_it_came() {
    let go_on = Arc::new(Notify::new());
    let moves = vec![
        Move::text(&format!("{HEAD}Content-Length: 18\r\n\r\n{{\"next_")),
        Move::AwaitRelease(go_on.clone()),
        Move::text("page\":null}"),
        Move::AwaitEof,
    ];
    let (forbear, _origin) = before(moves).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(request("GET /api/x", &["Forbear-Deadline: 500ms"], b"")).await;
    // The origin holds the rest back until the client has the beginning.
    client.until_text("{\"next_").await;
    assert_eq!(untouched(&forbear, "too_slow"), 1);
    go_on.notify_one();
    let response = client.response().await;
    assert_eq!((response.status, &*response.text()), (200, "{\"next_page\":null}"));
}

#[tokio::test]
async fn a_page_that_breaks_off_never_looks_whole() {
    let text = format!("{HEAD}Content-Length: 40\r\n\r\n{{\"next_page\":null}}");
    let (forbear, _origin) = before(vec![Move::text(&text), Move::Close]).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(request("GET /api/x", &[], b"")).await;
    let (bytes, _) = client.rest().await;
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    assert!(text.contains("content-length: 40") && text.ends_with("\r\n\r\n{\"next_page\":null}"));
}

#[tokio::test]
async fn a_client_that_leaves_before_its_page_is_whole_frees_its_place() {
    let moves = vec![Move::text(&format!("{HEAD}Content-Length: 18\r\n\r\n{{")), Move::AwaitEof];
    let (forbear, origin) = before(moves).await;
    let mut client = RawClient::connect(forbear.proxy()).await;
    client.send(request("GET /api/x", &[], b"")).await;
    origin.until_received(0, "GET /x").await;
    forbear.until("a place in flight", |it| it.view("api").in_flight == 1).await;
    client.reset();
    forbear.until("no place in flight", |it| it.view("api").in_flight == 0).await;
}
