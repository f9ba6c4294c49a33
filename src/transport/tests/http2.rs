//! HTTP/2, agreed upon by ALPN.

use std::sync::Mutex;

use h2::Reason;
use tokio_rustls::server::TlsStream;

use super::secure::Pki;
use super::*;
use crate::transport::ResponseBodyError;
use crate::transport::error::SendErrorKind;

type Seen = Arc<Mutex<Vec<Request<()>>>>;

/// A server that answers the n-th stream of each connection as the script says.
async fn serving(script: fn(usize, h2::server::SendResponse<Bytes>)) -> (Pki, Arc<Target>, Seen) {
    let pki = Pki::new();
    let seen = Seen::default();
    let seen_there = seen.clone();
    let serve = move |stream: TlsStream<TcpStream>| {
        let seen = seen_there.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut bodies = Vec::new();
            let mut count = 0;
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (head, body) = request.into_parts();
                seen.lock().unwrap().push(Request::from_parts(head, ()));
                bodies.push(body);
                script(count, respond);
                count += 1;
            }
        }
    };
    let address = pki.serve(pki.leaf("localhost", false), &["h2"], false, serve).await;
    let target = pki.target(address);
    (pki, target, seen)
}

fn answer(mut respond: h2::server::SendResponse<Bytes>) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data("ok".into(), true).unwrap();
}

#[tokio::test]
async fn requests_share_one_connection_and_carry_their_host_as_authority() {
    let (_pki, target, seen) = serving(|_, respond| answer(respond)).await;

    for _ in 0..3 {
        let response = send(&target, get("/a%2Fb?c"), OPTIONS).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(text(response).await, "ok");
    }
    let response = send(&target, post("body"), OPTIONS).await.unwrap();
    text(response).await;

    assert_eq!(target.open_connections(), 1);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].uri(), "https://upstream.test/a%2Fb?c");
    assert!(!seen[0].headers().contains_key("host"));
    assert_eq!(seen[3].headers()["content-length"], "4");
}

#[tokio::test]
async fn a_refused_stream_was_not_sent_and_its_connection_lives_on() {
    let (_pki, target, _) = serving(|count, mut respond| match count {
        0 => respond.send_reset(Reason::REFUSED_STREAM),
        _ => answer(respond),
    })
    .await;

    let error = failure(send(&target, post("x"), OPTIONS).await);
    let again = send(&target, post("x"), OPTIONS).await.unwrap();

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::Refused, true));
    assert_eq!(text(again).await, "ok");
    assert_eq!(target.open_connections(), 1);
}

#[tokio::test]
async fn any_other_reset_may_have_been_processed() {
    let (_pki, target, _) =
        serving(|_, mut respond| respond.send_reset(Reason::INTERNAL_ERROR)).await;

    let error = failure(send(&target, post("x"), OPTIONS).await);

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::Reset, false));
}

#[tokio::test]
async fn a_stream_that_is_reset_in_its_body_is_truncated() {
    let (_pki, target, _) = serving(|_, mut respond| {
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("part".into(), false).unwrap();
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            body.send_reset(Reason::INTERNAL_ERROR);
        });
    })
    .await;

    // The reset may overtake the head; then there is no response at all.
    if let Ok(response) = send(&target, get("/"), OPTIONS).await {
        let outcome = response.into_body().collect().await.map(|_| ());
        assert_eq!(outcome, Err(ResponseBodyError::Truncated));
    }
}

/// Frames by hand: an empty SETTINGS, then, once a request is there, a GOAWAY.
async fn going_away(last_stream: u8) -> (Pki, Arc<Target>) {
    let pki = Pki::new();
    let serve = move |mut stream: TlsStream<TcpStream>| async move {
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut seen = Vec::new();
        // Preface, then frames up to the first HEADERS.
        loop {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.unwrap();
            seen.extend_from_slice(&piece[..count]);
            if has_headers(&seen) {
                break;
            }
        }
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last_stream, 0, 0, 0, 0];
        stream.write_all(&goaway).await.unwrap();
        let _ = stream.shutdown().await;
    };
    let address = pki.serve(pki.leaf("localhost", false), &["h2"], false, serve).await;
    let target = pki.target(address);
    (pki, target)
}

fn has_headers(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(24..).unwrap_or_default();
    while let [a, b, c, kind, ..] = *rest {
        if kind == 1 {
            return true;
        }
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_goaway_tells_whether_the_request_was_processed() {
    let (_pki, target) = going_away(0).await;
    let above = failure(send(&target, post("x"), OPTIONS).await);
    assert_eq!((above.kind, above.nothing_sent), (SendErrorKind::Refused, true), "{above}");

    let (_pki, target) = going_away(1).await;
    let within = failure(send(&target, post("x"), OPTIONS).await);
    assert_eq!((within.kind, within.nothing_sent), (SendErrorKind::Reset, false), "{within}");
}

#[tokio::test]
async fn an_upgrade_asks_for_http1_only() {
    let (_pki, target, _) = serving(|_, respond| answer(respond)).await;
    let mut request = get("/");
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());

    let error = failure(send(&target, request, OPTIONS).await);

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::TlsProtocol, true));
}

#[tokio::test]
async fn an_unread_response_ends_its_stream_and_not_its_connection() {
    let (_pki, target, _) = serving(|count, mut respond| match count {
        0 => {
            let body = respond.send_response(Response::new(()), false).unwrap();
            tokio::spawn(async move {
                let mut body = body;
                let reset = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
                assert_eq!(reset.unwrap(), Reason::CANCEL);
            });
        }
        _ => answer(respond),
    })
    .await;

    drop(send(&target, get("/"), OPTIONS).await.unwrap());
    let next = send(&target, get("/"), OPTIONS).await.unwrap();

    assert_eq!(text(next).await, "ok");
    assert_eq!(target.open_connections(), 1);
}

#[tokio::test]
async fn an_upload_ends_with_its_response_and_the_connection_lives_on() {
    let (_pki, target, _) = serving(|_, respond| answer(respond)).await;
    let replay = replay_of(replay::stalled_after("part"));
    let request =
        Request::post("/").header("host", "upstream.test").body(replay.attempt().unwrap()).unwrap();

    let response = send(&target, request, OPTIONS).await.unwrap();
    assert_eq!(text(response).await, "ok");

    // Nothing but the test's own handle is left of the body once the stream has let go of it.
    until("the upload has ended", || replay.holders() == 1).await;
    let next = send(&target, get("/"), OPTIONS).await.unwrap();
    assert_eq!(text(next).await, "ok");
    assert_eq!(target.open_connections(), 1);
}
