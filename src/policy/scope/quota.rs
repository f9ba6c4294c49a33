//! Quotas of one scope: what answers tell of them, what the operator knows of them, and what may
//! still go.
//!
//! An answer's figures were true when its attempt arrived. What was sent later is not counted in
//! them, and what is still out may not be, so both are taken off before anybody goes. When a quota
//! is renewed nobody has said yet how much there is: the first time one goes and finds out, and if
//! everything was there again, the next window is used from its first moment.

use std::sync::Arc;
use std::time::Duration;

use super::Closed;
use super::linear::Linear;
use super::spent::{Rolling, Set, Spent};
use super::told::{OnlyQuota, QuotaState, Refill, Told};
use crate::policy::outcome::{QuotaReading, WaitKind};
use crate::policy::settings::{Pacing, QuotaSettings};
use crate::policy::time::MonoTime;

mod forecast;

/// Quotas of one scope; APIs tell of four at most.
const QUOTAS_MAX: usize = 8;
/// Added to a reset: a thousandth of the time until then, at most this. Two clocks differ by less,
/// and the time itself counts from when the answer was there.
const MARGIN_MAX: Duration = Duration::from_millis(250);
/// Further away than this, a quota is exhausted.
const EXHAUSTED_AFTER: Duration = Duration::from_secs(3600);
/// The share of a limit that a paced quota lets go at once: one in so many.
const BURST_PARTS: u64 = 20;

/// The quotas of a scope.
#[derive(Debug, Default)]
pub(super) struct Quotas(Vec<Quota>);

/// One quota.
#[derive(Debug, Default)]
struct Quota {
    /// `None` for the only one that answers tell of.
    name: Option<Arc<str>>,
    told: Option<Told>,
    set: Option<Set>,
    refill: Refill,
    linear: Linear,
    /// The length of its window: as told, else the longest time until a reset that was told.
    window: Duration,
    /// The limit that was told last.
    limit: Option<u64>,
    pacing: Pacing,
    /// When the next place is due, if all that went had been spread evenly.
    due: MonoTime,
}

impl Quotas {
    /// Takes over what the operator set. What was learned stays; of a limit that was changed, what
    /// went already counts against the new one.
    pub(super) fn configure(&mut self, rules: &[&QuotaSettings], pacing: Pacing) {
        let Self(known) = self;
        for quota in known.iter_mut() {
            let own = quota.name.as_deref();
            let rule = rules.iter().find(|rule| Some(&*rule.name) == own);
            quota.pacing = rule.map_or(pacing, |rule| rule.pacing);
            if rule.is_none_or(|rule| rule.pacing == Pacing::Off) {
                quota.set = None;
            }
        }
        for rule in rules.iter().filter(|rule| rule.pacing != Pacing::Off) {
            let at = known.iter().position(|quota| quota.name.as_ref() == Some(&rule.name));
            let at = at.unwrap_or_else(|| {
                known.push(Quota::new(Some(rule.name.clone()), rule.pacing));
                known.len() - 1
            });
            let Some(quota) = known.get_mut(at) else { continue };
            match &mut quota.set {
                Some(set) if set.per == rule.per => set.requests = rule.requests,
                set => {
                    let went = set.as_ref().map(|set| set.rolling.resized(rule.per));
                    let rolling = went.unwrap_or_else(|| Rolling::new(rule.per));
                    *set = Some(Set { requests: rule.requests, per: rule.per, rolling });
                }
            }
        }
        known.retain(|quota| quota.set.is_some() || quota.told.is_some());
    }

    /// Whether `cost` units may go now.
    pub(super) fn check(&mut self, now: MonoTime, cost: u64, spent: Spent) -> Result<(), Closed> {
        let mut closed: Option<Closed> = None;
        for quota in &mut self.0 {
            if let Err(other) = quota.check(now, cost, spent) {
                // The last to open decides; one that waits for an answer knows no time.
                let is_later = closed.is_none_or(|closed| closed.until < other.until);
                closed = if is_later { Some(other) } else { closed };
            }
        }
        closed.map_or(Ok(()), Err)
    }

    /// Whether `cost` units may go, and a share of each window stays, in percent.
    pub(super) fn check_reserve(
        &self,
        now: MonoTime,
        cost: u64,
        share: u64,
        spent: Spent,
    ) -> Result<(), Closed> {
        let active = self.0.iter().filter(|quota| quota.pacing != Pacing::Off);
        for state in active.filter_map(|quota| quota.state(now, spent)) {
            let Some((limit, reset)) = state.limit.zip(state.reset) else { continue };
            let stays = limit.saturating_mul(share) / 100;
            // What costs more than a band may ever spend goes when everything is there.
            let cost = cost.min(limit.saturating_sub(stays)).max(1);
            if state.left < cost.saturating_add(stays) {
                return Err(Closed {
                    until: Some(reset),
                    kind: WaitKind::Pacing,
                    exhausted: false,
                });
            }
        }
        Ok(())
    }

