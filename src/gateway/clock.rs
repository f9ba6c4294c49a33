//! The one place that reads a clock.
//!
//! Monotonic time is tokio's, so that a paused runtime pauses the whole program and an hour of
//! waiting takes a test no time. Wall time is the system's; only headers, logs and people see it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::policy::time::{MonoTime, TimeAnchor, WallTime};

/// Since this machine started, which no setting of the clock changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootTime {
    /// Of this start of the machine and no other.
    pub id: String,
    /// Time asleep included.
    pub since_ms: i64,
}

/// Reads it, where the system tells it (Linux: `proc(5)`).
pub fn boot_time() -> Option<BootTime> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = uptime.split(' ').next()?.split_once('.')?;
    let (seconds, hundredths): (i64, i64) = (seconds.parse().ok()?, hundredths.parse().ok()?);
    Some(BootTime { id: id.trim().to_owned(), since_ms: seconds * 1000 + hundredths * 10 })
}

/// Tells both times, and waits.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    /// For tests: what the wall shows at the start; it then goes with the monotonic clock.
    pinned: Option<WallTime>,
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads a clock")]
impl Clock {
    /// Time begins now.
    pub fn start() -> Self {
        Self { started: Instant::now(), pinned: None }
    }

    /// Time begins now, and the wall shows `wall` whatever the system says.
    pub fn pinned(wall: WallTime) -> Self {
        Self { started: Instant::now(), pinned: Some(wall) }
    }

    /// The time since the start.
    pub fn now(&self) -> MonoTime {
        MonoTime::ZERO + Instant::now().duration_since(self.started)
    }

    /// What the wall shows.
    pub fn wall(&self) -> WallTime {
        match self.pinned {
            Some(wall) => wall + self.now().since(MonoTime::ZERO),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                WallTime { unix_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX) }
            }
        }
    }

    /// Both at once, to convert between them.
    pub fn anchor(&self) -> TimeAnchor {
        TimeAnchor { mono: self.now(), wall: self.wall() }
    }

    /// Waits until then; returns at once if it is past. Dropping the future stops waiting.
    pub async fn sleep_until(&self, at: MonoTime) {
        // Far away means "until woken": a timer a year ahead is the same and cannot overflow.
        const FAR: Duration = Duration::from_secs(365 * 86_400);
        let wait = at.since(MonoTime::ZERO).min(self.now().since(MonoTime::ZERO) + FAR);
        tokio::time::sleep_until(self.started + wait).await;
    }
}
