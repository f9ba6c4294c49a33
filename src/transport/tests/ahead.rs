//! A body whose beginning was read before its reader came: nobody can tell afterwards.

use http_body::Body;

use super::*;
use crate::transport::ResponseBodyError;

const SOON: Duration = Duration::from_secs(5);

async fn response(answer: &str) -> Response<ResponseBody> {
    send(&answering(answer).await, get("/"), OPTIONS).await.unwrap()
}

#[tokio::test]
async fn what_was_read_ahead_is_still_the_beginning_of_the_body() {
    let sized = "HTTP/1.1 403 No\r\ncontent-length: 10\r\n\r\n0123456789";
    let chunked = "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\n012\r\n4\r\n3456\r\n3\r\n789\r\n0\r\n\r\n";
    for (answer, exact) in [(sized, Some(10)), (chunked, None)] {
        for enough in [1, 5, 10, 4_096] {
            let mut response = response(answer).await;
            response.body_mut().read_ahead(enough, SOON).await;
            let ahead = response.body().ahead().unwrap();
            assert!(ahead.len() >= enough.min(10) && b"0123456789".starts_with(ahead));
            assert_eq!(response.body().size_hint().exact(), exact, "{answer:?} {enough}");
            assert!(response.body().size_hint().lower() >= ahead.len() as u64);
            assert!(!response.body().is_end_stream());
            assert_eq!(text(response).await, "0123456789");
        }
    }
}

#[tokio::test]
async fn trailers_come_behind_what_was_read_ahead() {
    let answer = "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                  5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n";
    let mut response = response(answer).await;
    response.body_mut().read_ahead(4_096, SOON).await;
    assert_eq!(response.body().ahead(), Some(&b"hello"[..]));
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-sum"], "5");
    assert_eq!(whole.to_bytes(), "hello");
}

#[tokio::test]
async fn a_failure_comes_behind_what_was_read_ahead() {
    let mut response = response("HTTP/1.1 403 No\r\ncontent-length: 10\r\n\r\nshort").await;
    response.body_mut().read_ahead(4_096, SOON).await;
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "short");
    assert!(!body.is_end_stream(), "it would look whole");
    assert_eq!(body.frame().await.unwrap().unwrap_err(), ResponseBodyError::Truncated);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_empty_body_stays_one() {
    for answer in [
        "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut response = response(answer).await;
        response.body_mut().read_ahead(4_096, SOON).await;
        assert!(response.into_body().frame().await.is_none(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_and_still_whole() {
    let (go_on, released) = tokio::sync::oneshot::channel::<()>();
    let (target, _) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 4\r\n\r\nha").await.unwrap();
        released.await.unwrap();
        stream.write_all(b"lf").await.unwrap();
    })
    .await;
    let mut response = send(&target, get("/"), OPTIONS).await.unwrap();
    response.body_mut().read_ahead(4_096, Duration::from_millis(20)).await;
    assert!(b"ha".starts_with(response.body().ahead().unwrap_or_default()));
    go_on.send(()).unwrap();
    assert_eq!(text(response).await, "half");
}

#[tokio::test]
async fn a_connection_whose_body_was_read_ahead_to_its_end_is_used_again() {
    let (target, seen) = upstream(|listener| async move {
        let mut stream = accept(&listener).await;
        for _ in 0..2 {
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    for _ in 0..2 {
        let mut response = send(&target, get("/"), OPTIONS).await.unwrap();
        response.body_mut().read_ahead(4_096, SOON).await;
        assert_eq!(text(response).await, "ok");
    }
    seen.await.unwrap();
}
