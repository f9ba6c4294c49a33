//! What a closed breaker counts, and when that is enough to open it.

use std::time::Duration;

use super::TransitionReason;
use crate::policy::outcome::Health;
use crate::policy::settings::BreakerSettings;
use crate::policy::time::MonoTime;
use crate::policy::window::{Speed, Tally, Window};

/// A streak of failures is forgotten after so long without any attempt.
const STREAK_FORGOTTEN: Duration = Duration::from_secs(600);

/// A streak within one exchange says more about that exchange than about the upstream.
const EXCHANGES_MIN: u32 = 2;

/// Answers before the share of slow ones says anything.
const SLOW_SAMPLES_MIN: u32 = 20;

/// Failures in a row, and everything within the window.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    window: Window<Tally>,
    failures: u32,
    /// Exchange of the first failure of the streak.
    first_exchange: u64,
    /// 1 or 2, where 2 stands for all that is more.
    exchanges: u32,
    last_attempt: MonoTime,
}

impl Evidence {
    /// An attempt begins, or ended without evidence.
    pub(super) fn attempt(&mut self, now: MonoTime) {
        if now.since(self.last_attempt) >= STREAK_FORGOTTEN {
            self.failures = 0;
        }
        self.last_attempt = self.last_attempt.max(now);
    }

    /// Counts an attempt's end. Gives the reason if the breaker has to open.
    pub(super) fn record(
        &mut self,
        cfg: &BreakerSettings,
        now: MonoTime,
        exchange: u64,
        health: Health,
        took: Duration,
    ) -> Option<TransitionReason> {
        self.last_attempt = self.last_attempt.max(now);
        let slow = cfg.slow_after.is_some_and(|slow_after| took > slow_after);
        let speed = if slow { Speed::Slow } else { Speed::Normal };
        match health {
            Health::Neutral | Health::Alive => return None,
            Health::Success => self.failures = 0,
            Health::Failure => self.extend_streak(exchange),
            Health::HalfFailure => {}
        }
        self.window.current(now, cfg.window).count(health, speed);
        match health {
            // Good news never opens a breaker, whatever the share of bad news before it.
            Health::Success if !slow => None,
            Health::Success
            | Health::Failure
            | Health::HalfFailure
            | Health::Alive
            | Health::Neutral => self.verdict(cfg, now),
        }
    }

    /// In a row or in the window, whichever is more.
    pub(super) fn failures(&self, cfg: &BreakerSettings, now: MonoTime) -> u32 {
        let tally = self.tally(cfg, now);
        let in_window = (tally.failure_ratio() * f64::from(tally.samples())).round();
        // A share of a count of 32 bits is one, too; `as` saturates.
        self.failures.max(in_window as u32)
    }

    pub(super) fn failure_ratio(&self, cfg: &BreakerSettings, now: MonoTime) -> f64 {
        self.tally(cfg, now).failure_ratio()
    }

    fn extend_streak(&mut self, exchange: u64) {
        if self.failures == 0 {
            (self.first_exchange, self.exchanges) = (exchange, 1);
        } else if exchange != self.first_exchange {
            self.exchanges = 2;
        }
        self.failures = self.failures.saturating_add(1);
    }

    fn verdict(&self, cfg: &BreakerSettings, now: MonoTime) -> Option<TransitionReason> {
        let in_a_row = cfg.consecutive_failures;
        if in_a_row > 0
            && self.failures >= in_a_row
            && self.exchanges >= EXCHANGES_MIN.min(in_a_row)
        {
            return Some(TransitionReason::ConsecutiveFailures);
        }
        let tally = self.tally(cfg, now);
        if tally.samples() >= cfg.samples_min.max(1) && tally.failure_ratio() >= cfg.failure_rate {
            return Some(TransitionReason::FailureRate);
        }
        let slow = cfg.slow_after.is_some()
            && tally.samples() >= SLOW_SAMPLES_MIN
            && tally.slow_ratio() >= cfg.slow_rate;
        slow.then_some(TransitionReason::SlowRate)
    }

    fn tally(&self, cfg: &BreakerSettings, now: MonoTime) -> Tally {
        Tally::sum(self.window.recent(now, cfg.window))
    }
}

/// The bound on attempts in flight just after closing.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    until: MonoTime,
    cap: u32,
    successes: u32,
}

impl SlowStart {
    const CAP: u32 = 2;
    const SUCCESSES_PER_DOUBLING: u32 = 5;
    const LASTS: Duration = Duration::from_secs(30);

    pub(super) fn at(now: MonoTime) -> Self {
        Self { until: now + Self::LASTS, cap: Self::CAP, successes: 0 }
    }

    pub(super) fn lasts_at(&self, now: MonoTime) -> bool {
        now < self.until
    }

    pub(super) fn cap(&self) -> u32 {
        self.cap
    }

    /// Counts a result; over when the bound cannot grow any more.
    pub(super) fn count(mut self, health: Health) -> Option<Self> {
        if health == Health::Success {
            self.successes += 1;
        }
        if self.successes == Self::SUCCESSES_PER_DOUBLING {
            self.successes = 0;
            self.cap = self.cap.checked_mul(2)?;
        }
        Some(self)
    }
}
