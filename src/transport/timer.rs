//! Waiting with an end, on the runtime's own clock.
//!
//! Times here bound I/O and are never shown, stored or decided upon, so they do not pass through
//! the policy's clock. They come from tokio's timers, which a test can pause.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// The moment `span` from now; a span too long to count is simply very far away.
pub(super) fn after(span: Duration) -> Instant {
    sleep(span).deadline()
}

/// The present.
pub(super) fn now() -> Instant {
    after(Duration::ZERO)
}

/// A bound on each single wait for a peer. Only waiting counts: time in which we did not ask for
/// the next piece, because our own reader was slow, is not charged to the peer.
pub(super) struct Patience {
    span: Duration,
    wait: Option<Wait>,
    /// Made at the first wait; most small messages never need it.
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy)]
struct Wait {
    since: Instant,
    due: Instant,
}

impl Patience {
    pub(super) fn new(span: Duration) -> Self {
        Self { span, wait: None, sleep: None }
    }

    /// Goes on waiting, or begins to. Ready when this wait has lasted too long.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let span = self.span;
        let wait = *self.wait.get_or_insert_with(|| Wait { since: now(), due: after(span) });
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(wait.due)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= wait.due {
                return Poll::Ready(());
            }
            // The timer was left at an earlier wait's end: moving it once per expiry instead of
            // once per piece keeps the timer wheel out of the fast path.
            sleep.as_mut().reset(wait.due);
        }
    }

    /// Ends the present wait, and tells how long it was.
    pub(super) fn rest(&mut self) -> Duration {
        self.wait.take().map_or(Duration::ZERO, |wait| now().duration_since(wait.since))
    }
}
