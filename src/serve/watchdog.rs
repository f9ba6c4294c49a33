//! The one timer of a connection. Which limit counts follows from what the connection is doing, which
//! [`Connection::phase`] tells; the limits of an exchange are not its business.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::Timeouts;
use super::connection::{Connection, Phase};
use crate::io::{Alarm, now};

/// How long a peer may take no byte at all of what is written. A slow reader is legitimate and holds
/// the upstream back; one that has stopped holds a permit, a connection and buffers for nothing.
pub(super) const WRITE_STALL_MAX: Duration = Duration::from_secs(120);

/// Idle for so long, an HTTP/1.1 connection gives hyper's state and buffers back, 16 KiB and more.
/// Connections in steady use pause for less, and do not pay for making them anew.
pub(super) const DORMANT_AFTER: Duration = Duration::from_millis(500);

/// How long a peer has to close an idle connection that was asked to close (HTTP/2 GOAWAY).
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// How an idle connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// With everything, for the whole `keep_alive_timeout`.
    Ready,
    /// With everything, until it becomes dormant.
    Dozing,
    /// Without hyper, for the remaining time.
    Dormant,
}

/// The timer.
#[derive(Debug)]
pub(super) struct Watchdog {
    connection: Arc<Connection>,
    timeouts: Timeouts,
    rest: Rest,
    watched: Option<(Phase, u64, Rest)>,
    due: Instant,
    alarm: Alarm,
}

impl Watchdog {
    pub(super) fn new(connection: Arc<Connection>, timeouts: Timeouts) -> Self {
        let (due, alarm) = (now() + timeouts.header, Alarm::default());
        Self { connection, timeouts, rest: Rest::Ready, watched: None, due, alarm }
    }

    /// How the connection is kept from now on while it is idle.
    pub(super) fn rest(&mut self, rest: Rest) {
        self.rest = rest;
    }

    /// Whether the keep-alive time is long enough to give hyper back meanwhile.
    pub(super) fn rests_long(&self) -> bool {
        self.timeouts.keep_alive > DORMANT_AFTER
    }

    /// The phase that lasted too long. Poll it after the connection, whose phase it looks at.
    pub(super) async fn expired(&mut self) -> Phase {
        poll_fn(|cx| self.poll_expired(cx)).await
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        let (phase, serial) = self.connection.phase();
        let doing = (phase, serial, self.rest);
        if self.watched != Some(doing) {
            self.watched = Some(doing);
            if let Some(limit) = self.limit(phase) {
                self.due = now() + limit;
            }
        }
        if phase == Phase::Busy {
            return Poll::Pending;
        }
        ready!(self.alarm.poll_due(cx, self.due));
        self.watched = None;
        Poll::Ready(phase)
    }

    fn limit(&self, phase: Phase) -> Option<Duration> {
        let Timeouts { header, keep_alive } = self.timeouts;
        match phase {
            Phase::Busy => None,
            Phase::Silent => Some(header.min(keep_alive)),
            Phase::Head => Some(header),
            Phase::Stalled => Some(WRITE_STALL_MAX),
            Phase::Idle if self.connection.is_closing() => Some(CLOSE_MAX.min(keep_alive)),
            Phase::Idle => Some(match self.rest {
                Rest::Ready => keep_alive,
                Rest::Dozing => DORMANT_AFTER,
                Rest::Dormant => keep_alive.saturating_sub(DORMANT_AFTER),
            }),
        }
    }
}
