//! Counts over the recent past: a ring of ten slots that forgets a tenth at a time.
//!
//! Every slot remembers which tenth of which window it counted, so nothing has to be advanced
//! while nobody looks: a slot that is too old is simply not summed, and is cleared when its place
//! is needed again. That makes time jumps of any size harmless, and reading needs no `&mut`.

use std::time::Duration;

use super::outcome::Health;
use super::time::MonoTime;

/// A window is forgotten in this many steps: it spans between nine and ten tenths of its length.
const SLOTS: usize = 10;

/// Counters of type `C` over a sliding window.
#[derive(Clone, Debug, Default)]
pub struct Window<C> {
    /// Length of a slot in nanoseconds when it was last written. A reload may change the window;
    /// counts over slots of another length mean nothing any more.
    slot_nanos: u64,
    slots: [Slot<C>; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot<C> {
    /// Number of the slot, counted from the start of the process.
    tick: u64,
    counts: C,
}

impl<C: Copy + Default> Window<C> {
    /// The counters in which something that happens `now` is to be counted.
    pub fn current(&mut self, now: MonoTime, window: Duration) -> &mut C {
        let slot_nanos = slot_nanos(window);
        if self.slot_nanos != slot_nanos {
            *self = Self { slot_nanos, ..Self::default() };
        }
        let tick = now.as_nanos() / slot_nanos;
        let place = usize::try_from(tick % SLOTS as u64).unwrap_or(0);
        let slot = self.slots.get_mut(place).expect("a remainder is below the divisor");
        if slot.tick < tick {
            *slot = Slot { tick, counts: C::default() };
        }
        &mut slot.counts
    }

    /// The counters of every slot that is still within the window.
    pub fn recent(&self, now: MonoTime, window: Duration) -> impl Iterator<Item = &C> {
        let slot_nanos = slot_nanos(window);
        let newest = now.as_nanos() / slot_nanos;
        self.slots
            .iter()
            .filter(move |slot| {
                self.slot_nanos == slot_nanos
                    && slot.tick <= newest
                    && newest - slot.tick < SLOTS as u64
            })
            .map(|slot| &slot.counts)
    }
}

fn slot_nanos(window: Duration) -> u64 {
    // Not over nanoseconds in 128 bits, whose division is dearer than all else here.
    let slot = window / SLOTS as u32;
    slot.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(slot.subsec_nanos()))
        .max(1)
}

/// What a breaker counts, in halves of an answer: an overloaded upstream (529) is half ill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    good_halves: u32,
    bad_halves: u32,
    slow: u32,
}

impl Tally {
    /// Counts one attempt. What is no evidence is not counted at all.
    pub fn count(&mut self, health: Health, speed: Speed) {
        let (good, bad) = match health {
            Health::Success => (2, 0),
            Health::Failure => (0, 2),
            Health::HalfFailure => (1, 1),
            Health::Alive | Health::Neutral => return,
        };
        self.good_halves = self.good_halves.saturating_add(good);
        self.bad_halves = self.bad_halves.saturating_add(bad);
        match speed {
            Speed::Slow => self.slow = self.slow.saturating_add(1),
            Speed::Normal => {}
        }
    }

    /// The sum of several tallies.
    pub fn sum<'a>(tallies: impl Iterator<Item = &'a Self>) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            good_halves: sum.good_halves.saturating_add(tally.good_halves),
            bad_halves: sum.bad_halves.saturating_add(tally.bad_halves),
            slow: sum.slow.saturating_add(tally.slow),
        })
    }

    /// Attempts counted.
    pub fn samples(&self) -> u32 {
        self.good_halves.saturating_add(self.bad_halves) / 2
    }

    /// Share of failures, 0.0 to 1.0; 0.0 of nothing.
    pub fn failure_ratio(&self) -> f64 {
        ratio(self.bad_halves, self.good_halves.saturating_add(self.bad_halves))
    }

    /// Share of slow answers, 0.0 to 1.0; 0.0 of nothing.
    pub fn slow_ratio(&self) -> f64 {
        ratio(self.slow, self.samples())
    }
}

/// Whether an answer took longer than the slow detector allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// In time, or the detector is off.
    Normal,
    /// Slower.
    Slow,
}

fn ratio(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

#[cfg(test)]
mod tests;
