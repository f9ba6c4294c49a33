//! What went: in all, and in the last so much time without remembering each of them.

use std::time::Duration;

use crate::policy::time::MonoTime;

/// Parts of a window that are counted apart; 1 KiB for each quota that an operator sets.
const SLOTS: usize = 128;
/// A window is so many of them: one is always partly over, and one covers that requests travel for
/// different times. Of a limit 98.4 % can be used thereby.
const SLOTS_PER_WINDOW: u32 = 126;

/// Units of quota that a scope has spent, by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    /// Sent ever; each attempt's number is what this showed then.
    pub(super) sent: u64,
    /// May be sent and have not been yet.
    pub(super) granted: u64,
    /// On their way, of whatever cycle.
    pub(super) unanswered: u64,
}

/// As the operator wrote it.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) requests: u64,
    pub(super) per: Duration,
    pub(super) rolling: Rolling,
}

/// Units that went within a sliding window.
#[derive(Debug)]
pub(super) struct Rolling {
    slot: Duration,
    counts: Vec<u64>,
    /// Number of the newest slot that was counted in.
    newest: u64,
    total: u64,
}

impl Rolling {
    pub(super) fn new(window: Duration) -> Self {
        let slot = (window / SLOTS_PER_WINDOW).max(Duration::from_nanos(1));
        Self { slot, counts: vec![0; SLOTS], newest: SLOTS as u64, total: 0 }
    }

    /// The same requests, counted in a window of another length; none of them leaves it too early.
    pub(super) fn resized(&self, window: Duration) -> Self {
        let mut resized = Self::new(window);
        for number in self.newest.saturating_sub(SLOTS as u64 - 1)..=self.newest {
            let units = self.counted(number);
            if units > 0 {
                // A slot ends where the next one begins, a whole window before it is forgotten.
                let end =
                    (number + 1).saturating_sub(SLOTS as u64).saturating_mul(self.slot_nanos());
                resized.add(MonoTime::from_nanos(end), units);
            }
        }
        resized
    }

    /// Counts `units` that go now.
    pub(super) fn add(&mut self, now: MonoTime, units: u64) {
        self.move_on(now);
        let newest = self.newest;
        if let Some(count) = self.count(newest) {
            *count += units;
        }
        self.total += units;
    }

    /// Takes back what was counted last.
    pub(super) fn give_back(&mut self, units: u64) {
        let newest = self.newest;
        let Some(count) = self.count(newest) else { return };
        let units = units.min(*count);
        *count -= units;
        self.total -= units;
    }

    /// When `units` more fit into `limit`; `None` if they do now.
    pub(super) fn next(&mut self, now: MonoTime, units: u64, limit: u64) -> Option<MonoTime> {
        self.move_on(now);
        // What costs more than the whole limit goes when nothing else did.
        let room = limit.saturating_sub(units);
        let mut left = self.total;
        let oldest = self.newest.saturating_sub(SLOTS as u64 - 1);
        let mut at = None;
        for number in oldest..=self.newest {
            if left <= room {
                break;
            }
            left -= self.count(number).map_or(0, |count| *count);
            at = Some(self.end(number));
        }
        at
    }

    /// What went in the window that ends now.
    pub(super) fn total(&self, now: MonoTime) -> u64 {
        let first = self.number(now).saturating_sub(SLOTS as u64 - 1);
        let counted = self.newest.saturating_sub(SLOTS as u64 - 1)..=self.newest;
        counted.filter(|number| *number >= first).map(|number| self.counted(number)).sum()
    }

    /// When the oldest of it is no longer counted.
    pub(super) fn first_end(&self, now: MonoTime) -> Option<MonoTime> {
        let first = self.number(now).saturating_sub(SLOTS as u64 - 1);
        let mut numbers = first.max(self.newest.saturating_sub(SLOTS as u64 - 1))..=self.newest;
        numbers.find(|number| self.counted(*number) > 0).map(|number| self.end(number))
    }

    /// How much is counted, and when the last of it is no longer.
    pub(super) fn spent(&self, now: MonoTime) -> Option<(u64, MonoTime)> {
        let first = self.number(now).saturating_sub(SLOTS as u64 - 1);
        let counted = first.max(self.newest.saturating_sub(SLOTS as u64 - 1))..=self.newest;
        let last = counted.rev().find(|number| self.counted(*number) > 0)?;
        Some((self.total(now), self.end(last)))
    }

    /// Counts what another process spent, all of it until `until`.
    pub(super) fn restore(&mut self, now: MonoTime, units: u64, until: MonoTime) {
        self.move_on(now);
        let number = until.as_nanos().div_ceil(self.slot_nanos()).min(self.newest);
        if number + SLOTS as u64 > self.newest
            && let Some(count) = self.count(number)
        {
            *count = count.saturating_add(units);
            self.total = self.total.saturating_add(units);
        }
    }

