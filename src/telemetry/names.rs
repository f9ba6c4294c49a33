//! Every name that leaves the program: metrics, labels, log fields and reason codes, each declared
//! once. Dashboards, alert rules and people's queries depend on these strings, so a change here is
//! a change of the product's contract.

use std::borrow::Cow;

use crate::policy::hints::WAIT_MAX;
use crate::policy::outcome::{Class, Hint, HintSource};
use crate::transport::error::SendErrorKind;

use super::story::Ending;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Classic buckets, with these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric family of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct MetricDef {
    /// With the prefix `forbear_`; ends with its unit, or `_total` for a counter.
    pub name: &'static str,
    /// The HELP line.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// In the order in which their values are given.
    pub labels: &'static [&'static str],
}

/// Client-visible latency. Waits are the point of this product, so 10 s would top out too early.
const REQUEST_BUCKETS: &[f64] =
    &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
/// Latency of one attempt.
const ATTEMPT_BUCKETS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// What forbear itself costs.
const OVERHEAD_BUCKETS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05];

const fn def(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricDef {
    MetricDef { name, help, kind, labels }
}

/// Declares the families and, from the same list, the catalogue: neither can miss an entry.
macro_rules! catalogue {
    ($($id:ident = $name:literal, $kind:expr, $labels:expr, $help:literal;)*) => {
        $(#[doc = $help] pub const $id: MetricDef = def($name, $kind, &$labels, $help);)*
        /// Every metric that forbear exposes, besides the `process_*` ones of the prometheus crate.
        pub const CATALOGUE: &[MetricDef] = &[$($id),*];
    };
}

use Kind::{Counter, Gauge, Histogram};

catalogue! {
    REQUESTS = "forbear_requests_total", Counter, ["upstream", "route", "method", "code", "outcome"],
        "Exchanges that ended, by the answer that the client got.";
    REQUEST_DURATION = "forbear_request_duration_seconds", Histogram(REQUEST_BUCKETS), ["upstream"],
        "From a request's arrival to the last byte of its answer, waits and retries included.";
    REQUESTS_IN_FLIGHT = "forbear_requests_in_flight", Gauge, ["upstream"],
        "Exchanges that have begun and not ended: attempts in flight and exchanges that wait.";
    REQUESTS_RECOVERED = "forbear_requests_recovered_total", Counter, ["upstream", "by"],
        "Exchanges answered well that would have failed without a retry or a wait.";
    BODY_BYTES = "forbear_body_bytes_total", Counter, ["upstream", "direction"],
        "Payload bytes taken from clients (request) and given to them (response).";
    ATTEMPTS = "forbear_upstream_attempts_total", Counter, ["upstream", "code"],
        "Requests sent to the upstream; code is none where no status came.";
    ATTEMPT_ERRORS = "forbear_upstream_attempt_errors_total", Counter, ["upstream", "error"],
        "Attempts that ended without a response head, by what failed.";
    ATTEMPT_DURATION = "forbear_upstream_attempt_duration_seconds", Histogram(ATTEMPT_BUCKETS),
        ["upstream"], "From the start of an attempt to its response head, or to its failure.";
    OVERHEAD = "forbear_overhead_seconds", Histogram(OVERHEAD_BUCKETS), [],
        "Time of exchanges less their attempts and their deliberate waits.";
    CONNECTIONS = "forbear_upstream_connections", Gauge, ["upstream"],
        "Open connections to the upstream.";
    RETRIES = "forbear_retries_total", Counter, ["upstream", "reason"],
        "Attempts that were repeated, by how they had ended.";
    RETRIES_EXHAUSTED = "forbear_retries_exhausted_total", Counter, ["upstream", "by"],
        "Failures given to the client because there could be no further attempt.";
    RETRY_BUDGET = "forbear_retry_budget_remaining_ratio", Gauge, ["upstream"],
        "Share of the retry budget that is left.";
    WAIT_DURATION = "forbear_wait_duration_seconds", Histogram(REQUEST_BUCKETS),
        ["upstream", "reason"], "Deliberate waits of exchanges, one observation per kind of wait.";
    RETRY_AFTER = "forbear_retry_after_total", Counter, ["upstream", "form"],
        "Answers that said when to come back, by form; fields about limits that say nothing: invalid.";
    RATELIMIT_LIMIT = "forbear_ratelimit_limit", Gauge, ["upstream"],
        "Requests per window that the upstream last advertised, of its tightest quota.";
    RATELIMIT_REMAINING = "forbear_ratelimit_remaining", Gauge, ["upstream"],
        "Requests left in the upstream's tightest quota.";
    RATELIMIT_RESET = "forbear_ratelimit_reset_timestamp_seconds", Gauge, ["upstream"],
        "When the upstream's tightest quota is renewed, as Unix time.";
    CREDENTIALS_LOCKED = "forbear_credentials_locked", Gauge, ["upstream"],
        "Credentials that are not sent, because the upstream refused them again and again.";
    BREAKER_STATE = "forbear_breaker_state", Gauge, ["upstream", "breaker", "state"],
        "1 for the state that the breaker is in, 0 for the others.";
    BREAKER_TRANSITIONS = "forbear_breaker_transitions_total", Counter,
        ["upstream", "breaker", "from", "to"], "Changes of a breaker's state.";
    BREAKER_REJECTIONS = "forbear_breaker_rejections_total", Counter, ["upstream", "breaker"],
        "Exchanges refused because the breaker was open.";
    BREAKER_FAILURE_RATIO = "forbear_breaker_failure_ratio", Gauge, ["upstream", "breaker"],
        "Share of failures in the breaker's window.";
    BREAKER_OPEN_UNTIL = "forbear_breaker_open_until_timestamp_seconds", Gauge,
        ["upstream", "breaker"], "When the breaker next lets an attempt through; 0 when closed.";
    CONCURRENCY_LIMIT = "forbear_concurrency_limit", Gauge, ["key"],
        "Permits of the concurrency key; of one pool where the key is a pattern.";
    CONCURRENCY_IN_USE = "forbear_concurrency_in_use", Gauge, ["key"],
        "Permits taken; in the fullest pool where the key is a pattern.";
    CONCURRENCY_WAITING = "forbear_concurrency_waiting", Gauge, ["key"],
        "Exchanges that wait for a permit of the key, all pools together.";
    CONCURRENCY_REJECTIONS = "forbear_concurrency_rejections_total", Counter, ["key", "reason"],
        "Exchanges refused because the key had no permit.";
    CONFIG_RELOAD_OK = "forbear_config_last_reload_successful", Gauge, [],
        "1 if the last load of the configuration was applied, 0 if it was refused.";
    CONFIG_RELOAD_TIME = "forbear_config_last_reload_success_timestamp_seconds", Gauge, [],
        "When a configuration was last applied, as Unix time.";
    CONFIG_RELOADS = "forbear_config_reloads_total", Counter, ["result"],
        "Loads of the configuration, by whether they were applied.";
    CONFIG_INFO = "forbear_config_info", Gauge, ["hash"],
        "Always 1; the hash of the configuration in force.";
    BUILD_INFO = "forbear_build_info", Gauge, ["version", "revision", "tls"],
        "Always 1; which build this is.";
    LISTENER_CONNECTIONS = "forbear_listener_connections", Gauge, ["listener"],
        "Open connections of clients.";
    DRAINING = "forbear_draining", Gauge, [], "1 once the process has been asked to end.";
    REPLAY_UNAVAILABLE = "forbear_replay_unavailable_total", Counter, ["upstream"],
        "Request bodies that could not be kept for a repeat.";
    LINKS_REWRITTEN = "forbear_links_rewritten_total", Counter, ["upstream", "where"],
        "Addresses in answers that were changed to lead through forbear, by where they stood.";
    LINKS_UNTOUCHED = "forbear_links_untouched_total", Counter, ["upstream", "reason"],
        "Addresses, and bodies that may have some, that were left as they came, by why.";
    LOG_LINES_DROPPED = "forbear_log_lines_dropped_total", Counter, [],
        "Log lines dropped because the log could not be written fast enough.";
    PANICS = "forbear_panics_total", Counter, [], "Panics that were caught; each one is a bug.";
    ACCEPT_ERRORS = "forbear_accept_errors_total", Counter, [],
        "Connections that could not be accepted.";
    STORE_UP = "forbear_store_up", Gauge, ["backend"],
        "1 while what is told can be written where it was meant to be.";
    STORE_FALLBACK = "forbear_store_fallback_active", Gauge, ["backend"],
        "1 while state is kept in memory because the file cannot be used.";
    STORE_OPERATIONS = "forbear_store_operations_total", Counter, ["backend", "op", "result"],
        "Batches written, questions answered, broken files moved aside.";
    STORE_DURATION = "forbear_store_operation_duration_seconds", Histogram(ATTEMPT_BUCKETS),
        ["backend"], "Time to write one batch.";
    STORE_SIZE = "forbear_store_size_bytes", Gauge, ["backend"],
        "The state file and its write-ahead log.";
    LEDGER_RECORDS = "forbear_ledger_records_total", Counter, ["record", "result"],
        "Exchanges and events by whether the ledger keeps them, only counts them, or lost them.";
    TRACES = "forbear_traces_total", Counter, ["result"],
        "Exchanges with a recorded trace, by whether the collector took their spans.";
    LABEL_OVERFLOW = "forbear_metrics_label_overflow_total", Counter, ["label"],
        "Increments that went to a folded series because the label had too many values.";
}

/// Label `method`: these, and [`OTHER`].
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Whatever a closed set does not name.
pub const OTHER: &str = "other";
/// No status came, or no route was found.
pub const NONE: &str = "none";
/// Label `upstream` of exchanges that no upstream was found for; no configured name has this form.
pub const UNROUTED: &str = "_none";
/// Label `direction`, up and down.
pub const DIRECTIONS: [&str; 2] = ["request", "response"];
/// Label `by` of recovered requests.
pub const RECOVERED_BY: [&str; 2] = ["retry", "wait"];
/// Label `by` of exhausted retries.
pub const EXHAUSTED_BY: [&str; 4] = ["attempts", "deadline", "budget", "not_replayable"];
/// Label `reason` of retries.
pub const RETRY_REASONS: [&str; 8] = [
    "status_429",
    "status_503",
    "status_5xx",
    "status_other",
    "connect",
    "timeout",
    "reset",
    "stale",
];
/// Label `where` of rewritten links.
pub const LINK_PLACES: [&str; 5] = ["link", "location", "content_location", "refresh", "body"];
/// Label `reason` of links that were left as they came: what they name, or why a body was not read.
pub const LINK_REASONS: [&str; 8] = [
    "foreign",
    "unreachable",
    "no_transform",
    "coding",
    "partial",
    "too_large",
    "too_slow",
    "not_json",
];
/// Label `form` of hints; milliseconds are a delta, too. A wait so long that it was cut is no form
/// of its own, but a sign that it was misread, and so is a field that cannot be read at all.
pub const HINT_FORMS: [&str; 7] =
    ["delta", "date", "ratelimit_header", "body", "profile", HINT_CAPPED, HINT_INVALID];
const HINT_CAPPED: &str = "capped";
/// Label `form` of fields about limits that could not be read.
pub const HINT_INVALID: &str = "invalid";
/// Label `reason` of refusals by a concurrency key.
pub const KEY_REJECTIONS: [&str; 2] = ["queue_full", "timeout"];
/// Label `result` of reloads.
pub const RELOAD_RESULTS: [&str; 2] = ["applied", "refused"];
/// Label `backend` of the store.
pub const STORE_BACKEND: &str = "sqlite";
/// Label `op` of the store.
pub const STORE_OPS: [&str; 3] = ["write", "read", "move_aside"];
/// Label `result` of the store's operations.
pub const STORE_RESULTS: [&str; 2] = ["ok", "failed"];
/// Label `record` of the ledger.
pub const LEDGER_RECORD: [&str; 2] = ["exchange", "event"];
/// Label `result` of the ledger's records.
pub const LEDGER_RESULTS: [&str; 3] = ["kept", "sampled", "dropped"];
/// Label `result` of traces.
pub const TRACE_RESULTS: [&str; 2] = ["exported", "dropped"];
/// Label `state` of breakers, in the order of [`crate::telemetry::view::BreakerState`].
pub const BREAKER_STATES: [&str; 5] = ["closed", "open", "half_open", "forced_open", "disabled"];
/// Label `error` of attempts.
pub const ATTEMPT_ERRORS_ALL: [&str; 11] = [
    "dns",
    "connect",
    "timeout_connect",
    "tls",
    "stale",
    "reset",
    "refused",
    "timeout_first_byte",
    "bad_response",
    "body",
    OTHER,
];

/// A refusal code of the contract.
pub const CODE_UPSTREAM_UNREACHABLE: &str = "upstream_unreachable";
/// The refusal's code that counts as the breaker's.
pub const CODE_BREAKER_OPEN: &str = "breaker_open";
/// The refusal's code for a last attempt without a response.
pub const CODE_RETRIES_EXHAUSTED: &str = "retries_exhausted";
/// The refusal's code for running out of time.
pub const CODE_DEADLINE: &str = "deadline";

/// The token of a transport failure, for [`super::story::AttemptStory::error`].
pub const fn attempt_error(kind: SendErrorKind) -> &'static str {
    match kind {
        SendErrorKind::Dns | SendErrorKind::DnsTimeout => "dns",
        SendErrorKind::ConnectRefused | SendErrorKind::Connect => "connect",
        SendErrorKind::OutOfResources => OTHER,
        SendErrorKind::ConnectTimeout => "timeout_connect",
        SendErrorKind::TlsCertificate | SendErrorKind::TlsProtocol => "tls",
        SendErrorKind::Stale => "stale",
        SendErrorKind::Reset => "reset",
        SendErrorKind::Refused => "refused",
        SendErrorKind::HeadTimeout => "timeout_first_byte",
        SendErrorKind::BadResponse => "bad_response",
        SendErrorKind::RequestBody => "body",
    }
}

/// The word for a class in logs and bodies.
pub const fn class(class: Class) -> &'static str {
    match class {
        Class::Ok => "ok",
        Class::Permanent => "permanent",
        Class::Credential => "credential",
        Class::Throttled => "throttled",
        Class::Exhausted => "exhausted",
        Class::Transient => "transient",
        Class::Misdirected => "misdirected",
        Class::Unhealthy => "unhealthy",
        Class::Overloaded => "overloaded",
        Class::TimedOut => "timed_out",
        Class::Stale => "stale",
        Class::Client => "client",
    }
}

