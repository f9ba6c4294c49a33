//! The life of one socket: find out what is spoken, let hyper serve it, put it to rest, close it.
//!
//! `hyper_util`'s automatic server has no timer before the protocol is known, so a connection that says
//! nothing would live for ever; here the watchdog runs from the first moment. An idle HTTP/1.1
//! connection gives hyper's state and its read buffer back after a moment and takes new ones at its next
//! byte: most connections of a pool are idle, and then cost little more than their socket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;

use super::connection::{Connection, Phase};
use super::gate::{GateIo, Greeting, Socket};
use super::head::{FIELDS_MAX, HEAD_MAX};
use super::service::{self, Answer, UnderWay};
use super::shutdown::{Connections, Load, Orders, Seat};
use super::watchdog::{Rest, Watchdog};
use super::{Exchanges, Protocol};

/// hyper's buffers: a whole head in one piece, which the gate has seen to be no longer than its limit.
const BUFFER_MAX: usize = HEAD_MAX + 8 * 1024;

/// Concurrent streams of one HTTP/2 connection; the minimum that RFC 9113 section 5.1.2 recommends.
const STREAMS_MAX: u32 = 100;

/// Flow control windows: what one slow upload, or all of a connection, can make forbear keep.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Decoded size of one header list; a hundred streams may have one each.
const HEADER_LIST_MAX: u32 = 16 * 1024;

/// Streams reset by the peer before they were looked at (rapid reset), and by us for errors of the
/// peer (made-you-reset), before the connection is closed.
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 64;

/// Ping, and wait for its answer: tells a dead HTTP/2 peer from a quiet one.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Response bytes kept for one stream.
const SEND_BUFFER_MAX: usize = 64 * 1024;

/// Everything that is the same for all connections of a worker.
#[derive(Clone, Debug)]
pub(super) struct Host<E> {
    pub(super) exchanges: E,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) load: Arc<Load>,
}

/// Serves one socket to its end.
pub(super) async fn run<S: Socket, E: Exchanges>(
    socket: S,
    connection: Arc<Connection>,
    seat: Option<Seat>,
    mut host: Host<E>,
) {
    let timeouts = host.orders.borrow().timeouts;
    let mut watchdog = Watchdog::new(Arc::clone(&connection), timeouts);
    let mut io = GateIo::new(socket, Arc::clone(&connection), seat);
    loop {
        match greet(&mut io, &connection, &mut watchdog, &mut host.orders).await {
            Greeting::Gone => return,
            Greeting::Http1 => {
                connection.speaks(Protocol::Http1);
                // Boxed, so that a resting connection does not pay for the state of a serving one.
                let served = Box::pin(http1(io, &connection, &mut watchdog, &mut host)).await;
                let Some(rested) = served else { return };
                io = rested;
                watchdog.rest(Rest::Dormant);
            }
            Greeting::Http2 => {
                connection.speaks(Protocol::Http2);
                return Box::pin(http2(io, &connection, &mut watchdog, &mut host)).await;
            }
        }
    }
}

/// Waits for the first bytes of a connection, or of the next exchange of a dormant one.
async fn greet<S: Socket>(
    io: &mut GateIo<S>,
    connection: &Connection,
    watchdog: &mut Watchdog,
    orders: &mut watch::Receiver<Orders>,
) -> Greeting {
    loop {
        obey(orders, connection);
        tokio::select! {
            biased;
            greeting = poll_fn(|cx| io.poll_greeting(cx)) => return greeting,
            phase = watchdog.expired() => match phase {
                // Half a preface, or the start of a method: the gate answers 408.
                Phase::Head => {
                    connection.head_is_late();
                    return Greeting::Http1;
                }
                Phase::Silent | Phase::Idle | Phase::Stalled | Phase::Busy => return Greeting::Gone,
            },
            changed = orders.changed() => if changed.is_err() { return Greeting::Gone },
        }
        match orders.borrow_and_update().connections {
            Connections::Keep => {}
            // One that has never asked anything may be about to, and deserves an answer.
            Connections::Close if connection.phase().0 != Phase::Idle => {}
            Connections::Close | Connections::Abort => return Greeting::Gone,
        }
    }
}