    /// Whether nothing is counted any more.
    pub(super) fn is_idle(&self, now: MonoTime) -> bool {
        self.total(now) == 0
    }

    /// Drops what is too old.
    fn move_on(&mut self, now: MonoTime) {
        let number = self.number(now);
        if number >= self.newest + SLOTS as u64 {
            self.counts.fill(0);
            self.total = 0;
        } else {
            for gone in self.newest + 1..=number {
                let dropped = self.count(gone).map_or(0, std::mem::take);
                self.total -= dropped;
            }
        }
        self.newest = self.newest.max(number);
    }

    /// A whole window is before the beginning of the process: what another one spent lies there.
    fn number(&self, at: MonoTime) -> u64 {
        at.as_nanos() / self.slot_nanos() + SLOTS as u64
    }

    /// When a slot is no longer counted.
    fn end(&self, number: u64) -> MonoTime {
        MonoTime::from_nanos(number.saturating_mul(self.slot_nanos()))
    }

    fn slot_nanos(&self) -> u64 {
        u64::try_from(self.slot.as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn count(&mut self, number: u64) -> Option<&mut u64> {
        self.counts.get_mut(usize::try_from(number % SLOTS as u64).unwrap_or(0))
    }

    fn counted(&self, number: u64) -> u64 {
        let at = usize::try_from(number % SLOTS as u64).unwrap_or(0);
        self.counts.get(at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn no_window_of_the_length_holds_more_than_the_limit_and_nearly_all_of_it_is_used() {
        let mut rolling = Rolling::new(Duration::from_secs(10));
        let mut went = Vec::new();
        let mut now = at(7);
        while now < at(200_000) {
            match rolling.next(now, 1, 100) {
                None => {
                    rolling.add(now, 1);
                    went.push(now);
                    // Odd gaps, so that no slot is favoured.
                    now = now + Duration::from_micros(1 + 7_919 * (went.len() as u64 % 5));
                }
                Some(later) => {
                    assert!(later > now);
                    now = later;
                }
            }
        }
        for pair in went.windows(101) {
            assert!(pair[100].since(pair[0]) >= Duration::from_secs(10), "{pair:?}");
        }
        assert!(went.len() >= 20 * 100 * 97 / 100, "{}", went.len());
    }

    #[test]
    fn what_is_dearer_than_the_limit_goes_when_nothing_else_did() {
        let mut rolling = Rolling::new(Duration::from_secs(1));
        assert_eq!(rolling.next(at(5), 50, 10), None);
        rolling.add(at(5), 50);
        let next = rolling.next(at(6), 1, 10).unwrap();
        assert!(next >= at(1005), "{next:?}");
        assert_eq!(rolling.next(next, 50, 10), None);
    }

    #[test]
    fn what_another_process_spent_counts_as_long_as_it_did_there() {
        let mut before = Rolling::new(Duration::from_secs(3600));
        before.add(at(10_000_000), 9);
        let (units, until) = before.spent(at(12_000_000)).unwrap();
        let left = until.since(at(12_000_000));
        let mut after = Rolling::new(Duration::from_secs(3600));
        after.restore(at(5), units, at(5) + left);
        assert_eq!(after.next(at(5), 1, 10), None);
        let next = after.next(at(5), 2, 10).unwrap();
        let slot = Duration::from_secs(3600) / SLOTS_PER_WINDOW;
        assert!(next.since(at(5)) >= left && next.since(at(5)) <= left + slot, "{next:?}");
    }

    #[test]
    fn what_went_counts_in_a_window_of_another_length_as_long_as_it_is_in_it() {
        let mut before = Rolling::new(Duration::from_secs(60));
        before.add(at(10_000), 3);
        before.add(at(50_000), 4);
        let mut shorter = before.resized(Duration::from_secs(30));
        assert_eq!(shorter.total(at(50_000)), 4, "the first three are out of it");
        let next = shorter.next(at(50_000), 1, 4).unwrap();
        assert!((at(80_000)..at(81_500)).contains(&next), "{next:?}");
        let mut longer = before.resized(Duration::from_secs(600));
        let next = longer.next(at(50_000), 1, 7).unwrap();
        assert!((at(610_000)..at(621_000)).contains(&next), "{next:?}");
        // What another process spent is of a time before this one.
        let mut restored = Rolling::new(Duration::from_secs(60));
        restored.restore(at(5), 9, at(20_000));
        assert_eq!(restored.resized(Duration::from_secs(120)).total(at(5)), 9);
    }

    #[test]
    fn what_was_not_sent_after_all_is_not_counted() {
        let mut rolling = Rolling::new(Duration::from_secs(1));
        rolling.add(at(5), 10);
        rolling.give_back(10);
        assert_eq!(rolling.next(at(5), 10, 10), None);
        assert!(rolling.is_idle(at(5)));
    }
}
