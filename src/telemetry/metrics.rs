//! The metric families of the process, created once, and what belongs to no upstream.
//!
//! A configuration asks for handles ([`Metrics::upstream`], [`Metrics::key`]) when it is built, so
//! code on the path can only increment what exists, and a reload goes on counting where the last
//! configuration stopped. What a new configuration no longer names is removed by
//! [`Metrics::retain`]. Gauges of state are not here but in [`super::scrape`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
};

use super::names::{self, Kind, MetricDef};
use super::series::RequestCounter;
use super::store::StoreMetrics;
use super::story::Story;
use super::upstream::UpstreamMetrics;
use crate::config::settings::{Settings, UpstreamConfig};
use crate::policy::time::WallTime;

const VALID: &str = "the catalogue's names are valid; a test makes all of them";

/// Every family, to be asked one after the other. The prometheus crate's registry would hold the
/// copies of all of them at once, which is more than their text.
pub(super) type Collectors = Vec<Box<dyn Collector>>;

/// Everything that is counted in this process.
pub struct Metrics {
    collectors: Collectors,
    families: Families,
    unrouted: RequestCounter,
    /// Handles given out, so that a reload goes on with the same ones.
    upstreams: Mutex<HashMap<Arc<str>, Arc<UpstreamMetrics>>>,
    /// Panics that were caught.
    pub panics: IntCounter,
    /// Connections that could not be accepted.
    pub accept_errors: IntCounter,
    /// Log lines that were dropped.
    pub log_lines_dropped: IntCounter,
    /// Exchanges whose spans a collector took.
    pub traces_exported: IntCounter,
    /// Exchanges whose spans were lost.
    pub traces_dropped: IntCounter,
    /// Ledger and state.
    pub store: StoreMetrics,
}

impl Metrics {
    /// Registers every family; counters without labels exist at 0 from here on.
    pub fn new() -> Self {
        let mut collectors: Collectors = vec![Box::new(ProcessCollector::for_self())];
        let families = Families::new(&mut collectors);
        for result in names::RELOAD_RESULTS {
            families.config_reloads.with_label_values(&[result]);
        }
        let version = env!("CARGO_PKG_VERSION");
        let revision = option_env!("FORBEAR_REVISION").unwrap_or("unknown");
        gauges(&mut collectors, &names::BUILD_INFO)
            .with_label_values(&[version, revision, "rustls-ring"])
            .set(1.0);
        let traces = counters(&mut collectors, &names::TRACES);
        let [traces_exported, traces_dropped] =
            names::TRACE_RESULTS.map(|result| traces.with_label_values(&[result]));
        Self {
            traces_exported,
            traces_dropped,
            unrouted: RequestCounter::new(&families, names::UNROUTED.into(), names::NONE.into()),
            upstreams: Mutex::default(),
            panics: counter(&mut collectors, &names::PANICS),
            accept_errors: counter(&mut collectors, &names::ACCEPT_ERRORS),
            log_lines_dropped: counter(&mut collectors, &names::LOG_LINES_DROPPED),
            store: StoreMetrics::new(&mut collectors),
            families,
            collectors,
        }
    }

