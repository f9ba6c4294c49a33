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
    Stream(Box<Stream>),
}

struct Stream {
    body: ResponseBody,
    // Given back in this order when the body is dropped: the place, then the story.
    in_flight: Option<InFlight>,
    upload: crate::transport::Replay,
    teller: Teller,
    /// It broke off, which is told once what came before it has been written.
    failed: Option<BoxError>,
}

impl DownBody {
    pub(super) fn whole(bytes: Bytes, teller: Teller) -> Self {
        Self(Inner::Whole { bytes: Some(bytes), teller: Some(Box::new(teller)) })
    }

    /// An answer without a story of its own.
    pub(super) fn untold(bytes: Bytes) -> Self {
        Self(Inner::Whole { bytes: Some(bytes), teller: None })
    }

    pub(super) fn stream(
        body: ResponseBody,
        in_flight: InFlight,
        upload: crate::transport::Replay,
        teller: Teller,
    ) -> Self {
        let in_flight = Some(in_flight);
        Self(Inner::Stream(Box::new(Stream { body, in_flight, upload, teller, failed: None })))
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
            Inner::Stream(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Stream(stream) => stream.body.size_hint(),
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
                if stream.body.is_end_stream() {
                    stream.end(None);
                } else {
                    stream.end(Some(Ending::ClientDisconnect));
                }
            }
        }
    }
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.teller.story.bytes_down += data.len() as u64;
                }
                if self.body.is_end_stream() {
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
        self.in_flight = None;
        if let Some(ending) = ending {
            self.teller.end_as(ending);
        }
        self.teller.story.bytes_up = self.upload.bytes_seen();
        self.teller.tell();
    }
}
