//! The strict gate: an I/O wrapper between the socket and hyper.
//!
//! For HTTP/1.1 it scans what it reads before hyper sees it. A head that arrived in one piece is judged
//! in hyper's own buffer; a partial one is held back here until it is whole, so hyper never sees a part
//! of a bad one. Nothing behind a message passes before its exchange is finished.
//!
//! A bad head becomes a made-up minimal request, for which the service reports the noted violation: the
//! answer takes its place behind earlier ones, through the one exit path. A bad body becomes a read
//! error. Either way no further byte of the connection is ever interpreted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Violation;
use super::connection::{Connection, Reading};
use super::head::HEAD_MAX;
use super::scanner::{Place, Refusal, Scanner};
use super::shutdown::Seat;
use crate::io::poll_write_pieces;
use crate::proxy::reject::Code;

/// With so many bytes held, no more are read of what a client sends ahead of its turn. A head must
/// fit; what comes later waits in the kernel.
const AHEAD_MAX: usize = HEAD_MAX;

/// How long a closed connection is still read, so that a client which sends reads our last answer
/// instead of a reset that overtakes it.
pub(super) const LINGER_MAX: Duration = Duration::from_secs(1);

/// How much is read then.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// The client connection preface, RFC 9113 section 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Stands for a refused message. `Connection: close` makes hyper close behind the answer.
const REFUSED: &[u8] = b"FORBEAR-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// A socket as the gate needs it.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the coming close a reset, for a response that must not look complete.
    fn abort(&self);
}

impl Socket for tokio::net::TcpStream {
    fn abort(&self) {
        // If that fails, the peer has gone already.
        let _ = self.set_zero_linger();
    }
}

/// The wrapper.
#[derive(Debug)]
pub(super) struct GateIo<S> {
    socket: S,
    connection: Arc<Connection>,
    mode: Mode,
    /// What was read and has not passed; without capacity when empty, as idle connections are many.
    held: BytesMut,
    /// So many bytes at the start of `held` are judged and may pass.
    ready: usize,
    scanner: Scanner,
    at_end: bool,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    /// Given back when the socket closes, also after an upgrade.
    _seat: Option<Seat>,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// To be judged.
    Http1,
    /// Of HTTP/2, which h2 judges.
    Http2,
    /// Of another protocol, after a 101.
    Tunnel,
}

/// How a connection opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// With something that is no HTTP/2 preface.
    Http1,
    /// With the whole preface.
    Http2,
    /// It closed.
    Gone,
}

impl<S: Socket> GateIo<S> {
    pub(super) fn new(socket: S, connection: Arc<Connection>, seat: Option<Seat>) -> Self {
        Self {
            socket,
            connection,
            mode: Mode::Http1,
            held: BytesMut::new(),
            ready: 0,
            scanner: Scanner::new(),
            at_end: false,
            linger: None,
            _seat: seat,
        }
    }

