//! From one opening of a scope to the next: what fits, how it is found out, and what is remembered.

use std::time::Duration;

use super::{Closed, Scope};
use crate::policy::outcome::WaitKind;
use crate::policy::time::MonoTime;

/// Windows in a row that are not tried for more are at most two to this power, so that a limit
/// that was raised is found some day.
pub(super) const DOUBLINGS_MAX: u32 = 5;
/// Pauses that followed each other within so many of their cycles belong together; one that stands
/// alone was an accident, and says nothing about a limit.
const BELONGS_TOGETHER: u32 = 20;
/// No pace is slower: beyond that, asking again costs less than waiting.
const PACE_MAX: Duration = Duration::from_secs(1);
/// What is shorter is no window: it would be over before its canary is back.
const WINDOW_MIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Phase {
    #[default]
    Free,
    /// One goes first.
    Canary,
    /// What fitted last time may go at once.
    Allowance { left: u32 },
    /// It is used up, and trying for more was refused lately.
    UsedUp { until: MonoTime },
    /// Beyond that, one after the other at a pace.
    Careful { next: MonoTime, pace: Duration, successes: u32 },
}

/// What the cycles before this one taught.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cycle {
    /// What fitted at once.
    pub(super) burst: u32,
    /// From the opening to the end of the pause that followed.
    pub(super) length: Duration,
    /// When it opened.
    pub(super) began: MonoTime,
    /// When the refusal came in; whatever was sent in between belongs to this cycle.
    pub(super) refused: MonoTime,
    /// What was served in that time.
    pub(super) served: u32,
    /// Tries beyond the burst that were refused at once, in a row.
    pub(super) failed_tries: u32,
    /// Cycles to go before the next try.
    pub(super) rests: u32,
    /// Refusals that belong together, this one included.
    pub(super) refusals: u32,
}

/// How long nobody must have come for the burst to fit again.
fn refill(pace: Duration, learned: &Cycle) -> Duration {
    if pace.is_zero() { learned.length } else { pace * learned.burst }
}

impl Scope {
    /// The first refusal of a cycle tells what fitted; of a canary it only tells that it was early.
    pub(super) fn conclude(&mut self, now: MonoTime, until: MonoTime) {
        let began = self.began.unwrap_or_default();
        let length = until.since(began).max(Duration::from_millis(1));
        let good = self.good;
        let tried_for_more = matches!(self.phase, Phase::Careful { .. } | Phase::UsedUp { .. });
        self.measuring = false;
        let refusals = self.learned.map_or(1, |before| {
            let near = before.length.max(length) * BELONGS_TOGETHER;
            if now.since(before.refused) <= near { before.refusals.saturating_add(1) } else { 1 }
        });
        self.learned = Some(match self.learned {
            Some(learned) if matches!(self.phase, Phase::Canary) => learned,
            Some(learned) if tried_for_more && self.good >= learned.burst => {
                let (failed_tries, length) = match self.phase {
                    // Windows are of one length, and only the margins of hints vary.
                    Phase::Careful { successes: 0, .. } if learned.failed_tries > 0 => {
                        (learned.failed_tries + 1, (learned.length + length) / 2)
                    }
                    Phase::Careful { successes: 0, .. } => (1, length),
                    Phase::Free
                    | Phase::Canary
                    | Phase::Allowance { .. }
                    | Phase::UsedUp { .. }
                    | Phase::Careful { .. } => (0, length),
                };
                let failed_tries = failed_tries.min(DOUBLINGS_MAX);
                let is_window = length >= WINDOW_MIN;
                Cycle {
                    length,
                    began,
                    refused: now,
                    served: good,
                    failed_tries,
                    rests: if is_window { (1 << failed_tries) - 1 } else { 0 },
                    refusals,
                    ..learned
                }
            }
            learned => {
                self.measuring = true;
                Cycle {
                    burst: good,
                    length,
                    began,
                    refused: now,
                    served: good,
                    failed_tries: learned.map_or(0, |learned| learned.failed_tries),
                    rests: learned.map_or(0, |learned| learned.rests),
                    refusals,
                }
            }
        });
    }

    pub(super) fn begin_cycle(&mut self, now: MonoTime, phase: Phase) {
        self.phase = phase;
        self.began = Some(now);
        self.good = 0;
        self.out = 0;
        self.out_since = now;
    }

    pub(super) fn check_phase(&mut self, now: MonoTime) -> Result<(), Closed> {
        if let Some(learned) = self.learned {
            self.move_on(now, learned);
        }
        let closed = |until, kind| Err(Closed { until, kind, exhausted: false });
        match self.phase {
            Phase::Canary if self.out > 0 => closed(None, WaitKind::Cooldown),
            Phase::UsedUp { until } => closed(Some(until), WaitKind::Pacing),
            // Twice as many with each round trip: if the window is full, one of them finds out.
            Phase::Careful { successes, .. } if self.out > successes => {
                closed(None, WaitKind::Pacing)
            }
            Phase::Careful { next, .. } if now < next => closed(Some(next), WaitKind::Pacing),
            Phase::Free | Phase::Canary | Phase::Allowance { .. } | Phase::Careful { .. } => Ok(()),
        }
    }

    /// What time and the number of attempts change by themselves.
    pub(super) fn move_on(&mut self, now: MonoTime, mut learned: Cycle) {
        let over = self.began.unwrap_or_default() + learned.length;
        let whole = Phase::Allowance { left: learned.burst };
        match self.phase {
            Phase::UsedUp { until } if now >= until => self.begin_cycle(now, Phase::Canary),
            // The upstream's window or bucket is full again: nobody came for so long.
            Phase::Allowance { .. } if now >= over => self.begin_cycle(now, whole),
            Phase::Careful { next, pace, .. }
                if now >= next.max(self.last_success) + refill(pace, &learned) =>
            {
                self.begin_cycle(now, whole);
            }
            Phase::Allowance { left: 0 } if learned.rests > 0 => {
                learned.rests -= 1;
                self.learned = Some(learned);
                self.phase = Phase::UsedUp { until: over };
            }
            Phase::Allowance { left: 0 } => {
                let pace = if learned.refusals > 1 {
                    (learned.length / learned.served.max(1)).min(PACE_MAX)
                } else {
                    Duration::ZERO
                };
                self.phase = Phase::Careful { next: now + pace, pace, successes: 0 };
                self.out = 0;
                self.out_since = now + Duration::from_nanos(1);
            }
            Phase::Free
            | Phase::Canary
            | Phase::Allowance { .. }
            | Phase::UsedUp { .. }
            | Phase::Careful { .. } => {}
        }
    }
}