    /// The handles of one upstream. The same ones as before if its routes and breakers are the
    /// same; in any case the same series.
    pub fn upstream(&self, config: &UpstreamConfig) -> Arc<UpstreamMetrics> {
        let mut known = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handles) = known.get(&config.name).filter(|handles| handles.fits(config)) {
            return Arc::clone(handles);
        }
        let handles = Arc::new(UpstreamMetrics::new(&self.families, config));
        known.insert(Arc::clone(&config.name), Arc::clone(&handles));
        handles
    }

    /// The handles of one configured key; `pattern` is the label, whatever value a request named.
    pub fn key(&self, pattern: &str) -> KeyMetrics {
        let family = &self.families.key_rejections;
        let [queue_full, timeout] =
            names::KEY_REJECTIONS.map(|reason| family.with_label_values(&[pattern, reason]));
        KeyMetrics { queue_full, timeout }
    }

    /// Counts an exchange that ended before an upstream was found for it.
    pub fn unrouted(&self, story: &Story) {
        self.unrouted.count(story);
    }

    /// Notes that a configuration came into force.
    pub fn config_applied(&self, hash: &str, now: WallTime) {
        let [applied, _] = names::RELOAD_RESULTS;
        self.families.config_reloads.with_label_values(&[applied]).inc();
        self.families.config_ok.set(1.0);
        self.families.config_time.set(unix_seconds(now));
        self.families.config_info.reset();
        self.families.config_info.with_label_values(&[hash]).set(1.0);
    }

    /// Notes that a configuration was refused and the old one goes on.
    pub fn config_refused(&self) {
        let [_, refused] = names::RELOAD_RESULTS;
        self.families.config_reloads.with_label_values(&[refused]).inc();
        self.families.config_ok.set(0.0);
    }

    /// Removes the series of upstreams, routes, breakers and keys that `settings` does not name.
    /// To be called once the configuration is in force.
    pub fn retain(&self, settings: &Settings) {
        let mut live: HashSet<(&str, String)> = HashSet::new();
        for upstream in &settings.upstreams {
            live.insert((names::label::UPSTREAM, upstream.name.to_string()));
            for route in &upstream.policy.routes {
                live.insert((names::label::ROUTE, format!("{}/{}", upstream.name, route.name)));
            }
        }
        for key in &settings.limits.keys {
            live.insert((names::label::KEY, key.pattern.to_string()));
        }
        let keep = |labels: &HashMap<&str, &str>| {
            let label = |name| labels.get(name).copied();
            let upstream = label(names::label::UPSTREAM);
            if upstream == Some(names::UNROUTED) {
                return true;
            }
            let named = |name, value: Option<String>| {
                value.is_none_or(|value| live.contains(&(name, value)))
            };
            let of_route = label(names::label::BREAKER).and_then(names::route_of_breaker);
            let route = label(names::label::ROUTE).or(of_route);
            named(names::label::UPSTREAM, upstream.map(str::to_owned))
                && named(names::label::ROUTE, upstream.zip(route).map(|(u, r)| format!("{u}/{r}")))
                && named(names::label::KEY, label(names::label::KEY).map(str::to_owned))
        };
        for family in self.families.counters() {
            forget(family, keep);
        }
        for family in self.families.histograms() {
            forget(family, keep);
        }
        let mut known = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| live.contains(&(names::label::UPSTREAM, name.to_string())));
    }

    /// What is counted, each family read when it is asked for.
    pub(super) fn families(&self) -> impl Iterator<Item = MetricFamily> {
        self.collectors.iter().flat_map(|collector| collector.collect())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counters of one configured concurrency key.
#[derive(Clone, Debug)]
pub struct KeyMetrics {
    /// Refused because too many waited.
    pub queue_full: IntCounter,
    /// Refused because no permit came in time.
    pub timeout: IntCounter,
}

/// The families with labels, and the gauges that are set and not computed.
pub(super) struct Families {
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) recovered: IntCounterVec,
    pub(super) body_bytes: IntCounterVec,
    pub(super) attempts: IntCounterVec,
    pub(super) attempt_errors: IntCounterVec,
    pub(super) attempt_duration: HistogramVec,
    pub(super) overhead: Histogram,
    pub(super) retries: IntCounterVec,
    pub(super) exhausted: IntCounterVec,
    pub(super) wait_duration: HistogramVec,
    pub(super) retry_after: IntCounterVec,
    pub(super) transitions: IntCounterVec,
    pub(super) breaker_rejections: IntCounterVec,
    pub(super) replay_unavailable: IntCounterVec,
    pub(super) links_rewritten: IntCounterVec,
    pub(super) links_untouched: IntCounterVec,
    pub(super) label_overflow: IntCounterVec,
    key_rejections: IntCounterVec,
    config_reloads: IntCounterVec,
    config_ok: Gauge,
    config_time: Gauge,
    config_info: GaugeVec,
}

