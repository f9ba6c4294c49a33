//! When a connection is used again, and when never.

use tokio::sync::oneshot;

use super::*;
use crate::transport::Dial;
use crate::transport::error::SendErrorKind;

async fn pooled(target: &Target) {
    until("the connection is back in the pool", || pool::idle_count(target) == 1).await;
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_response_was_read() {
    let (target, seen) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        let mut heads = Vec::new();
        for _ in 0..3 {
            heads.push(read_head(&mut stream).await);
            stream.write_all(OK).await.unwrap();
        }
        (heads, stream)
    })
    .await;

    for path in ["/1", "/2?a=%2F&b", "/3"] {
        let response = send(&target, get(path), OPTIONS).await.unwrap();
        assert_eq!(text(response).await, "ok");
        pooled(&target).await;
    }

    let (heads, _stream) = seen.await.unwrap();
    assert_eq!(heads[1], "GET /2?a=%2F&b HTTP/1.1\r\nhost: upstream.test\r\n\r\n");
    assert_eq!(target.open_connections(), 1);
}

#[tokio::test]
async fn a_post_on_a_dead_pooled_connection_goes_out_exactly_once_on_another_one() {
    let (close, closed) = oneshot::channel();
    let (target, seen) = upstream(|listener| async move {
        let mut first = accept(&listener).await;
        read_head(&mut first).await;
        first.write_all(OK).await.unwrap();
        closed.await.unwrap();
        let mut rest = String::new();
        first.shutdown().await.unwrap();
        first.read_to_string(&mut rest).await.unwrap();
        let mut second = accept(&listener).await;
        let head = read_head(&mut second).await;
        let body = read_exactly(&mut second, 4).await;
        second.write_all(OK).await.unwrap();
        (rest, head, body)
    })
    .await;
    text(send(&target, get("/"), OPTIONS).await.unwrap()).await;
    pooled(&target).await;

    close.send(()).unwrap();
    let response = send(&target, post("once"), OPTIONS).await;

    // Either the close was seen in time, and the request was untouched; or it was not, and the
    // caller is told that it may have gone out. It is never sent twice.
    match response {
        Ok(response) => {
            assert_eq!(text(response).await, "ok");
            let (rest, head, body) = seen.await.unwrap();
            assert_eq!((rest.as_str(), body.as_str()), ("", "once"));
            assert!(head.starts_with("POST /orders HTTP/1.1\r\n"), "{head}");
        }
        Err(error) => {
            assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::Stale, false));
        }
    }
}

/// The far end goes away in the very moment before the request, so that nobody has noticed yet.
#[tokio::test]
async fn a_request_that_a_closing_connection_did_not_take_goes_out_untouched_on_another_one() {
    let (ends, mut far_ends) = tokio::sync::mpsc::channel(2);
    let dial: Dial = Arc::new(move || {
        let (near, far) = tokio::io::duplex(1024);
        let ends = ends.clone();
        Box::pin(async move {
            ends.send(far).await.unwrap();
            Ok(near)
        })
    });
    let target = Arc::new(Target::in_memory(dial, Duration::from_secs(5)));
    let (response, mut first) = tokio::join!(send(&target, get("/"), OPTIONS), async {
        let mut far = far_ends.recv().await.unwrap();
        read_head(&mut far).await;
        far.write_all(OK).await.unwrap();
        far
    });
    text(response.unwrap()).await;
    pooled(&target).await;

    first.shutdown().await.unwrap();
    let answering = async {
        let mut second = far_ends.recv().await.unwrap();
        let head = read_head(&mut second).await;
        let body = read_exactly(&mut second, 4).await;
        second.write_all(OK).await.unwrap();
        (head, body)
    };
    let (response, (head, body)) = tokio::join!(send(&target, post("once"), OPTIONS), async {
        tokio::time::timeout(Duration::from_secs(10), answering).await.expect("a second connection")
    });

    assert_eq!(text(response.unwrap()).await, "ok");
    assert!(head.contains("content-length: 4\r\n"), "{head}");
    assert_eq!(body, "once");
    let mut rest = String::new();
    first.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "", "the closed connection got nothing of it");
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_while_idle_is_replaced_silently() {
    let (target, _) = upstream(|listener| async move {
        for _ in 0..2 {
            let mut stream = accept(&listener).await;
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    text(send(&target, get("/"), OPTIONS).await.unwrap()).await;
    until("the close was noticed", || target.open_connections() == 0).await;

    let response = send(&target, post("x"), OPTIONS).await.unwrap();

    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn a_pooled_connection_closed_on_the_request_is_stale_and_may_have_sent_something() {
    let (target, _) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    text(send(&target, get("/"), OPTIONS).await.unwrap()).await;
    pooled(&target).await;

    let error = failure(send(&target, get("/"), OPTIONS).await);

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::Stale, false), "{error}");
}

#[tokio::test]
async fn a_connection_with_surplus_bytes_is_never_used_again() {
    for (method, surplus) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        ),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokX"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\nbody"),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n0\r\n\r\n",
        ),
    ] {
        let (target, _) = upstream(|listener| async move {
            let mut kept_open = Vec::new();
            loop {
                let mut stream = accept(&listener).await;
                read_head(&mut stream).await;
                stream.write_all(surplus.as_bytes()).await.unwrap();
                kept_open.push(stream);
            }
        })
        .await;
        let mut request = get("/");
        *request.method_mut() = method.parse().unwrap();

        let response = send(&target, request, OPTIONS).await.unwrap();
        text(response).await;

        until("it is closed", || target.open_connections() == 0).await;
        assert_eq!(pool::idle_count(&target), 0, "{surplus:?}");
    }
}

#[tokio::test]
async fn an_unread_response_closes_its_connection() {
    let (target, _) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        stream.read_u8().await.is_err()
    })
    .await;

    drop(send(&target, get("/"), OPTIONS).await.unwrap());

    until("it is closed", || target.open_connections() == 0).await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_closes_the_connection() {
    let (target, _) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(OK).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await
    })
    .await;
    let replay = replay_of(replay::stalled_after("part"));
    let request = Request::post("/").body(replay.attempt().unwrap()).unwrap();

    let response = send(&target, request, OPTIONS).await.unwrap();

    assert_eq!(text(response).await, "ok");
    until("it is closed", || target.open_connections() == 0).await;
    assert!(replay.attempt().is_some(), "the body is free for another attempt");
}

#[tokio::test]
async fn a_forgotten_target_keeps_no_connection() {
    let target = answering_on_and_on().await;
    text(send(&target, get("/"), OPTIONS).await.unwrap()).await;
    pooled(&target).await;

    pool::forget(target.id());

    until("it is closed", || target.open_connections() == 0).await;
}

#[tokio::test]
async fn a_fresh_attempt_uses_no_pooled_connection() {
    let target = answering_on_and_on().await;
    text(send(&target, get("/"), OPTIONS).await.unwrap()).await;
    pooled(&target).await;

    let response = send(&target, get("/"), FRESH).await.unwrap();

    assert_eq!(target.open_connections(), 2);
    text(response).await;
}

async fn answering_on_and_on() -> Arc<Target> {
    let (target, _) = upstream(|listener| async move {
        loop {
            let mut stream = accept(&listener).await;
            tokio::spawn(async move {
                while !read_head(&mut stream).await.is_empty() {
                    stream.write_all(OK).await.unwrap();
                }
            });
        }
    })
    .await;
    target
}
