//! The limits that real APIs enforce, as one pure state machine.
//!
//! Time is an argument, so the same code refuses requests in the fake API, computes the optimum of
//! a job and is tested without waiting. A limiter is honest: who asks again after the wait it
//! named, and not before, is admitted, unless others were faster.

use std::collections::VecDeque;
use std::time::Duration;

const NANOS_PER_S: u128 = 1_000_000_000;

/// What [`Limiter::Concurrency`] names as a wait: it cannot know when a request will end, and a
/// second is what such APIs usually say.
const CONCURRENCY_WAIT: Duration = Duration::from_secs(1);

/// Which limit an API enforces. Limits and rates of 0 count as 1, so that every job can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limiter {
    /// Everything is admitted.
    None,
    /// At most `limit` in each window; windows follow each other from time zero.
    FixedWindow {
        /// Requests per window.
        limit: u32,
        /// Length of a window.
        window: Duration,
    },
    /// At most `limit` in any span as long as `window`.
    SlidingWindow {
        /// Requests per window.
        limit: u32,
        /// Length of the window.
        window: Duration,
    },
    /// A bucket that holds `burst` tokens and gains `rate_per_s` each second.
    TokenBucket {
        /// Tokens per second.
        rate_per_s: u32,
        /// Tokens that the full bucket holds.
        burst: u32,
    },
    /// At most `limit` at the same time.
    Concurrency {
        /// Requests at once.
        limit: u32,
    },
    /// A fixed window whose pause grows by `penalty` with each request made during it.
    Punishing {
        /// Requests per window.
        limit: u32,
        /// Length of a window.
        window: Duration,
        /// What each request made while limited adds to the pause.
        penalty: Duration,
    },
}

impl Limiter {
    /// The number that such an API tells as its limit; `None` without a limit.
    pub fn limit(&self) -> Option<u32> {
        match *self {
            Self::None => None,
            Self::FixedWindow { limit, .. }
            | Self::SlidingWindow { limit, .. }
            | Self::Concurrency { limit }
            | Self::Punishing { limit, .. } => Some(limit.max(1)),
            Self::TokenBucket { burst, .. } => Some(burst.max(1)),
        }
    }
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Admit {
        /// Requests that would be admitted right after this one.
        remaining: u32,
        /// From now until all of the limit is there again.
        reset: Duration,
    },
    /// It is refused with 429.
    Refuse {
        /// From now until the first moment at which a request can be admitted.
        wait: Duration,
    },
}

/// A limiter and what it remembers. Times are counted from any zero and never go back.
#[derive(Clone, Debug)]
pub struct LimiterState {
    limiter: Limiter,
    /// Admitted in the window `window_index`.
    used: u32,
    window_index: u128,
    /// When each request in the sliding window was admitted; at most `limit` of them.
    admitted: VecDeque<Duration>,
    /// Tokens in the bucket, in billionths, and when that was.
    tokens_nano: u128,
    tokens_at: Duration,
    in_flight: u32,
    paused_until: Duration,
}

impl LimiterState {
    /// A limiter of which nothing is used yet.
    pub fn new(limiter: Limiter) -> Self {
        Self {
            limiter,
            used: 0,
            window_index: 0,
            admitted: VecDeque::new(),
            tokens_nano: u128::from(limiter.limit().unwrap_or(0)) * NANOS_PER_S,
            tokens_at: Duration::ZERO,
            in_flight: 0,
            paused_until: Duration::ZERO,
        }
    }

