//! From sections to [`Settings`]: defaults, inheritance, and whatever can only be judged when
//! several settings are seen together.

use std::net::SocketAddr;
use std::sync::Arc;

use super::address::Url;
use super::problem::{Fault, Span};
use super::read::Section;
use super::scope::{FromValue, Resolver, Scope};
use super::secret::Secret;
use super::settings::{
    AccessLog, AdminSettings, LogFormat, LogLevel, LogSettings, ProxySettings, PushSettings,
    Settings, StateSettings, UpstreamConfig,
};
use super::sources::Sources;
use super::spec;
use super::trace;
use super::upstream;
use crate::policy::settings::{KeySettings, LimitSettings};

/// Workers that `"auto"` starts at most: a sidecar is idle beside the service it helps.
const WORKERS_AUTO_MAX: usize = 4;

/// Everything that is meant. Complete only if nothing was noted.
pub(super) fn resolve(
    root: &Section,
    sources: &mut Sources<'_>,
    resolver: &mut Resolver<'_, '_>,
) -> Settings {
    let proxy = proxy(resolver, root);
    let admin = admin(resolver, root, sources);
    let (metrics_listen, metrics_push) = metrics(resolver, root, sources);
    let state = state(resolver, root);
    let log = log(resolver, root);
    let tracing = trace::resolve(resolver, root, sources);
    let limits = limits(resolver, root);
    let upstreams: Vec<UpstreamConfig> = root
        .named("upstreams")
        .iter()
        .filter_map(|(name, section)| upstream::resolve(resolver, root, name, section, sources))
        .collect();
    // `[upstream.a]` was told apart already.
    if root.named("upstreams").is_empty() && !resolver.notes.has_problem_in("upstream") {
        let fix = "Write at least these two lines:\n\n    [upstreams.github]\n    url = \"https://api.github.com\"";
        resolver.notes.problem(
            &(0..0),
            "upstreams",
            None,
            Fault::new("there is none, so there is nowhere to send requests", fix),
        );
    }
    check_listeners(resolver, root);
    check_addresses(resolver, root);
    let mut watched_files = std::mem::take(&mut sources.watched);
    watched_files.sort();
    watched_files.dedup();
    Settings {
        proxy,
        admin,
        metrics_listen,
        metrics_push,
        state,
        log,
        tracing,
        limits,
        upstreams,
        watched_files,
    }
}

fn proxy(resolver: &mut Resolver<'_, '_>, root: &Section) -> ProxySettings {
    let scope = Scope::top(root, "proxy");
    let listen: Vec<SocketAddr> = resolver.value(&scope, "listen");
    warn_if_open(resolver, &scope, &listen);
    let workers = match resolver.optional::<WorkersSetting>(&scope, "workers") {
        Some(WorkersSetting::Exactly(workers)) => workers,
        Some(WorkersSetting::Auto) | None => {
            std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_AUTO_MAX)
        }
    };
    let connections_max: u64 = resolver.value(&scope, "connections_max");
    ProxySettings {
        listen,
        workers,
        connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX),
        header_timeout: resolver.value(&scope, "header_timeout"),
        body_timeout: resolver.value(&scope, "body_timeout"),
        keep_alive_timeout: resolver.value(&scope, "keep_alive_timeout"),
        drain_timeout: resolver.value(&scope, "drain_timeout"),
        drain_idle: resolver.value(&scope, "drain_idle"),
        idle_exit: resolver.optional(&scope, "idle_exit"),
    }
}

/// `workers` as it was typed.
enum WorkersSetting {
    Auto,
    Exactly(usize),
}

impl FromValue for WorkersSetting {
    fn from_value(value: super::value::Value) -> Option<Self> {
        let number = u64::from_value(value).and_then(|number| usize::try_from(number).ok());
        Some(number.map_or(Self::Auto, Self::Exactly))
    }
}

/// Whoever reaches the proxy may spend the credentials that it adds.
pub(super) fn warn_if_open(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    listen: &[SocketAddr],
) {
    if let Some(open) = listen.iter().find(|address| !address.ip().is_loopback()) {
        let (path, span) = scope.place("listen");
        let fix = "Listen on 127.0.0.1 unless callers on other machines are meant.";
        let fault = Fault::new(
            "everybody who can reach it may send requests with the configured credentials",
            fix,
        );
        resolver.notes.warning(&span, &path, Some(format!("\"{open}\"")), fault);
    }
}

