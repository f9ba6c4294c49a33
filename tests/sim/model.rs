//! Upstreams that enforce limits, fail and are slow, as the real ones do.
//!
//! A model decides at the moment a request arrives, and says when its answer is back. It speaks
//! through real header fields, so that the classifier is part of every history.

use std::collections::VecDeque;
use std::time::Duration;

use forbear::policy::classify::Failure;
use forbear::policy::time::MonoTime;
use http::HeaderMap;

/// How requests are counted.
#[derive(Clone, Debug)]
pub enum Limiter {
    /// No limit.
    Open,
    /// So many in each window of the clock.
    Fixed { max: u32, window: Duration },
    /// So many in any window.
    Sliding { max: u32, window: Duration },
    /// Drop by drop.
    Bucket { per_second: f64, burst: f64 },
    /// So many at once.
    Concurrency { max: u32 },
    /// A fixed window that closes; each request made meanwhile keeps it closed for longer.
    Punishing { max: u32, window: Duration, penalty: Duration },
}

/// What a refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// `Retry-After`, rounded up to seconds.
    Seconds,
    /// `retry-after-ms`.
    Millis,
    /// Nothing.
    None,
    /// `X-RateLimit-*` on every answer, besides `Retry-After`.
    Quota,
    /// The same, with fractions of seconds.
    ExactQuota,
}

/// What happens to requests while an outage lasts.
#[derive(Clone, Copy, Debug)]
pub enum Outage {
    /// 500.
    Error,
    /// 503 with `Retry-After: 3`.
    Unavailable,
    /// Nobody listens.
    Refused,
    /// The connection breaks after the request was sent.
    Reset,
    /// No answer within the attempt's time.
    Silent,
}

/// One upstream's behaviour and state.
#[derive(Clone, Debug)]
pub struct Model {
    pub limiter: Limiter,
    pub hints: Hints,
    pub latency: (Duration, Duration),
    pub body: (Duration, Duration),
    pub outages: Vec<(MonoTime, MonoTime, Outage)>,
    /// One request in so many fails for no reason; 0 for none.
    pub odd_failure: u32,
    state: State,
}

#[derive(Clone, Debug, Default)]
struct State {
    recent: VecDeque<MonoTime>,
    window: u64,
    used: u32,
    tokens: f64,
    filled_at: MonoTime,
    in_flight: u32,
    closed_until: MonoTime,
}

/// An answer, known when the request arrives and delivered after `after`.
#[derive(Clone, Debug)]
pub struct Reply {
    pub result: Result<(u16, HeaderMap), (Failure, bool)>,
    pub after: Duration,
    pub body: Duration,
    /// Whether the request had its effect.
    pub processed: bool,
}

/// A limiter's word on one request.
struct Judgement {
    wait: Option<Duration>,
    limit: u32,
    remaining: u32,
    reset: Duration,
}

pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

impl Model {
    pub fn new(limiter: Limiter, hints: Hints, latency: Duration) -> Self {
        let tokens = match limiter {
            Limiter::Bucket { burst, .. } => burst,
            _ => 0.0,
        };
        Self {
            limiter,
            hints,
            latency: (latency, latency * 2),
            body: (Duration::ZERO, Duration::ZERO),
            outages: Vec::new(),
            odd_failure: 0,
            state: State { tokens, ..State::default() },
        }
    }

    pub fn receive(&mut self, now: MonoTime, rng: &mut fastrand::Rng) -> Reply {
        let after = between(self.latency, rng);
        self.state.in_flight += 1;
        let outage = self
            .outages
            .iter()
            .find(|(from, to, _)| *from <= now && now < *to)
            .map(|(_, _, outage)| *outage);
        if let Some(outage) = outage {
            return broken(outage, after);
        }
        if self.odd_failure > 0 && rng.u32(0..self.odd_failure) == 0 {
            let odd = [
                (Failure::Stale, true),
                (Failure::Stale, false),
                (Failure::Reset, false),
                (Failure::HeadTimeout, false),
                (Failure::Connect, true),
            ];
            let (failure, nothing_sent) = odd[rng.usize(0..odd.len())];
            return Reply {
                result: Err((failure, nothing_sent)),
                after: match failure {
                    Failure::HeadTimeout => ATTEMPT_TIMEOUT,
                    _ => after,
                },
                body: Duration::ZERO,
                processed: !nothing_sent,
            };
        }
        let judgement = self.judge(now);
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: String| {
            headers.insert(name, value.parse().expect("digits"));
        };
        if matches!(self.hints, Hints::Quota | Hints::ExactQuota) {
            put("x-ratelimit-limit", judgement.limit.to_string());
            put("x-ratelimit-remaining", judgement.remaining.to_string());
            let exact = self.hints == Hints::ExactQuota;
            let reset = judgement.reset;
            put("x-ratelimit-reset", if exact { exactly(reset) } else { ceil(reset).to_string() });
        }
        let Some(wait) = judgement.wait else {
            let status = [200, 200, 200, 200, 204, 404][rng.usize(0..6)];
            return Reply {
                result: Ok((status, headers)),
                after,
                body: between(self.body, rng),
                processed: true,
            };
        };
        match self.hints {
            Hints::Seconds | Hints::Quota => put("retry-after", ceil(wait).to_string()),
            Hints::ExactQuota => put("retry-after", exactly(wait)),
            Hints::Millis => put("retry-after-ms", wait.as_millis().to_string()),
            Hints::None => {}
        }
        Reply {
            result: Ok((429, headers)),
            after: after / 4,
            body: Duration::ZERO,
            processed: false,
        }
    }

