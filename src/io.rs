//! What the sockets of both sides have in common: timers that cost nothing while nobody is late,
//! and writing a small message in one piece.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

/// Messages up to this size are put together and sent with one `send`, which costs 0.2 µs less than
/// a `writev` of two pieces; copying more than this costs as much again.
const TOGETHER_MAX: usize = 2048;

/// The present, on the runtime's own clock, which a test can pause.
#[expect(clippy::disallowed_methods, reason = "it bounds waits for I/O and decides nothing")]
pub fn now() -> Instant {
    Instant::now()
}

/// A timer for waits that seldom come to their end.
///
/// It is left at the end of an earlier wait and moved when that comes, once per expiry instead of
/// once per wait: this keeps the timer wheel out of the fast path.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `due`. Nothing is remembered of it: the next call may name another moment.
    pub fn poll_due(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

/// Writes `pieces` to a socket that can take several at once, small ones together.
pub fn poll_write_pieces(
    io: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = pieces {
        return io.poll_write(cx, one);
    }
    let mut together = [0; TOGETHER_MAX];
    let mut used = 0;
    for piece in pieces {
        let Some(room) = together.get_mut(used..used + piece.len()) else {
            return io.poll_write_vectored(cx, pieces);
        };
        room.copy_from_slice(piece);
        used += piece.len();
    }
    io.poll_write(cx, together.get(..used).unwrap_or_default())
}
