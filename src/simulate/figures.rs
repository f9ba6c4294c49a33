//! What a simulated history comes to, counted as it passes: nothing is kept of an exchange.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::world::{End, Exchange, Request, Watch, World};
use crate::gateway::spending::Spending;
use crate::policy::classify::Failure;
use crate::policy::outcome::{Class, Outcome, WaitKind, Waits};
use crate::policy::time::MonoTime;
use crate::policy::upstream::{Event, Refusal};
use crate::proxy::reject::Code;

/// Changes of breakers that are told; a history with more is not read line by line.
const CHANGES_MAX: usize = 100;

/// From one bucket of the histogram to the next, the sixteenth root of two; a percentile is within 5 % of
/// the truth.
const STEP: f64 = 1.044_273_782_427_413_8;
/// The first and the last bucket: from microseconds to a century.
const STEPS: (i32, i32) = (-320, 520);

/// What came of a history. Times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Until the last exchange was over.
    pub seconds: f64,
    /// Exchanges.
    pub requests: u64,
    /// Of them, those that got a good answer.
    pub ok: u64,
    /// Answers of the API that were a failure, by the client's own or the API's.
    pub failed: u64,
    /// Final answers that are a refusal of the API.
    pub throttled: u64,
    /// Attempts sent.
    pub attempts: u64,
    /// Refusals by a rate limit that the API sent.
    pub api_429: u64,
    /// Attempts that failed otherwise, or were answered with 5xx.
    pub api_failures: u64,
    /// forbear's own refusals, by their codes.
    pub rejected: BTreeMap<&'static str, u64>,
    /// All waits, by kind.
    pub waits: BTreeMap<&'static str, f64>,
    /// An exchange from its arrival to its end: half of them are faster.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// The longest.
    pub longest: f64,
    /// Changes of breakers, in order.
    pub breaker: Vec<Change>,
    /// Changes beyond those.
    pub breaker_changes_left_out: u64,
}

/// A breaker changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Seconds from the beginning.
    pub at: f64,
    /// Whose it is.
    pub upstream: String,
    /// The route's own, if it has one.
    pub route: Option<String>,
    /// What it is now.
    pub to: &'static str,
}

/// Counts, and lets recorded requests arrive.
#[derive(Debug, Default)]
pub struct Counter {
    /// Requests that arrive by themselves, in order.
    pub arrivals: Vec<(MonoTime, Request)>,
    /// Names of the upstreams.
    pub names: Vec<String>,
    /// Which quotas their requests spend, and how much.
    pub spending: Vec<Spending>,
    waits: Waits,
    requests: u64,
    ok: u64,
    failed: u64,
    throttled: u64,
    attempts: u64,
    api_429: u64,
    api_failures: u64,
    rejected: BTreeMap<&'static str, u64>,
    times: BTreeMap<i32, u64>,
    longest: Duration,
    last: MonoTime,
    changes: Vec<Change>,
    left_out: u64,
}

impl Counter {
    fn finish(&mut self, now: MonoTime, took: Duration) {
        self.requests += 1;
        self.last = now;
        self.longest = self.longest.max(took);
        *self.times.entry(step_of(took.as_secs_f64())).or_default() += 1;
    }

    fn percentile(&self, share: f64) -> f64 {
        let mut left = (self.requests as f64 * share).ceil() as u64;
        for (step, count) in &self.times {
            if *count >= left {
                // Never more than the longest, which is known exactly.
                return STEP.powi(*step).min(self.longest.as_secs_f64());
            }
            left -= count;
        }
        0.0
    }

    /// What it came to.
    pub fn figures(&self) -> Figures {
        let waits =
            WaitKind::ALL.map(|kind| (kind.name(), rounded(self.waits.of(kind).as_secs_f64())));
        Figures {
            seconds: rounded(self.last.since(MonoTime::from_nanos(1)).as_secs_f64()),
            requests: self.requests,
            ok: self.ok,
            failed: self.failed,
            throttled: self.throttled,
            attempts: self.attempts,
            api_429: self.api_429,
            api_failures: self.api_failures,
            rejected: self.rejected.clone(),
            waits: waits.into_iter().collect(),
            p50: rounded(self.percentile(0.5)),
            p99: rounded(self.percentile(0.99)),
            longest: rounded(self.longest.as_secs_f64()),
            breaker: self.changes.clone(),
            breaker_changes_left_out: self.left_out,
        }
    }

