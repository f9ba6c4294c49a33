//! The handles of one upstream, and how a finished exchange becomes counts.
//!
//! [`UpstreamMetrics::exchange`] is the only place that counts exchanges: everything it adds is
//! read from one [`Story`], so the metrics agree with the access log line by construction. Label
//! sets that the configuration knows exist at 0 from the start, so that a short job is not missed.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::metrics::Families;
use super::names;
use super::series::{AttemptCounter, Closed, RequestCounter};
use super::story::{AttemptStory, Decision, Ending, Story};
use crate::config::settings::UpstreamConfig;
use crate::policy::outcome::{Class, Sent, WaitKind};
use crate::telemetry::view::BreakerState;

/// Counters and histograms of one upstream.
pub struct UpstreamMetrics {
    name: Arc<str>,
    routes: Vec<RouteMetrics>,
    attempts: AttemptCounter,
    transitions: IntCounterVec,
    duration: Histogram,
    attempt_duration: Histogram,
    overhead: Histogram,
    waits: [Histogram; 5],
    recovered: Closed<2>,
    body_bytes: [IntCounter; 2],
    errors: Closed<11>,
    retries: Closed<8>,
    exhausted: Closed<4>,
    hints: Closed<7>,
    /// Request bodies that could not be kept for a repeat.
    pub replay_unavailable: IntCounter,
    links_rewritten: Closed<5>,
    links_untouched: Closed<8>,
}

struct RouteMetrics {
    name: Arc<str>,
    /// The breaker that decides about this route: its own, or the upstream's.
    breaker: String,
    breaker_rejections: IntCounter,
    requests: RequestCounter,
}

impl UpstreamMetrics {
    pub(super) fn new(families: &Families, config: &UpstreamConfig) -> Self {
        let name: &str = &config.name;
        let routes: Vec<_> = breakers(config)
            .map(|(route, breaker)| {
                let rejections = &families.breaker_rejections;
                RouteMetrics {
                    name: Arc::clone(route),
                    breaker_rejections: rejections.with_label_values(&[name, breaker.as_str()]),
                    breaker,
                    requests: RequestCounter::new(
                        families,
                        Arc::clone(&config.name),
                        route.clone(),
                    ),
                }
            })
            .collect();
        for breaker in routes.iter().map(|route| route.breaker.as_str()) {
            for (from, to) in USUAL_TRANSITIONS {
                let labels = [name, breaker, from.name(), to.name()];
                families.transitions.with_label_values(&labels);
            }
        }
        Self {
            name: Arc::clone(&config.name),
            routes,
            attempts: AttemptCounter::new(families, Arc::clone(&config.name)),
            transitions: families.transitions.clone(),
            duration: families.request_duration.with_label_values(&[name]),
            attempt_duration: families.attempt_duration.with_label_values(&[name]),
            overhead: families.overhead.clone(),
            waits: WaitKind::ALL
                .map(|kind| families.wait_duration.with_label_values(&[name, kind.name()])),
            recovered: Closed::new(&families.recovered, name, names::RECOVERED_BY),
            body_bytes: names::DIRECTIONS
                .map(|direction| families.body_bytes.with_label_values(&[name, direction])),
            errors: Closed::new(&families.attempt_errors, name, names::ATTEMPT_ERRORS_ALL),
            retries: Closed::new(&families.retries, name, names::RETRY_REASONS),
            exhausted: Closed::new(&families.exhausted, name, names::EXHAUSTED_BY),
            hints: Closed::new(&families.retry_after, name, names::HINT_FORMS),
            replay_unavailable: families.replay_unavailable.with_label_values(&[name]),
            links_rewritten: Closed::new(&families.links_rewritten, name, names::LINK_PLACES),
            links_untouched: Closed::new(&families.links_untouched, name, names::LINK_REASONS),
        }
    }

    /// Whether these handles are right for `config`, too.
    pub(super) fn fits(&self, config: &UpstreamConfig) -> bool {
        let mine = self.routes.iter().map(|route| (&route.name, route.breaker.clone()));
        mine.eq(breakers(config))
    }

    /// Counts everything that a finished exchange with this upstream tells.
    pub fn exchange(&self, story: &Story) {
        let route = self.route(story);
        if let Some(route) = route {
            route.requests.count(story);
        }
        self.duration.observe(story.took.as_secs_f64());
        for (kind, histogram) in WaitKind::ALL.into_iter().zip(&self.waits) {
            let waited = story.waited.of(kind);
            if !waited.is_zero() {
                histogram.observe(waited.as_secs_f64());
            }
        }
        let [request, response] = &self.body_bytes;
        request.inc_by(story.bytes_up);
        response.inc_by(story.bytes_down);
        let sending: Duration = story.attempts.iter().map(|attempt| attempt.took).sum();
        let deliberate = story.waited.total() + sending + story.streamed;
        let overhead = story.took.saturating_sub(deliberate);
        self.overhead.observe(overhead.as_secs_f64());

        for attempt in &story.attempts {
            self.attempt(attempt);
        }
        let repeated = story.attempts.len().saturating_sub(1);
        for attempt in story.attempts.iter().take(repeated) {
            self.retries.count(retry_reason(attempt));
        }
        if let Some(by) = recovered_by(story) {
            self.recovered.count(by);
        }
        if let Some(by) = exhausted_by(story) {
            self.exhausted.count(by);
        }
        if let (Ending::Rejected(names::CODE_BREAKER_OPEN), Some(route)) = (story.ending, route) {
            route.breaker_rejections.inc();
        }
    }

