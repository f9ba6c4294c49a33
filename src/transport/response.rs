//! The response body, which gives its connection back.
//!
//! When the body ends cleanly, its HTTP/1 connection returns to the pool in the same step, without
//! a task that waits for it. In every other case (dropped early, broken, silent for too long, or
//! over before the request was) the connection is closed: whatever it still carried would
//! otherwise be taken for the answer to the next request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::Upload;
use super::http::{Connection, Http1};
use super::timer::{Alarm, Patience};
use super::{Target, pool};

/// A response body that did not end as it should. What came of it is not the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseBodyError {
    /// Connection or stream ended early, or the framing broke.
    #[error("the upstream's response is incomplete")]
    Truncated,
    /// Nothing came for the idle time-out.
    #[error("the upstream's response stopped")]
    IdleTimeout,
}

/// What an attempt holds until its response is over.
pub(super) struct Lease {
    pub(super) target: Arc<Target>,
    /// `None` where the connection became something else (101).
    pub(super) connection: Option<Connection>,
    pub(super) upload: Upload,
    /// Whether the response permits it.
    pub(super) is_reusable: bool,
}

impl Lease {
    /// The connection that does nothing unless it is driven.
    fn http1(&mut self) -> Option<&mut Http1> {
        match &mut self.connection {
            Some(Connection::Http1(connection)) => Some(connection),
            Some(Connection::Http2(_)) | None => None,
        }
    }

    /// The response has ended cleanly.
    fn finish(self) {
        match self.connection {
            Some(Connection::Http1(connection))
                if self.is_reusable && self.upload.is_complete() =>
            {
                pool::put_back(&self.target, connection);
            }
            Some(Connection::Http1(_) | Connection::Http2(_)) | None => {}
        }
    }
}

/// A body on its way down.
pub struct ResponseBody {
    incoming: Incoming,
    patience: Patience,
    /// For connections that have none of their own to lend.
    alarm: Alarm,
    lease: Option<Lease>,
    has_failed: bool,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, idle_timeout: Duration) -> Self {
        let patience = Patience::new(idle_timeout);
        let (alarm, lease) = (Alarm::default(), Some(lease));
        let mut body = Self { incoming, patience, alarm, lease, has_failed: false };
        body.finish_at_end();
        body
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(connection) = self.lease.as_mut().and_then(Lease::http1) else {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        };
        // What comes next is made by driving, just below, so that nobody need be woken for it.
        let asked = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(asked) {
            return Poll::Ready(frame);
        }
        connection.drive(cx);
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    /// Whoever relays a body does not poll it again after its last piece, so the end is taken
    /// from there and not from a final `None`.
    fn finish_at_end(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.finish();
        }
    }

    fn fail(&mut self, error: ResponseBodyError) -> ResponseBodyError {
        self.has_failed = true;
        self.lease = None;
        error
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        match self.poll_incoming(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.patience.rest();
                self.finish_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                Poll::Ready(Some(Err(self.fail(ResponseBodyError::Truncated))))
            }
            Poll::Ready(None) => {
                if let Some(lease) = self.lease.take() {
                    lease.finish();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Self { patience, alarm, lease, .. } = &mut *self;
                let alarm = lease.as_mut().and_then(Lease::http1).map_or(alarm, |it| &mut it.alarm);
                ready!(patience.poll_expired(cx, alarm));
                Poll::Ready(Some(Err(self.fail(ResponseBodyError::IdleTimeout))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.has_failed && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