    /// A request is over, body included.
    pub fn done(&mut self) {
        self.state.in_flight -= 1;
    }

    fn judge(&mut self, now: MonoTime) -> Judgement {
        let state = &mut self.state;
        let judgement = |wait, limit: u32, used: u32, reset| Judgement {
            wait,
            limit,
            remaining: limit.saturating_sub(used),
            reset,
        };
        match self.limiter {
            Limiter::Open => judgement(None, 1000, 0, Duration::from_secs(60)),
            Limiter::Fixed { max, window } => {
                let reset = state.turn_window(now, window);
                let refused = state.used >= max;
                state.used += u32::from(!refused);
                judgement(refused.then_some(reset), max, state.used, reset)
            }
            Limiter::Punishing { max, window, penalty } => {
                let reset = state.turn_window(now, window);
                if now < state.closed_until {
                    state.closed_until = state.closed_until + penalty;
                } else if state.used >= max {
                    state.closed_until = now + reset;
                } else {
                    state.used += 1;
                    return judgement(None, max, state.used, reset);
                }
                let wait = state.closed_until.since(now);
                judgement(Some(wait), max, max, wait)
            }
            Limiter::Sliding { max, window } => {
                while state.recent.front().is_some_and(|at| *at + window <= now) {
                    state.recent.pop_front();
                }
                let used = state.recent.len() as u32;
                let frees = state.recent.front().map_or(now, |at| *at + window);
                let reset = frees.since(now);
                if used >= max {
                    return judgement(Some(reset), max, used, reset);
                }
                state.recent.push_back(now);
                judgement(None, max, used + 1, reset)
            }
            Limiter::Bucket { per_second, burst } => {
                let elapsed = now.since(state.filled_at).as_secs_f64();
                state.tokens = (state.tokens + elapsed * per_second).min(burst);
                state.filled_at = now;
                let wait = (state.tokens < 1.0)
                    .then(|| Duration::from_secs_f64((1.0 - state.tokens) / per_second));
                if wait.is_none() {
                    state.tokens -= 1.0;
                }
                let full = Duration::from_secs_f64((burst - state.tokens) / per_second);
                let left = state.tokens as u32;
                judgement(wait, burst as u32, burst as u32 - left, full)
            }
            Limiter::Concurrency { max } => {
                let refused = state.in_flight > max;
                let wait = refused.then_some(Duration::from_millis(200));
                judgement(wait, max, state.in_flight.min(max), Duration::from_secs(1))
            }
        }
    }
}

impl State {
    /// Begins a new window if one is due; says when this one ends.
    fn turn_window(&mut self, now: MonoTime, window: Duration) -> Duration {
        let length = window.as_nanos() as u64;
        let number = now.as_nanos() / length;
        if number != self.window {
            (self.window, self.used) = (number, 0);
        }
        MonoTime::from_nanos((number + 1) * length).since(now)
    }
}

fn broken(outage: Outage, after: Duration) -> Reply {
    let mut headers = HeaderMap::new();
    let (result, after) = match outage {
        Outage::Error => (Ok((500, headers)), after),
        Outage::Unavailable => {
            headers.insert("retry-after", "3".parse().expect("a digit"));
            (Ok((503, headers)), after)
        }
        Outage::Refused => (Err((Failure::Connect, true)), Duration::from_millis(1)),
        Outage::Reset => (Err((Failure::Reset, false)), after),
        Outage::Silent => (Err((Failure::HeadTimeout, false)), ATTEMPT_TIMEOUT),
    };
    let processed = !matches!(outage, Outage::Refused);
    Reply { result, after, body: Duration::ZERO, processed }
}

/// In milliseconds, rounded up.
fn exactly(wait: Duration) -> String {
    format!("{:.3}", (wait + Duration::from_nanos(999_999)).as_millis() as f64 / 1000.0)
}

fn ceil(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

pub fn between((low, high): (Duration, Duration), rng: &mut fastrand::Rng) -> Duration {
    low + (high - low).mul_f64(rng.f64())
}
