//! The response body, which gives its connection back.
//!
//! When the body ends cleanly, its HTTP/1 connection returns to the pool in the same step, without
//! a task that waits for it. In every other case (dropped early, broken, silent for too long, or
//! over before the request was) the connection is closed: whatever it still carried would
//! otherwise be taken for the answer to the next request.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
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
    /// What was read before anybody asked for it.
    ahead: Option<Box<Ahead>>,
}

/// The beginning of a body, and what came behind it if that was no more data: trailers, or the
/// failure.
#[derive(Default)]
struct Ahead {
    data: BytesMut,
    last: Option<Result<Frame<Bytes>, ResponseBodyError>>,
    /// Nothing else will come, and nothing is missing.
    is_whole: bool,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, idle_timeout: Duration) -> Self {
        let patience = Patience::new(idle_timeout);
        let (alarm, lease) = (Alarm::default(), Some(lease));
        let mut body = Self { incoming, patience, alarm, lease, has_failed: false, ahead: None };
        body.finish_at_end();
        body
    }

    /// Reads until there are `enough` bytes, the body is over, or `time_max` is. Whoever reads the
    /// body gets all of it nevertheless, in the same order, and its end as it was. Dropping the
    /// future loses nothing.
    pub async fn read_ahead(&mut self, enough: usize, time_max: Duration) {
        let reading = poll_fn(|cx| {
            loop {
                let ahead = self.ahead.get_or_insert_default();
                if ahead.data.len() >= enough || ahead.last.is_some() || ahead.is_whole {
                    return Poll::Ready(());
                }
                let frame = ready!(self.poll_upstream(cx));
                let is_over = self.incoming.is_end_stream();
                let ahead = self.ahead.get_or_insert_default();
                ahead.is_whole = is_over || frame.is_none();
                match frame.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => ahead.data.extend_from_slice(&data),
                    Some(Ok(Err(trailers))) => {
                        ahead.last = Some(Ok(trailers));
                        ahead.is_whole = true;
                    }
                    Some(Err(error)) => {
                        ahead.last = Some(Err(error));
                        ahead.is_whole = false;
                    }
                    None => {}
                }
            }
        });
        // Too late is no failure: the rest comes when it comes.
        let _ = tokio::time::timeout(time_max, reading).await;
    }

    /// What was read ahead and not yet taken.
    pub fn ahead(&self) -> Option<&[u8]> {
        self.ahead.as_ref().map(|ahead| &*ahead.data)
    }

    /// The body, if all of it was read ahead and nothing of it taken.
    pub fn whole(&self) -> Option<&[u8]> {
        self.ahead.as_ref().filter(|ahead| ahead.is_whole).map(|ahead| &*ahead.data)
    }

    /// Whoever reads gets `data` in the place of what was read ahead.
    pub fn replace_ahead(&mut self, data: Vec<u8>) {
        if let Some(ahead) = &mut self.ahead {
            ahead.data = BytesMut::from(Bytes::from(data));
        }
    }

    fn take_ahead(&mut self) -> Option<Result<Frame<Bytes>, ResponseBodyError>> {
        let ahead = self.ahead.as_mut()?;
        if !ahead.data.is_empty() {
            return Some(Ok(Frame::data(ahead.data.split().freeze())));
        }
        self.ahead.take()?.last
    }

    fn poll_upstream(
        &mut self,
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

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.lease.as_mut().and_then(Lease::http1) {
            Some(connection) => connection.poll_frame(&mut self.incoming, cx),
            None => Pin::new(&mut self.incoming).poll_frame(cx),
        }
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
        match self.take_ahead() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.poll_upstream(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_ahead =
            self.ahead.as_ref().is_some_and(|ahead| !ahead.data.is_empty() || ahead.last.is_some());
        !is_ahead && !self.has_failed && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let to_come = self.incoming.size_hint();
        let Some(ahead) = self.ahead() else { return to_come };
        let ahead = ahead.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(to_come.lower().saturating_add(ahead));
        if let Some(upper) = to_come.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint
    }
}
