//! Settings of the process: listeners, state, log, limits and keys.

use super::super::kind::{Kind, NameRule};
use super::{SPAN, SPAN_OR_ZERO, Setting, at_least_one, count, limit};

pub(super) const PROXY: &[Setting] = &[
    Setting::new("listen", Kind::Addresses, "Where callers connect: one address or a list.")
        .or("127.0.0.1:8080"),
    Setting::new(
        "workers",
        Kind::Workers,
        "Threads that carry traffic; auto is one per CPU that the process may use, at most four.",
    )
    .or("auto"),
    Setting::new(
        "connections_max",
        at_least_one(1_000_000, "with 0 nobody could connect"),
        "Connections of callers at most, all listeners together.",
    )
    .or("4096"),
    Setting::new("header_timeout", SPAN, "A request head must be complete within this time.")
        .or("10s"),
    Setting::new("body_timeout", SPAN, "Longest pause between two pieces of a request body.")
        .or("30s"),
    Setting::new(
        "keep_alive_timeout",
        SPAN,
        "An idle connection of a caller is closed after this time.",
    )
    .or("60s"),
    Setting::new(
        "drain_timeout",
        SPAN_OR_ZERO,
        "From the signal to stop to the end of the process at most.",
    )
    .or("25s"),
    Setting::new(
        "drain_idle",
        SPAN_OR_ZERO,
        "A stop is complete once nothing was in flight for this long.",
    )
    .or("1s"),
    Setting::new(
        "idle_exit",
        SPAN,
        "forbear ends by itself after this time without an exchange; never if it is not set.",
    ),
];

pub(super) const ADMIN: &[Setting] = &[
    Setting::new("listen", Kind::Address, "Where dashboard, API and metrics are served.")
        .or("127.0.0.1:8081"),
    Setting::new(
        "token",
        Kind::Table(SECRET),
        "Needed for calls that change something; a must unless listen is loopback.",
    ),
];

const SECRET: &[Setting] = &[SECRET_FILE, SECRET_ENV];

const SECRET_FILE: Setting = Setting::new(
    "file",
    Kind::Text,
    "The file that holds the secret, from the folder of this configuration.",
);
const SECRET_ENV: Setting =
    Setting::new("env", Kind::Text, "The environment variable that holds the secret.");

pub(super) const METRICS: &[Setting] = &[
    Setting::new(
        "listen",
        Kind::Address,
        "Where metrics and health are served, usually on the pod's network.",
    ),
    Setting::new(
        "push",
        Kind::Table(METRICS_PUSH),
        "Sends what was counted once, at the end: for jobs too short to be scraped.",
    ),
];

const METRICS_PUSH: &[Setting] = &[
    Setting::new(
        "url",
        Kind::Url,
        "Where it is put, path and grouping included: http://pushgateway:9091/metrics/job/nightly.",
    )
    .required(),
    Setting::new(
        "instance",
        Kind::Flag,
        "Whether /instance/ and this machine's name are put behind url, so that pods do not overwrite each other.",
    )
    .or("false"),
    Setting::new(
        "headers",
        Kind::Named(NameRule::Plain, SECRET_HEADER),
        "Fields with a secret that are put on the request, by their names in lower case.",
    ),
];

pub(super) const STATE: &[Setting] = &[
    Setting::new(
        "path",
        Kind::Text,
        "The database file, from the working directory; :memory: keeps nothing.",
    )
    .or("forbear.db"),
    Setting::new("ledger_keep", SPAN, "How long the story of an exchange is kept.").or("7d"),
    Setting::new(
        "ledger_rows_max",
        at_least_one(1_000_000_000, "with 0 nothing would be remembered"),
        "Rows of the ledger at most; the oldest go first.",
    )
    .or("200000"),
    Setting::new(
        "ledger_successes_per_second",
        count(1_000_000),
        "Exchanges that succeed at once are kept up to this many a second; all others always.",
    )
    .or("10"),
    Setting::new(
        "shared",
        Kind::Table(SHARED),
        "One truth for many sidecars. Not available in this version.",
    ),
];

const SHARED: &[Setting] = &[
    Setting::new("url", Kind::Text, "postgres://, redis://, rediss:// or redis+cluster://.")
        .required(),
    Setting::new("namespace", Kind::Text, "Sidecars of one namespace share what they know.")
        .or("default"),
];

pub(super) const LOG: &[Setting] = &[
    Setting::new("format", Kind::Choice(&["json", "text"]), "JSON for machines, text for people.")
        .or("json"),
    Setting::new(
        "level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "Lines below this level are not written.",
    )
    .or("info"),
    Setting::new(
        "access",
        Kind::Choice(&["all", "failures", "off"]),
        "Which exchanges get a line.",
    )
    .or("all"),
];

pub(super) const TRACING: &[Setting] = &[
    Setting::new(
        "endpoint",
        Kind::Url,
        "Base address of an OTLP/HTTP collector; before the default comes OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    .or("http://127.0.0.1:4318"),
    Setting::new(
        "service_name",
        Kind::Text,
        "What the spans say they come from; before the default comes OTEL_SERVICE_NAME.",
    )
    .or("forbear"),
    Setting::new(
        "sample",
        Kind::Share { zero: true, off: false },
        "Share of traces begun here that are recorded; a caller's traceparent decides by itself.",
    )
    .or("1.0"),
    Setting::new(
        "headers",
        Kind::Named(NameRule::Plain, SECRET_HEADER),
        "Fields with a secret that are put on every export, by their names in lower case.",
    ),
];

/// Of a field that forbear puts on requests of its own.
pub(in crate::config) const SECRET_HEADER: &[Setting] = &[
    Setting::new("prefix", Kind::Prefix, "Stands before the secret, as \"Bearer \" does.").or(""),
    SECRET_FILE,
    SECRET_ENV,
];

pub(super) const LIMITS: &[Setting] = &[
    Setting::new(
        "in_flight_max",
        limit(100_000),
        "Attempts in flight at most, over all upstreams.",
    )
    .or("128"),
    Setting::new("queue_max", count(1_000_000), "Exchanges waiting at most, over all upstreams.")
        .or("4000"),
    Setting::new(
        "replay_memory_max",
        Kind::Size,
        "Memory for request bodies that may have to be sent again.",
    )
    .or("64MiB"),
];

pub(super) const KEYS: &[Setting] = &[
    Setting::new(
        "in_flight_max",
        limit(100_000),
        "Exchanges in flight at most that joined this key; 1 for an ordered one.",
    ),
    Setting::new(
        "ordered",
        Kind::Flag,
        "Whether exchanges of this key are sent one by one in the order of arrival, over all \
         upstreams; the next one waits until the one before is over, its repeats included.",
    )
    .or("false"),
];