impl Families {
    fn new(collectors: &mut Collectors) -> Self {
        Self {
            requests: counters(collectors, &names::REQUESTS),
            request_duration: histograms(collectors, &names::REQUEST_DURATION),
            recovered: counters(collectors, &names::REQUESTS_RECOVERED),
            body_bytes: counters(collectors, &names::BODY_BYTES),
            attempts: counters(collectors, &names::ATTEMPTS),
            attempt_errors: counters(collectors, &names::ATTEMPT_ERRORS),
            attempt_duration: histograms(collectors, &names::ATTEMPT_DURATION),
            overhead: histograms(collectors, &names::OVERHEAD).with_label_values::<&str>(&[]),
            retries: counters(collectors, &names::RETRIES),
            exhausted: counters(collectors, &names::RETRIES_EXHAUSTED),
            wait_duration: histograms(collectors, &names::WAIT_DURATION),
            retry_after: counters(collectors, &names::RETRY_AFTER),
            transitions: counters(collectors, &names::BREAKER_TRANSITIONS),
            breaker_rejections: counters(collectors, &names::BREAKER_REJECTIONS),
            replay_unavailable: counters(collectors, &names::REPLAY_UNAVAILABLE),
            links_rewritten: counters(collectors, &names::LINKS_REWRITTEN),
            links_untouched: counters(collectors, &names::LINKS_UNTOUCHED),
            label_overflow: counters(collectors, &names::LABEL_OVERFLOW),
            key_rejections: counters(collectors, &names::CONCURRENCY_REJECTIONS),
            config_reloads: counters(collectors, &names::CONFIG_RELOADS),
            config_ok: gauges(collectors, &names::CONFIG_RELOAD_OK).with_label_values::<&str>(&[]),
            config_time: gauges(collectors, &names::CONFIG_RELOAD_TIME)
                .with_label_values::<&str>(&[]),
            config_info: gauges(collectors, &names::CONFIG_INFO),
        }
    }

    /// Those whose series come and go with the configuration.
    fn counters(&self) -> [&IntCounterVec; 14] {
        [
            &self.requests,
            &self.recovered,
            &self.body_bytes,
            &self.attempts,
            &self.attempt_errors,
            &self.retries,
            &self.exhausted,
            &self.retry_after,
            &self.transitions,
            &self.breaker_rejections,
            &self.replay_unavailable,
            &self.links_rewritten,
            &self.links_untouched,
            &self.key_rejections,
        ]
    }

    fn histograms(&self) -> [&HistogramVec; 3] {
        [&self.request_duration, &self.attempt_duration, &self.wait_duration]
    }
}

pub(super) fn counters(collectors: &mut Collectors, def: &MetricDef) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(def.name, def.help), def.labels).expect(VALID);
    collectors.push(Box::new(family.clone()));
    family
}

fn counter(collectors: &mut Collectors, def: &MetricDef) -> IntCounter {
    counters(collectors, def).with_label_values::<&str>(&[])
}

pub(super) fn gauges(collectors: &mut Collectors, def: &MetricDef) -> GaugeVec {
    let family = GaugeVec::new(Opts::new(def.name, def.help), def.labels).expect(VALID);
    collectors.push(Box::new(family.clone()));
    family
}

pub(super) fn histograms(collectors: &mut Collectors, def: &MetricDef) -> HistogramVec {
    let buckets = match def.kind {
        Kind::Histogram(bounds) => bounds.to_vec(),
        Kind::Counter | Kind::Gauge => Vec::new(),
    };
    let opts = HistogramOpts::new(def.name, def.help).buckets(buckets);
    let family = HistogramVec::new(opts, def.labels).expect(VALID);
    collectors.push(Box::new(family.clone()));
    family
}

/// Removes the series that `keep` does not want. Reading them back from the family is slow and
/// sure: nobody has to remember which label values were ever used.
fn forget<T>(family: &MetricVec<T>, keep: impl Fn(&HashMap<&str, &str>) -> bool)
where
    T: MetricVecBuilder,
{
    for collected in family.collect() {
        for metric in collected.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if !keep(&labels) {
                // It can only fail for a series that is not there, which is what is wanted.
                let _ = family.remove(&labels);
            }
        }
    }
}

/// Unix time as Prometheus likes it; good until the year 2106.
pub(super) fn unix_seconds(at: WallTime) -> f64 {
    let ms = i32::try_from(at.unix_ms.rem_euclid(1000)).unwrap_or(0);
    let seconds = u32::try_from(at.unix_ms.div_euclid(1000)).unwrap_or(0);
    f64::from(seconds) + f64::from(ms) / 1000.0
}