    /// `cost` units go.
    pub(super) fn take(&mut self, now: MonoTime, cost: u64, spent: Spent) {
        for quota in &mut self.0 {
            if let Some((gap, _)) = quota.pace(now, spent) {
                quota.due =
                    quota.due.max(now) + gap.saturating_mul(u32::try_from(cost).unwrap_or(1));
            }
            if let Some(set) = &mut quota.set {
                set.rolling.add(now, cost);
            }
        }
    }

    /// They did not go after all.
    pub(super) fn give_back(&mut self, cost: u64) {
        for set in self.0.iter_mut().filter_map(|quota| quota.set.as_mut()) {
            set.rolling.give_back(cost);
        }
    }

    /// Hears what the answer to attempt `number` tells. Answers to older attempts than the newest
    /// that told something are ignored. A description without an end that is told no more is
    /// out of date. Says whether there is a limit that was not known, or was another one.
    pub(super) fn learn(
        &mut self,
        now: MonoTime,
        number: u64,
        spent: Spent,
        readings: &[QuotaReading],
        pacing: Pacing,
    ) -> bool {
        let Self(known) = self;
        let mut is_news = false;
        for reading in readings {
            let name = reading.name.as_deref();
            let is_it = |quota: &&mut Quota| quota.name.as_deref() == name;
            if let Some(quota) = known.iter_mut().find(is_it) {
                is_news |= quota.learn(now, number, reading);
            } else if known.len() < QUOTAS_MAX {
                let mut quota = Quota::new(name.map(Into::into), pacing);
                is_news |= quota.learn(now, number, reading);
                known.push(quota);
            }
        }
        if readings.is_empty() {
            self.forget(|told| told.reset.is_none() && told.described_by <= spent.sent);
        }
        is_news
    }

    /// The upstream refused: what was taken for drops did not come.
    pub(super) fn refute(&mut self) {
        let sure = self.0.iter_mut().filter(|quota| quota.linear.rate().is_some());
        sure.for_each(|quota| quota.linear.refute());
    }

    /// A refusal closed the scope until then: what would be renewed before is not known any more.
    pub(super) fn close(&mut self, until: MonoTime) {
        self.forget(|told| told.reset.is_none_or(|reset| reset <= until));
    }

    /// A person says that the pause is over.
    pub(super) fn clear(&mut self) {
        self.forget(|_| true);
    }

    fn forget(&mut self, what: impl Fn(&Told) -> bool) {
        let Self(known) = self;
        for quota in known.iter_mut() {
            quota.told = quota.told.filter(|told| !what(told));
        }
        // How a window is renewed, and which limit it had, is remembered.
        known.retain(|it| it.set.is_some() || it.told.is_some() || it.limit.is_some());
    }

    /// Whether answers told of one.
    pub(super) fn are_told(&self) -> bool {
        self.0.iter().any(|quota| quota.told.is_some())
    }

    /// Whether some of each is left that answers told of.
    pub(super) fn have_some(&self) -> bool {
        self.0.iter().filter_map(|quota| quota.told).all(|told| told.remaining > 0)
    }

    /// Whether one of them is used up.
    pub(super) fn bind(&self, now: MonoTime, spent: Spent) -> bool {
        let is_used_up = |told: Told, linear| told.left(now, spent, linear) == 0;
        self.0.iter().any(|quota| quota.told.is_some_and(|told| is_used_up(told, quota.linear)))
    }

    /// Whether all descriptions are past.
    pub(super) fn are_past(&self, now: MonoTime) -> bool {
        let told = self.0.iter().filter_map(|quota| quota.told);
        told.clone().all(|told| told.reset.is_none_or(|at| at <= now))
            && self
                .0
                .iter()
                .all(|quota| quota.set.as_ref().is_none_or(|set| set.rolling.is_idle(now)))
    }

    /// What went of those that the operator set.
    pub(super) fn rolling(&self) -> impl Iterator<Item = (&Arc<str>, &Rolling)> {
        self.0.iter().filter_map(|it| Some((it.name.as_ref()?, &it.set.as_ref()?.rolling)))
    }

    pub(super) fn rolling_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut Rolling)> {
        self.0.iter_mut().filter_map(|it| Some((it.name.as_ref()?, &mut it.set.as_mut()?.rolling)))
    }

    /// All of them, to be shown and kept.
    pub(super) fn states(&self, now: MonoTime, spent: Spent) -> impl Iterator<Item = QuotaState> {
        self.0.iter().filter_map(move |quota| quota.state(now, spent))
    }

    /// The one without a name, if answers told all of it.
    pub(super) fn only(&self) -> Option<OnlyQuota> {
        let told = self.0.iter().find(|quota| quota.name.is_none())?.told?;
        let (left, described_by) = (told.remaining, told.described_by);
        Some(OnlyQuota { limit: told.limit?, reset: told.reset?, left, described_by })
    }
}

impl Quota {
    fn new(name: Option<Arc<str>>, pacing: Pacing) -> Self {
        Self { name, pacing, ..Self::default() }
    }