/// Serves HTTP/1.1 until the connection closes (`None`) or has been idle for a while.
async fn http1<S: Socket, E: Exchanges>(
    io: GateIo<S>,
    connection: &Arc<Connection>,
    watchdog: &mut Watchdog,
    host: &mut Host<E>,
) -> Option<GateIo<S>> {
    let orders = &mut host.orders;
    let service = service(&host.exchanges, connection, &host.load);
    let mut server = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // The gate and the watchdog do better.
        .header_read_timeout(None)
        // A client that has closed its side has gone: whatever waits for it is cancelled.
        .half_close(false)
        .max_headers(FIELDS_MAX)
        .max_buf_size(BUFFER_MAX)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    watchdog.rest(if watchdog.rests_long() { Rest::Dozing } else { Rest::Ready });
    loop {
        obey(orders, connection);
        let expired = tokio::select! {
            biased;
            changed = orders.changed() => { changed.ok()?; None }
            end = &mut server => {
                let cut = end.is_err_and(|error| error.is_user());
                if cut && connection.is_http10() && let Some(parts) = server.into_parts() {
                    // Without a length, only a reset shows that the response was cut short.
                    parts.io.into_inner().socket().abort();
                }
                return None;
            }
            phase = watchdog.expired() => Some(phase),
        };
        let asked = orders.borrow_and_update().connections;
        match (expired, asked) {
            (Some(Phase::Stalled), _) | (_, Connections::Abort) => return None,
            (Some(Phase::Head), _) => connection.head_is_late(),
            (Some(Phase::Idle), Connections::Keep) if watchdog.rests_long() => {
                watchdog.rest(Rest::Dormant);
                let parts = server.into_parts()?;
                let mut io = parts.io.into_inner();
                return (parts.read_buf.is_empty() && io.come_to_rest()).then_some(io);
            }
            (Some(_), _) => Pin::new(&mut server).graceful_shutdown(),
            (None, Connections::Close) => {
                connection.close_after();
                // What has arrived by now is answered; and so is a head that has begun, by an answer
                // that says `Connection: close`.
                if poll_fn(|cx| Poll::Ready(Pin::new(&mut server).poll(cx).is_ready())).await {
                    return None;
                }
                match connection.phase().0 {
                    Phase::Idle | Phase::Busy | Phase::Stalled => {
                        Pin::new(&mut server).graceful_shutdown();
                    }
                    Phase::Silent | Phase::Head => {}
                }
            }
            (None, Connections::Keep) => {}
        }
    }
}

/// Serves HTTP/2 until the connection closes.
async fn http2<S: Socket, E: Exchanges>(
    io: GateIo<S>,
    connection: &Arc<Connection>,
    watchdog: &mut Watchdog,
    host: &mut Host<E>,
) {
    let orders = &mut host.orders;
    let service = service(&host.exchanges, connection, &host.load);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .serve_connection(TokioIo::new(io), service);
    let mut server = std::pin::pin!(server);
    loop {
        obey(orders, connection);
        let expired = tokio::select! {
            biased;
            _ = &mut server => return,
            phase = watchdog.expired() => Some(phase),
            changed = orders.changed() => if changed.is_err() { return } else { None },
        };
        let asked = orders.borrow_and_update().connections;
        match (expired, asked) {
            (Some(Phase::Stalled), _) | (_, Connections::Abort) => return,
            // It was asked to close before, and had time to.
            (Some(_), _) if connection.is_closing() => return,
            (Some(_), _) | (None, Connections::Close) => {
                connection.close_after();
                server.as_mut().graceful_shutdown();
            }
            (None, Connections::Keep) => {}
        }
    }
}

/// What hyper calls for each request.
#[expect(clippy::type_complexity, reason = "it is hyper's trait, written out")]
fn service<E: Exchanges>(
    exchanges: &E,
    connection: &Arc<Connection>,
    load: &Arc<Load>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Answer<E::Body>>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Answer<E::Body>>, Infallible>> + Send + use<E>,
> + Send
+ use<E> {
    let (exchanges, connection, load) = (exchanges.clone(), connection.clone(), load.clone());
    service_fn(move |request| {
        let intake = service::admit(request, &connection);
        service::exchange(exchanges.clone(), intake, UnderWay::begin(&connection, &load))
    })
}

/// Orders may be older than the connection.
fn obey(orders: &watch::Receiver<Orders>, connection: &Connection) {
    if orders.borrow().connections != Connections::Keep {
        connection.close_after();
    }
}
