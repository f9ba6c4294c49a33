//! The request body, which can be sent again.
//!
//! An exchange has one [`Replay`]; each attempt gets a [`RequestBody`] from it. The source is read
//! only by the newest attempt, under one lock, and each piece is recorded in the same step in
//! which it is read. So a repeat that begins while the client is still sending first repeats what
//! was recorded and then reads on; no piece is sent twice or lost (linkerd2#15649 was that bug).
//! A body that passes a bound is not failed: it streams on and can no longer be repeated.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

mod upload;

pub(super) use self::upload::Upload;
pub use super::recording::ReplayMemory;
use super::recording::{Place, Recording};
pub use super::source::{BodyFault, RequestBodyError, Source};
use super::timer::{Alarm, Patience};

/// A client must send this many bytes a second on average once it has been waited for longer than
/// the piece time-out. A byte per piece would otherwise hold an exchange for hours; every real
/// link is faster by orders of magnitude.
const BYTES_PER_SECOND_MIN: u64 = 32;

/// Whether an exchange's body can be sent by one more attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayState {
    /// All of it that was read is still there.
    Ready,
    /// It passed a bound or was let go; some of it exists no more.
    Streamed,
    /// The client broke it; see [`Replay::fault`].
    Broken,
}

/// One exchange's request body. Cheap to clone; all clones are the same body.
#[derive(Clone)]
pub struct Replay(Arc<Mutex<Inner>>);

impl Replay {
    /// Keeps at most `per_exchange_max` bytes, and no more than `memory` has left. `piece_timeout`
    /// bounds each wait for the client.
    pub fn new(
        source: Source,
        per_exchange_max: u64,
        memory: Arc<ReplayMemory>,
        piece_timeout: Duration,
    ) -> Self {
        let length = source.size_hint().exact();
        // A body that is announced too large is not recorded up to the bound in vain.
        let bytes_max =
            if length.is_some_and(|n| n > per_exchange_max) { 0 } else { per_exchange_max };
        Self(Arc::new(Mutex::new(Inner {
            ended: source.is_end_stream(),
            source,
            length,
            bytes_seen: 0,
            trailers: None,
            fault: None,
            recording: Some(Recording::new(bytes_max, memory)),
            lost: false,
            discarding: false,
            attempt: 0,
            at: Place::default(),
            bytes_sent: 0,
            trailers_sent: false,
            reader: None,
            patience: Patience::new(piece_timeout),
            alarm: Alarm::default(),
            piece_timeout,
            waited: Duration::ZERO,
        })))
    }

    /// The body for one more attempt, from its first byte; `None` if it cannot be repeated whole.
    /// An earlier attempt's body, if there still is one, fails from now on.
    pub fn attempt(&self) -> Option<RequestBody> {
        let (attempt, reader) = {
            let mut inner = self.lock();
            if inner.state() != ReplayState::Ready {
                return None;
            }
            (inner.attempt.wrapping_add(1), inner.begin())
        };
        reader.into_iter().for_each(Waker::wake);
        Some(RequestBody { replay: self.clone(), attempt })
    }

    /// Whether [`Replay::attempt`] would give a body.
    pub fn state(&self) -> ReplayState {
        self.lock().state()
    }

    /// Bytes read from the source so far, without framing and trailers.
    pub fn bytes_seen(&self) -> u64 {
        self.lock().bytes_seen
    }

    /// Whether the source was read to its end.
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// What the client did wrong, if it did.
    pub fn fault(&self) -> Option<BodyFault> {
        self.lock().fault
    }

    /// Gives the recording's memory back as soon as the present attempt no longer needs it,
    /// because there will be no other one.
    pub fn discard(&self) {
        let mut inner = self.lock();
        inner.discarding = true;
        inner.let_go();
    }

    /// Reads a body of known length, at most `bytes_max`, into the recording, so that a client that
    /// leaves before its body is needed is noticed. Returns when it is whole; a longer or an
    /// unannounced body, or one that the memory has no room for, is left with the client. No
    /// attempt may be under way; dropping the future keeps what was read.
    ///
    /// # Errors
    ///
    /// The client broke its body; no attempt can be made.
    pub async fn read_ahead(&self, bytes_max: u64) -> Result<(), BodyFault> {
        {
            let mut inner = self.lock();
            let Some(length) = inner.length.filter(|length| *length <= bytes_max) else {
                return Ok(());
            };
            let unread = length.saturating_sub(inner.bytes_seen);
            let reserved = inner.recording.as_mut().is_some_and(|kept| kept.reserve(unread));
            if inner.ended || !reserved {
                return Ok(());
            }
        }
        poll_fn(|cx| {
            let mut inner = self.lock();
            while !inner.ended && inner.fault.is_none() {
                if let Some(piece) = ready!(inner.poll_source(cx)) {
                    inner.keep(&piece);
                }
            }
            // The next attempt begins at the first byte, whatever was read here.
            inner.at = Place::default();
            Poll::Ready(inner.fault.map_or(Ok(()), Err))
        })
        .await
    }

