//! HTTP/1.1 and HTTP/2 behind one type, and what exactly happened to a request that failed.
//!
//! Whether a request may be repeated depends on whether any of it left this process. hyper gives
//! a request back that it never began with; for one that it began with, each connection counts
//! the bytes that its socket took.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::body::{RequestBody, Upload};
use super::connect::{Io, Link};
use super::error::{SendError, SendErrorKind};
use super::failure::{Facts, late, of_hyper, too_many_informational};
use super::{Target, head};

/// A response head may be this large, on the wire; hyper reads bodies through the same buffer.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The same for HTTP/2, uncompressed (RFC 9113 6.5.2).
const HEAD_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Fields in a response head. Real ones have some tens.
const HEAD_FIELDS_MAX: usize = 128;
/// Informational responses before the final one. More than a few are an attempt to keep us busy.
const INFORMATIONAL_MAX: u32 = 16;
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

/// Carries one request at a time. Closes when dropped, whatever it is doing.
pub(super) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    meter: Arc<Meter>,
    task: CloseOnDrop,
}

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
        let task = tokio::spawn(async move {
            let _open = open;
            let _ = connection.with_upgrades().await;
        });
        let task = CloseOnDrop(Some(task.abort_handle()));
        Ok(Self::Http1(Http1 { sender, meter, task }))
    }

    /// Sends one request and waits for the head of its response.
    pub(super) async fn exchange(
        &mut self,
        mut request: Request<RequestBody>,
        upload: &Upload,
        target: &Target,
        is_reused: bool,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        let flood = Arc::new(Flood::default());
        let meter = match self {
            Self::Http1(connection) => connection.meter.clone(),
            Self::Http2(connection) => connection.meter.clone(),
        };
        let before = meter.reading();
        let is_http2 = matches!(self, Self::Http2(_));
        let sending = async {
            match self {
                Self::Http1(connection) => {
                    head::for_http1(&mut request);
                    flood.watch(&mut request);
                    connection.sender.try_send_request(request).await
                }
                Self::Http2(connection) => {
                    let (scheme, authority) = target.pseudo_fields();
                    head::for_http2(&mut request, scheme, authority);
                    connection.sender.try_send_request(request).await
                }
            }
        };
        type Verdict = fn(Facts) -> SendError;
        let ended = tokio::select! {
            biased;
            () = flood.over.notified() => Err(too_many_informational as Verdict),
            ended = timeout_at(deadline, sending) => ended.map_err(|_| late as Verdict),
        };
        let after = meter.reading();
        let facts = |is_untouched: bool| Facts {
            is_reused,
            is_http2,
            // A stream's share of a shared connection's bytes is not known.
            nothing_sent: is_untouched || (!is_http2 && after.written == before.written),
            nothing_received: after.read == before.read,
            body_fault: upload.fault(),
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

impl Http1 {
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Lets the connection live on without us, because it was upgraded.
    pub(super) fn hand_over(mut self) {
        self.task.0 = None;
    }
}

impl Http2 {
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether only the pool holds it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.users) == 1
    }
}

/// Ends a connection's task, and so its socket. Dropping the sender alone would let a stalled
/// upload go on.
struct CloseOnDrop(Option<AbortHandle>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
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

/// Counts informational responses of HTTP/1. HTTP/2's are skipped by h2 one at a time, and the
/// time for the head bounds them.
#[derive(Default)]
struct Flood {
    count: AtomicU32,
    over: Notify,
}

impl Flood {
    fn watch(self: &Arc<Self>, request: &mut Request<RequestBody>) {
        let flood = self.clone();
        hyper::ext::on_informational(request, move |_| {
            if flood.count.fetch_add(1, Ordering::Relaxed) >= INFORMATIONAL_MAX {
                flood.over.notify_one();
            }
        });
    }
}

/// Bytes that a connection's socket has taken and given.
#[derive(Default)]
struct Meter {
    read: AtomicU64,
    written: AtomicU64,
}

#[derive(Clone, Copy)]
struct Reading {
    read: u64,
    written: u64,
}

impl Meter {
    fn reading(&self) -> Reading {
        Reading {
            read: self.read.load(Ordering::Acquire),
            written: self.written.load(Ordering::Acquire),
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
        let count = buffer.filled().len().saturating_sub(before);
        self.meter.read.fetch_add(count as u64, Ordering::Release);
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
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
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
