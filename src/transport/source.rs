//! Where a request body comes from, and how the client can break it.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Where a request body comes from.
pub enum Source {
    /// The downstream connection.
    Incoming(Incoming),
    /// Known already.
    Full(Bytes),
    /// No body.
    Empty,
    /// A body made up by a test.
    #[cfg(test)]
    Scripted(http_body_util::combinators::BoxBody<Bytes, Box<dyn StdError + Send + Sync>>),
}

/// What the client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BodyFault {
    /// Nothing came for the piece time-out, or far too little on average.
    #[error("the request body came too slowly")]
    TooSlow,
    /// The connection ended, or the stream was reset, before the body did.
    #[error("the client left before the end of the request body")]
    ClientGone,
    /// The framing is no HTTP: a bad chunk, oversized trailers.
    #[error("the request body is malformed")]
    Malformed,
}

/// Why an attempt's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestBodyError {
    /// The client's doing.
    #[error(transparent)]
    Fault(#[from] BodyFault),
    /// The attempt is over, or a newer one has begun.
    #[error("the attempt is over")]
    Revoked,
}

impl Source {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self {
            Self::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(|error| fault_of(&error)),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Empty => Poll::Ready(None),
            #[cfg(test)]
            Self::Scripted(body) => {
                Pin::new(body).poll_frame(cx).map_err(|error| fault_of(error.as_ref()))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::Full(bytes) => bytes.is_empty(),
            Self::Empty => true,
            #[cfg(test)]
            Self::Scripted(body) => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Empty => SizeHint::with_exact(0),
            #[cfg(test)]
            Self::Scripted(body) => body.size_hint(),
        }
    }
}

/// Framing errors are the client's fault and deserve a 400; everything else is its absence.
fn fault_of(error: &(dyn StdError + 'static)) -> BodyFault {
    let mut cause = Some(error);
    while let Some(current) = cause {
        let is_malformed =
            match (current.downcast_ref::<io::Error>(), current.downcast_ref::<h2::Error>()) {
                (Some(io), _) => {
                    matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
                }
                (None, Some(h2)) => h2.is_library(),
                (None, None) => {
                    current.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
                }
            };
        if is_malformed {
            return BodyFault::Malformed;
        }
        cause = current.source();
    }
    BodyFault::ClientGone
}
