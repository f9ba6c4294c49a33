//! Settings of an upstream, of its routes, and of `[defaults]`.

use super::super::kind::Kind;
use super::{SPAN, SPAN_OR_ZERO, Setting, at_least_one, count, limit};

const IN_FLIGHT_MAX: Setting =
    Setting::new("in_flight_max", limit(100_000), "Attempts in flight at most.").or("16");
const QUEUE_MAX: Setting = Setting::new(
    "queue_max",
    count(1_000_000),
    "Exchanges waiting at most; 0 refuses what cannot go at once.",
)
.or("1000");
const MAX_WAIT: Setting = Setting::new(
    "max_wait",
    SPAN_OR_ZERO,
    "Longest an exchange is held, in all its waits together.",
)
.or("50s");
const CONNECT_TIMEOUT: Setting =
    Setting::new("connect_timeout", SPAN, "TCP and TLS together.").or("5s");
const ATTEMPT_TIMEOUT: Setting =
    Setting::new("attempt_timeout", SPAN, "From sending an attempt to the head of its response.")
        .or("60s");
const IDLE_TIMEOUT: Setting =
    Setting::new("idle_timeout", SPAN, "Longest pause between two pieces of a response body.")
        .or("60s");
const MODE: Setting = Setting::new(
    "mode",
    Kind::Choice(&["enforce", "shadow"]),
    "shadow decides and records, and does not act.",
)
.or("enforce");
const PACING: Setting = Setting::new(
    "pacing",
    Kind::Choice(&["observe", "smooth", "off"]),
    "How quotas are spent that answers tell of: up to the last, spread over the time, or ignored.",
)
.or("observe");
const KEY: Setting =
    Setting::new("key", Kind::Text, "The concurrency key of requests that name none.");
const PROFILE: Setting = Setting::new(
    "profile",
    Kind::Text,
    "The known API that it is, or a file with a profile; by the host of url if not set.",
);
const RETRY_AFTER_UNIT: Setting = Setting::new(
    "retry_after_unit",
    Kind::Choice(&["s", "ms"]),
    "Unit of plain numbers in Retry-After; as its profile has it if not set.",
);
const RESET_UNIT: Setting = Setting::new(
    "reset_unit",
    Kind::Choice(&["s", "ms"]),
    "Unit of plain numbers in fields that name a reset; as its profile has it if not set.",
);
const REWRITE_LINKS: Setting = Setting::new(
    "rewrite_links",
    Kind::Flag,
    "Whether addresses of upstreams in responses are changed to lead through forbear.",
)
.or("true");
const CA_FILE: Setting =
    Setting::new("ca_file", Kind::Text, "PEM file with roots to trust besides the usual ones.");
const CLIENT_CERT: Setting =
    Setting::new("client_cert", Kind::Text, "PEM file with the certificate chain for mutual TLS.");
const CLIENT_KEY: Setting =
    Setting::new("client_key", Kind::Text, "PEM file with the private key of client_cert.");
const RETRY_TABLE: Setting =
    Setting::new("retry", Kind::Table(RETRY), "When and how an attempt is repeated.");
const BREAKER_TABLE: Setting = Setting::new(
    "breaker",
    Kind::Table(BREAKER),
    "When an upstream is left alone, and how it is tried again.",
);

pub(super) const DEFAULTS: &[Setting] = &[
    PROFILE,
    RETRY_AFTER_UNIT,
    RESET_UNIT,
    REWRITE_LINKS,
    CA_FILE,
    CLIENT_CERT,
    CLIENT_KEY,
    KEY,
    IN_FLIGHT_MAX,
    QUEUE_MAX,
    MAX_WAIT,
    CONNECT_TIMEOUT,
    ATTEMPT_TIMEOUT,
    IDLE_TIMEOUT,
    PACING,
    MODE,
    RETRY_TABLE,
    BREAKER_TABLE,
];

