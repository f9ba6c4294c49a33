//! How requests are counted, and what a limit says of one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::policy::time::MonoTime;

/// What [`Limiter::Concurrency`] names as a wait: it cannot know when a request ends.
const CONCURRENCY_WAIT: Duration = Duration::from_millis(200);

/// How requests are counted. Numbers are at least 1, windows longer than zero.
#[derive(Clone, Debug, PartialEq)]
pub enum Limiter {
    /// No limit.
    Open,
    /// So many in each window of the clock.
    Fixed {
        /// Units per window.
        max: u32,
        /// Its length.
        window: Duration,
    },
    /// The same, with windows that do not begin at zero.
    Shifted {
        /// Units per window.
        max: u32,
        /// Its length.
        window: Duration,
        /// When the first one ends; shorter than a window.
        phase: Duration,
    },
    /// So many in any window.
    Sliding {
        /// Units per window.
        max: u32,
        /// Its length.
        window: Duration,
    },
    /// Drop by drop.
    Bucket {
        /// What is added.
        per_second: f64,
        /// What there is at most.
        burst: f64,
    },
    /// So many at once.
    Concurrency {
        /// Requests at once.
        max: u32,
    },
    /// A fixed window that closes; each request made meanwhile keeps it closed for longer.
    Punishing {
        /// Units per window.
        max: u32,
        /// Its length.
        window: Duration,
        /// What each request adds.
        penalty: Duration,
    },
}

/// A limiter's word on one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    pub(super) wait: Option<Duration>,
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) reset: Duration,
}

impl Judgement {
    pub(super) const OPEN: Self =
        Self { wait: None, limit: 1000, remaining: 1000, reset: Duration::from_secs(60) };

    fn of(wait: Option<Duration>, limit: u32, used: u32, reset: Duration) -> Self {
        Self { wait, limit, remaining: limit.saturating_sub(used), reset }
    }
}

/// A limit and what was counted by it.
#[derive(Clone, Debug)]
pub(super) struct Count {
    limiter: Limiter,
    /// Moment and units of what is still within a sliding window.
    recent: VecDeque<(MonoTime, u32)>,
    window: u64,
    used: u32,
    tokens: f64,
    filled_at: MonoTime,
    closed_until: MonoTime,
}

impl Count {
    pub(super) fn new(limiter: Limiter) -> Self {
        let tokens = if let Limiter::Bucket { burst, .. } = limiter { burst } else { 0.0 };
        Self {
            limiter,
            recent: VecDeque::new(),
            window: 0,
            used: 0,
            tokens,
            filled_at: MonoTime::ZERO,
            closed_until: MonoTime::ZERO,
        }
    }

    /// What it says of a request that is not counted yet. One that costs more than there ever is
    /// counts as the whole limit, so that every job can end.
    pub(super) fn look(&mut self, now: MonoTime, units: u32, in_flight: u32) -> Judgement {
        match self.limiter {
            Limiter::Open => Judgement::OPEN,
            Limiter::Fixed { max, window } => self.fixed(now, units, max, window, Duration::ZERO),
            Limiter::Shifted { max, window, phase } => self.fixed(now, units, max, window, phase),
            Limiter::Punishing { max, window, penalty } => {
                let reset = self.turn_window(now, window, Duration::ZERO);
                if now < self.closed_until {
                    self.closed_until = self.closed_until + penalty;
                } else if self.used + units.min(max) > max {
                    self.closed_until = now + reset;
                } else {
                    return Judgement::of(None, max, self.used, reset);
                }
                let wait = self.closed_until.since(now);
                Judgement::of(Some(wait), max, max, wait)
            }
            Limiter::Sliding { max, window } => {
                while self.recent.front().is_some_and(|(at, _)| *at + window <= now) {
                    self.used -= self.recent.pop_front().map_or(0, |(_, units)| units);
                }
                let reset =
                    self.recent.front().map_or(Duration::ZERO, |(at, _)| (*at + window).since(now));
                let mut over = (self.used + units.min(max)).saturating_sub(max);
                let freed = self.recent.iter().find(|(_, units)| {
                    over = over.saturating_sub(*units);
                    over == 0
                });
                let is_full = self.used + units.min(max) > max;
                let wait = freed.map(|(at, _)| (*at + window).since(now)).filter(|_| is_full);
                Judgement::of(wait, max, self.used, reset)
            }
            Limiter::Bucket { per_second, burst } => {
                let elapsed = now.since(self.filled_at).as_secs_f64();
                self.tokens = (self.tokens + elapsed * per_second).min(burst);
                self.filled_at = now;
                let missing = f64::from(units).min(burst) - self.tokens;
                let wait = (missing > 0.0).then(|| Duration::from_secs_f64(missing / per_second));
                self.bucket(wait, per_second, burst)
            }
            Limiter::Concurrency { max } => {
                let wait = (in_flight > max).then_some(CONCURRENCY_WAIT);
                Judgement::of(wait, max, in_flight.min(max), Duration::from_secs(1))
            }
        }
    }

