//! Finds how many attempts an upstream takes at once when it does not say.
//!
//! A refusal without a time, while others are served, means "too many at once". The refused
//! attempt knows how many were in flight when it was sent, so one refusal nearly names the limit;
//! after it the only question is when to try for more. Near the level that was last refused each
//! further try needs twice the successes of the one before: an unknown limit costs a handful of
//! refusals, not a saw-tooth of them. Latency says nothing here, because what external APIs are
//! asked differs too much.

use std::time::Duration;

use super::time::MonoTime;

/// Successes before the refused level is tried again for the first time; at least one refusal in
/// this many answers is thereby avoided even where the limit is 1.
const PROBE_AFTER_MIN: u32 = 32;

/// The successes needed double with each failed try, this many times at most, so that a limit
/// that was raised is found some day.
const DOUBLINGS_MAX: u32 = 5;

/// A limit is a good guess for another process for so long: it is there again for the next night's
/// job, and an API that was enlarged is asked afresh the day after.
const KNOWN_FOR: Duration = Duration::from_secs(86_400);

/// What is kept of a limit over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedLimit {
    /// Attempts in flight at most.
    pub limit: u32,
    /// The lowest level in flight that is known to be refused.
    pub refused_at: Option<u32>,
    /// Tries for more that failed, since one succeeded.
    pub failed_tries: u32,
    /// When it is known no longer, a day after the last refusal that moved it.
    pub until: MonoTime,
}

/// A limit that only refusals move; unbounded until the first one.
#[derive(Clone, Debug, Default)]
pub struct AdaptiveLimit {
    limit: Option<u32>,
    /// The lowest level in flight that is known to be refused.
    refused_at: Option<u32>,
    /// Tries for more that failed, since one succeeded.
    failed_tries: u32,
    /// Successes at the present limit.
    successes: u32,
    /// Whether it went up since the last cut.
    grown: bool,
    last_cut: MonoTime,
    /// How long the next process may rely on it.
    known_until: MonoTime,
    /// Attempts that were out when it was cut last and were served: so many at once are no more
    /// than the upstream takes.
    served_beside: u32,
}

impl AdaptiveLimit {
    /// Attempts in flight at most; `None` until something was refused.
    pub fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// What is worth keeping over a restart.
    pub fn saved(&self, now: MonoTime) -> Option<SavedLimit> {
        let Self { limit, refused_at, failed_tries, known_until: until, .. } = *self;
        let limit = limit.filter(|_| now < until)?;
        Some(SavedLimit { limit, refused_at, failed_tries, until })
    }

    /// Goes on with what another process found, unless this one has already heard of a refusal.
    pub fn restore(&mut self, saved: SavedLimit) {
        if self.limit.is_none() {
            *self = Self {
                limit: Some(saved.limit.max(1)),
                refused_at: saved.refused_at,
                failed_tries: saved.failed_tries.min(DOUBLINGS_MAX),
                known_until: saved.until,
                ..Self::default()
            };
        }
    }

    /// Hears of a refusal without a time. `in_flight_when_sent` counts the refused attempt, too.
    pub fn on_refused(&mut self, now: MonoTime, in_flight_when_sent: u32, sent_at: MonoTime) {
        let below = in_flight_when_sent.saturating_sub(1).max(1);
        // A refusal with nothing else in flight is not about concurrency: no level to avoid.
        let refused_at = (in_flight_when_sent > 1).then_some(in_flight_when_sent);
        let Some(limit) = self.limit else {
            let known_until = now + KNOWN_FOR;
            *self = Self {
                limit: Some(below),
                refused_at,
                last_cut: now,
                known_until,
                ..Self::default()
            };
            return;
        };
        if sent_at < self.last_cut {
            // It was on its way when the limit was cut, so it says nothing against the new
            // limit; but of all that was refused in one burst, the lowest level names the limit.
            // Unless more were served at the time: requests overtake each other.
            if below < limit && below >= self.served_beside {
                self.limit = Some(below);
                self.refused_at = refused_at;
            }
            return;
        }
        let proven = self.grown || self.successes >= limit;
        let cut = if proven {
            self.failed_tries = self.failed_tries.saturating_add(1).min(DOUBLINGS_MAX);
            limit
        } else {
            // Refused again before the last cut had proved itself: the limit is far below.
            u32::try_from(u64::from(limit) * 7 / 10).unwrap_or(limit)
        };
        self.limit = Some(cut.min(below).max(1));
        self.refused_at = refused_at;
        self.grown = false;
        self.successes = 0;
        self.last_cut = now;
        self.known_until = now + KNOWN_FOR;
        self.served_beside = 0;
    }

    /// Hears of a served attempt. `max` is the configured limit, beyond which this never grows.
    pub fn on_success(&mut self, sent_at: MonoTime, max: u32) {
        let Some(limit) = self.limit else { return };
        if sent_at < self.last_cut {
            self.served_beside = self.served_beside.saturating_add(1);
            if self.served_beside > limit {
                self.limit = Some(self.served_beside.min(max.max(1)));
                self.refused_at = self.limit.map(|limit| limit.saturating_add(1));
            }
        }
        self.successes = self.successes.saturating_add(1);
        let tried = self.refused_at.is_some_and(|at| limit >= at);
        let near = self.refused_at.is_some_and(|at| limit.saturating_add(1) == at);
        let needed = if near {
            limit.max(PROBE_AFTER_MIN).saturating_mul(1 << self.failed_tries)
        } else if tried {
            // The first round was sent before the try and proves nothing.
            limit.saturating_mul(2)
        } else {
            limit
        };
        if self.successes < needed {
            return;
        }
        if tried {
            // A whole round at the level that used to be refused: it is so no more.
            self.refused_at = None;
            self.failed_tries = 0;
        }
        self.grown = true;
        self.successes = 0;
        self.limit = Some(limit.saturating_add(1).min(max.max(1)));
    }
}

#[cfg(test)]
mod tests;
