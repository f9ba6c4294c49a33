//! Upstreams and stories for the tests of what is counted and written, and what takes in a log.

mod access;
mod exposition;
mod labels;
mod metrics;

use std::io;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::metrics::Metrics;
use super::scrape;
use super::story::{AttemptStory, Decision, Ending, RequestId, Story};
use crate::config::settings::{
    AccessLog, AdminSettings, LogFormat, LogLevel, LogSettings, Origin, ProxySettings, Scheme,
    Settings, StateSettings, TlsConfig, UpstreamConfig,
};
use crate::policy::outcome::{Class, Hint, HintSource, Sent, WaitKind, Waits};
use crate::policy::settings::{
    Backoff, BackoffFamily, BreakerSettings, LimitSettings, Mode, RetrySettings, RouteSettings,
    UpstreamSettings,
};
use crate::policy::time::WallTime;
use crate::telemetry::view::ProcessView;

/// Where a log goes that is read afterwards.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// What comes of `run`, and what this thread logs meanwhile.
pub(crate) fn logged<T>(run: impl FnOnce() -> T) -> (T, String) {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let outcome = tracing::subscriber::with_default(subscriber.finish(), run);
    (outcome, sink.text())
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn breaker() -> BreakerSettings {
    BreakerSettings {
        consecutive_failures: 5,
        failure_rate: 0.5,
        window: ms(60_000),
        samples_min: 10,
        open_for: ms(30_000),
        open_for_max: ms(600_000),
        successes_to_close: 2,
        slow_after: None,
        slow_rate: 0.8,
    }
}

fn route(name: &str, breaker: Option<BreakerSettings>) -> RouteSettings {
    RouteSettings {
        name: name.into(),
        in_flight_max: None,
        max_wait: ms(50_000),
        retry: RetrySettings {
            attempts_max: NonZeroU8::MIN,
            throttled_counts: false,
            unsafe_503: false,
            backoff: Backoff { family: BackoffFamily::Fixed, base: ms(1), max: ms(1) },
            budget_ratio: 0.2,
            budget_floor_per_minute: 10,
        },
        breaker,
        mode: Mode::Enforce,
    }
}

fn upstream(name: &str, routes: Vec<RouteSettings>) -> UpstreamConfig {
    UpstreamConfig {
        name: name.into(),
        origin: Origin { scheme: Scheme::Https, host: "api.example".into(), port: 443 },
        base_path: String::new(),
        prefix: format!("/{name}"),
        hosts: Vec::new(),
        listen: None,
        profile: None,
        dialect: Arc::new(crate::policy::profile::GENERIC.clone()),
        buckets: Vec::new(),
        costs: Vec::new(),
        rewrite_links: true,
        idempotency_key: None,
        makes_idempotency_key: false,
        credential: None,
        credential_from: None,
        tls: TlsConfig::default(),
        key: None,
        connect_timeout: ms(5000),
        replay_body_max: 0,
        routes: Vec::new(),
        policy: Arc::new(UpstreamSettings {
            in_flight_max: 16,
            queue_max: 1000,
            breaker: breaker(),
            routes,
            buckets: Vec::new(),
            quotas: Vec::new(),
            pacing: crate::policy::settings::Pacing::Observe,
        }),
    }
}

fn github() -> UpstreamConfig {
    upstream("github", vec![route("default", None), route("search", Some(breaker()))])
}

fn answered(n: u8, status: u16, class: Class, took: u64) -> AttemptStory {
    AttemptStory {
        n,
        status: Some(status),
        class,
        sent: Sent::Answered,
        error: None,
        sent_after: Duration::ZERO,
        took: ms(took),
        hint: None,
        told: Default::default(),
        waited: Waits::default(),
    }
}

/// Throttled, told to wait four seconds, then answered.
pub(super) fn recovered() -> Story {
    let mut waited = Waits::default();
    waited.charge(WaitKind::Cooldown, ms(4010));
    waited.charge(WaitKind::Queue, ms(12));
    let throttled = AttemptStory {
        hint: Some(Hint {
            wait: ms(4000),
            source: HintSource::RetryAfterDelta,
            raw: Some("retry-after: 4".into()),
        }),
        ..answered(1, 429, Class::Throttled, 100)
    };
    Story {
        id: RequestId::new(WallTime { unix_ms: 1_768_471_200_123 }, 7),
        started: WallTime { unix_ms: 1_768_471_200_123 },
        upstream: Some("github".into()),
        route: Some("search".into()),
        method: http::Method::GET,
        path: "/search/issues".into(),
        keys: vec!["ingestion".into()],
        flow: Some("nightly".into()),
        run: None,
        trace: None,
        attempts: vec![throttled, answered(2, 200, Class::Ok, 230)],
        waited,
        decision: Decision::Retried,
        status: 200,
        ending: Ending::Ok,
        bytes_up: 0,
        bytes_down: 812,
        took: ms(4353),
        streamed: ms(0),
        notes: Default::default(),
        shadow: None,
    }
}

fn text(metrics: &Metrics) -> String {
    scrape::text(metrics, &[], &[], &ProcessView::default())
}

/// The value of a series, given as it is written.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

fn series(text: &str) -> usize {
    let ours = |line: &&str| line.starts_with("forbear_");
    text.lines().filter(ours).count()
}

fn settings(upstreams: Vec<UpstreamConfig>) -> Settings {
    let listen = ([127, 0, 0, 1], 0).into();
    Settings {
        proxy: ProxySettings {
            listen: vec![listen],
            workers: 1,
            connections_max: 1,
            header_timeout: ms(1),
            body_timeout: ms(1),
            keep_alive_timeout: ms(1),
            drain_timeout: ms(1),
            drain_idle: ms(1),
            idle_exit: None,
        },
        admin: AdminSettings { listen, token: None },
        metrics_listen: None,
        metrics_push: None,
        state: StateSettings {
            path: ":memory:".into(),
            ledger_keep: ms(1),
            ledger_rows_max: 1,
            ledger_successes_per_second: 1,
        },
        log: LOG,
        tracing: None,
        limits: LimitSettings {
            in_flight_max: 1,
            queue_max: 1,
            replay_memory_max: 1,
            keys: Vec::new(),
        },
        upstreams,
        watched_files: Vec::new(),
    }
}

const LOG: LogSettings =
    LogSettings { format: LogFormat::Json, level: LogLevel::Info, access: AccessLog::All };
