//! Waiting with an end, on the runtime's own clock.
//!
//! Times here bound I/O and are never shown, stored or decided upon, so they do not pass through
//! the policy's clock. They come from tokio's timers, which a test can pause.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

pub(super) use crate::io::{Alarm, now};

/// The moment `span` from now; a span too long to count is simply very far away.
pub(super) fn after(span: Duration) -> Instant {
    later(now(), span)
}

/// As [`after`], by a clock that was read just before.
pub(super) fn later(now: Instant, span: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    now + span.min(FAR)
}

/// A bound on each single wait for a peer. Only waiting counts: time in which we did not ask for
/// the next piece, because our own reader was slow, is not charged to the peer.
pub(super) struct Patience {
    span: Duration,
    since: Option<Instant>,
}

impl Patience {
    pub(super) fn new(span: Duration) -> Self {
        Self { span, since: None }
    }

    /// Goes on waiting, or begins to. Ready when this wait has lasted too long.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>, alarm: &mut Alarm) -> Poll<()> {
        let since = *self.since.get_or_insert_with(now);
        let due = since.checked_add(self.span).unwrap_or_else(|| after(self.span));
        alarm.poll_due(cx, due)
    }

    /// Ends the present wait, and tells how long it was.
    pub(super) fn rest(&mut self) -> Duration {
        self.since.take().map_or(Duration::ZERO, |since| now().duration_since(since))
    }
}
