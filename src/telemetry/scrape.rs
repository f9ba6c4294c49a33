//! The answer to `/metrics`: what was counted, and gauges computed from the state when asked.
//!
//! Each scrape builds its gauges anew from the views and throws them away. They cannot drift, they
//! vanish with what they describe, and the hot path does not pay for them.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts, TextEncoder};

use super::metrics::{Metrics, unix_seconds};
use super::names::{self, MetricDef};
use crate::telemetry::view::{BreakerState, KeyView, ProcessView, QuotaView, UpstreamView};

/// What a series takes in the exposition, so that the text seldom has to grow: a counter one line of
/// it, a histogram many.
const BYTES_PER_SERIES: usize = 160;

/// The whole exposition in the Prometheus text format 0.0.4.
pub fn text(
    metrics: &Metrics,
    upstreams: &[UpstreamView],
    keys: &[KeyView],
    process: &ProcessView,
) -> String {
    let mut families = metrics.gather();
    families.extend(upstream_gauges(upstreams));
    families.extend(key_gauges(keys));
    families.extend(process_gauges(process));
    // The encoder refuses a family without series, and there is nothing to say about one.
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let series: usize = families.iter().map(|family| family.get_metric().len()).sum();
    let mut text = String::with_capacity(series * BYTES_PER_SERIES);
    TextEncoder::new()
        .encode_utf8(&families, &mut text)
        .expect("families with series and names encode into memory");
    text
}

fn upstream_gauges(upstreams: &[UpstreamView]) -> Vec<MetricFamily> {
    let requests = Computed::new(&names::REQUESTS_IN_FLIGHT);
    let connections = Computed::new(&names::CONNECTIONS);
    let budget = Computed::new(&names::RETRY_BUDGET);
    let limit = Computed::new(&names::RATELIMIT_LIMIT);
    let remaining = Computed::new(&names::RATELIMIT_REMAINING);
    let reset = Computed::new(&names::RATELIMIT_RESET);
    for view in upstreams {
        let labels = [view.name.as_str()];
        // An exchange has one attempt in flight or waits; it is never both.
        requests.set(&labels, f64::from(view.in_flight) + f64::from(view.queued));
        connections.set(&labels, view.connections.into());
        budget.set(&labels, view.retry_budget_remaining_ratio);
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
    let mut families: Vec<_> = [requests, connections, budget, limit, remaining, reset]
        .into_iter()
        .flat_map(Computed::families)
        .collect();
    families.extend(breaker_gauges(upstreams));
    families
}

fn breaker_gauges(upstreams: &[UpstreamView]) -> impl Iterator<Item = MetricFamily> {
    let state = Computed::new(&names::BREAKER_STATE);
    let failures = Computed::new(&names::BREAKER_FAILURE_RATIO);
    let open_until = Computed::new(&names::BREAKER_OPEN_UNTIL);
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
    [state, failures, open_until].into_iter().flat_map(Computed::families)
}

/// One series per configured key. Where that is a pattern, the pools behind it are as many as the
/// clients like, so the fullest one stands for all of them.
fn key_gauges(keys: &[KeyView]) -> impl Iterator<Item = MetricFamily> {
    let limit = Computed::new(&names::CONCURRENCY_LIMIT);
    let in_use = Computed::new(&names::CONCURRENCY_IN_USE);
    let waiting = Computed::new(&names::CONCURRENCY_WAITING);
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
    [limit, in_use, waiting].into_iter().flat_map(Computed::families)
}

fn process_gauges(process: &ProcessView) -> impl Iterator<Item = MetricFamily> {
    let draining = Computed::new(&names::DRAINING);
    draining.set(&[], if process.draining { 1.0 } else { 0.0 });
    let listeners = Computed::new(&names::LISTENER_CONNECTIONS);
    for (listener, connections) in &process.listeners {
        listeners.set(&[listener], (*connections).into());
    }
    [draining, listeners].into_iter().flat_map(Computed::families)
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

/// A gauge family that lives as long as one scrape.
struct Computed(GaugeVec);

impl Computed {
    fn new(def: &MetricDef) -> Self {
        let family = GaugeVec::new(Opts::new(def.name, def.help), def.labels);
        Self(family.expect("the catalogue's names are valid; a test encodes all of them"))
    }

    fn set(&self, labels: &[&str], value: f64) {
        self.0.with_label_values(labels).set(value);
    }

    fn families(self) -> Vec<MetricFamily> {
        self.0.collect()
    }
}
