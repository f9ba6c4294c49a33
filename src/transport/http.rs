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
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::body::{RequestBody, Upload};
use super::connect::{Io, Link};
use super::error::{SendError, SendErrorKind};
use super::failure::{Facts, late, of_hyper, too_many_informational};
use super::timer::Alarm;
use super::{Target, head};
use crate::io::poll_write_pieces;

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
/// Informational responses before the final one. More than a few are an attempt to keep us busy.
const INFORMATIONAL_MAX: u64 = 16;
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
        let io = TokioIo::new(Metered { io: link.io, meter: meter.clone() });
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
        Ok(Self::Http1(Http1 { sender, driver, meter, alarm: Alarm::default(), open }))
    }

    /// Sends one request and waits for the head of its response.
    pub(super) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        upload: &Upload,
        target: &Target,
        is_reused: bool,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let (meter, is_http2) = match self {
            Self::Http1(connection) => (connection.meter.clone(), false),
            Self::Http2(connection) => (connection.meter.clone(), true),
        };
        let before = meter.reading();
        let ended = match self {
            Self::Http1(connection) => connection.send(request, before, deadline).await,
            Self::Http2(connection) => connection.send(request, target, deadline).await,
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

/// What hyper says of a request, or our own verdict.
type Ended = Result<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>, Verdict>;
type Verdict = fn(Facts) -> SendError;

impl Http1 {
    async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        before: Reading,
        deadline: Instant,
    ) -> Ended {
        head::for_http1(&mut request);
        let mut sending = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            let ended = sending.as_mut().poll(cx);
            let is_flood = self.meter.reading().is_flood_since(before);
            match ended {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(Ok(response))),
                _ if is_flood => Poll::Ready(Err(too_many_informational as Verdict)),
                Poll::Ready(Err(failed)) => Poll::Ready(Ok(Err(failed))),
                Poll::Pending => self.alarm.poll_due(cx, deadline).map(|()| Err(late as Verdict)),
            }
        })
        .await
    }

    /// Reads and writes what can be; `cx` is woken when there is more to do.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Whether another request can be sent, as far as was seen when it was driven last.
    pub(super) fn seems_ready(&self) -> bool {
        self.sender.is_ready() && !self.sender.is_closed()
    }

    /// Looks what has happened to it while nobody drove it: whether another request can be sent.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.seems_ready()
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
    async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        target: &Target,
        deadline: Instant,
    ) -> Ended {
        let (scheme, authority) = target.pseudo_fields();
        head::for_http2(&mut request, scheme, authority);
        let sending = self.sender.try_send_request(request);
        timeout_at(deadline, sending).await.map_err(|_| late as Verdict)
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

/// Bytes that a connection's socket has taken and given.
#[derive(Default)]
struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    /// Informational heads, of those that began a read.
    informational: AtomicU64,
}

#[derive(Clone, Copy)]
struct Reading {
    read: u64,
    written: u64,
    informational: u64,
}

impl Reading {
    /// Whether what came since then, without a final head, is there to keep us busy. The bytes
    /// bound what the count misses, since it looks at the start of each read only; hyper's own
    /// callback for informational responses would cost every request four allocations.
    fn is_flood_since(&self, before: Self) -> bool {
        self.informational - before.informational > INFORMATIONAL_MAX
            || self.read - before.read > HEAD_BYTES_MAX as u64
    }
}

/// How many informational heads `bytes` begins with.
fn informational_heads(bytes: &[u8]) -> u64 {
    const START: &[u8] = b"HTTP/1.1 1";
    if !bytes.starts_with(START) {
        return 0;
    }
    bytes.windows(START.len()).filter(|window| *window == START).count() as u64
}

impl Meter {
    fn reading(&self) -> Reading {
        Reading {
            read: self.read.load(Ordering::Acquire),
            written: self.written.load(Ordering::Acquire),
            informational: self.informational.load(Ordering::Acquire),
        }
    }
}

struct Metered {
    io: Box<dyn Io>,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, buffer);
        let read = buffer.filled().get(before..).unwrap_or_default();
        self.meter.read.fetch_add(read.len() as u64, Ordering::Release);
        let informational = informational_heads(read);
        if informational > 0 {
            self.meter.informational.fetch_add(informational, Ordering::Release);
        }
        outcome
    }
}

impl Metered {
    fn record(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &outcome {
            self.meter.written.fetch_add(*count as u64, Ordering::Release);
        }
        outcome
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.record(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = poll_write_pieces(Pin::new(&mut self.io), cx, pieces);
        self.record(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
