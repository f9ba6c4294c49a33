//! The APIs of the job, and the best that is possible with each.
//!
//! A window is 2 s, which is short enough to measure many and long enough that whole seconds mean
//! something. Clients and forbear are as they come: the documented recipes, the default settings.
//! Only an outage is scaled, since nobody waits for half an hour: see [`Policy::configuration`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use clap::ValueEnum;
use forbear::demo::hints::Hints;
use forbear::demo::limiter::{Limiter, LimiterState, Verdict};
use forbear::demo::scenario::optimum;
use forbear::demo::settings::ApiSettings;

use super::Told;

const WINDOW: Duration = Duration::from_secs(2);
const PER_WINDOW: u32 = 40;

/// What limits the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// 40 requests in each 2 s
    FixedWindow,
    /// 40 requests in any 2 s
    SlidingWindow,
    /// 20 requests a second, 40 at once
    TokenBucket,
    /// 4 requests of 100 ms at the same time, and a 429 that says nothing more
    Concurrency,
    /// A fixed window; each request in a pause makes it 250 ms longer
    Punishing,
    /// A fixed window, and the second one is all 503
    Outage,
    /// The same; forbear's breaker and retry budget as they are by default
    OutageDefaults,
}

impl Policy {
    /// Those that run when none is named.
    pub(crate) const USUAL: [Self; 6] = [
        Self::FixedWindow,
        Self::SlidingWindow,
        Self::TokenBucket,
        Self::Concurrency,
        Self::Punishing,
        Self::Outage,
    ];

    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it does, as on the command line.
    pub(crate) fn help(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().cloned());
        help.map_or_else(String::new, |help| help.to_string())
    }

    fn limiter(self) -> Limiter {
        let (limit, window) = (PER_WINDOW, WINDOW);
        match self {
            Self::FixedWindow | Self::Outage | Self::OutageDefaults => {
                Limiter::FixedWindow { limit, window }
            }
            Self::SlidingWindow => Limiter::SlidingWindow { limit, window },
            // A burst that whole seconds cannot make overflow, so that obeying costs nothing.
            Self::TokenBucket => Limiter::TokenBucket { rate_per_s: limit / 2, burst: limit },
            Self::Concurrency => Limiter::Concurrency { limit: 4 },
            Self::Punishing => {
                Limiter::Punishing { limit, window, penalty: Duration::from_millis(250) }
            }
        }
    }

    fn api(self, told: Told) -> ApiSettings {
        let hints = match (self, told) {
            // Nobody knows when a place will be free, so an honest API names no wait.
            (Self::Concurrency, _) | (_, Told::None) => Hints::None,
            (_, Told::Seconds) => Hints::RetryAfterSeconds,
            (_, Told::Ms) => Hints::RetryAfterMs,
            (_, Told::Fields) => Hints::RateLimitFields,
        };
        let outages = match self {
            Self::Outage | Self::OutageDefaults => vec![WINDOW..WINDOW * 2],
            Self::FixedWindow
            | Self::SlidingWindow
            | Self::TokenBucket
            | Self::Concurrency
            | Self::Punishing => Vec::new(),
        };
        let latency = Duration::from_millis(if self == Self::Concurrency { 100 } else { 20 });
        ApiSettings { limiter: self.limiter(), hints, latency, outages, ..ApiSettings::default() }
    }

    /// forbear's file: the address of the API, and everything else as it is by default.
    ///
    /// But an outage lasts 2 s here and a minute in life, so the breaker's and the retry budget's
    /// minute is 2 s, too.
    pub(crate) fn configuration(self, url: &str) -> String {
        let scaled = match self {
            Self::Outage => {
                "[upstreams.api.breaker]\nwindow = \"2s\"\nopen_for = \"1s\"\nopen_for_max = \"20s\"\n\
                 [upstreams.api.retry]\nbudget_floor_per_minute = 300\n"
            }
            Self::FixedWindow
            | Self::SlidingWindow
            | Self::TokenBucket
            | Self::Concurrency
            | Self::Punishing
            | Self::OutageDefaults => "",
        };
        format!(
            "[proxy]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [state]\npath = \":memory:\"\n[log]\nlevel = \"error\"\naccess = \"off\"\n\
             [upstreams.api]\nurl = \"{url}\"\n{scaled}"
        )
    }
}

/// A policy with what is asked of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) policy: Policy,
    pub(crate) api: ApiSettings,
    pub(crate) items: u32,
    /// For whoever knows everything and has any number of connections.
    pub(crate) optimum: Duration,
    /// For whoever has this job's connections and, of the API, what it says in whole seconds: one
    /// refusal, told to all at once, for each wait. `None` where that is not what it says.
    pub(crate) told_optimum: Option<Duration>,
}

impl Case {
    pub(crate) fn new(policy: Policy, told: Told, items: u32, workers: u32) -> Self {
        let api = policy.api(told);
        let optimum = optimum(&api, items);
        let in_seconds = api.hints == Hints::RetryAfterSeconds && api.outages.is_empty();
        let told_optimum = in_seconds.then(|| obedient(&api, items, workers));
        Self { policy, api, items, optimum, told_optimum }
    }
}

/// The time that `workers` connections need that share what each of them hears and obey it.
fn obedient(api: &ApiSettings, items: u32, workers: u32) -> Duration {
    let mut limiter = LimiterState::new(api.limiter);
    let mut free: BinaryHeap<_> = (0..workers).map(|_| Reverse(Duration::ZERO)).collect();
    let mut not_before = Duration::ZERO;
    let mut admitted = 0;
    let mut last = Duration::ZERO;
    while let (true, Some(Reverse(at))) = (admitted < items, free.pop()) {
        let now = at.max(not_before);
        match limiter.ask(now) {
            Verdict::Admit { .. } => {
                admitted += 1;
                last = now + api.latency;
                free.push(Reverse(last));
            }
            Verdict::Refuse { wait } => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                not_before = now + Duration::from_secs(seconds);
                free.push(Reverse(now));
            }
        }
    }
    last
}