/// `[upstreams.<name>]`.
pub(in crate::config) const UPSTREAM: &[Setting] = &[
    Setting::new(
        "url",
        Kind::Url,
        "Where its requests go; a path is put before every forwarded path.",
    )
    .required(),
    PROFILE,
    RETRY_AFTER_UNIT,
    RESET_UNIT,
    REWRITE_LINKS,
    Setting::new(
        "prefix",
        Kind::PathPrefix,
        "Paths that begin with it go to this upstream, without it; /<name> if not set.",
    ),
    Setting::new("hosts", Kind::Hosts, "Requests for these hosts go to this upstream, too."),
    Setting::new("listen", Kind::Address, "A listener of its own, where paths have no prefix."),
    Setting::new(
        "credential",
        Kind::Table(CREDENTIAL),
        "A header with a secret that is put on every request.",
    ),
    Setting::new(
        "credential_from",
        Kind::Text,
        "Where requests have their API key, if in no usual header: query:NAME, cookie:NAME, header:NAME.",
    ),
    CA_FILE,
    CLIENT_CERT,
    CLIENT_KEY,
    KEY,
    IN_FLIGHT_MAX,
    QUEUE_MAX,
    MAX_WAIT,
    CONNECT_TIMEOUT,
    ATTEMPT_TIMEOUT,
    IDLE_TIMEOUT,
    PACING,
    MODE,
    RETRY_TABLE,
    BREAKER_TABLE,
    Setting::new(
        "quotas",
        Kind::List(QUOTA),
        "Limits that are known, besides those that answers tell of.",
    ),
    Setting::new(
        "routes",
        Kind::List(ROUTE),
        "Parts of the API that are treated in their own way.",
    ),
];

const CREDENTIAL: &[Setting] = &[
    Setting::new("header", Kind::Header, "The header that carries the secret.").or("authorization"),
    Setting::new("prefix", Kind::Prefix, "What stands before the secret, such as \"Bearer \".")
        .or(""),
    Setting::new(
        "file",
        Kind::Text,
        "The file that holds the secret, from the folder of this configuration.",
    ),
    Setting::new("env", Kind::Text, "The environment variable that holds the secret."),
];

/// The words of `retry.backoff`.
pub(super) const BACKOFFS: &[&str] =
    &["full_jitter", "decorrelated_jitter", "exponential", "linear", "fixed", "uniform"];

const ATTEMPTS_MAX: Setting = Setting::new(
    "attempts_max",
    Kind::Count {
        min: 1,
        max: 100,
        why: "the first attempt counts, so 0 would send nothing",
        fix: "Write 1 to switch retries off, or 3 for two retries.",
    },
    "Attempts in total, the first included; 1 switches retries off.",
)
.or("4");
const THROTTLED_COUNTS: Setting = Setting::new(
    "throttled_counts",
    Kind::Flag,
    "Whether refusals by a rate limit use up attempts, too.",
)
.or("false");
const UNSAFE_503: Setting = Setting::new(
    "unsafe_503",
    Kind::Flag,
    "Whether a 503 with Retry-After means \"not processed\" for POST and PATCH, too.",
)
.or("false");
const BACKOFF: Setting = Setting::new(
    "backoff",
    Kind::Choice(BACKOFFS),
    "How waits between attempts grow where the upstream names none.",
)
.or("full_jitter");
const STEPS: Setting = Setting::new(
    "steps",
    Kind::Durations,
    "The waits themselves, instead of backoff; the last one repeats.",
);
const BACKOFF_BASE: Setting =
    Setting::new("backoff_base", SPAN, "The first wait, or its bound.").or("500ms");
const BACKOFF_MAX: Setting =
    Setting::new("backoff_max", SPAN, "No wait between attempts is longer.").or("30s");
const BUDGET_RATIO: Setting = Setting::new(
    "budget_ratio",
    Kind::Share { zero: true, off: false },
    "Retries per first attempt, over a minute.",
)
.or("0.2");
const BUDGET_FLOOR: Setting = Setting::new(
    "budget_floor_per_minute",
    count(1_000_000),
    "Retries per minute that are always allowed.",
)
.or("10");

const RETRY: &[Setting] = &[
    ATTEMPTS_MAX,
    THROTTLED_COUNTS,
    UNSAFE_503,
    BACKOFF,
    STEPS,
    BACKOFF_BASE,
    BACKOFF_MAX,
    BUDGET_RATIO,
    BUDGET_FLOOR,
    Setting::new(
        "replay_body_max",
        Kind::Size,
        "Bytes of a request body kept so that it can be sent again; 0B keeps none.",
    )
    .or("1MiB"),
    Setting::new(
        "idempotency_key",
        Kind::Choice(&["forward", "generate"]),
        "Whether a POST or PATCH without an idempotency key gets one, and may be repeated by it.",
    )
    .or("forward"),
];

