//! Recognises a quota that comes back drop by drop.
//!
//! A token bucket that tells how long it takes to be full says more than that: what is missing,
//! divided by that time, is its rate, and the rate is the same in every answer. Of a window that is
//! never so: what is missing grows while the time to its end does not. Once enough answers agree on
//! a rate, the drops can be used as they come. One answer that disagrees ends it for good.

use std::time::Duration;

use crate::policy::time::MonoTime;

/// Answers that must agree.
const POINTS_MIN: u32 = 4;
/// Between the least and the most that was missing in them there must be this factor.
const SPREAD_MIN: u64 = 2;
/// What is missing is rounded, too: of fewer drops a rate would be a guess.
const MISSING_MIN: u64 = 4;
/// Of whole seconds, fewer say too little.
const WHOLE_SECONDS_MIN: f64 = 3.0;
/// What the rate may be wrong by, because answers take different times.
const JITTER: f64 = 0.1;

/// What the answers of one quota say about its rate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Linear {
    /// Bounds of the rate, in drops per second, that all answers permit.
    low: f64,
    high: Option<f64>,
    points: u32,
    least: u64,
    most: u64,
    /// Whether resets are told in fractions of seconds.
    is_exact: bool,
    is_refuted: bool,
}

impl Linear {
    /// Hears of an answer: `missing` of the limit, which is full in `full_in`.
    pub(super) fn hear(&mut self, missing: u64, full_in: Duration) {
        if self.is_refuted || missing == 0 {
            return;
        }
        self.is_exact |= full_in.subsec_nanos() != 0;
        let seconds = full_in.as_secs_f64();
        if missing < MISSING_MIN || (!self.is_exact && seconds < WHOLE_SECONDS_MIN) {
            return;
        }
        // As a count, never exact beyond 2^52, which no quota of requests reaches.
        let missing_f64 = missing as f64;
        let rounded = if self.is_exact { 0.0 } else { 1.0 };
        let low = (missing_f64 - 1.0) / seconds * (1.0 - JITTER);
        let high = missing_f64 / (seconds - rounded).max(0.001) * (1.0 + JITTER);
        self.low = self.low.max(low);
        self.high = Some(self.high.map_or(high, |known| known.min(high)));
        self.points = self.points.saturating_add(1);
        self.least = if self.points == 1 { missing } else { self.least.min(missing) };
        self.most = self.most.max(missing);
        self.is_refuted = self.high.is_some_and(|high| self.low > high);
    }

    /// The upstream refused although a drop should have come: it is none of these.
    pub(super) fn refute(&mut self) {
        self.is_refuted = true;
    }

    /// Drops per second, once that is sure; never more than every answer permits.
    pub(super) fn rate(&self) -> Option<f64> {
        let is_sure = !self.is_refuted
            && self.points >= POINTS_MIN
            && self.most >= self.least.saturating_mul(SPREAD_MIN);
        is_sure.then_some(self.low / (1.0 - JITTER))
    }

    /// Drops that came between two moments.
    pub(super) fn drops(&self, from: MonoTime, to: MonoTime) -> u64 {
        // Rounded down; a negative or absurd product saturates.
        self.rate().map_or(0, |rate| (rate * to.since(from).as_secs_f64()) as u64)
    }

    /// How long so many drops take.
    pub(super) fn time_of(&self, drops: u64) -> Option<Duration> {
        let seconds = drops as f64 / self.rate()?;
        // A little more, so that the drop is there when its time has come.
        Duration::try_from_secs_f64(seconds).ok().map(|span| span + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_recognised_by_its_rate_also_in_whole_seconds() {
        for round in [false, true] {
            let mut linear = Linear::default();
            for missing in 1..=50_u64 {
                let exact = missing as f64 / 5.0;
                let told = if round { exact.ceil() } else { exact };
                linear.hear(missing, Duration::from_secs_f64(told));
            }
            let rate = linear.rate().expect("it is one");
            assert!((4.4..=5.0).contains(&rate), "{rate}, {round}");
        }
    }

    #[test]
    fn a_window_is_never_taken_for_a_bucket() {
        // As fast as it goes, evenly, and slowly at its end.
        for gap in [0.001, 0.1, 0.5] {
            for round in [false, true] {
                let mut linear = Linear::default();
                for missing in 1..=100_u64 {
                    let left = 60.0 - gap * missing as f64;
                    let told = if round { left.ceil() } else { left };
                    linear.hear(missing, Duration::from_secs_f64(told));
                }
                assert_eq!(linear.rate(), None, "{gap}, {round}");
            }
        }
    }
}
