//! `[upstreams.<name>]` with what it inherits from `[defaults]`, and its routes with what they
//! inherit from it.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::address::{Url, route_match};
use super::carrier::Carrier;
use super::kind::{NameRule, nearest};
use super::problem::Fault;
use super::quota::{pacing, quotas};
use super::read::{Section, join};
use super::repeat::{breaker, retry};
use super::resolve::warn_if_open;
use super::scope::{EffectiveValue, Resolver, Scope};
use super::secret::Secret;
use super::settings::{CredentialConfig, RouteConfig, RouteMatch, TlsConfig, UpstreamConfig};
use super::sources::{FoundSecret, Sources};
use super::spec;
use super::value::{Value, print_match};
use crate::policy::profile::{GENERIC, Profile as Dialect, Unit};
use crate::policy::settings::{Mode, RouteSettings, UpstreamSettings};
use crate::profiles::{self, Profile};

/// One upstream; `None` if its address is wrong or missing, which was noted.
pub(super) fn resolve(
    resolver: &mut Resolver<'_, '_>,
    root: &Section,
    name: &str,
    section: &Section,
    sources: &mut Sources<'_>,
) -> Option<UpstreamConfig> {
    let defaults: Vec<&Section> = root.tables.get("defaults").into_iter().collect();
    let scope = Scope::new(section, &defaults, spec::UPSTREAM);
    let url: Option<Url> = resolver.optional(&scope, "url");
    let key = key(resolver, root, &scope);
    let host = url.as_ref().map(|url| url.origin.host.as_str());
    let profile = profile(resolver, &scope, sources, host);
    let dialect = dialect(resolver, &scope, profile.as_ref());
    let prefix = prefix(resolver, &scope, name);
    let hosts = resolver.optional(&scope, "hosts").unwrap_or_default();
    let listen: Vec<_> = resolver.optional(&scope, "listen").unwrap_or_default();
    warn_if_open(resolver, &scope, &listen);
    let credential = credential(resolver, &scope, sources);
    let credential_from = credential_from(resolver, &scope);
    let tls = tls(resolver, &scope, sources);
    let known = profile.as_ref();
    let default_route = route(resolver, root, &scope, known, "default", None);
    let breaker = breaker(resolver, &scope.table("breaker"));
    let own_routes = section.list("routes").iter().map(|own| {
        let layers: Vec<&Section> =
            std::iter::once(section).chain(defaults.iter().copied()).collect();
        let inheriting = Scope::new(own, &layers, spec::UPSTREAM);
        configured_route(resolver, root, own, &inheriting, known)
    });
    let (routes, policies): (Vec<RouteConfig>, Vec<RouteSettings>) =
        std::iter::once(default_route).chain(own_routes.collect::<Vec<_>>()).unzip();
    let buckets = known.map_or(&[][..], |profile| &profile.buckets);
    let parts = policies.iter().map(|route| &*route.name);
    let parts = parts.chain(buckets.iter().map(|bucket| bucket.name.as_str()));
    let quotas = quotas(resolver, section, &parts.collect::<Vec<_>>());
    check_routes(resolver, section);
    let policy = UpstreamSettings {
        in_flight_max: resolver.value(&scope, "in_flight_max"),
        queue_max: resolver.value(&scope, "queue_max"),
        breaker,
        routes: policies,
        buckets: buckets.iter().map(|bucket| bucket.name.as_str().into()).collect(),
        quotas,
        pacing: pacing(&resolver.value::<String>(&scope, "pacing")),
    };
    let (buckets, costs) = known.map(spending).unwrap_or_default();
    let connect_timeout = resolver.value(&scope, "connect_timeout");
    let rewrite_links = resolver.value(&scope, "rewrite_links");
    let replay_body_max = resolver.value(&scope.table("retry"), "replay_body_max");
    let makes_idempotency_key = makes_key(resolver, &scope.table("retry"), known);
    let Url { origin, base_path } = url?;
    Some(UpstreamConfig {
        name: name.into(),
        origin,
        base_path,
        prefix,
        hosts,
        listen: listen.first().copied(),
        buckets,
        costs,
        rewrite_links,
        idempotency_key: profile.as_ref().and_then(|profile| profile.idempotency_key.clone()),
        makes_idempotency_key,
        profile: profile.map(|profile| profile.name),
        dialect,
        credential,
        credential_from,
        tls,
        key,
        connect_timeout,
        replay_body_max,
        routes,
        policy: Arc::new(policy),
    })
}

