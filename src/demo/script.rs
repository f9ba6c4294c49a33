//! What a test tells the fake API to do with the next request of a path, and how an answer that
//! goes wrong on purpose is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// What happens to one request; each is used up by one.
#[derive(Clone, Debug)]
pub enum Step {
    /// This status, these fields, this body. The limiter is not asked.
    Status(u16, Vec<(HeaderName, HeaderValue)>, Bytes),
    /// The connection is reset (RST) when the request has been read; nothing was done.
    Reset,
    /// The connection is closed (FIN) when the request has been read; nothing was done.
    CloseBeforeHead,
    /// The request is carried out, then the connection is reset: the answer is lost.
    ResetAfterEffect,
    /// The usual answer, once released. Release with `notify_one`, which is also remembered when
    /// it comes first.
    Hang(Arc<Notify>),
    /// The usual answer, this much later.
    Delay(Duration),
    /// A head and a first piece of the body, then nothing, until the client goes.
    HeadThenStall,
    /// A head that announces more body than comes before the connection is closed.
    Truncate,
}

/// How the connection ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// RST.
    Reset,
    /// FIN.
    Close,
}

/// What is done with a request in the end.
pub(super) enum Reply {
    /// An answer, perhaps with a body that goes wrong.
    Answer(Response<ReplyBody>),
    /// None.
    Cut(Cut),
}

/// What follows the one piece of a [`ReplyBody`].
#[derive(Clone, Copy, Debug)]
enum Ending {
    Complete,
    Stall,
    /// Asks to be polled again first, so that hyper writes out the head and the piece.
    Flush,
    Break,
}

/// One piece, and then the end that was ordered.
#[derive(Debug)]
pub(super) struct ReplyBody {
    piece: Option<Bytes>,
    ending: Ending,
}

/// The first piece of a body that goes wrong; [`BROKEN_LENGTH`] is announced.
const BROKEN_PIECE: &[u8] = b"only the beginning";
const BROKEN_LENGTH: u64 = 1_000;

impl Reply {
    /// A complete answer.
    pub(super) fn new(
        status: StatusCode,
        fields: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Self {
        let mut response = Response::new(ReplyBody { piece: Some(body), ending: Ending::Complete });
        *response.status_mut() = status;
        for (name, value) in fields {
            response.headers_mut().append(name, value);
        }
        Self::Answer(response)
    }

    /// An answer without a body.
    pub(super) fn empty(status: StatusCode, fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self::new(status, fields, Bytes::new())
    }

    /// 200 and a piece of the body, and then nothing.
    pub(super) fn stalled() -> Self {
        Self::broken(Ending::Stall)
    }

    /// 200 and a piece of the body, and then the end of the connection.
    pub(super) fn truncated() -> Self {
        Self::broken(Ending::Flush)
    }

    fn broken(ending: Ending) -> Self {
        let piece = Some(Bytes::from_static(BROKEN_PIECE));
        let mut response = Response::new(ReplyBody { piece, ending });
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(BROKEN_LENGTH));
        Self::Answer(response)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match (self.piece.take(), self.ending) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, Ending::Complete) => Poll::Ready(None),
            // Nobody wakes this: the connection's end, seen by hyper, drops it.
            (None, Ending::Stall) => Poll::Pending,
            (None, Ending::Flush) => {
                self.ending = Ending::Break;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            (None, Ending::Break) => {
                Poll::Ready(Some(Err(std::io::Error::other("truncated on purpose"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.ending, Ending::Complete) && self.piece.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.piece, self.ending) {
            (piece, Ending::Complete) => {
                SizeHint::with_exact(piece.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            (_, Ending::Stall | Ending::Flush | Ending::Break) => SizeHint::default(),
        }
    }
}