/// Label `outcome` of requests; the same word in the access log.
pub fn outcome(ending: Ending) -> Cow<'static, str> {
    Cow::Borrowed(match ending {
        Ending::Ok => "ok",
        Ending::ClientError => "client_error",
        Ending::Throttled => "throttled",
        Ending::ServerError => "server_error",
        Ending::BodyError => "body_error",
        Ending::ClientDisconnect => "client_disconnect",
        Ending::Rejected(code) => return Cow::Owned(format!("rejected_{code}")),
    })
}

/// The form in which a hint came, one of [`HINT_FORMS`].
pub fn hint_form(hint: &Hint) -> &'static str {
    match hint.source {
        _ if hint.wait >= WAIT_MAX => HINT_CAPPED,
        HintSource::RetryAfterMs | HintSource::RetryAfterDelta | HintSource::VendorRetryAfter => {
            "delta"
        }
        HintSource::RetryAfterDate => "date",
        HintSource::RateLimitReset | HintSource::RateLimitResetAt => "ratelimit_header",
        HintSource::Body => "body",
        HintSource::Profile => "profile",
    }
}

/// Label `breaker` of the upstream's own breaker, and its scope in views and refusals.
pub const BREAKER_UPSTREAM: &str = "upstream";
const BREAKER_ROUTE_PREFIX: &str = "route ";

