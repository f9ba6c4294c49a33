//! What the demo shows: the API's limits and troubles, the job, and the best that is possible.
//!
//! The demo runs thirty times faster than life, and everything that waits by the clock is scaled
//! alike: the API's minute is 2 s, the client that sleeps 150 s sleeps 5 s, forbear's breaker that
//! opens for 30 s opens for 1 s. So the proportions, which are what is shown, are those of life.

use std::time::Duration;

use super::hints::Hints;
use super::limiter::{Limiter, LimiterState, Verdict};
use super::settings::{ApiSettings, Faults, Outage};

/// How much faster than life the demo runs.
pub const TIME_SCALE: u32 = 30;

/// One demo.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Behaves alike in each run.
    pub api: ApiSettings,
    /// The API's window; what refusals are counted per.
    pub window: Duration,
    /// Items that the job fetches.
    pub items: u32,
    /// Workers of the job.
    pub workers: u32,
    /// The fixed wait of the second run.
    pub fixed_wait: Duration,
    /// Attempts of the second run, the first included.
    pub attempts_max: u32,
}

impl Scenario {
    /// The one that `forbear demo` shows: four windows of work and a minute of outage.
    pub fn standard() -> Self {
        let window = Duration::from_secs(60) / TIME_SCALE;
        Self {
            api: ApiSettings {
                limiter: Limiter::FixedWindow { limit: 80, window },
                hints: Hints::RateLimitFields,
                latency: Duration::from_millis(20),
                // Just the third window, so that it costs everybody a whole one.
                outages: vec![window * 2..window * 3],
                outage: Outage::Unavailable,
                faults: Faults { reset_every: Some(60), error_every: None },
            },
            window,
            items: 320,
            workers: 16,
            fixed_wait: Duration::from_secs(150) / TIME_SCALE,
            attempts_max: 5,
        }
    }

    /// forbear's configuration for it, complete but for listeners: an ordinary one, scaled. The
    /// prefix is `/demo`.
    pub fn proxy_config(upstream_url: &str) -> String {
        format!(
            r#"# As for a batch job that rather waits than fails, thirty times faster than life.
[state]
path = ":memory:"

[log]
level = "error"
access = "off"

[upstreams.demo]
url = "{upstream_url}"
max_wait = "30s"            # 15 minutes

[upstreams.demo.retry]
backoff_base = "17ms"       # 500 ms, the default
backoff_max = "1s"          # 30 s, the default
budget_floor_per_minute = 300   # 10, the default

[upstreams.demo.breaker]
window = "2s"               # 60 s, the default
open_for = "1s"             # 30 s, the default
open_for_max = "20s"        # 10 minutes, the default
"#
        )
    }
}

/// The shortest time in which any client can get `requests` answers.
///
/// That client knows the limiter and the outages, sends each request at the first moment at which
/// it is admitted, as many at once as are, and meets no fault. So for a fixed window with `limit`
/// it is the beginning of window number ⌈requests / limit⌉, windows that are wholly within outages
/// not counted and an outage at its beginning waited for, plus one latency; and for other limiters
/// what the limiter itself answers, asked in the same way.
pub fn optimum(api: &ApiSettings, requests: u32) -> Duration {
    let mut limiter = LimiterState::new(api.limiter);
    let mut now = Duration::ZERO;
    let mut admitted = 0;
    while admitted < requests {
        if let Some(outage) = api.outages.iter().find(|outage| outage.contains(&now)) {
            now = outage.end;
            continue;
        }
        match (limiter.ask(now), api.limiter) {
            (Verdict::Admit { .. }, _) => admitted += 1,
            // Places are free again when those in flight have ended, whatever wait is named.
            (Verdict::Refuse { .. }, Limiter::Concurrency { limit }) => {
                now += api.latency;
                (0..limit.max(1)).for_each(|_| limiter.done());
            }
            (
                Verdict::Refuse { wait },
                Limiter::None
                | Limiter::FixedWindow { .. }
                | Limiter::SlidingWindow { .. }
                | Limiter::TokenBucket { .. }
                | Limiter::Punishing { .. },
            ) => now += wait,
        }
    }
    now + api.latency
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_optimum_follows_from_limiter_outage_and_latency() {
        let window = ms(2_000);
        let fixed = Limiter::FixedWindow { limit: 80, window };
        for (limiter, outage_ms, requests, expected_ms) in [
            (Limiter::None, 0..0, 400, 20),
            (Limiter::None, 0..700, 1, 720),
            (fixed, 0..0, 80, 20),
            (fixed, 0..0, 81, 2_020),
            (fixed, 0..0, 400, 8_020),
            // One window is lost, wholly or but for its end, or only begins later.
            (fixed, 4_000..6_000, 400, 10_020),
            (fixed, 4_000..5_500, 400, 8_020),
            (fixed, 8_000..9_500, 400, 9_520),
            (fixed, 3_000..5_000, 400, 8_020),
            (Limiter::SlidingWindow { limit: 80, window }, 0..0, 161, 4_020),
            (Limiter::TokenBucket { rate_per_s: 10, burst: 5 }, 0..0, 25, 2_020),
            (Limiter::Concurrency { limit: 4 }, 0..0, 9, 60),
            (Limiter::Punishing { limit: 1, window, penalty: ms(9) }, 0..0, 3, 4_020),
        ] {
            let outages = vec![ms(outage_ms.start)..ms(outage_ms.end)];
            let api = ApiSettings { limiter, outages, latency: ms(20), ..ApiSettings::default() };
            assert_eq!(optimum(&api, requests), ms(expected_ms), "{limiter:?} {outage_ms:?}");
        }
    }

    #[test]
    fn the_outage_of_the_standard_demo_costs_everybody_a_whole_window() {
        let scenario = Scenario::standard();
        let optimum = optimum(&scenario.api, scenario.items);
        assert_eq!(optimum, ms(8_020), "three windows, and the one that the outage takes");
    }
}