    fn check(&mut self, now: MonoTime, cost: u64, spent: Spent) -> Result<(), Closed> {
        if self.pacing == Pacing::Off {
            return Ok(());
        }
        let closed = |until: Option<MonoTime>| Closed {
            until,
            kind: WaitKind::Pacing,
            exhausted: until.is_some_and(|until| until.since(now) > EXHAUSTED_AFTER),
        };
        if let Some(set) = &mut self.set
            && let Some(at) = set.rolling.next(now, cost, set.requests)
        {
            return Err(closed(Some(at)));
        }
        if let Some(told) = &mut self.told {
            told.renew(now, self.refill, spent);
            // What costs more than there ever is goes when everything is there.
            let cost = cost.min(told.limit.unwrap_or(u64::MAX)).max(1);
            let missing = cost.saturating_sub(told.left(now, spent, self.linear));
            if missing > 0 {
                let drop = told.next_drop(now, missing, spent, self.linear);
                match drop.or(told.reset) {
                    Some(at) if at > now => return Err(closed(Some(at))),
                    // Nobody knows when it is renewed, so one after the other finds out.
                    None if spent.unanswered > 0 => return Err(closed(None)),
                    Some(_) | None => {}
                }
            }
        }
        match self.pace(now, spent) {
            Some((_, burst)) if self.due > now + burst => Err(closed(Some(self.due - burst))),
            Some(_) | None => Ok(()),
        }
    }

    /// The time between two places, and how much of it may be taken ahead.
    fn pace(&self, now: MonoTime, spent: Spent) -> Option<(Duration, Duration)> {
        if self.pacing != Pacing::Smooth {
            return None;
        }
        let spread = |span: Duration, places: u64, limit: u64| {
            let gap = span / u32::try_from(places.max(1)).unwrap_or(u32::MAX);
            let ahead = u32::try_from(limit / BURST_PARTS).unwrap_or(u32::MAX).saturating_sub(1);
            (gap, gap.saturating_mul(ahead))
        };
        let told = self.told.and_then(|told| {
            let left = told.left(now, spent, self.linear);
            Some(spread(told.reset?.since(now), left, told.limit.unwrap_or(left)))
        });
        let set = self.set.as_ref().map(|set| spread(set.per, set.requests, set.requests));
        // Whatever is slower.
        told.into_iter().chain(set).max_by_key(|(gap, _)| *gap)
    }

    fn learn(&mut self, now: MonoTime, number: u64, reading: &QuotaReading) -> bool {
        if let Some(told) = &mut self.told
            && number < told.described_by
        {
            // It was overtaken, and of one window the least that was told is true.
            if told.is_same_window(now, reading) {
                told.remaining = told.remaining.min(reading.remaining);
            }
            return false;
        }
        let least = self.told.filter(|told| told.is_same_window(now, reading));
        let least = least.map_or(u64::MAX, |told| told.remaining);
        let least = if self.linear.rate().is_some() { u64::MAX } else { least };
        if let Some(told) = self.told
            && let Some((sent, out)) = told.guessed
            && number > sent
            && let Some(limit) = reading.limit
        {
            // What the window held before this attempt: a tenth may be others'.
            let held = reading.remaining.saturating_add(number - sent).saturating_add(out);
            let is_whole = held >= limit - limit / 10;
            self.refill = if is_whole { Refill::Whole } else { Refill::Gradual };
        }
        if self.limit != reading.limit {
            self.window = Duration::ZERO;
        }
        self.window = reading.window.unwrap_or(self.window.max(reading.reset.unwrap_or_default()));
        let reset = reading.reset.map(|wait| now + (wait + (wait / 1000).min(MARGIN_MAX)));
        self.told = Some(Told {
            limit: reading.limit,
            remaining: reading.remaining.min(least),
            reset,
            described_by: number,
            at: now,
            guessed: None,
        });
        if let (Some(limit), Some(wait)) = (reading.limit, reading.reset) {
            self.linear.hear(limit.saturating_sub(reading.remaining), wait);
        }
        reading.limit.is_some()
            && std::mem::replace(&mut self.limit, reading.limit) != reading.limit
    }

    fn state(&self, now: MonoTime, spent: Spent) -> Option<QuotaState> {
        let set = self.set.as_ref();
        let by_set = set.map(|set| {
            let gone = set.rolling.total(now);
            (set.requests, set.requests.saturating_sub(gone), set.rolling.first_end(now))
        });
        let (limit, left, reset) = match (self.told, by_set) {
            (Some(told), None) => (told.limit, told.left(now, spent, self.linear), told.reset),
            (None, Some((limit, left, reset))) => (Some(limit), left, reset),
            (Some(told), Some((limit, left, reset))) => {
                let least = told.left(now, spent, self.linear).min(left);
                (Some(told.limit.map_or(limit, |it| it.min(limit))), least, told.reset.or(reset))
            }
            (None, None) => return None,
        };
        let (name, is_told) = (self.name.clone(), self.told.is_some());
        Some(QuotaState { name, limit, left, reset, is_told })
    }
}
