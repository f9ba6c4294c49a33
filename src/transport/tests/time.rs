//! Time-outs, over pipes with a paused clock: hours pass in no time.

use std::sync::Mutex;

use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::*;
use crate::transport::error::SendErrorKind;
use crate::transport::{Dial, ReplayState, ResponseBodyError, timer};

/// An upstream over pipes; each connection is handled by the script.
fn piped<F>(script: impl Fn(DuplexStream) -> F + Send + Sync + 'static) -> Arc<Target>
where
    F: Future<Output = ()> + Send + 'static,
{
    let dial: Dial = Arc::new(move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(script(far));
        Box::pin(async move { Ok(near) })
    });
    Arc::new(Target::in_memory(dial, Duration::from_secs(5)))
}

fn elapsed(start: Instant) -> u64 {
    timer::now().duration_since(start).as_secs()
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_never_answers_ends_at_the_head_timeout() {
    let target = piped(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let start = timer::now();

    let error = failure(send(&target, get("/"), OPTIONS).await);

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::HeadTimeout, false));
    assert_eq!(elapsed(start), 10);
    until("it is closed", || target.open_connections() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn endless_informational_responses_do_not_outlive_the_head_timeout() {
    let target = piped(|mut stream| async move {
        read_head(&mut stream).await;
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            if stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.is_err() {
                return;
            }
        }
    });
    let start = timer::now();

    let error = failure(send(&target, get("/"), OPTIONS).await);

    assert_eq!((error.kind, elapsed(start)), (SendErrorKind::HeadTimeout, 10));
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_hangs_ends_at_the_connect_timeout() {
    let dial: Dial = Arc::new(|| Box::pin(std::future::pending()));
    let target = Arc::new(Target::in_memory(dial, Duration::from_secs(5)));
    let start = timer::now();

    let error = failure(send(&target, get("/"), OPTIONS).await);

    assert_eq!((error.kind, error.nothing_sent), (SendErrorKind::ConnectTimeout, true));
    assert_eq!(elapsed(start), 5);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_ends_at_the_idle_timeout_and_a_slow_one_goes_on() {
    let target = piped(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            stream.write_all(b"x").await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let start = timer::now();

    let mut body = send(&target, get("/"), OPTIONS).await.unwrap().into_body();
    for _ in 0..5 {
        body.frame().await.unwrap().unwrap();
    }
    let last = body.frame().await.unwrap().map(|_| ());

    assert_eq!(last, Err(ResponseBodyError::IdleTimeout));
    assert_eq!(elapsed(start), 5 * 9 + 10);
    until("it is closed", || target.open_connections() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_its_time_is_not_charged_to_the_upstream() {
    let target = piped(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        std::future::pending::<()>().await;
    });

    let response = send(&target, get("/"), OPTIONS).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;

    assert_eq!(text(response).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_expires() {
    let connections = Arc::new(Mutex::new(0));
    let count = connections.clone();
    let target = piped(move |mut stream| {
        *count.lock().unwrap() += 1;
        async move {
            while !read_head(&mut stream).await.is_empty() {
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
        }
    });

    for pause in [49, 51, 0] {
        text(send(&target, get("/"), OPTIONS).await.unwrap()).await;
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
    assert_eq!(*connections.lock().unwrap(), 2);

    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!(target.open_connections(), 0, "the sweep closes what nobody asks for");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_sending_ends_the_attempt_as_its_own_fault() {
    let target = piped(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let replay = Replay::new(
        replay::stalled_after("part"),
        1 << 16,
        Arc::new(ReplayMemory::new(1 << 20)),
        Duration::from_secs(3),
    );
    let request = Request::post("/").body(replay.attempt().unwrap()).unwrap();
    let start = timer::now();

    let error = failure(send(&target, request, OPTIONS).await);

    assert_eq!((error.kind, elapsed(start)), (SendErrorKind::RequestBody, 3));
    assert_eq!(replay.state(), ReplayState::Broken);
    assert_eq!(replay.fault(), Some(crate::transport::BodyFault::TooSlow));
}