fn prefix(resolver: &mut Resolver<'_, '_>, scope: &Scope<'_>, name: &str) -> String {
    resolver.optional(scope, "prefix").unwrap_or_else(|| {
        let prefix = format!("/{name}");
        let path = format!("{}.prefix", scope.path);
        resolver.effective.push(EffectiveValue {
            path,
            value: format!("{prefix:?}"),
            origin: "default".into(),
        });
        prefix
    })
}

/// What is known of the API: named, or found by its host. A name that ends in `.toml` or has a
/// slash is a file, sought from the folder of the configuration.
fn profile(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    sources: &mut Sources<'_>,
    host: Option<&str>,
) -> Option<Profile> {
    let Some(name) = resolver.optional::<String>(scope, "profile") else {
        let known = profiles::for_host(host?)?;
        let path = format!("{}.profile", scope.path);
        let (value, origin) = (format!("{:?}", known.name), "host of url".into());
        resolver.effective.push(EffectiveValue { path, value, origin });
        return Some(known.clone());
    };
    let read = if profiles::is_file(&name) {
        let (_, bytes) = sources.read(resolver, scope, "profile", &name)?;
        profiles::parse(&String::from_utf8_lossy(&bytes), &name)
    } else {
        profiles::find(&name).cloned().ok_or_else(|| profiles::unknown(&name))
    };
    match read {
        Ok(profile) => Some(profile),
        Err(problem) => {
            let fix = "Take the name of a known API, correct the file, or leave it out.";
            // The sentence goes on with the fix.
            let problem = problem.trim_end().trim_end_matches('.');
            resolver.contradiction(scope, "profile", Fault::new(problem, fix));
            None
        }
    }
}

fn dialect(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    profile: Option<&Profile>,
) -> Arc<Dialect> {
    let mut unit = |name| {
        resolver.optional::<String>(scope, name).map(|word| match word.as_str() {
            "ms" => Unit::Millis,
            _ => Unit::Seconds,
        })
    };
    let (retry_after, reset) = (unit("retry_after_unit"), unit("reset_unit"));
    match (profile, retry_after.or(reset)) {
        (Some(profile), None) => Arc::clone(&profile.dialect),
        (Some(profile), Some(_)) => Arc::new(profile.dialect.with_units(retry_after, reset)),
        (None, _) => Arc::new(GENERIC.with_units(retry_after, reset)),
    }
}

/// A key that no declaration matches would never limit anything.
fn key(resolver: &mut Resolver<'_, '_>, root: &Section, scope: &Scope<'_>) -> Option<Arc<str>> {
    let key: String = resolver.optional(scope, "key")?;
    let declared: Vec<&str> = root.named("keys").iter().map(|(name, _)| name.as_str()).collect();
    let matches = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(stem) => key.len() > stem.len() && key.starts_with(stem) && !key.ends_with('*'),
        None => key == *pattern,
    };
    if !declared.iter().any(matches) {
        let declare = if NameRule::Key.check(&key).is_ok() && !key.ends_with('*') {
            format!("Declare it with [keys.{}] and in_flight_max.", join("", &key))
        } else {
            "Name one key, as a request would.".into()
        };
        let fix = match nearest(&key, declared.into_iter()) {
            Some(near) => format!("Did you mean {near:?}? {declare}"),
            None => declare,
        };
        resolver.contradiction(scope, "key", Fault::new("no key of that name is declared", fix));
    }
    Some(key.into())
}