    /// Counts a request that no limit refused.
    pub(super) fn take(&mut self, now: MonoTime, units: u32, in_flight: u32) -> Judgement {
        match self.limiter {
            Limiter::Open | Limiter::Concurrency { .. } => {}
            Limiter::Fixed { max, .. }
            | Limiter::Shifted { max, .. }
            | Limiter::Punishing { max, .. } => self.used += units.min(max),
            Limiter::Sliding { max, .. } => {
                self.recent.push_back((now, units.min(max)));
                self.used += units.min(max);
            }
            Limiter::Bucket { burst, .. } => self.tokens -= f64::from(units).min(burst),
        }
        match self.limiter {
            Limiter::Open => Judgement::OPEN,
            Limiter::Fixed { max, window } | Limiter::Punishing { max, window, .. } => {
                let reset = self.turn_window(now, window, Duration::ZERO);
                Judgement::of(None, max, self.used, reset)
            }
            Limiter::Shifted { max, window, phase } => {
                let reset = self.turn_window(now, window, phase);
                Judgement::of(None, max, self.used, reset)
            }
            Limiter::Sliding { max, window } => {
                let first = self.recent.front().map_or(now, |(at, _)| *at);
                Judgement::of(None, max, self.used, (first + window).since(now))
            }
            Limiter::Bucket { per_second, burst } => self.bucket(None, per_second, burst),
            Limiter::Concurrency { max } => {
                Judgement::of(None, max, in_flight.min(max), Duration::from_secs(1))
            }
        }
    }

    fn fixed(
        &mut self,
        now: MonoTime,
        units: u32,
        max: u32,
        window: Duration,
        phase: Duration,
    ) -> Judgement {
        let reset = self.turn_window(now, window, phase);
        let is_full = self.used + units.min(max) > max;
        Judgement::of(is_full.then_some(reset), max, self.used, reset)
    }

    fn bucket(&self, wait: Option<Duration>, per_second: f64, burst: f64) -> Judgement {
        let full = Duration::from_secs_f64((burst - self.tokens).max(0.0) / per_second);
        let left = self.tokens.max(0.0) as u32;
        Judgement::of(wait, burst as u32, (burst as u32).saturating_sub(left), full)
    }

    /// Begins a new window if one is due; says when this one ends.
    fn turn_window(&mut self, now: MonoTime, window: Duration, phase: Duration) -> Duration {
        let length = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1);
        // As if time had begun a part of a window earlier.
        let offset = length - u64::try_from(phase.as_nanos()).unwrap_or(0).min(length);
        let shifted = now.as_nanos().saturating_add(offset % length);
        let number = shifted / length;
        if number != self.window {
            (self.window, self.used) = (number, 0);
        }
        Duration::from_nanos((number + 1).saturating_mul(length) - shifted)
    }
}