const FAILURES: Setting = Setting::new(
    "consecutive_failures",
    count(1_000_000),
    "Failures in a row that open it; 0 switches this off.",
)
.or("5");
const FAILURE_RATE: Setting = Setting::new(
    "failure_rate",
    Kind::Share { zero: false, off: true },
    "Share of failures in the window that opens it; \"off\" switches this off.",
)
.or("0.5");
const WINDOW: Setting =
    Setting::new("window", SPAN, "The time over which the rates are taken.").or("60s");
const SAMPLES_MIN: Setting = Setting::new(
    "samples_min",
    at_least_one(1_000_000, "a rate needs at least one sample"),
    "Attempts in the window before the failure rate says anything.",
)
.or("10");
const OPEN_FOR: Setting =
    Setting::new("open_for", SPAN, "The first open time; it doubles with each re-opening.")
        .or("30s");
const OPEN_FOR_MAX: Setting =
    Setting::new("open_for_max", SPAN, "No open time is longer, unless the upstream names one.")
        .or("10m");
const SUCCESSES: Setting = Setting::new(
    "successes_to_close",
    at_least_one(1_000, "with 0 it would close without a try"),
    "Successful probes until it closes.",
)
.or("2");
const SLOW_AFTER: Setting =
    Setting::new("slow_after", SPAN, "Slower answers count as slow; not set switches this off.");
const SLOW_RATE: Setting = Setting::new(
    "slow_rate",
    Kind::Share { zero: false, off: false },
    "Share of slow answers that opens it.",
)
.or("0.8");

const BREAKER: &[Setting] = &[
    FAILURES,
    FAILURE_RATE,
    WINDOW,
    SAMPLES_MIN,
    OPEN_FOR,
    OPEN_FOR_MAX,
    SUCCESSES,
    SLOW_AFTER,
    SLOW_RATE,
];

const QUOTA: &[Setting] = &[
    Setting::new(
        "name",
        Kind::Name,
        "The route or the API's bucket that it limits; else it limits each credential as a whole.",
    )
    .required(),
    Setting::new(
        "limits",
        Kind::Text,
        "The route or bucket that it limits, where its name is another one; the name if not set.",
    ),
    Setting::new("requests", limit(1_000_000_000), "Units in any window; most requests cost one.")
        .required(),
    Setting::new("per", SPAN, "The window.").required(),
    Setting::new(
        "pacing",
        Kind::Choice(&["observe", "smooth", "off"]),
        "Up to the last, spread over the window, or as if it was not there.",
    )
    .or("observe"),
];

/// `[[upstreams.<name>.routes]]`.
pub(in crate::config) const ROUTE: &[Setting] = &[
    Setting::new("name", Kind::Name, "How it is called in logs and metrics.").required(),
    Setting::new(
        "match",
        Kind::Match,
        "An optional method and a path: * is one segment, ** at the end any number.",
    )
    .required(),
    Setting::new(
        "in_flight_max",
        limit(100_000),
        "Attempts in flight at most, besides the upstream's own limit.",
    ),
    KEY,
    MAX_WAIT.inherited(),
    ATTEMPT_TIMEOUT.inherited(),
    IDLE_TIMEOUT.inherited(),
    MODE.inherited(),
    Setting::new(
        "retry",
        Kind::Table(ROUTE_RETRY),
        "Retries of this route; the rest is as the upstream has it.",
    ),
    Setting::new(
        "breaker",
        Kind::Table(ROUTE_BREAKER),
        "A breaker of the route's own; the rest is as the upstream has it.",
    ),
];

const ROUTE_RETRY: &[Setting] = &[
    ATTEMPTS_MAX.inherited(),
    THROTTLED_COUNTS.inherited(),
    UNSAFE_503.inherited(),
    BACKOFF.inherited(),
    STEPS,
    BACKOFF_BASE.inherited(),
    BACKOFF_MAX.inherited(),
    BUDGET_RATIO.inherited(),
    BUDGET_FLOOR.inherited(),
];

const ROUTE_BREAKER: &[Setting] = &[
    FAILURES.inherited(),
    FAILURE_RATE.inherited(),
    WINDOW.inherited(),
    SAMPLES_MIN.inherited(),
    OPEN_FOR.inherited(),
    OPEN_FOR_MAX.inherited(),
    SUCCESSES.inherited(),
    SLOW_AFTER,
    SLOW_RATE.inherited(),
];
