//! What an upstream's refusals say about one scope: how long to wait, how to come back, how many
//! at once.
//!
//! A scope is a (route, credential), a credential, or the whole upstream. After a cooldown nobody
//! rushes in: one canary goes first, then as many as the last cycle proved to fit, then one at a
//! time, ever faster, until the upstream says no again. That costs one refused request per window
//! of an API that says nothing about its limits, and none at one that does: where answers carry
//! quota fields, what is left is known, and nothing is sent that would be refused.

use std::time::Duration;

use super::adaptive::AdaptiveLimit;
use super::outcome::{HintSource, QuotaReading, WaitKind};
use super::time::MonoTime;

/// Added to a hint: one percent, at most this (never earlier than told).
const MARGIN_MAX: Duration = Duration::from_secs(1);
/// Added where the source was an absolute time in whole seconds.
const WHOLE_SECOND: Duration = Duration::from_secs(1);
/// A scope that was never refused for this long after its last cooldown is free again.
const RECOVERED_AFTER: Duration = Duration::from_secs(600);
/// Each success among the first sixteen of the careful phase shortens the pace by a hundredth, so
/// that a bucket filled drop by drop is overdrawn about once in fifteen; after that the limit is
/// plainly higher, and the pace drops by a tenth.
const CAREFUL_SUCCESSES: u32 = 16;

/// The state of one scope.
#[derive(Debug, Default)]
pub struct Scope {
    cooldown: Option<Cooldown>,
    phase: Phase,
    /// What fitted between the last two refusals, and how long that cycle was.
    learned: Option<Cycle>,
    cycle_began: Option<MonoTime>,
    good_in_cycle: u32,
    last_refused: MonoTime,
    last_success: MonoTime,
    refused_in_a_row: u32,
    in_flight: u32,
    quota: Option<Quota>,
    /// The concurrency limit found from refusals without a hint.
    pub adaptive: AdaptiveLimit,
}

/// "Nothing before this time", because the upstream said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// Margins included.
    pub until: MonoTime,
    /// When the refusal came in.
    pub received: MonoTime,
    /// As the upstream put it, from then.
    pub wait: Duration,
    /// Which field said so; `None` for a pause of our own after refusals without a hint.
    pub source: Option<HintSource>,
    /// Hours away: a quota is used up.
    pub exhausted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Free,
    /// One goes first.
    Canary,
    /// What fitted last time may go at once.
    Allowance { left: u32 },
    /// Beyond that, one after the other at a pace.
    Careful { next: MonoTime, pace: Duration, successes: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Cycle {
    fitted: u32,
    length: Duration,
}

/// A quota as the upstream last described it, less what was sent since.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Requests per window, where told.
    pub limit: Option<u64>,
    /// What may still go; attempts in flight are taken off, since they may not be counted yet.
    pub left: u64,
    /// When it is renewed.
    pub reset: Option<MonoTime>,
    described_by: MonoTime,
}

/// Why nobody in this scope may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// When to look again; `None`: when an attempt of the scope ends.
    pub until: Option<MonoTime>,
    /// To what waiting is charged.
    pub kind: WaitKind,
    /// Hours away.
    pub exhausted: bool,
}

impl Scope {
    /// Whether an attempt may go now.
    pub fn check(&mut self, now: MonoTime) -> Result<(), Closed> {
        if let Some(cooldown) = self.cooldown {
            if now < cooldown.until {
                return Err(Closed {
                    until: Some(cooldown.until),
                    kind: WaitKind::Cooldown,
                    exhausted: cooldown.exhausted,
                });
            }
            self.reopen(&cooldown, now);
        }
        self.check_quota(now)?;
        if let Some(limit) = self.adaptive.limit()
            && self.in_flight >= limit
        {
            return Err(Closed { until: None, kind: WaitKind::Queue, exhausted: false });
        }
        self.check_phase(now)
    }

