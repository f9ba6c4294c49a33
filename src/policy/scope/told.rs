//! A quota as an answer described it, and what may still go by that.

use std::sync::Arc;
use std::time::Duration;

use super::linear::Linear;
use super::spent::Spent;
use crate::policy::outcome::QuotaReading;
use crate::policy::time::MonoTime;

/// Answers about one reset that is told exactly differ by so much: they travel for different times.
const SAME_RESET: Duration = Duration::from_millis(100);

/// As the upstream last described it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) limit: Option<u64>,
    pub(super) remaining: u64,
    /// When it is renewed.
    pub(super) reset: Option<MonoTime>,
    /// Number of the attempt whose answer told it.
    pub(super) described_by: u64,
    /// When that was there.
    pub(super) at: MonoTime,
    /// It was renewed since: `remaining` is a guess, made when so much had been sent and so much
    /// of that was still out.
    pub(super) guessed: Option<(u64, u64)>,
}

/// What there is when a reset is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Refill {
    /// Not seen yet.
    #[default]
    Unknown,
    /// Everything: a window.
    Whole,
    /// Some of it: a sliding window, or drop by drop.
    Gradual,
}

/// A quota at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// `None` for the only one.
    pub name: Option<Arc<str>>,
    /// Units per window.
    pub limit: Option<u64>,
    /// What may still go.
    pub left: u64,
    /// When it is renewed.
    pub reset: Option<MonoTime>,
    /// Whether answers told of it; else the operator set it.
    pub is_told: bool,
}

/// The quota without a name, as an answer told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnlyQuota {
    /// Units per window.
    pub limit: u64,
    /// When it is renewed.
    pub reset: MonoTime,
    /// What the answer said is left.
    pub left: u64,
    /// Number of the attempt whose answer it was.
    pub described_by: u64,
}

impl Told {
    pub(super) fn left(&self, now: MonoTime, spent: Spent, linear: Linear) -> u64 {
        let later = spent.sent.saturating_sub(self.described_by) + spent.granted;
        let there = match self.reset {
            Some(_) => self.remaining.saturating_add(linear.drops(self.at, now)),
            None => self.remaining,
        };
        let there = self.limit.map_or(there, |limit| there.min(limit));
        there.saturating_sub(later.max(spent.unanswered))
    }

    /// When so many more have come, if they come drop by drop.
    pub(super) fn next_drop(
        &self,
        now: MonoTime,
        missing: u64,
        spent: Spent,
        linear: Linear,
    ) -> Option<MonoTime> {
        self.reset?;
        let later = spent.sent.saturating_sub(self.described_by) + spent.granted;
        let taken = later.max(spent.unanswered);
        // Some of what is out may be counted already, so that an answer may come sooner.
        let drops = taken.saturating_sub(self.remaining).saturating_add(missing);
        Some((self.at + linear.time_of(drops)?).max(now + Duration::from_millis(1)))
    }

    /// Whether an answer tells of the window that is known: what is left of that only falls, however
    /// requests and answers overtake each other.
    pub(super) fn is_same_window(&self, now: MonoTime, reading: &QuotaReading) -> bool {
        let Some((known, wait)) = self.reset.zip(reading.reset) else { return false };
        // In whole seconds, one moment is told as two that are a second apart.
        let whole = if wait.subsec_nanos() == 0 { Duration::from_secs(1) } else { Duration::ZERO };
        let apart = whole + SAME_RESET;
        let told = now + wait;
        let is_near = known.since(told) <= apart && told.since(known) <= apart;
        is_near && now < known && self.guessed.is_none() && self.limit == reading.limit
    }

    /// A new window, not yet described.
    pub(super) fn renew(&mut self, now: MonoTime, refill: Refill, spent: Spent) {
        if self.reset.is_some_and(|at| at <= now) {
            self.reset = None;
            self.remaining = match refill {
                Refill::Whole => self.limit.unwrap_or(1).max(1),
                Refill::Unknown | Refill::Gradual => 1,
            };
            self.described_by = spent.sent;
            self.guessed = Some((spent.sent, spent.unanswered));
        }
    }
}
