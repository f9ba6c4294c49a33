//! What of a scope is worth keeping over a restart: until when it is closed, what went of the
//! operator's limits, and what refusals taught of limits that nobody tells.

use std::sync::Arc;
use std::time::Duration;

use super::cycle::{Cycle, DOUBLINGS_MAX, Phase};
use super::{Cooldown, RECOVERED_AFTER, Scope};
use crate::policy::adaptive::SavedLimit;
use crate::policy::time::MonoTime;

impl Scope {
    /// Goes on where another process stopped, or another scope that was this one all the time; a
    /// pause that is over is not begun, and none is made shorter. Afterwards one goes first, as
    /// after any pause.
    pub fn restore(&mut self, now: MonoTime, cooldown: Cooldown) {
        let own = self.cooldown.as_ref().map_or(now, |own| own.until);
        if now.max(own) < cooldown.until {
            self.last_refused = cooldown.received;
            self.cooldown = Some(cooldown);
        }
    }
}

/// What went of a limit that the operator set, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentQuota {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// Units that are counted.
    pub units: u64,
    /// When the last of them is no longer.
    pub until: MonoTime,
}

impl Scope {
    /// What went of limits that the operator set.
    pub fn spent(&self, now: MonoTime) -> impl Iterator<Item = SpentQuota> + '_ {
        self.quotas.rolling().filter_map(move |(name, rolling)| {
            let (units, until) = rolling.spent(now)?;
            Some(SpentQuota { name: name.clone(), units, until })
        })
    }

    /// Counts what another process spent of a limit, if there still is one of that name.
    pub fn restore_spent(&mut self, now: MonoTime, spent: &SpentQuota) {
        let own = self.quotas.rolling_mut().find(|(name, _)| **name == spent.name);
        if let Some((_, rolling)) = own {
            rolling.restore(now, spent.units, spent.until);
        }
    }
}

/// What refusals taught, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// How much, and how fast.
    Cycle(SavedCycle),
    /// How many at once.
    Limit(SavedLimit),
}

/// What fits from one opening of a scope to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedCycle {
    /// At once.
    pub burst: u32,
    /// From one opening to the next.
    pub length: Duration,
    /// What is served in that time, which makes the pace.
    pub served: u32,
    /// Tries beyond the burst that were refused at once, in a row.
    pub failed_tries: u32,
    /// When it is known no longer, as nothing was refused for ten minutes.
    pub until: MonoTime,
}

impl Learned {
    /// When it is known no longer.
    pub fn until(&self) -> MonoTime {
        match self {
            Self::Cycle(SavedCycle { until, .. }) | Self::Limit(SavedLimit { until, .. }) => *until,
        }
    }
}

impl Scope {
    /// What refusals taught. A single one says nothing of a cycle.
    pub fn learned(&self, now: MonoTime) -> impl Iterator<Item = Learned> + use<> {
        let until = self.last_refused + RECOVERED_AFTER;
        let cycle = self.learned.filter(|cycle| cycle.refusals > 1 && now < until);
        let cycle = cycle.map(|Cycle { burst, length, served, failed_tries, .. }| {
            Learned::Cycle(SavedCycle { burst, length, served, failed_tries, until })
        });
        cycle.into_iter().chain(self.adaptive.saved(now).map(Learned::Limit))
    }

    /// Goes on with what another process learned, as with a guess: one goes first, and the others
    /// at the pace, not all at once that once fitted. Afterwards it is learned as ever.
    pub fn restore_learned(&mut self, now: MonoTime, learned: Learned) {
        match learned {
            Learned::Limit(limit) => self.adaptive.restore(limit),
            // What is longer would have been forgotten before it could be used.
            Learned::Cycle(cycle)
                if cycle.length.is_zero()
                    || cycle.length > RECOVERED_AFTER
                    || self.learned.is_some() => {}
            Learned::Cycle(cycle) => {
                self.learned = Some(Cycle {
                    burst: cycle.burst,
                    length: cycle.length,
                    served: cycle.served,
                    failed_tries: cycle.failed_tries.min(DOUBLINGS_MAX),
                    began: MonoTime::ZERO,
                    refused: MonoTime::ZERO,
                    rests: 0,
                    refusals: 2,
                });
                self.last_refused = self.last_refused.max(cycle.until - RECOVERED_AFTER);
                if self.cooldown.is_none() {
                    self.resumed = true;
                    self.begin_cycle(now, Phase::Canary);
                }
            }
        }
    }
}
