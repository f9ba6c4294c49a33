//! What an upstream's refusals say about one scope: how long to wait, how to come back, how many
//! at once.
//!
//! A scope is a (bucket, credential), a credential, or the whole upstream. After a cooldown nobody
//! rushes in: one canary goes first, then as many as fitted the last time, then one after the
//! other at the pace that was served on average, speeding up ever faster, until the upstream says
//! no again. If it says no to the first beyond what fitted, it counts in windows: then most
//! windows end when they are used up, and only every second, fourth, eighth … tries for more.
//! Where answers carry quota fields, what is left is known, and nothing is sent that would be
//! refused.

use std::sync::Arc;
use std::time::Duration;

use super::adaptive::AdaptiveLimit;
use super::outcome::{Hint, HintSource, QuotaReading, WaitKind};
use super::settings::{Pacing, QuotaSettings};
use super::time::MonoTime;

mod cycle;
mod forecast;
mod linear;
mod quota;
mod saved;
mod spent;
mod told;

use self::cycle::{Cycle, Phase};
pub use self::forecast::Bound;
use self::quota::Quotas;
pub use self::saved::{Learned, SavedCycle, SpentQuota};
use self::spent::Spent;
pub use self::told::{OnlyQuota, QuotaState};

/// Added to a hint: one percent, at most this (never earlier than told).
const MARGIN_MAX: Duration = Duration::from_secs(1);
/// Added where the source was an absolute time in whole seconds.
const WHOLE_SECOND: Duration = Duration::from_secs(1);
/// A scope that was never refused for this long after its last cooldown is free again.
const RECOVERED_AFTER: Duration = Duration::from_secs(600);
/// The n-th success in a row at a pace shortens it by n of these parts, at most a tenth. A bucket
/// that is filled drop by drop is then overdrawn about once in thirty answers, and a limit that
/// was raised tenfold is found within a hundred and fifty.
const PACE_PARTS: u32 = 5000;
/// The state of one scope.
#[derive(Debug, Default)]
pub struct Scope {
    cooldown: Option<Cooldown>,
    phase: Phase,
    learned: Option<Cycle>,
    /// The process before this one learned it, and what it used of the present cycle is not known.
    resumed: bool,
    /// The present cycle: from one opening to the next.
    began: Option<MonoTime>,
    good: u32,
    /// Attempts since `out_since`, when the phase began, whose answer has not come.
    out: u32,
    out_since: MonoTime,
    /// The burst was measured by the last refusal; what is answered later still adds to it.
    measuring: bool,
    last_refused: MonoTime,
    last_success: MonoTime,
    /// Pauses of our own in a row, without a success between them.
    own_pauses: u32,
    in_flight: u32,
    spent: Spent,
    quotas: Quotas,
    pacing: Pacing,
    /// The last refusal came although the quota, if any was told, had something left.
    quota_misleads: bool,
    /// The concurrency limit found from refusals without a hint.
    pub adaptive: AdaptiveLimit,
}

