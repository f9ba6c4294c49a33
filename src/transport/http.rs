//! HTTP/1.1 and HTTP/2 behind one type, and what exactly happened to a request that failed.
//!
//! Whether a request may be repeated depends on whether any of it left this process. hyper gives
//! a request back that it never began with; for one that it began with, each connection counts
//! the bytes that its socket took.
//!
//! An HTTP/1.1 connection has no task of its own: whoever waits for its response, or reads the
//! response's body, drives it. So a response wakes one task instead of going back and forth between
//! two, and a dropped exchange closes its connection in the same step. A connection that nobody
//! uses is looked at when it is taken from the pool, and when the pool is swept.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::body::{RequestBody, Upload};
use super::connect::Link;
use super::error::{SendError, SendErrorKind};
use super::failure::{Facts, late, of_hyper, too_many_informational};
use super::meter::{Meter, Metered, Reading};
use super::timer::Alarm;
use super::wake::Bell;
use super::{Target, head};

/// A response head may be this large, on the wire, and so may all informational ones before it;
/// hyper reads bodies through the same buffer.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The same for HTTP/2, uncompressed (RFC 9113 6.5.2).
const HEAD_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Fields in a response head. Real ones have some tens.
const HEAD_FIELDS_MAX: usize = 128;
/// What one slow reader may leave unread in HTTP/2, and all streams of a connection together: a
/// worker's default share of 16 stalled streams must not stop a seventeenth.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// A connection with requests in flight is probed this often, and given up after this long.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that requests can be sent on.
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2),
}

/// Carries one request at a time, and does so only while it is driven. Closes when dropped,
/// whatever it is doing.
pub(super) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended. How it ended is told to each request by its own error.
    driver: Option<Driver>,
    meter: Arc<Meter>,
    bell: Bell,
    /// For whoever waits for the peer.
    pub(super) alarm: Alarm,
    open: Open,
}

/// hyper's connection, for which it has no public name.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Carries many; closes once no clone is left and the last stream has ended.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<RequestBody>,
    meter: Arc<Meter>,
    users: Arc<()>,
}

/// Why a request got no response head, and the request itself if nothing happened to it.
pub(super) struct Failure {
    pub(super) error: SendError,
    pub(super) request: Option<Box<Request<RequestBody>>>,
}

impl Connection {
    /// Begins to speak HTTP. Nothing of a request is involved yet.
    pub(super) async fn open(link: Link, target: &Target) -> Result<Self, SendError> {
        let meter = Arc::new(Meter::default());
        let io = TokioIo::new(Metered::new(link.io, meter.clone()));
        let open = target.count_open();
        let failed = |error: hyper::Error| {
            let kind = SendErrorKind::Reset;
            SendError { kind, nothing_sent: true, detail: format!("HTTP handshake: {error}") }
        };
        if link.is_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(HEAD_LIST_BYTES_MAX)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .handshake(io)
                .await
                .map_err(failed)?;
            tokio::spawn(async move {
                let _open = open;
                // How it ended is told to each request by its own error.
                let _ = connection.await;
            });
            return Ok(Self::Http2(Http2 { sender, meter, users: Arc::new(()) }));
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEAD_FIELDS_MAX)
            .handshake(io)
            .await
            .map_err(failed)?;
        let driver: Option<Driver> = Some(Box::pin(connection.with_upgrades()));
        let (bell, alarm) = (Bell::new(), Alarm::default());
        Ok(Self::Http1(Http1 { sender, driver, meter, bell, alarm, open }))
    }

    /// Sends one request and waits for the head of its response. hyper has the request before the
    /// future exists, which therefore does not carry it.
    pub(super) fn exchange<'a>(
        &'a mut self,
        request: Request<RequestBody>,
        upload: &'a Upload,
        target: &Target,
        is_reused: bool,
        deadline: Instant,
    ) -> impl Future<Output = Result<Response<Incoming>, Failure>> + Send + use<'a> {
        let (meter, is_http2) = match self {
            Self::Http1(connection) => (connection.meter.clone(), false),
            Self::Http2(connection) => (connection.meter.clone(), true),
        };
        let before = meter.reading();
        let sending = match self {
            Self::Http1(connection) => Sending::Http1(connection.send(request, before, deadline)),
            // Boxed, so that those of HTTP/1.1 do not carry what this needs.
            Self::Http2(connection) => {
                Sending::Http2(Box::pin(connection.send(request, target, deadline)))
            }
        };
        async move {
            let ended = match sending {
                Sending::Http1(sending) => sending.await,
                Sending::Http2(sending) => sending.await,
            };
            let facts = |is_untouched: bool| {
                let after = meter.reading();
                Facts {
                    is_reused,
                    is_http2,
                    // A stream's share of a shared connection's bytes is not known.
                    nothing_sent: is_untouched || (!is_http2 && after.written == before.written),
                    nothing_received: after.read == before.read,
                    body_fault: upload.fault(),
                }
            };
            match ended {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(mut failed)) => {
                    let request = failed.take_message().map(Box::new);
                    let error = of_hyper(failed.error(), facts(request.is_some()));
                    Err(Failure { error, request })
                }
                Err(verdict) => Err(Failure { error: verdict(facts(false)), request: None }),
            }
        }
    }
}