fn credential(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    sources: &mut Sources<'_>,
) -> Option<CredentialConfig> {
    let scope = scope.table("credential");
    if !scope.is_typed() {
        return None;
    }
    let header = resolver.value(&scope, "header");
    let prefix: String = resolver.value(&scope, "prefix");
    let FoundSecret { secret, source, file } = sources.secret(resolver, &scope)?;
    let origin = format!("{source}, {}", resolver.notes.place(&scope.span));
    resolver.effective.push(EffectiveValue { path: scope.path, value: "***".into(), origin });
    let value = Secret::new(&format!("{prefix}{secret}"));
    Some(CredentialConfig { header, value, prefix, file, source })
}

fn credential_from(resolver: &mut Resolver<'_, '_>, scope: &Scope<'_>) -> Option<Carrier> {
    const NAME: &str = "credential_from";
    let text: String = resolver.optional(scope, NAME)?;
    let carrier = if scope.table("credential").is_typed() {
        let why = "all requests carry the one credential that is put on them";
        Err(Fault::new(why, "Keep one of credential and credential_from."))
    } else {
        Carrier::parse(&text)
    };
    let (path, span) = scope.place(NAME);
    // What stands there may be the key itself, typed where its place belongs.
    carrier.map_err(|fault| resolver.notes.problem(&span, &path, None, fault)).ok()
}

fn tls(resolver: &mut Resolver<'_, '_>, scope: &Scope<'_>, sources: &mut Sources<'_>) -> TlsConfig {
    for (one, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
        if scope.depth(one).is_some() && scope.depth(other).is_none() {
            let fault = Fault::new(
                format!("it is of no use without {other}"),
                format!("Write {other} = \"…\", too."),
            );
            let (path, span) = scope.place(one);
            resolver.notes.problem(&span, &path, None, fault);
        }
    }
    TlsConfig {
        ca_file: sources.pem_file::<CertificateDer<'_>>(resolver, scope, "ca_file", "CERTIFICATE"),
        client_cert: sources.pem_file::<CertificateDer<'_>>(
            resolver,
            scope,
            "client_cert",
            "CERTIFICATE",
        ),
        client_key: sources.pem_file::<PrivateKeyDer<'_>>(
            resolver,
            scope,
            "client_key",
            "PRIVATE KEY",
        ),
    }
}

/// Both halves of a route. `scope` has the values it inherits; `own` is its table, where it has one.
fn route(
    resolver: &mut Resolver<'_, '_>,
    root: &Section,
    scope: &Scope<'_>,
    profile: Option<&Profile>,
    name: &str,
    own: Option<(Option<u32>, Option<RouteMatch>)>,
) -> (RouteConfig, RouteSettings) {
    let configured = own.is_some();
    let (in_flight_max, matcher) = own.unwrap_or_default();
    let name: Arc<str> = name.into();
    // The default route's key is its upstream's, which was judged there.
    let key = if configured {
        key(resolver, root, scope)
    } else {
        scope.peek_as::<String>("key").map(Into::into)
    };
    let breaker_scope = scope.table("breaker");
    let own_breaker =
        (configured && breaker_scope.is_typed()).then(|| breaker(resolver, &breaker_scope));
    let config = RouteConfig {
        name: Arc::clone(&name),
        matcher,
        key,
        attempt_timeout: timeout(resolver, scope, "attempt_timeout", profile, |it| {
            it.attempt_timeout
        }),
        idle_timeout: timeout(resolver, scope, "idle_timeout", profile, |it| it.idle_timeout),
    };
    let max_wait = resolver.value(scope, "max_wait");
    let policy = RouteSettings {
        name,
        in_flight_max,
        max_wait,
        retry: retry(resolver, &scope.table("retry"), max_wait),
        breaker: own_breaker,
        mode: resolver.choice(scope, "mode", Mode::Enforce, &[("shadow", Mode::Shadow)]),
    };
    (config, policy)
}

