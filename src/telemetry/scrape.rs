//! The answer to `/metrics`: what was counted, and gauges computed from the state when asked.
//!
//! Each scrape builds its gauges anew from the views and throws them away. They cannot drift, they
//! vanish with what they describe, and the hot path does not pay for them.

use std::collections::BTreeMap;

use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::exposition;
use super::metrics::{Metrics, unix_seconds};
use super::names::{self, MetricDef};
use crate::telemetry::view::{BreakerState, KeyView, ProcessView, QuotaView, UpstreamView};

/// The type of that text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// About what an upstream with one route takes in the exposition, so that the text need not be copied
/// as it grows.
const BYTES_PER_UPSTREAM: usize = 20_000;

/// The whole exposition in the Prometheus text format 0.0.4. Reads one family after the other, and
/// holds no lock for longer than that takes.
pub fn text(
    metrics: &Metrics,
    upstreams: &[UpstreamView],
    keys: &[KeyView],
    process: &ProcessView,
) -> String {
    let mut text = String::with_capacity((1 + upstreams.len()) * BYTES_PER_UPSTREAM);
    let gauges = process_gauges(process).chain(key_gauges(keys)).chain(upstream_gauges(upstreams));
    for family in metrics.families().chain(gauges) {
        exposition::write_family(&mut text, &family);
    }
    text
}

/// What was counted, without the gauges: what is worth keeping of a process that has ended.
pub fn counted(metrics: &Metrics) -> String {
    let mut text = String::with_capacity(BYTES_PER_UPSTREAM);
    for family in metrics.families() {
        if family.get_field_type() != MetricType::GAUGE {
            exposition::write_family(&mut text, &family);
        }
    }
    text
}

fn upstream_gauges(upstreams: &[UpstreamView]) -> impl Iterator<Item = MetricFamily> {
    let mut requests = Computed::new(&names::REQUESTS_IN_FLIGHT);
    let mut connections = Computed::new(&names::CONNECTIONS);
    let mut budget = Computed::new(&names::RETRY_BUDGET);
    let mut limit = Computed::new(&names::RATELIMIT_LIMIT);
    let mut remaining = Computed::new(&names::RATELIMIT_REMAINING);
    let mut reset = Computed::new(&names::RATELIMIT_RESET);
    let mut locked = Computed::new(&names::CREDENTIALS_LOCKED);
    for view in upstreams {
        let labels = [view.name.as_str()];
        // An exchange has one attempt in flight or waits; it is never both.
        requests.set(&labels, f64::from(view.in_flight) + f64::from(view.queued));
        connections.set(&labels, view.connections.into());
        budget.set(&labels, view.retry_budget_remaining_ratio);
        locked.set(&labels, as_f64(view.locks.len() as u64));
        if let Some(quota) = tightest(&view.quotas) {
            remaining.set(&labels, as_f64(quota.remaining));
            if let Some(told) = quota.limit {
                limit.set(&labels, as_f64(told));
            }
            if let Some(at) = quota.reset_at {
                reset.set(&labels, unix_seconds(at.0));
            }
        }
    }
    [requests, connections, budget, limit, remaining, reset, locked]
        .into_iter()
        .map(Computed::family)
        .chain(breaker_gauges(upstreams))
}

fn breaker_gauges(upstreams: &[UpstreamView]) -> impl Iterator<Item = MetricFamily> {
    let mut state = Computed::new(&names::BREAKER_STATE);
    let mut failures = Computed::new(&names::BREAKER_FAILURE_RATIO);
    let mut open_until = Computed::new(&names::BREAKER_OPEN_UNTIL);
    for view in upstreams {
        for breaker in &view.breaker {
            let labels = [view.name.as_str(), breaker.scope.as_str()];
            let [upstream, scope] = labels;
            for each in BreakerState::ALL {
                let is = if each == breaker.state { 1.0 } else { 0.0 };
                state.set(&[upstream, scope, each.name()], is);
            }
            failures.set(&labels, breaker.failure_ratio);
            let until = breaker.open_until.map_or(0.0, |at| unix_seconds(at.0));
            open_until.set(&labels, until);
        }
    }
    [state, failures, open_until].into_iter().map(Computed::family)
}

/// One series per configured key. Where that is a pattern, the pools behind it are as many as the
/// clients like, so the fullest one stands for all of them.
fn key_gauges(keys: &[KeyView]) -> impl Iterator<Item = MetricFamily> {
    let mut limit = Computed::new(&names::CONCURRENCY_LIMIT);
    let mut in_use = Computed::new(&names::CONCURRENCY_IN_USE);
    let mut waiting = Computed::new(&names::CONCURRENCY_WAITING);
    let mut patterns: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
    for view in keys {
        let (permits, taken, queue) = patterns.entry(&view.pattern).or_default();
        *permits = view.in_flight_max;
        *taken = view.in_flight.max(*taken);
        *queue = queue.saturating_add(view.waiting);
    }
    for (pattern, (permits, taken, queue)) in patterns {
        limit.set(&[pattern], permits.into());
        in_use.set(&[pattern], taken.into());
        waiting.set(&[pattern], queue.into());
    }
    [limit, in_use, waiting].into_iter().map(Computed::family)
}

fn process_gauges(process: &ProcessView) -> impl Iterator<Item = MetricFamily> {
    let mut draining = Computed::new(&names::DRAINING);
    draining.set(&[], if process.draining { 1.0 } else { 0.0 });
    let mut listeners = Computed::new(&names::LISTENER_CONNECTIONS);
    // An upstream may be called as the proxy's own listener is, and a series is told once.
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    for (listener, connections) in &process.listeners {
        let all = by_name.entry(listener).or_default();
        *all = all.saturating_add(*connections);
    }
    for (listener, connections) in by_name {
        listeners.set(&[listener], connections.into());
    }
    [draining, listeners].into_iter().map(Computed::family)
}

/// The quota that will bind first: the smallest share left, or the fewest requests where no limit
/// was told.
fn tightest(quotas: &[QuotaView]) -> Option<&QuotaView> {
    let share = |quota: &QuotaView| match quota.limit {
        Some(limit) if limit > 0 => as_f64(quota.remaining) / as_f64(limit),
        Some(_) | None => f64::INFINITY,
    };
    quotas
        .iter()
        .min_by(|a, b| share(a).total_cmp(&share(b)).then_with(|| a.remaining.cmp(&b.remaining)))
}

/// A quota is a count of requests; beyond 2^32 of them a gauge need not be exact.
fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// A gauge family that lives as long as one scrape. Nothing looks for a series that is already there:
/// each is set once.
struct Computed {
    def: &'static MetricDef,
    series: Vec<Metric>,
}

impl Computed {
    fn new(def: &'static MetricDef) -> Self {
        Self { def, series: Vec::new() }
    }

    fn set(&mut self, values: &[&str], value: f64) {
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut labels: Vec<_> = self.def.labels.iter().zip(values).map(pair).collect();
        // As the counters have them.
        labels.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        self.series.push(metric);
    }

    fn family(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.def.name.to_owned());
        family.set_help(self.def.help.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(self.series);
        family
    }
}