/// Label `breaker` of a route's own breaker.
pub fn breaker_of_route(route: &str) -> String {
    format!("{BREAKER_ROUTE_PREFIX}{route}")
}

/// The route that a breaker belongs to, if it is a route's own.
pub fn route_of_breaker(breaker: &str) -> Option<&str> {
    breaker.strip_prefix(BREAKER_ROUTE_PREFIX)
}

/// Names of labels that code looks at.
pub mod label {
    /// A configured upstream.
    pub const UPSTREAM: &str = "upstream";
    /// A configured route of it.
    pub const ROUTE: &str = "route";
    /// A breaker of it.
    pub const BREAKER: &str = "breaker";
    /// A configured concurrency key.
    pub const KEY: &str = "key";
    /// A status.
    pub const CODE: &str = "code";
}

/// Names of fields in log lines.
pub mod field {
    /// RFC 3339 in UTC.
    pub const TIME: &str = "time";
    /// `ERROR` to `TRACE`.
    pub const LEVEL: &str = "level";
    /// The module that speaks.
    pub const TARGET: &str = "target";
    /// The sentence.
    pub const MESSAGE: &str = "message";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_metric_has_the_prefix_a_help_and_a_name_of_its_own() {
        let mut seen = HashSet::new();
        for def in CATALOGUE {
            assert!(def.name.starts_with("forbear_"), "{}", def.name);
            assert!(def.help.ends_with('.'), "{}: {}", def.name, def.help);
            assert_eq!(def.name.ends_with("_total"), def.kind == Counter, "{}", def.name);
            assert!(seen.insert(def.name), "{} is declared twice", def.name);
        }
    }

    #[test]
    fn every_label_value_of_a_failure_is_in_the_closed_set() {
        for kind in [
            SendErrorKind::Dns,
            SendErrorKind::DnsTimeout,
            SendErrorKind::ConnectRefused,
            SendErrorKind::ConnectTimeout,
            SendErrorKind::OutOfResources,
            SendErrorKind::Connect,
            SendErrorKind::TlsCertificate,
            SendErrorKind::TlsProtocol,
            SendErrorKind::Stale,
            SendErrorKind::Reset,
            SendErrorKind::Refused,
            SendErrorKind::HeadTimeout,
            SendErrorKind::BadResponse,
            SendErrorKind::RequestBody,
        ] {
            assert!(ATTEMPT_ERRORS_ALL.contains(&attempt_error(kind)), "{kind:?}");
        }
    }
}