    /// Exchanges that are over.
    pub fn requests(&self) -> u64 {
        self.requests
    }
}

/// The bucket: the first whose end is not below. Sought, and not computed by logarithm, for which the
/// program would need the library of mathematics and nothing else does.
fn step_of(seconds: f64) -> i32 {
    // A power of two shall be the end of its bucket, however the powers of the step are rounded.
    let seconds = seconds * (1.0 - 1e-12);
    let (mut low, mut high) = STEPS;
    while low < high {
        let middle = low + (high - low).div_euclid(2);
        if STEP.powi(middle) < seconds { low = middle + 1 } else { high = middle }
    }
    low
}

/// To milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The code with which the proxy would refuse.
fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::BreakerOpen { .. } => Code::BreakerOpen,
        Refusal::Cooldown { .. } => Code::Cooldown,
        Refusal::Exhausted { .. } => Code::QuotaExhausted,
        Refusal::Paced { .. } => Code::Paced,
        Refusal::Locked { .. } => Code::CredentialLocked,
        Refusal::QueueFull => Code::QueueFull,
        Refusal::QueueTimeout { .. } => Code::QueueTimeout,
        Refusal::Draining => Code::Draining,
    }
}

/// The code with which the proxy would tell of a last attempt without a response.
fn code_of_failure(failure: Failure) -> Code {
    match failure {
        Failure::Dns
        | Failure::Connect
        | Failure::OutOfResources
        | Failure::ConnectTimeout
        | Failure::TlsCertificate
        | Failure::TlsProtocol => Code::UpstreamUnreachable,
        Failure::HeadTimeout => Code::Deadline,
        Failure::Stale | Failure::Reset | Failure::Refused | Failure::BadResponse => {
            Code::RetriesExhausted
        }
        Failure::Client => Code::BadRequest,
    }
}

impl Watch for Counter {
    fn happens(world: &mut World<Self>, number: usize) {
        let Some((_, request)) = world.watch.arrivals.get(number).cloned() else { return };
        if let Some((at, _)) = world.watch.arrivals.get(number + 1) {
            let at = *at;
            world.plan_other(at, number + 1);
        }
        world.begin(&request, None);
    }

    fn goes(world: &mut World<Self>, _id: u64, _waited: Duration) {
        world.watch.attempts += 1;
    }

    fn answered(world: &mut World<Self>, _id: u64, outcome: &Outcome, status: Option<u16>) {
        let watch = &mut world.watch;
        if matches!(outcome.class, Class::Throttled | Class::Exhausted) {
            watch.api_429 += 1;
        } else if status.is_none_or(|status| status >= 500) {
            watch.api_failures += 1;
        }
    }

    fn turned_away(world: &mut World<Self>, _up: usize, refusal: &Refusal) {
        let now = world.now;
        world.watch.finish(now, Duration::ZERO);
        *world.watch.rejected.entry(code_of(refusal).name()).or_default() += 1;
    }

    fn ended(world: &mut World<Self>, exchange: &Exchange, end: End) {
        let now = world.now;
        let watch = &mut world.watch;
        watch.finish(now, now.since(exchange.joined));
        watch.waits.add(&exchange.waits);
        match end {
            End::Answered(Class::Ok) => watch.ok += 1,
            End::Answered(Class::Throttled | Class::Exhausted) => watch.throttled += 1,
            End::Answered(_) | End::Left => watch.failed += 1,
            End::Refused(refusal) => {
                *watch.rejected.entry(code_of(&refusal).name()).or_default() += 1;
            }
            End::Failed(failure) => {
                *watch.rejected.entry(code_of_failure(failure).name()).or_default() += 1;
            }
        }
    }

    fn event(world: &mut World<Self>, up: usize, event: &Event) {
        let Event::Breaker(route, transition) = event else { return };
        let at = rounded(world.now.since(MonoTime::from_nanos(1)).as_secs_f64());
        let watch = &mut world.watch;
        if watch.changes.len() >= CHANGES_MAX {
            watch.left_out += 1;
            return;
        }
        watch.changes.push(Change {
            at,
            upstream: watch.names.get(up).cloned().unwrap_or_default(),
            route: route.as_deref().map(str::to_owned),
            to: transition.to.name(),
        });
    }
}