    /// Reads and throws away what the client still sends, so that its connection can be used
    /// again after an answer that did not need the body. True if the body ended within both
    /// bounds; otherwise the connection must be closed. A body that is announced too large is not
    /// read at all. A client that waits for `100 Continue`
    /// is told to go on by this: do not drain its body.
    pub async fn drain(&self, bytes_max: u64, time_max: Duration) -> bool {
        let (reader, bytes_before, bytes_left) = {
            let mut inner = self.lock();
            inner.lose();
            let bytes_left = inner.length.map_or(0, |n| n.saturating_sub(inner.bytes_seen));
            (inner.begin(), inner.bytes_seen, bytes_left)
        };
        reader.into_iter().for_each(Waker::wake);
        if bytes_left > bytes_max {
            return false;
        }
        let drained = poll_fn(|cx| {
            let mut inner = self.lock();
            while !inner.ended {
                if inner.fault.is_some() || inner.bytes_seen - bytes_before > bytes_max {
                    return Poll::Ready(false);
                }
                ready!(inner.poll_source(cx));
            }
            Poll::Ready(inner.bytes_seen - bytes_before <= bytes_max)
        });
        tokio::time::timeout(time_max, drained).await.unwrap_or(false)
    }

    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every step leaves the state whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Inner {
    source: Source,
    /// As announced.
    length: Option<u64>,
    ended: bool,
    bytes_seen: u64,
    trailers: Option<HeaderMap>,
    fault: Option<BodyFault>,
    /// `None` once a bound was passed or it was let go.
    recording: Option<Recording>,
    /// Something was read that is not in the recording.
    lost: bool,
    discarding: bool,
    /// Number of the attempt that may read; all others are over.
    attempt: u64,
    at: Place,
    bytes_sent: u64,
    trailers_sent: bool,
    reader: Option<Waker>,
    patience: Patience,
    alarm: Alarm,
    piece_timeout: Duration,
    /// For the client, in all.
    waited: Duration,
}

impl Inner {
    fn state(&self) -> ReplayState {
        match (self.fault, self.lost) {
            (Some(_), _) => ReplayState::Broken,
            (None, true) => ReplayState::Streamed,
            (None, false) => ReplayState::Ready,
        }
    }

    /// Ends the present attempt and puts the next one at the start; whoever reads must be woken.
    fn begin(&mut self) -> Option<Waker> {
        self.attempt = self.attempt.wrapping_add(1);
        self.at = Place::default();
        self.bytes_sent = 0;
        self.trailers_sent = false;
        // Time between two attempts is not the client's.
        self.patience.rest();
        self.reader.take()
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some((piece, next)) = self.recorded() {
            self.at = next;
            self.bytes_sent += piece.len() as u64;
            self.let_go();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        while !self.ended {
            if let Some(fault) = self.fault {
                return Poll::Ready(Some(Err(fault)));
            }
            if let Some(piece) = ready!(self.poll_source(cx)) {
                self.keep(&piece);
                self.bytes_sent += piece.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        match &self.trailers {
            Some(trailers) if !self.trailers_sent => {
                self.trailers_sent = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))))
            }
            Some(_) | None => Poll::Ready(None),
        }
    }

    /// Reads one step of the source. `None` if that was no piece of data: look at `ended`,
    /// `trailers` and `fault`.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Poll::Ready(step) = self.source.poll_frame(cx) else {
            if self.patience.poll_expired(cx, &mut self.alarm).is_ready() {
                self.fault = Some(BodyFault::TooSlow);
                return Poll::Ready(None);
            }
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.waited = self.waited.saturating_add(self.patience.rest());
        match step {
            None => self.ended = true,
            Some(Err(fault)) => self.fault = Some(fault),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    self.bytes_seen += piece.len() as u64;
                    self.ended = self.source.is_end_stream();
                    if !self.ended && self.is_too_slow() {
                        self.fault = Some(BodyFault::TooSlow);
                    }
                    return Poll::Ready(Some(piece));
                }
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.ended = true;
                }
            },
        }
        Poll::Ready(None)
    }

    fn is_too_slow(&self) -> bool {
        self.waited > self.piece_timeout
            && self.bytes_seen < self.waited.as_secs().saturating_mul(BYTES_PER_SECOND_MIN)
    }

    fn recorded(&self) -> Option<(Bytes, Place)> {
        self.recording.as_ref()?.read(self.at)
    }

    fn keep(&mut self, piece: &Bytes) {
        let kept = self.recording.as_mut().filter(|_| !self.discarding);
        if let Some(recording) = kept
            && recording.push(piece)
        {
            self.at = recording.end();
        } else {
            self.lose();
        }
    }

    /// Drops a recording that is to be discarded and was read to its end.
    fn let_go(&mut self) {
        if self.discarding && self.bytes_seen > 0 && self.recorded().is_none() {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.recording = None;
        self.lost = true;
    }

    /// Whether the present attempt has got everything.
    fn is_complete(&self) -> bool {
        self.ended
            && self.fault.is_none()
            && self.recorded().is_none()
            && (self.trailers_sent || self.trailers.is_none())
    }
}

/// One attempt's copy of the body.
pub struct RequestBody {
    replay: Replay,
    attempt: u64,
}

impl RequestBody {
    /// A body that is no part of an exchange: for probes and tests.
    pub fn empty() -> Self {
        let memory = Arc::new(ReplayMemory::new(0));
        let replay = Replay::new(Source::Empty, 0, memory, Duration::ZERO);
        replay.attempt().expect("nothing was read of a new body, so it can be sent")
    }

    pub(super) fn upload(&self) -> Upload {
        Upload { replay: self.replay.clone(), attempt: self.attempt }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let mut inner = self.replay.lock();
        if inner.attempt != self.attempt {
            return Poll::Ready(Some(Err(RequestBodyError::Revoked)));
        }
        inner.poll_frame(cx).map_err(RequestBodyError::Fault)
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.replay.lock();
        inner.attempt == self.attempt && inner.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.replay.lock();
        inner.length.map_or_else(SizeHint::default, |length| {
            SizeHint::with_exact(length.saturating_sub(inner.bytes_sent))
        })
    }
}