    /// An attempt goes.
    pub fn start(&mut self, now: MonoTime) {
        self.in_flight += 1;
        self.cycle_began.get_or_insert(now);
        if let Some(quota) = &mut self.quota {
            quota.left = quota.left.saturating_sub(1);
        }
        match &mut self.phase {
            Phase::Free | Phase::Canary => {}
            Phase::Allowance { left } => *left = left.saturating_sub(1),
            Phase::Careful { next, pace, .. } => *next = now + *pace,
        }
    }

    /// An attempt's place is free again.
    pub fn end(&mut self) {
        // A scope may be younger than an attempt that ends in it.
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// An attempt of this scope was served.
    pub fn succeeded(&mut self, now: MonoTime, sent: MonoTime, in_flight_max: u32) {
        self.last_success = now;
        self.refused_in_a_row = 0;
        self.adaptive.on_success(in_flight_max);
        if self.cycle_began.is_none_or(|began| sent >= began) {
            self.good_in_cycle = self.good_in_cycle.saturating_add(1);
            if let (Some(_), Some(learned)) = (&self.cooldown, &mut self.learned) {
                // Sent before the refusal, answered after it: it did fit.
                learned.fitted = learned.fitted.max(self.good_in_cycle);
            }
        }
        match &mut self.phase {
            Phase::Canary if self.cooldown.is_none() => {
                let fitted = self.learned.map_or(1, |cycle| cycle.fitted);
                self.phase = Phase::Allowance { left: fitted.saturating_sub(1) };
            }
            Phase::Careful { pace, successes, .. } => {
                *successes += 1;
                let faster = if *successes > CAREFUL_SUCCESSES { 0.9 } else { 0.99 };
                *pace = pace.mul_f64(faster);
                if *successes >= 16 * in_flight_max.max(4) {
                    self.phase = Phase::Free;
                }
            }
            Phase::Free | Phase::Canary | Phase::Allowance { .. } => {}
        }
        if self.cooldown.is_none() && now.since(self.last_refused) > RECOVERED_AFTER {
            self.phase = Phase::Free;
            self.learned = None;
        }
    }

    /// The upstream refused and named a time. Margins are added here, upwards only.
    pub fn cool_down(
        &mut self,
        now: MonoTime,
        wait: Duration,
        source: Option<HintSource>,
        exhausted: bool,
    ) {
        let whole =
            if source.is_some_and(HintSource::is_absolute) { WHOLE_SECOND } else { Duration::ZERO };
        let until = now + (wait + (wait / 100).min(MARGIN_MAX) + whole);
        self.note_refusal(now);
        if self.cooldown.is_some_and(|cooldown| cooldown.until >= until) {
            return;
        }
        if self.cooldown.is_none() {
            let began = self.cycle_began.unwrap_or(MonoTime::ZERO);
            self.learned = Some(Cycle {
                fitted: self.good_in_cycle.max(1),
                length: until.since(began).max(Duration::from_millis(1)),
            });
        }
        self.cooldown = Some(Cooldown { until, received: now, wait, source, exhausted });
        self.quota = None;
    }

    /// The upstream refused and named no time. True when others of the scope were served
    /// meanwhile, so that only this exchange has to step back.
    pub fn refused_without_hint(&mut self, now: MonoTime, sent: MonoTime, in_flight: u32) -> bool {
        self.note_refusal(now);
        let others_are_served = self.last_success >= sent && self.last_success > MonoTime::ZERO;
        if others_are_served || self.in_flight > 1 {
            self.adaptive.on_refused(now, in_flight, sent);
            return true;
        }
        false
    }

    /// What the fields of an answer say about the quota. Older answers than the newest applied
    /// (by the start of their requests) are ignored; so is a reset that moves backwards.
    pub fn learn(&mut self, now: MonoTime, sent: MonoTime, reading: &QuotaReading) {
        if self.quota.is_some_and(|quota| sent < quota.described_by) {
            return;
        }
        let reset = reading.reset.map(|wait| now + (wait + (wait / 100).min(MARGIN_MAX)));
        // The answered attempt is counted in `remaining`; whatever else is out may not be.
        let others = u64::from(self.in_flight.saturating_sub(1));
        self.quota = Some(Quota {
            limit: reading.limit,
            left: reading.remaining.saturating_sub(others),
            reset,
            described_by: sent,
        });
        // Told what is left, there is no need to feel for it.
        if self.cooldown.is_none() && reading.remaining > 0 && !matches!(self.phase, Phase::Canary)
        {
            self.phase = Phase::Free;
        }
    }

    /// A person or a successful probe says that the pause is over.
    pub fn clear(&mut self) {
        self.cooldown = None;
        self.quota = None;
        self.phase = Phase::Canary;
    }

    /// The pause in force.
    pub fn cooldown(&self, now: MonoTime) -> Option<Cooldown> {
        self.cooldown.filter(|cooldown| now < cooldown.until)
    }

    /// The quota as last described.
    pub fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// How often in a row nothing but refusals came.
    pub fn refused_in_a_row(&self) -> u32 {
        self.refused_in_a_row
    }

    /// When it was last refused.
    pub fn last_refused(&self) -> MonoTime {
        self.last_refused
    }

    /// Attempts out.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether nothing holds anybody back, now or soon.
    pub fn is_free(&self) -> bool {
        self.cooldown.is_none() && self.quota.is_none() && matches!(self.phase, Phase::Free)
    }

    /// Whether it can be forgotten without forgetting anything.
    pub fn is_idle(&self, now: MonoTime) -> bool {
        let quota_is_past = self.quota.is_none_or(|quota| quota.reset.is_none_or(|at| at <= now));
        self.in_flight == 0 && self.cooldown(now).is_none() && quota_is_past
    }

    fn note_refusal(&mut self, now: MonoTime) {
        self.last_refused = now;
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
    }

    fn reopen(&mut self, over: &Cooldown, now: MonoTime) {
        self.cooldown = None;
        self.phase = Phase::Canary;
        self.cycle_began = Some(over.until.min(now));
        self.good_in_cycle = 0;
    }

    fn check_quota(&mut self, now: MonoTime) -> Result<(), Closed> {
        let Some(quota) = &mut self.quota else {
            return Ok(());
        };
        if quota.reset.is_some_and(|at| at <= now) {
            // A new window, not yet described: as many as it is known to hold, no more.
            quota.reset = None;
            quota.left = quota.limit.unwrap_or(1).max(1);
        }
        if quota.left > 0 {
            return Ok(());
        }
        match quota.reset {
            Some(at) => Err(Closed { until: Some(at), kind: WaitKind::Pacing, exhausted: false }),
            // Nobody knows when it is renewed, so one after the other finds out.
            None if self.in_flight > 0 => {
                Err(Closed { until: None, kind: WaitKind::Pacing, exhausted: false })
            }
            None => Ok(()),
        }
    }

    fn check_phase(&mut self, now: MonoTime) -> Result<(), Closed> {
        if let (Phase::Allowance { left: 0 }, Some(learned)) = (self.phase, self.learned) {
            let pace = learned.length / learned.fitted.max(1);
            self.phase = Phase::Careful { next: now, pace, successes: 0 };
        }
        match self.phase {
            Phase::Canary if self.in_flight > 0 => {
                Err(Closed { until: None, kind: WaitKind::Cooldown, exhausted: false })
            }
            Phase::Careful { next, successes, .. } => {
                if self.in_flight > successes / CAREFUL_SUCCESSES {
                    Err(Closed { until: None, kind: WaitKind::Pacing, exhausted: false })
                } else if now < next {
                    Err(Closed { until: Some(next), kind: WaitKind::Pacing, exhausted: false })
                } else {
                    Ok(())
                }
            }
            Phase::Free | Phase::Canary | Phase::Allowance { .. } => Ok(()),
        }
    }
}