    /// Decides about a request that arrives at `now`.
    pub fn ask(&mut self, now: Duration) -> Verdict {
        let limit = self.limiter.limit().unwrap_or(u32::MAX);
        match self.limiter {
            Limiter::None => Verdict::Admit { remaining: u32::MAX, reset: Duration::ZERO },
            Limiter::FixedWindow { window, .. } => self.ask_window(now, limit, window),
            Limiter::SlidingWindow { window, .. } => self.ask_sliding(now, limit, window),
            Limiter::TokenBucket { rate_per_s, .. } => self.ask_bucket(now, limit, rate_per_s),
            Limiter::Concurrency { .. } if self.in_flight >= limit => {
                Verdict::Refuse { wait: CONCURRENCY_WAIT }
            }
            Limiter::Concurrency { .. } => {
                self.in_flight += 1;
                Verdict::Admit { remaining: limit - self.in_flight, reset: Duration::ZERO }
            }
            Limiter::Punishing { window, penalty, .. } => {
                if now < self.paused_until {
                    self.paused_until += penalty;
                    return Verdict::Refuse { wait: self.paused_until - now };
                }
                let verdict = self.ask_window(now, limit, window);
                if let Verdict::Refuse { wait } = verdict {
                    self.paused_until = now + wait;
                }
                verdict
            }
        }
    }

    /// An admitted request has ended; only [`Limiter::Concurrency`] cares.
    pub fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn ask_window(&mut self, now: Duration, limit: u32, window: Duration) -> Verdict {
        let length = window.as_nanos().max(1);
        let index = now.as_nanos() / length;
        if index != self.window_index {
            (self.window_index, self.used) = (index, 0);
        }
        let reset = nanos((index + 1) * length - now.as_nanos());
        if self.used >= limit {
            return Verdict::Refuse { wait: reset };
        }
        self.used += 1;
        Verdict::Admit { remaining: limit - self.used, reset }
    }

    fn ask_sliding(&mut self, now: Duration, limit: u32, window: Duration) -> Verdict {
        while self.admitted.front().is_some_and(|&at| now.saturating_sub(at) >= window) {
            self.admitted.pop_front();
        }
        let used = u32::try_from(self.admitted.len()).unwrap_or(u32::MAX);
        if let Some(&oldest) = self.admitted.front()
            && used >= limit
        {
            return Verdict::Refuse { wait: (oldest + window).saturating_sub(now) };
        }
        self.admitted.push_back(now);
        Verdict::Admit { remaining: limit - used - 1, reset: window }
    }

    fn ask_bucket(&mut self, now: Duration, burst: u32, rate_per_s: u32) -> Verdict {
        let rate = u128::from(rate_per_s.max(1));
        let full = u128::from(burst) * NANOS_PER_S;
        let gained = now.saturating_sub(self.tokens_at).as_nanos() * rate;
        self.tokens_nano = (self.tokens_nano + gained).min(full);
        self.tokens_at = now;
        if self.tokens_nano < NANOS_PER_S {
            let wait = nanos((NANOS_PER_S - self.tokens_nano).div_ceil(rate));
            return Verdict::Refuse { wait };
        }
        self.tokens_nano -= NANOS_PER_S;
        let remaining = u32::try_from(self.tokens_nano / NANOS_PER_S).unwrap_or(u32::MAX);
        let reset = nanos((full - self.tokens_nano).div_ceil(rate));
        Verdict::Admit { remaining, reset }
    }
}

