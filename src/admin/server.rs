//! Serves a router on a bound listener, until told to end.
//!
//! Plain HTTP/1.1 by hyper itself rather than `axum::serve`, because the bounds that make a
//! listener safe to leave open are set there: a head must come in time, connections are counted,
//! and an event stream that never ends does not hold up the end of the process.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// A few people, a scraper and a probe.
pub const CONNECTIONS_MAX: usize = 128;
/// Until a request head is complete; also how long an idle connection is kept.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// How long answers under way may take once the end has been asked for. Event streams would go on
/// for ever, and the end of the process has little time for more important things.
const GRACE: Duration = Duration::from_millis(300);
/// After a failed accept, usually for want of file descriptors: asking again at once cannot help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until `end` resolves, then finishes what is under way.
///
/// # Errors
/// When a standard listener cannot be made non-blocking.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Router,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (ending, _) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, place)) => {
                let connection = connection(stream, app.clone(), ending.subscribe());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    ending.send_replace(true);
    let rest = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, rest).await;
    Ok(())
}

/// Waits for a place before it accepts, so that who comes too many waits in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn connection(stream: TcpStream, app: Router, mut ending: watch::Receiver<bool>) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        app.clone().oneshot(request.map(Body::new))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    // An error is a client that left or sent garbage: its own business, and not worth a line.
    let told_to_end = async { ending.wait_for(|ending| *ending).await.is_ok() };
    tokio::select! {
        _ = &mut connection => {}
        _ = told_to_end => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