fn admin(
    resolver: &mut Resolver<'_, '_>,
    root: &Section,
    sources: &mut Sources<'_>,
) -> AdminSettings {
    let scope = Scope::top(root, "admin");
    let listen = first_address(resolver, &scope);
    let token_scope = scope.table("token");
    let token = token_scope.is_typed().then(|| sources.secret(resolver, &token_scope)).flatten();
    let token_was_meant = token_scope.is_typed() || resolver.notes.has_problem_in("admin.token");
    if !token_was_meant && !listen.ip().is_loopback() {
        let fix = "Write token = { file = \"/run/secrets/forbear-admin\" } below [admin], or listen on 127.0.0.1. \
                   For scraping from other machines, use [metrics].";
        let fault = Fault::new(
            "without a token everybody who can reach it could open breakers and stop the process",
            fix,
        );
        resolver.contradiction(&scope, "listen", fault);
    }
    AdminSettings { listen, token: token.map(|token| Secret::new(&token.secret)) }
}

fn metrics(
    resolver: &mut Resolver<'_, '_>,
    root: &Section,
    sources: &mut Sources<'_>,
) -> (Option<SocketAddr>, Option<PushSettings>) {
    let scope = Scope::top(root, "metrics");
    let push = scope.table("push");
    let listens = scope.depth("listen").is_some();
    if scope.is_typed() && !listens && !push.is_typed() {
        let fix = "Where metrics and health are served. Write listen = \"0.0.0.0:9464\", or take the table out.";
        let fault = Fault::new("it is missing and has no default", fix);
        resolver.contradiction(&scope, "listen", fault);
    }
    let listen = listens.then(|| first_address(resolver, &scope));
    let section = root.tables.get("metrics").and_then(|metrics| metrics.tables.get("push"));
    (listen, section.and_then(|section| push_settings(resolver, &push, section, sources)))
}

fn push_settings(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    section: &Section,
    sources: &mut Sources<'_>,
) -> Option<PushSettings> {
    let headers = sources.fields(resolver, Some(section));
    let instance = resolver.value(scope, "instance");
    let Url { origin, base_path: path } = resolver.optional(scope, "url")?;
    if path.is_empty() {
        let fix = "Put its path behind it, with a name for the job, as in \"http://pushgateway:9091/metrics/job/nightly\".";
        let fault = Fault::new("it does not name the group that is replaced", fix);
        resolver.contradiction(scope, "url", fault);
    }
    Some(PushSettings { origin, path, instance, headers })
}

