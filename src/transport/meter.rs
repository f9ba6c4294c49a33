//! Counts what a connection's socket takes and gives.
//!
//! Whether any of a request left this process decides whether it may be repeated; what came without a
//! final head shows an upstream that keeps us busy.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Io;
use super::http::HEAD_BYTES_MAX;
use crate::io::poll_write_pieces;

/// Informational responses before the final one. More than a few are an attempt to keep us busy.
const INFORMATIONAL_MAX: u64 = 16;

/// Bytes that a connection's socket has taken and given.
#[derive(Default)]
pub(super) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    /// Informational heads, of those that began a read.
    informational: AtomicU64,
}

#[derive(Clone, Copy)]
pub(super) struct Reading {
    pub(super) read: u64,
    pub(super) written: u64,
    informational: u64,
}

impl Reading {
    /// Whether what came since then, without a final head, is there to keep us busy. The bytes
    /// bound what the count misses, since it looks at the start of each read only; hyper's own
    /// callback for informational responses would cost every request four allocations.
    pub(super) fn is_flood_since(&self, before: Self) -> bool {
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
    pub(super) fn reading(&self) -> Reading {
        Reading {
            read: self.read.load(Ordering::Acquire),
            written: self.written.load(Ordering::Acquire),
            informational: self.informational.load(Ordering::Acquire),
        }
    }
}

/// A socket that is counted.
pub(super) struct Metered {
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
    pub(super) fn new(io: Box<dyn Io>, meter: Arc<Meter>) -> Self {
        Self { io, meter }
    }

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