/// "Nothing before this time", because the upstream said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// Margins included.
    pub until: MonoTime,
    /// When the refusal came in.
    pub received: MonoTime,
    /// As the upstream put it, from then.
    pub wait: Duration,
    /// Which field said so; `None` for a pause of our own after refusals without a hint.
    pub source: Option<HintSource>,
    /// What stood there.
    pub raw: Option<Arc<str>>,
    /// Hours away: a quota is used up.
    pub exhausted: bool,
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
    /// Takes over what the operator says of quotas; nothing learned is lost.
    pub fn configure(&mut self, rules: &[&QuotaSettings], pacing: Pacing) {
        self.pacing = pacing;
        self.quotas.configure(rules, pacing);
    }

    /// Whether an attempt of `cost` units may go now.
    pub fn check(&mut self, now: MonoTime, cost: u32) -> Result<(), Closed> {
        if let Some(cooldown) = &self.cooldown {
            if now < cooldown.until {
                return Err(Closed {
                    until: Some(cooldown.until),
                    kind: WaitKind::Cooldown,
                    exhausted: cooldown.exhausted,
                });
            }
            self.reopen(now);
        }
        self.quotas.check(now, u64::from(cost), self.spent)?;
        if let Some(limit) = self.adaptive.limit()
            && self.in_flight >= limit
        {
            return Err(Closed { until: None, kind: WaitKind::Queue, exhausted: false });
        }
        self.check_phase(now)
    }

    /// Whether one of `cost` units may go, and this share of each window stays, in percent.
    pub fn check_reserve(&self, now: MonoTime, cost: u32, share: u64) -> Result<(), Closed> {
        self.quotas.check_reserve(now, u64::from(cost), share, self.spent)
    }

    /// An attempt may go.
    pub fn start(&mut self, now: MonoTime, cost: u32) {
        let units = u64::from(cost);
        self.in_flight += 1;
        self.out += 1;
        self.began.get_or_insert(now);
        self.quotas.take(now, units, self.spent);
        self.spent.unanswered += units;
        self.spent.granted += units;
        match &mut self.phase {
            Phase::Free | Phase::Canary | Phase::UsedUp { .. } => {}
            Phase::Allowance { left } => *left = left.saturating_sub(1),
            Phase::Careful { next, pace, .. } => *next = now + *pace,
        }
    }

    /// It goes. Says its number, by which its answer is known: upstreams count in this order.
    pub fn send(&mut self, cost: u32) -> u64 {
        let units = u64::from(cost);
        self.spent.granted = self.spent.granted.saturating_sub(units);
        self.spent.sent += units;
        self.spent.sent
    }

    /// It does not go after all.
    pub fn take_back(&mut self, cost: u32) {
        let units = u64::from(cost);
        self.spent.granted = self.spent.granted.saturating_sub(units);
        self.quotas.give_back(units);
    }

    /// Whatever became of an attempt, it is no longer on its way; its body may still be.
    pub fn answered(&mut self, sent: MonoTime, cost: u32) {
        self.spent.unanswered = self.spent.unanswered.saturating_sub(u64::from(cost));
        if sent >= self.out_since {
            self.out = self.out.saturating_sub(1);
        }
    }

    /// An attempt's place is free again.
    pub fn end(&mut self) {
        // A scope may be younger than an attempt that ends in it.
        self.in_flight = self.in_flight.saturating_sub(1);
        self.out = self.out.min(self.in_flight);
        if self.in_flight == 0 {
            self.spent.unanswered = 0;
        }
    }

    /// Hears what the answer to attempt `number` says of quotas. Says whether there is a limit that was
    /// not known, or was another one.
    pub fn learn(
        &mut self,
        now: MonoTime,
        number: u64,
        told: &[QuotaReading],
        refused: bool,
    ) -> bool {
        let is_news = self.quotas.learn(now, number, self.spent, told, self.pacing);
        if refused {
            self.quotas.refute();
        }
        if told.is_empty() {
            self.quota_misleads |= refused;
        } else if refused {
            // Some other limit refused, of which these fields do not tell.
            self.quota_misleads = self.quotas.have_some();
        } else if self.cooldown.is_none()
            && self.quotas.have_some()
            && !self.quota_misleads
            && !matches!(self.phase, Phase::Canary)
        {
            // Told what is left, there is no need to feel for it.
            self.phase = Phase::Free;
        }
        is_news
    }

    /// The number of the newest attempt.
    pub fn newest(&self) -> u64 {
        self.spent.sent
    }

    /// Quotas at this moment.
    pub fn quotas(&self, now: MonoTime) -> impl Iterator<Item = QuotaState> {
        self.quotas.states(now, self.spent)
    }

    /// The quota without a name, as answers told of it last.
    pub fn only_quota(&self) -> Option<OnlyQuota> {
        self.quotas.only()
    }

    /// An attempt of this scope was served.
    pub fn succeeded(&mut self, now: MonoTime, sent: MonoTime, in_flight_max: u32) {
        self.last_success = now;
        self.own_pauses = 0;
        self.adaptive.on_success(sent, in_flight_max);
        if let Some(learned) = &mut self.learned
            && (learned.began..=learned.refused).contains(&sent)
        {
            // Sent before the refusal, answered after it: it did fit.
            learned.served += 1;
            learned.burst += u32::from(self.measuring);
        }
        if self.cooldown.is_some() || !self.is_of_this_cycle(sent) {
            return;
        }
        self.good = self.good.saturating_add(1);
        match &mut self.phase {
            Phase::Canary => {
                let burst = self.learned.map_or(0, |it| it.burst);
                let burst = if std::mem::take(&mut self.resumed) { 1 } else { burst };
                self.phase = Phase::Allowance { left: burst.saturating_sub(1) };
            }
            Phase::Careful { pace, successes, .. } if sent >= self.out_since => {
                *successes += 1;
                let parts = (*successes).min(PACE_PARTS / 10);
                *pace = *pace * (PACE_PARTS - parts) / PACE_PARTS;
                if *successes >= 16 * in_flight_max.max(4) {
                    self.phase = Phase::Free;
                }
            }
            Phase::Free
            | Phase::Allowance { .. }
            | Phase::UsedUp { .. }
            | Phase::Careful { .. } => {}
        }
        if now.since(self.last_refused) > RECOVERED_AFTER {
            self.phase = Phase::Free;
            self.learned = None;
        }
    }

    /// The upstream refused and named a time.
    pub fn cool_down(&mut self, now: MonoTime, hint: &Hint, exhausted: bool) {
        self.close(now, hint.wait, Some(hint), exhausted);
    }

    /// It refused and named none, so this pause is our own.
    pub fn pause(&mut self, now: MonoTime, wait: Duration) {
        self.close(now, wait, None, false);
    }

    /// Margins are added here, upwards only.
    fn close(&mut self, now: MonoTime, wait: Duration, hint: Option<&Hint>, exhausted: bool) {
        let source = hint.map(|hint| hint.source);
        let whole =
            if source.is_some_and(HintSource::is_absolute) { WHOLE_SECOND } else { Duration::ZERO };
        let until = now + (wait + (wait / 100).min(MARGIN_MAX) + whole);
        self.last_refused = now;
        if self.cooldown.as_ref().is_some_and(|cooldown| cooldown.until >= until) {
            return;
        }
        if self.cooldown.is_none() {
            self.conclude(now, until);
        }
        let raw = hint.and_then(|hint| hint.raw.clone());
        self.cooldown = Some(Cooldown { until, received: now, wait, source, raw, exhausted });
        self.quotas.close(until);
    }

    /// The upstream refused and named no time. `None` when others of the scope are served, so that
    /// only this exchange has to step back; else the number of the pause that the scope has to
    /// make, counted from 1.
    pub fn refused_without_hint(
        &mut self,
        now: MonoTime,
        sent: MonoTime,
        in_flight: u32,
    ) -> Option<u32> {
        let before = std::mem::replace(&mut self.last_refused, now);
        // Since it was sent, or at least since the last refusal.
        let since = sent.min(before);
        let others_are_served = self.last_success >= since && self.last_success > MonoTime::ZERO;
        if others_are_served || self.in_flight > 1 {
            self.adaptive.on_refused(now, in_flight, sent);
            return None;
        }
        self.own_pauses = self.own_pauses.saturating_add(1);
        Some(self.own_pauses)
    }

    /// A person or a successful probe says that the pause is over.
    pub fn clear(&mut self, now: MonoTime) {
        self.cooldown = None;
        self.quotas.clear();
        self.begin_cycle(now, Phase::Canary);
    }

    /// The pause in force.
    pub fn cooldown(&self, now: MonoTime) -> Option<&Cooldown> {
        self.cooldown.as_ref().filter(|cooldown| now < cooldown.until)
    }

    /// Whether something was served since the last refusal.
    pub fn serves(&self) -> bool {
        self.last_success > self.last_refused
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
        self.cooldown.is_none()
            && !self.quotas.are_told()
            && self.adaptive.limit().is_none()
            && matches!(self.phase, Phase::Free)
    }

    /// Whether nobody would notice soon if it was forgotten: nothing is out, no pause is in force.
    pub fn is_idle(&self, now: MonoTime) -> bool {
        self.in_flight == 0 && self.cooldown(now).is_none() && self.quotas.are_past(now)
    }

    /// Whether it holds somebody back or somebody is out.
    pub fn binds(&self, now: MonoTime) -> bool {
        self.in_flight > 0 || self.cooldown(now).is_some() || self.quotas.bind(now, self.spent)
    }

    fn is_of_this_cycle(&self, sent: MonoTime) -> bool {
        self.began.is_none_or(|began| sent >= began)
    }

    fn reopen(&mut self, now: MonoTime) {
        self.cooldown = None;
        self.resumed = false;
        self.begin_cycle(now, Phase::Canary);
    }
}

#[cfg(test)]
mod tests;