/// A time-out as it was typed, also in `[defaults]`; else as the API is known to need it.
fn timeout(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    name: &str,
    profile: Option<&Profile>,
    documented: impl Fn(&Profile) -> Option<Duration>,
) -> Duration {
    let known = profile.and_then(|profile| Some((profile, documented(profile)?)));
    let Some((profile, span)) = known.filter(|_| scope.depth(name).is_none()) else {
        return resolver.value(scope, name);
    };
    let (path, value) = (join(&scope.path, name), Value::Duration(span).print());
    let origin = format!("profile {}", profile.name);
    resolver.effective.push(EffectiveValue { path, value, origin });
    span
}

/// As it was typed, also in `[defaults]`; else where the API is known to be glad of a key.
fn makes_key(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    profile: Option<&Profile>,
) -> bool {
    let (name, generate) = ("idempotency_key", "generate");
    let known = profile.filter(|it| it.makes_idempotency_key && scope.depth(name).is_none());
    let Some(profile) = known else {
        return resolver.value::<String>(scope, name) == generate;
    };
    let (path, value) = (join(&scope.path, name), Value::Text(generate.to_owned()).print());
    let origin = format!("profile {}", profile.name);
    resolver.effective.push(EffectiveValue { path, value, origin });
    true
}

fn configured_route(
    resolver: &mut Resolver<'_, '_>,
    root: &Section,
    own: &Section,
    inheriting: &Scope<'_>,
    profile: Option<&Profile>,
) -> (RouteConfig, RouteSettings) {
    // The upstream's own limit is no default for the route's: they hold side by side.
    let scope = Scope::new(own, &[], spec::ROUTE);
    let name: String = resolver.value(&scope, "name");
    let matcher = resolver.optional(&scope, "match");
    let in_flight_max = resolver.optional(&scope, "in_flight_max");
    route(resolver, root, inheriting, profile, &name, Some((in_flight_max, matcher)))
}

fn check_routes(resolver: &mut Resolver<'_, '_>, section: &Section) {
    let (mut names, mut matches) = (Vec::new(), Vec::new());
    for own in section.list("routes") {
        let scope = Scope::new(own, &[], spec::ROUTE);
        let name = scope.peek_as::<String>("name").unwrap_or_default();
        if name == "default" {
            let fix =
                "Write another name; requests that no route matches belong to the route default.";
            resolver.contradiction(&scope, "name", Fault::new("that name is taken", fix));
        } else if !name.is_empty() && names.contains(&name) {
            resolver.contradiction(
                &scope,
                "name",
                Fault::new("another route has that name", "Write another name."),
            );
        }
        names.push(name);
        if let Some(pattern) = scope.peek_as::<RouteMatch>("match") {
            if matches.contains(&pattern) {
                let why = format!("another route matches {} already", print_match(&pattern));
                resolver.contradiction(&scope, "match", Fault::new(why, "Keep one of the two."));
            }
            matches.push(pattern);
        }
    }
}

type Spending = (Vec<(RouteMatch, Arc<str>)>, Vec<(RouteMatch, u32)>);

/// What a profile says of buckets and costs. Its patterns were checked when it was read.
fn spending(profile: &Profile) -> Spending {
    let buckets = profile.buckets.iter().flat_map(|bucket| {
        let name: Arc<str> = bucket.name.as_str().into();
        let matches = bucket.routes.iter().filter_map(|text| route_match(text).ok());
        matches.map(move |matcher| (matcher, name.clone()))
    });
    let costs = profile.costs.iter().filter_map(|cost| {
        let units = u32::try_from(cost.units).unwrap_or(u32::MAX);
        Some((route_match(&cost.route).ok()?, units.max(1)))
    });
    (buckets.collect(), costs.collect())
}