    /// Waits for the first bytes, and tells by them what is spoken.
    pub(super) fn poll_greeting(&mut self, cx: &mut Context<'_>) -> Poll<Greeting> {
        loop {
            if self.held.starts_with(PREFACE) {
                self.mode = Mode::Http2;
                self.connection.note_reading(Reading::Boundary);
                return Poll::Ready(Greeting::Http2);
            }
            if !PREFACE.starts_with(&self.held) {
                return Poll::Ready(Greeting::Http1);
            }
            let mut space = [0; PREFACE.len()];
            let mut part = ReadBuf::new(space.get_mut(self.held.len()..).unwrap_or_default());
            let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part));
            if read.is_err() || part.filled().is_empty() {
                return Poll::Ready(Greeting::Gone);
            }
            self.held.extend_from_slice(part.filled());
            self.connection.note_reading(Reading::Head);
        }
    }

    /// Forgets empty lines between two messages. True if then nothing is kept, so that hyper can be
    /// taken away and put back.
    pub(super) fn come_to_rest(&mut self) -> bool {
        if self.mode == Mode::Http1 && self.scanner.is_at_boundary() && self.held.ends_with(b"\n") {
            self.scanner = Scanner::new();
            self.held = BytesMut::new();
        }
        self.mode == Mode::Http1 && self.held.is_empty()
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    /// Passes bytes on unjudged, those first that were held.
    fn poll_read_plain(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
            self.at_end |= buf.filled().len() == before;
        } else {
            self.ready = self.held.len();
            self.deliver(buf);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_http1(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.ready > 0 {
                self.deliver(buf);
                return Poll::Ready(Ok(()));
            }
            if self.scanner.refusal.is_some() {
                ready!(self.poll_refuse(cx))?;
                continue;
            }
            let waits = self.must_wait(cx);
            if self.connection.is_upgraded() && self.scanner.is_at_boundary() {
                self.mode = Mode::Tunnel;
                return self.poll_read_plain(cx, buf);
            }
            if !waits && !self.held.is_empty() {
                self.ready = self.scanner.scan(&self.held, &self.connection);
                self.note_reading();
                if self.ready > 0 || self.scanner.refusal.is_some() {
                    continue;
                }
                if self.connection.was_head_late() {
                    self.scanner.refuse(Place::Head, head_late());
                    continue;
                }
            }
            if self.held.len() >= AHEAD_MAX {
                debug_assert!(waits, "a message that long is whole or refused");
                return Poll::Pending;
            }
            if ready!(self.poll_fill(cx, buf, waits))? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads once. True if hyper gets to know: of judged bytes in its buffer, or of the end.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        waits: bool,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            self.at_end = true;
            return Poll::Ready(Ok(true));
        }
        // The usual case: nothing is held, and the bytes are judged where they lie.
        let pass = if waits || !self.held.is_empty() {
            0
        } else {
            self.scanner.scan(read, &self.connection)
        };
        self.held.extend_from_slice(read.get(pass..).unwrap_or_default());
        self.note_reading();
        buf.set_filled(before + pass);
        Poll::Ready(Ok(pass > 0))
    }

    /// Whether the exchange of the last message must finish before more is judged. Its end wakes
    /// the reader if there is something to be judged then; what has not come yet wakes by itself.
    fn must_wait(&self, cx: &mut Context<'_>) -> bool {
        let must_wait = || self.scanner.is_at_boundary() && !self.connection.is_quiet();
        if !must_wait() {
            return false;
        }
        if !self.held.is_empty() {
            self.connection.park_reader(cx.waker());
        }
        must_wait() && !self.connection.is_upgraded()
    }

    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.ready.min(buf.remaining());
        buf.put_slice(self.held.get(..len).unwrap_or_default());
        self.held.advance(len);
        self.ready -= len;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        self.note_reading();
    }

    /// Puts the violation where the service, or whoever reads the body, looks for it.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.scanner.refusal {
            Some(Refusal::Due(Place::Head, violation)) => {
                if !self.connection.is_quiet() {
                    self.connection.park_reader(cx.waker());
                    if !self.connection.is_quiet() {
                        return Poll::Pending;
                    }
                }
                self.connection.note_violation(violation.clone());
                self.connection.take();
                self.held = BytesMut::from(REFUSED);
                self.ready = REFUSED.len();
                self.scanner.refusal = Some(Refusal::Told);
                Poll::Ready(Ok(()))
            }
            Some(Refusal::Due(Place::Body, violation)) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, violation.detail.clone());
                self.connection.note_violation(violation.clone());
                self.held = BytesMut::new();
                self.scanner.refusal = Some(Refusal::Told);
                Poll::Ready(Err(error))
            }
            // An end of stream would make hyper drop the answer; the answer itself closes.
            Some(Refusal::Told) | None => Poll::Pending,
        }
    }

    fn note_reading(&self) {
        self.connection.note_reading(self.scanner.reading(&self.held));
    }

    /// Reads and forgets until the peer closes, within the two bounds.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (sleep, read) = self.linger.get_or_insert_with(|| {
            self.connection.note_linger();
            self.held = BytesMut::new();
            (Box::pin(tokio::time::sleep(LINGER_MAX)), 0)
        });
        let mut space = [0; 4096];
        while *read < LINGER_BYTES_MAX {
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut part = ReadBuf::new(&mut space);
            let end = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part));
            if end.is_err() || part.filled().is_empty() {
                return Poll::Ready(());
            }
            *read += part.filled().len();
        }
        Poll::Ready(())
    }
}

fn head_late() -> Violation {
    Violation::new(
        StatusCode::REQUEST_TIMEOUT,
        Code::BadRequest,
        "head: it was not complete within proxy.header_timeout; send it at once",
    )
}

impl<S: Socket> AsyncRead for GateIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.mode {
            Mode::Http1 => this.poll_read_http1(cx, buf),
            Mode::Http2 | Mode::Tunnel => this.poll_read_plain(cx, buf),
        }
    }
}

impl<S: Socket> GateIo<S> {
    /// Tells the connection how a write went.
    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.connection.note_write(None),
            Poll::Ready(Ok(len)) => self.connection.note_write(Some(*len)),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl<S: Socket> AsyncWrite for GateIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = poll_write_pieces(Pin::new(&mut self.socket), cx, bufs);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        }
        // A tunnel that is closed one way may go on the other way.
        if this.mode != Mode::Tunnel && !this.at_end {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
