//! The response body on its way down.
//!
//! Permit, connection and story go with the body: the place in flight is free and the story told
//! when the last byte was handed over, or when the client let go. A body that breaks off is passed
//! on as an error, so that no client can take it for the whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::exchange::Teller;
use super::gate::InFlight;
use crate::serve::BoxError;
use crate::telemetry::story::Ending;
use crate::transport::ResponseBody;

/// The body of every response that forbear gives.
pub struct DownBody(Inner);

enum Inner {
    /// Made here, or kept.
    Whole { bytes: Option<Bytes>, teller: Option<Box<Teller>> },
    /// The upstream's, still coming.
    Stream(Stream),
}

struct Stream {
    // Given back in this order when the body is dropped: the place, then the story.
    flow: Box<Flow>,
    upload: crate::transport::Replay,
    teller: Box<Teller>,
    /// It broke off, which is told once what came before it has been written.
    failed: Option<BoxError>,
}

/// A response body on its way, and the place in flight that it holds.
pub(super) struct Flow {
    pub(super) body: ResponseBody,
    pub(super) in_flight: Option<InFlight>,
}

impl DownBody {
    pub(super) fn whole(bytes: Bytes, teller: Box<Teller>) -> Self {
        Self(Inner::Whole { bytes: Some(bytes), teller: Some(teller) })
    }

    /// An answer without a story of its own.
    pub(super) fn untold(bytes: Bytes) -> Self {
        Self(Inner::Whole { bytes: Some(bytes), teller: None })
    }

    pub(super) fn stream(
        flow: Box<Flow>,
        upload: crate::transport::Replay,
        teller: Box<Teller>,
    ) -> Self {
        Self(Inner::Stream(Stream { flow, upload, teller, failed: None }))
    }
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Inner::Whole { bytes, teller } => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                if let (Some(bytes), Some(teller)) = (&bytes, &mut *teller) {
                    teller.story.bytes_down += bytes.len() as u64;
                }
                if let Some(mut teller) = teller.take() {
                    teller.tell();
                }
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Inner::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole { bytes, .. } => bytes.as_ref().is_none_or(Bytes::is_empty),
            Inner::Stream(stream) => stream.flow.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Stream(stream) => stream.flow.body.size_hint(),
        }
    }
}

impl Drop for DownBody {
    fn drop(&mut self) {
        match &mut self.0 {
            // Where there is nothing to send, nobody asks for a frame.
            Inner::Whole { bytes, teller } => {
                if let (None, Some(teller)) = (bytes.as_ref().filter(|b| !b.is_empty()), teller) {
                    teller.tell();
                }
            }
            Inner::Stream(stream) => {
                // A client that has seen a failure seldom reads what it says; it is one all the same.
                let is_cut = !stream.flow.body.is_end_stream()
                    && matches!(stream.teller.story.ending, Ending::Ok);
                stream.end(is_cut.then_some(Ending::ClientDisconnect));
            }
        }
    }
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(&mut self.flow.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.teller.story.bytes_down += data.len() as u64;
                }
                if self.flow.body.is_end_stream() {
                    self.end(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.end(Some(Ending::BodyError));
                // hyper closes at an error without writing what it has in hand, the head included;
                // a pause makes it write, so that the client sees what it got and that it is cut.
                self.failed = Some(error.into());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.end(None);
                Poll::Ready(None)
            }
        }
    }

    /// `None` leaves the ending that the response head already decided.
    fn end(&mut self, ending: Option<Ending>) {
        if self.teller.has_told() {
            return;
        }
        let now = self.teller.now();
        if let Some(in_flight) = self.flow.in_flight.take() {
            in_flight.end(now);
        }
        if let Some(ending) = ending {
            self.teller.end_as(ending);
        }
        self.teller.story.bytes_up = self.upload.bytes_seen();
        self.teller.tell_at(now);
    }
}