/// The address of a listener that has one. After a problem it is some address on loopback.
fn first_address(resolver: &mut Resolver<'_, '_>, scope: &Scope<'_>) -> SocketAddr {
    let addresses: Vec<SocketAddr> = resolver.value(scope, "listen");
    addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn state(resolver: &mut Resolver<'_, '_>, root: &Section) -> StateSettings {
    let scope = Scope::top(root, "state");
    let shared = scope.table("shared");
    if shared.is_typed() {
        let fault = Fault::new(
            "shared state is not available in this version",
            "Take the table out: each sidecar then keeps what it learns in state.path.",
        );
        resolver.notes.problem(&shared.span, "state.shared", None, fault);
    }
    StateSettings {
        path: resolver.value(&scope, "path"),
        ledger_keep: resolver.value(&scope, "ledger_keep"),
        ledger_rows_max: resolver.value(&scope, "ledger_rows_max"),
        ledger_successes_per_second: resolver.value(&scope, "ledger_successes_per_second"),
    }
}

fn log(resolver: &mut Resolver<'_, '_>, root: &Section) -> LogSettings {
    let scope = Scope::top(root, "log");
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let access = [("failures", AccessLog::Failures), ("off", AccessLog::Off)];
    LogSettings {
        format: resolver.choice(&scope, "format", LogFormat::Json, &[("text", LogFormat::Text)]),
        level: resolver.choice(&scope, "level", LogLevel::Info, &levels),
        access: resolver.choice(&scope, "access", AccessLog::All, &access),
    }
}

fn limits(resolver: &mut Resolver<'_, '_>, root: &Section) -> LimitSettings {
    let scope = Scope::top(root, "limits");
    let known = spec::find(spec::ROOT, "keys").map_or(&[][..], spec::Setting::entries);
    let keys = root.named("keys").iter().map(|(pattern, section)| {
        let scope = Scope::new(section, &[], known);
        let ordered = resolver.optional(&scope, "ordered");
        KeySettings {
            pattern: Arc::from(pattern.as_str()),
            in_flight_max: key_limit(resolver, &scope, ordered),
            ordered: ordered.unwrap_or_default(),
        }
    });
    let keys = keys.collect();
    LimitSettings {
        in_flight_max: resolver.value(&scope, "in_flight_max"),
        queue_max: resolver.value(&scope, "queue_max"),
        replay_memory_max: resolver.value(&scope, "replay_memory_max"),
        keys,
    }
}

/// The limit of a key; what is sent in order is sent one by one. `None` if what was typed there is
/// wrong, and so no reason to say that something else is.
fn key_limit(resolver: &mut Resolver<'_, '_>, scope: &Scope<'_>, ordered: Option<bool>) -> u32 {
    const NAME: &str = "in_flight_max";
    let limit: Option<u32> = resolver.optional(scope, NAME);
    if ordered == Some(true) && limit.is_some_and(|limit| limit > 1) {
        let why = "exchanges of an ordered key are sent one by one";
        resolver.contradiction(scope, NAME, Fault::new(why, "Write 1, or take ordered out."));
    }
    if ordered == Some(false) && scope.depth(NAME).is_none() {
        let fix = "Exchanges in flight at most that joined this key. Write in_flight_max = 1.";
        resolver.contradiction(scope, NAME, Fault::new("it is missing and has no default", fix));
    }
    limit.unwrap_or(1)
}

/// Something that may be there once only: what it is, where it was typed, and its position.
struct Claim<T> {
    what: T,
    path: String,
    span: Span,
    /// Whether it was typed, and not only a default.
    typed: bool,
}

impl<T> Claim<T> {
    fn new(scope: &Scope<'_>, name: &str, what: T) -> Self {
        let (path, span) = scope.place(name);
        Self { what, path, span, typed: scope.depth(name).is_some() }
    }
}

/// Notes every claim that collides with an earlier one.
fn check_claims<T>(
    resolver: &mut Resolver<'_, '_>,
    mut claims: Vec<Claim<T>>,
    collide: impl Fn(&T, &T) -> bool,
    show: impl Fn(&T) -> String,
    fault: impl Fn(&str) -> Fault,
) {
    // Whoever typed something can change it, so defaults have the first claim.
    claims.sort_by_key(|claim| (claim.typed, claim.span.start));
    for (index, claim) in claims.iter().enumerate() {
        if let Some(earlier) =
            claims.iter().take(index).find(|earlier| collide(&earlier.what, &claim.what))
        {
            resolver.notes.problem(
                &claim.span,
                &claim.path,
                Some(show(&claim.what)),
                fault(&earlier.path),
            );
        }
    }
}

fn check_listeners(resolver: &mut Resolver<'_, '_>, root: &Section) {
    let mut scopes = vec![Scope::top(root, "proxy"), Scope::top(root, "admin")];
    scopes.extend(Some(Scope::top(root, "metrics")).filter(Scope::is_typed));
    scopes.extend(
        root.named("upstreams").iter().map(|(_, section)| Scope::new(section, &[], spec::UPSTREAM)),
    );
    let claims = scopes.iter().flat_map(|scope| {
        let addresses: Vec<SocketAddr> = scope.peek_as("listen").unwrap_or_default();
        addresses.into_iter().map(|address| Claim::new(scope, "listen", address))
    });
    let claims = claims.collect();
    let collide = |a: &SocketAddr, b: &SocketAddr| {
        let anywhere =
            a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
        a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || anywhere)
    };
    check_claims(
        resolver,
        claims,
        collide,
        |address| format!("\"{address}\""),
        |earlier| Fault::new(format!("{earlier} listens there already"), "Write another port."),
    );
}

fn check_addresses(resolver: &mut Resolver<'_, '_>, root: &Section) {
    let (mut prefixes, mut hosts) = (Vec::new(), Vec::new());
    for (name, section) in root.named("upstreams") {
        let scope = Scope::new(section, &[], spec::UPSTREAM);
        let prefix = scope.peek_as("prefix").unwrap_or_else(|| format!("/{name}"));
        prefixes.push(Claim::new(&scope, "prefix", prefix));
        let listed: Vec<String> = scope.peek_as("hosts").unwrap_or_default();
        hosts.extend(listed.into_iter().map(|host| Claim::new(&scope, "hosts", host)));
    }
    let same = |a: &String, b: &String| a == b;
    check_claims(
        resolver,
        prefixes,
        same,
        |prefix| format!("{prefix:?}"),
        |earlier| {
            Fault::new(
                format!("{earlier} is the same, and a path can lead to one upstream only"),
                "Write another prefix.",
            )
        },
    );
    check_claims(
        resolver,
        hosts,
        same,
        |host| format!("{host:?}"),
        |earlier| Fault::new(format!("it is listed in {earlier} already"), "Keep it in one place."),
    );
}
