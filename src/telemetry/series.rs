//! Counters whose label values are not all known beforehand, each with a bound, and those whose are.
//!
//! Prometheus keeps a series for ever, so whoever can choose a label value could fill the memory.
//! Status codes come from upstreams; past a number that no honest API reaches they count as
//! `other`, and `forbear_metrics_label_overflow_total` tells that it happened.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus::{IntCounter, IntCounterVec};

use super::metrics::Families;
use super::names;
use super::story::{Ending, Story};

/// Series of requests per route. A healthy route has a handful; only an upstream that plays with
/// status codes gets here, and then counts under `other`.
const REQUEST_SERIES_MAX: usize = 128;
/// Series of attempts per upstream, one per status code.
const ATTEMPT_CODES_MAX: usize = 64;

/// Counters of one upstream over a closed set of label values, all of them at 0 from the start.
pub(super) struct Closed<const N: usize> {
    values: [&'static str; N],
    counters: [IntCounter; N],
}

impl<const N: usize> Closed<N> {
    pub(super) fn new(family: &IntCounterVec, upstream: &str, values: [&'static str; N]) -> Self {
        let counters = values.map(|value| family.with_label_values(&[upstream, value]));
        Self { values, counters }
    }

    /// A value outside of the set counts as the last one, which is `other` where that can happen.
    pub(super) fn count(&self, value: &str) {
        let index = self.values.iter().position(|known| *known == value).unwrap_or(N - 1);
        if let Some(counter) = self.counters.get(index) {
            counter.inc();
        }
    }
}

/// The first is by far the most frequent, and found first.
const USUAL_ENDINGS: [(u16, Ending); 8] = [
    (200, Ending::Ok),
    (429, Ending::Throttled),
    (500, Ending::ServerError),
    (502, Ending::ServerError),
    (503, Ending::ServerError),
    (504, Ending::ServerError),
    (503, Ending::Rejected(names::CODE_BREAKER_OPEN)),
    (502, Ending::Rejected(names::CODE_UPSTREAM_UNREACHABLE)),
];

/// `None` is an attempt without an answer.
const USUAL_STATUSES: [Option<u16>; 7] =
    [Some(200), None, Some(429), Some(500), Some(502), Some(503), Some(504)];

/// `forbear_requests_total` of one route.
pub(super) struct RequestCounter {
    family: IntCounterVec,
    upstream: Arc<str>,
    route: Arc<str>,
    series: Series<(&'static str, u16, Ending)>,
    overflow: IntCounter,
}

impl RequestCounter {
    /// `GET` exists at 0 with what usually becomes of it; every further combination appears when it
    /// first happens, and a rate does not see the jump to its first value.
    pub(super) fn new(families: &Families, upstream: Arc<str>, route: Arc<str>) -> Self {
        let overflow = families.label_overflow.with_label_values(&[names::label::CODE]);
        let series = Series::new(REQUEST_SERIES_MAX);
        let counter = Self { family: families.requests.clone(), upstream, route, series, overflow };
        if *counter.upstream != *names::UNROUTED {
            for (code, ending) in USUAL_ENDINGS {
                let key = ("GET", code, ending);
                counter.series.count(key, 0, || counter.handle("GET", code, ending));
            }
        }
        counter
    }

    pub(super) fn count(&self, story: &Story) {
        let method = story.method.as_str();
        let method =
            names::METHODS.into_iter().find(|known| *known == method).unwrap_or(names::OTHER);
        let (code, ending) = (story.status, story.ending);
        let handle = || self.handle(method, code, ending);
        if !self.series.count((method, code, ending), 1, handle) {
            self.overflow.inc();
            self.folded(ending).inc();
        }
    }

    fn handle(&self, method: &str, code: u16, ending: Ending) -> IntCounter {
        let (code, outcome) = (code_label(Some(code)), names::outcome(ending));
        let labels: [&str; 5] = [&self.upstream, &self.route, method, &code, &outcome];
        self.family.with_label_values(&labels)
    }

    fn folded(&self, ending: Ending) -> IntCounter {
        let outcome = names::outcome(ending);
        let labels: [&str; 5] = [&self.upstream, &self.route, names::OTHER, names::OTHER, &outcome];
        self.family.with_label_values(&labels)
    }
}

/// `forbear_upstream_attempts_total` of one upstream.
pub(super) struct AttemptCounter {
    family: IntCounterVec,
    upstream: Arc<str>,
    series: Series<Option<u16>>,
    overflow: IntCounter,
}

impl AttemptCounter {
    /// What is usual exists at 0.
    pub(super) fn new(families: &Families, upstream: Arc<str>) -> Self {
        let overflow = families.label_overflow.with_label_values(&[names::label::CODE]);
        let series = Series::new(ATTEMPT_CODES_MAX);
        let counter = Self { family: families.attempts.clone(), upstream, series, overflow };
        for status in USUAL_STATUSES {
            counter.series.count(status, 0, || counter.handle(&code_label(status)));
        }
        counter
    }

    pub(super) fn count(&self, status: Option<u16>) {
        if !self.series.count(status, 1, || self.handle(&code_label(status))) {
            self.overflow.inc();
            self.handle(names::OTHER).inc();
        }
    }

    fn handle(&self, code: &str) -> IntCounter {
        self.family.with_label_values(&[&self.upstream, code])
    }
}

/// Label `code`: the number, or `none`.
fn code_label(status: Option<u16>) -> String {
    match status {
        Some(code @ 100..=599) => code.to_string(),
        Some(_) | None => names::NONE.to_owned(),
    }
}

/// Handles of series that appear when they first happen. Rarely more than ten, so a list that is
/// searched from its start beats a map, and the common case is one shared lock.
struct Series<K> {
    known: RwLock<Vec<(K, IntCounter)>>,
    max: usize,
}

impl<K: Copy + Eq> Series<K> {
    fn new(max: usize) -> Self {
        Self { known: RwLock::default(), max }
    }

    /// Adds `by` to the series of `key`, made with `make` if it is new. False if there is no room.
    fn count(&self, key: K, by: u64, make: impl FnOnce() -> IntCounter) -> bool {
        let add = |known: &[(K, IntCounter)]| {
            let series = known.iter().find(|(known, _)| *known == key);
            series.inspect(|(_, counter)| counter.inc_by(by)).is_some()
        };
        if add(&self.known.read().unwrap_or_else(PoisonError::into_inner)) {
            return true;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if add(&known) {
            return true;
        }
        if known.len() >= self.max {
            return false;
        }
        let counter = make();
        counter.inc_by(by);
        known.push((key, counter));
        true
    }
}