    /// Counts a change of a breaker's state; `breaker` is its scope, `upstream` or `route <name>`.
    pub fn transition(&self, breaker: &str, from: BreakerState, to: BreakerState) {
        let labels = [&self.name, breaker, from.name(), to.name()];
        self.transitions.with_label_values(&labels).inc();
    }

    /// Counts an address that was changed; `place` is one of [`names::LINK_PLACES`].
    pub fn link_rewritten(&self, place: &'static str) {
        self.links_rewritten.count(place);
    }

    /// Counts what was left as it came; `reason` is one of [`names::LINK_REASONS`].
    pub fn links_untouched(&self, reason: &'static str) {
        self.links_untouched.count(reason);
    }

    /// Counts fields about limits that could not be read.
    pub fn unread(&self, fields: usize) {
        (0..fields).for_each(|_| self.hints.count(names::HINT_INVALID));
    }

    fn attempt(&self, attempt: &AttemptStory) {
        self.attempts.count(attempt.status);
        self.attempt_duration.observe(attempt.took.as_secs_f64());
        if let Some(error) = attempt.error {
            self.errors.count(error);
        }
        if let Some(hint) = &attempt.hint {
            self.hints.count(names::hint_form(hint));
        }
    }

    /// The story's route, or the default one where it names none.
    fn route(&self, story: &Story) -> Option<&RouteMetrics> {
        let named = story.route.as_ref();
        named
            .and_then(|name| self.routes.iter().find(|route| route.name == *name))
            .or(self.routes.first())
    }
}

/// What a breaker does by itself; what people force appears when they do.
const USUAL_TRANSITIONS: [(BreakerState, BreakerState); 4] = [
    (BreakerState::Closed, BreakerState::Open),
    (BreakerState::Open, BreakerState::HalfOpen),
    (BreakerState::HalfOpen, BreakerState::Open),
    (BreakerState::HalfOpen, BreakerState::Closed),
];

/// Each route with the label of the breaker that decides about it.
fn breakers(config: &UpstreamConfig) -> impl Iterator<Item = (&Arc<str>, String)> {
    config.policy.routes.iter().map(|route| {
        let own = route.breaker.as_ref().map(|_| names::breaker_of_route(&route.name));
        (&route.name, own.unwrap_or_else(|| names::BREAKER_UPSTREAM.to_owned()))
    })
}

/// How an attempt that was repeated had ended, one of [`names::RETRY_REASONS`].
fn retry_reason(attempt: &AttemptStory) -> &'static str {
    let [too_many, unavailable, server_error, status, connect, timeout, reset, stale] =
        names::RETRY_REASONS;
    match (attempt.status, attempt.class, attempt.sent) {
        (Some(429), _, _) => too_many,
        (Some(503), _, _) => unavailable,
        (Some(500..=599), _, _) => server_error,
        (Some(_), _, _) => status,
        (None, Class::TimedOut, _) => timeout,
        (None, Class::Stale, _) => stale,
        (None, _, Sent::Nothing) => connect,
        (None, _, Sent::Partly | Sent::Answered) => reset,
    }
}

/// What saved an exchange that ended well. A wait for a permit alone saves nothing: without
/// forbear the request would simply have gone at once.
fn recovered_by(story: &Story) -> Option<&'static str> {
    let [retry, wait] = names::RECOVERED_BY;
    let told_to_wait = [WaitKind::Pacing, WaitKind::Cooldown, WaitKind::Breaker]
        .into_iter()
        .any(|kind| !story.waited.of(kind).is_zero());
    match story.ending {
        Ending::Ok if story.attempts.len() > 1 => Some(retry),
        Ending::Ok if told_to_wait => Some(wait),
        Ending::Ok
        | Ending::ClientError
        | Ending::Throttled
        | Ending::ServerError
        | Ending::BodyError
        | Ending::ClientDisconnect
        | Ending::Rejected(_) => None,
    }
}

/// Why a failure was not repeated once more, one of [`names::EXHAUSTED_BY`].
fn exhausted_by(story: &Story) -> Option<&'static str> {
    let [attempts, deadline, budget, not_replayable] = names::EXHAUSTED_BY;
    match story.decision {
        Decision::AttemptsSpent | Decision::Rejected(names::CODE_RETRIES_EXHAUSTED) => {
            Some(attempts)
        }
        Decision::DeadlineTooNear => Some(deadline),
        Decision::Rejected(names::CODE_DEADLINE) if !story.attempts.is_empty() => Some(deadline),
        Decision::RetryBudgetExhausted => Some(budget),
        Decision::BodyNotReplayable => Some(not_replayable),
        Decision::Pass
        | Decision::Retried
        | Decision::Waited
        | Decision::NotRetryable
        | Decision::Rejected(_)
        | Decision::Upgraded => None,
    }
}
