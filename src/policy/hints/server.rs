//! What an upstream's clock shows, as its last answers have it.
//!
//! Moments that a server names are moments of its own clock, and `Date` tells what that shows. But one
//! `Date` may be wrong: of a cache that says nothing of it, of one machine of many. So the median of the
//! last ones counts. They are held against the monotonic clock, which nobody sets.

use crate::policy::time::{MonoTime, TimeAnchor, WallTime};

/// `Date` fields that are remembered: half of them may be wrong, and a clock that was set right is
/// believed after five answers.
const DATES_MAX: usize = 9;
/// Of fewer than three the median may be the wrong one.
const DATES_MIN: usize = 3;

/// The last `Date` fields of one upstream, as the moments at which its epoch began for us.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerClock {
    /// Milliseconds from our start to what the server called 1970; the oldest is overwritten.
    offsets: [i64; DATES_MAX],
    heard: usize,
}

impl ServerClock {
    /// An answer that came at `received` was dated so.
    pub fn hear(&mut self, date: WallTime, received: MonoTime) {
        let origin = TimeAnchor { mono: received, wall: date }.wall(MonoTime::ZERO);
        if let Some(oldest) = self.offsets.get_mut(self.heard % DATES_MAX) {
            *oldest = origin.unix_ms;
        }
        self.heard = self.heard.saturating_add(1);
    }

    /// What it shows at `now`, if enough answers told.
    pub fn at(&self, now: MonoTime) -> Option<WallTime> {
        let mut known = self.offsets;
        let known = known.get_mut(..self.heard.min(DATES_MAX))?;
        if known.len() < DATES_MIN {
            return None;
        }
        known.sort_unstable();
        let unix_ms = *known.get(known.len() / 2)?;
        Some(TimeAnchor { mono: MonoTime::ZERO, wall: WallTime { unix_ms } }.wall(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn clock(dates: &[i64]) -> ServerClock {
        let mut clock = ServerClock::default();
        for (second, date) in (1..).zip(dates) {
            let unix_ms = (1_000_000 + date + second) * 1_000;
            let at = MonoTime::ZERO + Duration::from_secs(second.unsigned_abs());
            clock.hear(WallTime { unix_ms }, at);
        }
        clock
    }

    fn shows(dates: &[i64]) -> Option<i64> {
        let now = MonoTime::ZERO + Duration::from_secs(100);
        clock(dates).at(now).map(|wall| wall.unix_ms / 1_000 - 1_000_100)
    }

    #[test]
    fn the_median_of_the_last_nine_dates_counts_and_two_are_too_few() {
        for (dates, expected) in [
            (&[][..], None),
            (&[7, 7], None),
            (&[7, 7, 7], Some(7)),
            (&[7, -86_400, 7], Some(7)),
            (&[7, 7, 31_536_000], Some(7)),
            (&[1, 1, 1, 1, 9, 9, 9, 9, 5], Some(5)),
            // A clock that was set is believed after five.
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 60, 60, 60], Some(0)),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 60, 60, 60, 60], Some(60)),
        ] {
            assert_eq!(shows(dates), expected, "{dates:?}");
        }
    }
}
