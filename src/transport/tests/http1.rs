//! HTTP/1.1 over loopback sockets, with upstreams that do not keep to the protocol.

use super::*;
use crate::transport::ResponseBodyError;
use crate::transport::error::SendErrorKind;

#[tokio::test]
async fn a_new_connection_closed_on_the_request_is_a_reset() {
    for start in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        let target = answering(start).await;

        let error = failure(send(&target, post("x"), OPTIONS).await);

        assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::Reset, false), "{start:?}");
    }
}

#[tokio::test]
async fn a_response_that_ends_early_or_is_broken_never_looks_whole() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_owned(),
        format!("{chunked}5\r\nshort\r\n"),
        format!("{chunked}5\r\nshort"),
        format!("{chunked}5\r\nshort\r\n0\r\n"),
        format!("{chunked}zz\r\nshort\r\n0\r\n\r\n"),
        format!("{chunked}5\r\nshortXX0\r\n\r\n"),
        format!("{chunked}5\nshort\r\n0\r\n\r\n"),
        format!("{chunked}ffffffffffffffffff\r\nshort\r\n0\r\n\r\n"),
    ] {
        let target = answering(answer.clone()).await;

        let response = send(&target, get("/"), OPTIONS).await.unwrap();
        let outcome = response.into_body().collect().await.map(|body| body.to_bytes());

        assert_eq!(outcome.unwrap_err(), ResponseBodyError::Truncated, "{answer:?}");
        until("it is closed", || target.open_connections() == 0).await;
    }
}

#[tokio::test]
async fn what_is_no_http_response_is_a_bad_response() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(80 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(129));
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        &endless,
        &many,
        &"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(17),
    ] {
        let target = answering(answer).await;

        let error = failure(send(&target, get("/"), OPTIONS).await);

        let start: String = answer.chars().take(60).collect();
        assert_eq!(
            (error.kind, error.nothing_sent),
            (SendErrorKind::BadResponse, false),
            "{start}"
        );
    }
}

#[tokio::test]
async fn a_few_informational_responses_are_swallowed() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\n".repeat(16) + "HTTP/1.1 204 No Content\r\n\r\n";
    let target = answering(answer).await;

    let response = send(&target, get("/"), OPTIONS).await.unwrap();

    assert_eq!(response.status(), 204);
}

#[tokio::test]
async fn a_get_of_unknown_length_keeps_its_body_and_its_named_trailers() {
    let (target, seen) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        let head = read_head(&mut stream).await;
        let body = read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        (head, body)
    })
    .await;
    let replay = replay_of(replay::scripted(vec!["pie", "ces"], Some(("x-sum", "6"))));
    let request =
        Request::get("/").header("trailer", "x-sum").body(replay.attempt().unwrap()).unwrap();

    text(send(&target, request, OPTIONS).await.unwrap()).await;

    let (head, body) = seen.await.unwrap();
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(body, "3\r\npie\r\n3\r\nces\r\n0\r\nx-sum: 6\r\n\r\n");
}

#[tokio::test]
async fn an_upgrade_hands_the_connection_over() {
    let (target, _) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let said = read_exactly(&mut stream, 5).await;
        stream.write_all(said.as_bytes()).await.unwrap();
    })
    .await;
    let mut request = get("/");
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());

    let mut response = send(&target, request, OPTIONS).await.unwrap();

    assert_eq!(response.status(), 101);
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    drop(response);
    let mut io = hyper_util::rt::TokioIo::new(upgraded);
    io.write_all(b"hello").await.unwrap();
    assert_eq!(read_exactly(&mut io, 5).await, "hello");
}

#[tokio::test]
async fn nobody_listening_means_refused_and_nothing_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = plain_target(listener.local_addr().unwrap());
    drop(listener);

    let error = failure(send(&target, post("x"), OPTIONS).await);

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::ConnectRefused, true));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_dns_failure() {
    let origin = Origin { scheme: Scheme::Http, host: "name.invalid".into(), port: 80 };
    let target = Target::new(&origin, &TlsConfig::default(), Duration::from_secs(20)).unwrap();

    let error = failure(send(&Arc::new(target), get("/"), OPTIONS).await);

    let is_dns = matches!(error.kind, SendErrorKind::Dns | SendErrorKind::DnsTimeout);
    assert!(is_dns && error.nothing_sent, "{error}");
}

#[test]
fn sending_can_move_between_threads() {
    fn check<T: Send>(_: impl FnOnce(Arc<Target>, Request<RequestBody>, SendOptions) -> T) {}

    check(|target, request, options| async move {
        send(&target, request, options).await.map(|response| response.into_body())
    });
}