/// A request on its way, by protocol.
enum Sending<A, B> {
    Http1(A),
    Http2(B),
}

/// What hyper says of a request, or our own verdict.
type Ended = Result<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>, Verdict>;
type Verdict = fn(Facts) -> SendError;

impl Http1 {
    fn send(
        &mut self,
        mut request: Request<RequestBody>,
        before: Reading,
        deadline: Instant,
    ) -> impl Future<Output = Ended> + Send {
        head::for_http1(&mut request);
        self.bell.attend();
        let mut sending = Box::pin(self.sender.try_send_request(request));
        poll_fn(move |cx| {
            let ended = self.bell.poll(cx, |cx| {
                drive(&mut self.driver, cx);
                sending.as_mut().poll(cx)
            });
            let is_flood = self.meter.reading().is_flood_since(before);
            match ended {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(Ok(response))),
                _ if is_flood => Poll::Ready(Err(too_many_informational as Verdict)),
                Poll::Ready(Err(failed)) => Poll::Ready(Ok(Err(failed))),
                Poll::Pending => self.alarm.poll_due(cx, deadline).map(|()| Err(late as Verdict)),
            }
        })
    }

    /// The next frame of the response that this connection carries.
    pub(super) fn poll_frame(
        &mut self,
        incoming: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { bell, driver, .. } = self;
        bell.poll(cx, |cx| {
            if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) {
                return Poll::Ready(frame);
            }
            // It has called the connection, which is driven at once.
            bell.attend();
            drive(driver, cx);
            Pin::new(incoming).poll_frame(cx)
        })
    }

    /// Whether another request can be sent, as far as was seen when it was driven last.
    pub(super) fn seems_ready(&self) -> bool {
        self.sender.is_ready() && !self.sender.is_closed()
    }

    /// Looks what has happened to it while nobody drove it: whether another request can be sent.
    pub(super) fn is_ready(&mut self) -> bool {
        drive(&mut self.driver, &mut Context::from_waker(self.bell.waker()));
        self.seems_ready()
    }

    /// Nobody waits for anything from it until it is used again.
    pub(super) fn rest(&self) {
        self.bell.detach();
    }

    /// Lets the connection live on without us, because it was upgraded.
    pub(super) fn hand_over(self) {
        let Self { driver, open, .. } = self;
        if let Some(driver) = driver {
            tokio::spawn(async move {
                let _open = open;
                let _ = driver.await;
            });
        }
    }
}

fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

impl Http2 {
    fn send(
        &mut self,
        mut request: Request<RequestBody>,
        target: &Target,
        deadline: Instant,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (scheme, authority) = target.pseudo_fields();
        head::for_http2(&mut request, scheme, authority);
        let sending = self.sender.try_send_request(request);
        async move { timeout_at(deadline, sending).await.map_err(|_| late as Verdict) }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether only the pool holds it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.users) == 1
    }
}

/// One more open connection, until dropped.
pub(super) struct Open(Arc<AtomicI64>);

impl Open {
    pub(super) fn new(count: &Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