/// A span of so many nanoseconds, at most 584 years.
fn nanos(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(1_000);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// The moments at which requests that arrive after these gaps are admitted.
    fn admitted(limiter: Limiter, gaps_ms: &[u64]) -> Vec<Duration> {
        let mut state = LimiterState::new(limiter);
        let mut now = Duration::ZERO;
        let mut moments = Vec::new();
        for &gap in gaps_ms {
            now += ms(gap);
            if let Verdict::Admit { .. } = state.ask(now) {
                moments.push(now);
            }
        }
        moments
    }

    /// Every limiter whose waits are promises.
    fn honest_limiter() -> impl Strategy<Value = Limiter> {
        let window = WINDOW;
        prop_oneof![
            (1..9_u32).prop_map(move |limit| Limiter::FixedWindow { limit, window }),
            (1..9_u32).prop_map(move |limit| Limiter::SlidingWindow { limit, window }),
            (1..9_u32, 1..9_u32)
                .prop_map(|(rate_per_s, burst)| Limiter::TokenBucket { rate_per_s, burst }),
            (1..9_u32, 0..500_u64).prop_map(move |(limit, penalty)| Limiter::Punishing {
                limit,
                window,
                penalty: ms(penalty),
            }),
        ]
    }

    fn gaps() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![0..20_u64, 0..1_500_u64], 0..200)
    }

    proptest! {
        #[test]
        fn a_window_never_holds_more_than_its_limit(
            limit in 1..9_u32, penalty in 0..500_u64, gaps in gaps(),
        ) {
            let (window, penalty) = (WINDOW, ms(penalty));
            for limiter in [
                Limiter::FixedWindow { limit, window },
                Limiter::Punishing { limit, window, penalty },
            ] {
                let moments = admitted(limiter, &gaps);
                for at in &moments {
                    let index = |m: &Duration| m.as_millis() / WINDOW.as_millis();
                    let same = moments.iter().filter(|m| index(m) == index(at));
                    prop_assert!(same.count() <= limit as usize);
                }
            }
        }

        #[test]
        fn no_span_holds_more_than_a_sliding_window_allows(limit in 1..9_u32, gaps in gaps()) {
            let moments = admitted(Limiter::SlidingWindow { limit, window: WINDOW }, &gaps);
            for from in &moments {
                let within = moments.iter().filter(|m| *m >= from && **m < *from + WINDOW);
                prop_assert!(within.count() <= limit as usize);
            }
        }

        #[test]
        fn no_span_holds_more_than_burst_and_rate_allow(
            rate_per_s in 1..9_u32, burst in 1..9_u32, gaps in gaps(),
        ) {
            let moments = admitted(Limiter::TokenBucket { rate_per_s, burst }, &gaps);
            for (first, from) in moments.iter().enumerate() {
                for (last, to) in moments.iter().enumerate().skip(first) {
                    let gained = (*to - *from).as_secs_f64() * f64::from(rate_per_s);
                    prop_assert!((last - first + 1) as f64 <= f64::from(burst) + gained + 1e-6);
                }
            }
        }

        #[test]
        fn never_more_at_once_than_a_concurrency_limit_allows(
            limit in 1..9_u32, starts in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut state = LimiterState::new(Limiter::Concurrency { limit });
            let mut in_flight = 0_u32;
            for start in starts {
                if start {
                    let admitted = matches!(state.ask(Duration::ZERO), Verdict::Admit { .. });
                    prop_assert_eq!(admitted, in_flight < limit);
                    in_flight += u32::from(admitted);
                } else if in_flight > 0 {
                    state.done();
                    in_flight -= 1;
                }
            }
        }

        #[test]
        fn a_named_wait_is_neither_too_short_nor_too_long(
            limiter in honest_limiter(), gaps in gaps(),
        ) {
            let mut state = LimiterState::new(limiter);
            let mut now = Duration::ZERO;
            for gap in gaps {
                now += ms(gap);
                let Verdict::Refuse { wait } = state.ask(now) else { continue };
                let before = state.clone().ask(now + wait - Duration::from_nanos(1));
                let after = state.clone().ask(now + wait);
                let refused_before = matches!(before, Verdict::Refuse { .. });
                let admitted_after = matches!(after, Verdict::Admit { .. });
                prop_assert!(refused_before, "admitted before the wait was over");
                prop_assert!(admitted_after, "refused after the wait was over");
            }
        }
    }

    #[test]
    fn each_request_during_a_pause_lengthens_it() {
        let limiter = Limiter::Punishing { limit: 1, window: ms(1_000), penalty: ms(300) };
        let mut state = LimiterState::new(limiter);
        let admit = Verdict::Admit { remaining: 0, reset: ms(1_000) };
        assert_eq!(state.ask(ms(0)), admit);
        assert_eq!(state.ask(ms(100)), Verdict::Refuse { wait: ms(900) });
        assert_eq!(state.ask(ms(200)), Verdict::Refuse { wait: ms(1_100) });
        assert_eq!(state.ask(ms(1_299)), Verdict::Refuse { wait: ms(301) });
        assert_eq!(state.ask(ms(1_600)), Verdict::Admit { remaining: 0, reset: ms(400) });
    }
}
