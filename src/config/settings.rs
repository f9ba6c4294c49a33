//! What is meant: settings resolved, validated and complete. The rest of the program reads these
//! and never the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::carrier::Carrier;
use super::secret::Secret;
use crate::policy::profile::Profile;
use crate::policy::settings::{LimitSettings, UpstreamSettings};

/// One configuration, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The proxy listeners and what is common to all upstreams.
    pub proxy: ProxySettings,
    /// Admin listener.
    pub admin: AdminSettings,
    /// The optional read-only metrics listener.
    pub metrics_listen: Option<SocketAddr>,
    /// Where what was counted is put at the end; `None` if nowhere.
    pub metrics_push: Option<PushSettings>,
    /// Where state lives.
    pub state: StateSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Where spans go; `None` if nowhere.
    pub tracing: Option<TracingSettings>,
    /// Limits of the whole process, and the concurrency keys.
    pub limits: LimitSettings,
    /// In order of their names.
    pub upstreams: Vec<UpstreamConfig>,
    /// Every file whose change should lead to a reload: secrets, certificates.
    pub watched_files: Vec<PathBuf>,
}

/// `[proxy]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxySettings {
    /// At least one; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// At least 1.
    pub workers: usize,
    /// Downstream connections at most, all listeners together.
    pub connections_max: usize,
    /// A request head must be complete by then.
    pub header_timeout: Duration,
    /// Between two pieces of a request body.
    pub body_timeout: Duration,
    /// An idle connection.
    pub keep_alive_timeout: Duration,
    /// From SIGTERM to the end.
    pub drain_timeout: Duration,
    /// SIGTERM ends the process once nothing has been in flight for this long.
    pub drain_idle: Duration,
    /// After this time without an exchange the process ends by itself; `None` for never.
    pub idle_exit: Option<Duration>,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    /// Loopback unless a token is set.
    pub listen: SocketAddr,
    /// Needed for mutating calls when set.
    pub token: Option<Secret>,
}

/// `[metrics.push]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSettings {
    /// Where something like a Pushgateway listens.
    pub origin: Origin,
    /// Names the group; begins with `/`, no final slash.
    pub path: String,
    /// Whether the group is one of this machine alone.
    pub instance: bool,
    /// Put on the request; names in lower case, values legal in a field.
    pub headers: Vec<(String, Secret)>,
}

/// `[state]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSettings {
    /// A file, or `:memory:`.
    pub path: String,
    /// How long rows of the ledger are kept.
    pub ledger_keep: Duration,
    /// Rows of the ledger at most.
    pub ledger_rows_max: u64,
    /// Exchanges that succeeded at once are kept up to this many a second.
    pub ledger_successes_per_second: u32,
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// JSON for machines, text for people.
    pub format: LogFormat,
    /// Lines below this level are not written.
    pub level: LogLevel,
    /// Which exchanges get a line.
    pub access: AccessLog,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text.
    Text,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And changes of state.
    Info,
    /// And details.
    Debug,
    /// And everything.
    Trace,
}

/// `log.access`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// One line per exchange.
    All,
    /// Only exchanges that failed, were refused or retried.
    Failures,
    /// None.
    Off,
}

/// `[tracing]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingSettings {
    /// Where an OTLP/HTTP collector listens.
    pub origin: Origin,
    /// What stands before `/v1/traces`, without a final slash; may be empty.
    pub base_path: String,
    /// Put on every export; names in lower case, values legal in a field.
    pub headers: Vec<(String, Secret)>,
    /// `service.name` of the spans' resource.
    pub service_name: String,
    /// Share of the traces begun here that are recorded, from 0 to 1.
    pub sample: f64,
}

/// `[upstreams.<name>]`.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// The name in paths, labels and logs.
    pub name: Arc<str>,
    /// Where its requests go.
    pub origin: Origin,
    /// The path of `url` without a final slash; put before every forwarded path. May be empty.
    pub base_path: String,
    /// Begins with `/`, no final slash; `/` itself is allowed. Matched by segment and stripped.
    pub prefix: String,
    /// Also by `Host`: lower case, without a port.
    pub hosts: Vec<String>,
    /// A listener of its own, where paths have no prefix.
    pub listen: Option<SocketAddr>,
    /// Name of the profile that was named or that the host has; `None` for an unknown API.
    pub profile: Option<Arc<str>>,
    /// What the reader of responses needs of it, with the units that are configured.
    pub dialect: Arc<Profile>,
    /// Which requests spend which of the API's buckets; from the profile.
    pub buckets: Vec<(RouteMatch, Arc<str>)>,
    /// What requests cost that cost more than one unit; from the profile.
    pub costs: Vec<(RouteMatch, u32)>,
    /// Whether addresses of configured upstreams in its answers are made to lead through forbear.
    pub rewrite_links: bool,
    /// The field by which this API notices a repeat, besides `Idempotency-Key`; from the profile.
    pub idempotency_key: Option<HeaderName>,
    /// Whether a request that needs such a field and has none gets one.
    pub makes_idempotency_key: bool,
    /// Injected on the way up.
    pub credential: Option<CredentialConfig>,
    /// Where a request says whose it is, besides the usual fields; `None` where one is injected.
    pub credential_from: Option<Carrier>,
    /// Trust and client certificate.
    pub tls: TlsConfig,
    /// Concurrency key of every request that names none.
    pub key: Option<Arc<str>>,
    /// TCP and TLS together.
    pub connect_timeout: Duration,
    /// Bytes of a request body kept for a repeat; 0 switches replay off.
    pub replay_body_max: u64,
    /// Same order as `policy.routes`; index 0 is the default route and has no matcher.
    pub routes: Vec<RouteConfig>,
    /// What the policy core needs.
    pub policy: Arc<UpstreamSettings>,
}

/// The data-path half of one route; its policy half has the same index in `policy.routes`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Unique within the upstream; `default` at index 0.
    pub name: Arc<str>,
    /// `None` only at index 0.
    pub matcher: Option<RouteMatch>,
    /// Concurrency key of requests on this route that name none.
    pub key: Option<Arc<str>>,
    /// To the response head.
    pub attempt_timeout: Duration,
    /// Between two pieces of a response body.
    pub idle_timeout: Duration,
}

/// `match = "GET /search/*"`: an optional method and a path pattern, matched by segment against
/// the path without prefix. `*` is one whole segment, `**` at the end is any number of them, and
/// `*` at the end is one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// Upper case; `None` matches every method.
    pub method: Option<String>,
    /// Begins with `/`.
    pub path: String,
}

/// Scheme, host and port of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub scheme: Scheme,
    /// A DNS name in lower case, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port, also where it is the scheme's own.
    pub port: u16,
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

/// A header that is put on every request to an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct CredentialConfig {
    /// Lower case.
    pub header: String,
    /// Prefix and secret together, checked to be a legal field value.
    pub value: Secret,
    /// What stands before the secret in it.
    pub prefix: String,
    /// The file that has the secret; `None` if the environment has it, which never changes.
    pub file: Option<PathBuf>,
    /// A name that may be shown: `file /run/secrets/github` or `env GITHUB_TOKEN`.
    pub source: String,
}

/// Trust and client certificate, as read from the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Roots besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Certificate chain for mutual TLS, PEM.
    pub client_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub client_key: Option<PathBuf>,
}
