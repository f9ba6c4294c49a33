//! A configuration laid out as paths and values, for comparing two of them.
//!
//! Every struct is taken apart by name, so the compiler asks for each new setting here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::address::print_origin;
use super::read::join;
use super::secret::Secret;
use super::settings::{
    AdminSettings, CredentialConfig, LogSettings, ProxySettings, PushSettings, RouteConfig,
    Settings, StateSettings, TlsConfig, TracingSettings, UpstreamConfig,
};
use super::units::{print_duration, print_size};
use super::value::print_match;
use crate::policy::profile::Unit;
use crate::policy::settings::{
    Backoff, BackoffFamily, BreakerSettings, KeySettings, LimitSettings, QuotaSettings,
    RetrySettings, RouteSettings, UpstreamSettings,
};

/// What stands where nothing was configured.
pub(super) const NOT_SET: &str = "not set";

/// A configuration as paths and values.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) values: BTreeMap<String, Shown>,
    /// Upstreams, routes, keys, and breakers of routes.
    pub(super) tables: BTreeSet<String>,
}

/// A value as it is shown; one with a secret is compared and never shown.
#[derive(PartialEq)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) secret: Option<Secret>,
    /// The table that it comes and goes with; empty for none.
    pub(super) table: String,
}

impl Layout {
    /// Lays a configuration out.
    pub(super) fn of(settings: &Settings) -> Self {
        let Settings {
            proxy,
            admin,
            metrics_listen,
            metrics_push,
            state,
            log,
            tracing,
            limits,
            upstreams,
            watched_files: _,
        } = settings;
        let mut layout = Self::default();
        layout.proxy(proxy);
        let AdminSettings { listen, token } = admin;
        layout.put("", "admin", "listen", listen.to_string());
        layout.put_secret("", "admin.token", token.as_ref());
        layout.put_listener("metrics", *metrics_listen);
        if let Some(push) = metrics_push {
            layout.push(push);
        }
        let StateSettings { path, ledger_keep, ledger_rows_max, ledger_successes_per_second } =
            state;
        layout.put("", "state", "path", path.clone());
        layout.put("", "state", "ledger_keep", print_duration(*ledger_keep));
        layout.put("", "state", "ledger_rows_max", ledger_rows_max.to_string());
        let successes = ledger_successes_per_second.to_string();
        layout.put("", "state", "ledger_successes_per_second", successes);
        let LogSettings { format, level, access } = log;
        layout.put("", "log", "format", word(format));
        layout.put("", "log", "level", word(level));
        layout.put("", "log", "access", word(access));
        if let Some(tracing) = tracing {
            layout.tracing(tracing);
        }
        let LimitSettings { in_flight_max, queue_max, replay_memory_max, keys } = limits;
        layout.put("", "limits", "in_flight_max", in_flight_max.to_string());
        layout.put("", "limits", "queue_max", queue_max.to_string());
        layout.put("", "limits", "replay_memory_max", print_size(*replay_memory_max));
        for KeySettings { pattern, in_flight_max, ordered } in keys {
            let table = layout.table(join("keys", pattern));
            layout.put(&table, &table, "in_flight_max", in_flight_max.to_string());
            layout.put(&table, &table, "ordered", ordered.to_string());
        }
        for upstream in upstreams {
            layout.upstream(upstream);
        }
        layout
    }

    fn proxy(&mut self, proxy: &ProxySettings) {
        let ProxySettings {
            listen,
            workers,
            connections_max,
            header_timeout,
            body_timeout,
            keep_alive_timeout,
            drain_timeout,
            drain_idle,
            idle_exit,
        } = proxy;
        let listen: Vec<String> = listen.iter().map(SocketAddr::to_string).collect();
        self.put("", "proxy", "listen", listen.join(", "));
        self.put("", "proxy", "workers", workers.to_string());
        self.put("", "proxy", "connections_max", connections_max.to_string());
        for (name, duration) in [
            ("header_timeout", header_timeout),
            ("body_timeout", body_timeout),
            ("keep_alive_timeout", keep_alive_timeout),
            ("drain_timeout", drain_timeout),
            ("drain_idle", drain_idle),
        ] {
            self.put("", "proxy", name, print_duration(*duration));
        }
        self.put("", "proxy", "idle_exit", or_not_set(idle_exit.map(print_duration)));
    }

    fn push(&mut self, push: &PushSettings) {
        let PushSettings { origin, path, instance, headers } = push;
        let table = self.table("metrics.push".into());
        let url = format!("{}{path}", print_origin(origin));
        self.put(&table, &table, "url", url);
        self.put(&table, &table, "instance", instance.to_string());
        self.fields(&table, headers);
    }

    fn tracing(&mut self, tracing: &TracingSettings) {
        let TracingSettings { origin, base_path, headers, service_name, sample } = tracing;
        let table = self.table("tracing".into());
        self.put(&table, &table, "endpoint", format!("{}{base_path}", print_origin(origin)));
        self.put(&table, &table, "service_name", service_name.clone());
        self.put(&table, &table, "sample", sample.to_string());
        self.fields(&table, headers);
    }

    fn fields(&mut self, at: &str, headers: &[(String, Secret)]) {
        for (name, value) in headers {
            let header = self.table(join(&join(at, "headers"), name));
            self.put_secret(&header, &header, Some(value));
        }
    }

    fn upstream(&mut self, upstream: &UpstreamConfig) {
        let UpstreamConfig {
            name,
            origin,
            base_path,
            prefix,
            hosts,
            listen,
            profile,
            dialect,
            buckets: _, // The profile's, as the next two are.
            costs: _,
            idempotency_key: _,
            makes_idempotency_key,
            rewrite_links,
            credential,
            credential_from,
            tls,
            key: _, // The default route has it, too.
            connect_timeout,
            replay_body_max,
            routes,
            policy,
        } = upstream;
        let UpstreamSettings {
            in_flight_max,
            queue_max,
            breaker,
            routes: policies,
            buckets: _,
            quotas,
            pacing,
        } = &**policy;
        let table = self.table(join("upstreams", name));
        let at = table.as_str();
        self.put(at, at, "url", format!("{}{base_path}", print_origin(origin)));
        self.put(at, at, "prefix", prefix.clone());
        self.put(at, at, "hosts", if hosts.is_empty() { NOT_SET.into() } else { hosts.join(", ") });
        self.put_listener(at, *listen);
        self.put(at, at, "profile", or_not_set(profile.as_ref()));
        for (name, unit) in
            [("retry_after_unit", dialect.retry_after_unit), ("reset_unit", dialect.reset_unit)]
        {
            self.put(at, at, name, unit.map_or(NOT_SET, Unit::name).to_owned());
        }
        self.put(at, at, "rewrite_links", rewrite_links.to_string());
        self.access(at, credential.as_ref(), tls);
        self.put(at, at, "credential_from", or_not_set(credential_from.as_ref()));
        self.put(at, at, "connect_timeout", print_duration(*connect_timeout));
        self.put(at, &join(at, "retry"), "replay_body_max", print_size(*replay_body_max));
        let key = if *makes_idempotency_key { "generate" } else { "forward" };
        self.put(at, &join(at, "retry"), "idempotency_key", key.to_owned());
        self.put(at, at, "in_flight_max", in_flight_max.to_string());
        self.put(at, at, "queue_max", queue_max.to_string());
        self.put(at, at, "pacing", word(pacing));
        for QuotaSettings { name, limits, requests, per, pacing } in quotas {
            let table = self.table(join(&join(at, "quotas"), name));
            self.put(&table, &table, "limits", limits.to_string());
            self.put(&table, &table, "requests", requests.to_string());
            self.put(&table, &table, "per", print_duration(*per));
            self.put(&table, &table, "pacing", word(pacing));
        }
        self.breaker(at, &join(at, "breaker"), breaker);
        for (index, (config, policy)) in routes.iter().zip(policies).enumerate() {
            let own = (index > 0).then(|| self.table(join(&join(at, "routes"), &config.name)));
            self.route(own.as_deref().unwrap_or(at), index, config, policy);
        }
    }

    /// What an upstream asks for: a secret, and certificates.
    fn access(&mut self, at: &str, credential: Option<&CredentialConfig>, tls: &TlsConfig) {
        let TlsConfig { ca_file, client_cert, client_key } = tls;
        // The prefix is part of the value, and the file of the source.
        if let Some(CredentialConfig { header, value, source, prefix: _, file: _ }) = credential {
            self.put(at, &join(at, "credential"), "header", header.clone());
            self.put(at, &join(at, "credential"), "source", source.clone());
            self.put_secret(at, &join(at, "credential"), Some(value));
        }
        for (name, file) in
            [("ca_file", ca_file), ("client_cert", client_cert), ("client_key", client_key)]
        {
            self.put(at, at, name, or_not_set(file.as_ref().map(|file| file.display())));
        }
    }

    fn route(&mut self, at: &str, index: usize, config: &RouteConfig, policy: &RouteSettings) {
        let RouteConfig { name: _, matcher, key, attempt_timeout, idle_timeout } = config;
        let RouteSettings { name: _, in_flight_max, max_wait, retry, breaker, mode } = policy;
        // The default route has neither; its limit is the upstream's.
        if index > 0 {
            self.put(at, at, "match", or_not_set(matcher.as_ref().map(print_match)));
            self.put(at, at, "in_flight_max", or_not_set(in_flight_max.as_ref()));
        }
        self.put(at, at, "key", or_not_set(key.as_ref()));
        self.put(at, at, "attempt_timeout", print_duration(*attempt_timeout));
        self.put(at, at, "idle_timeout", print_duration(*idle_timeout));
        self.put(at, at, "max_wait", print_duration(*max_wait));
        self.put(at, at, "mode", word(mode));
        if let Some(breaker) = breaker {
            let table = self.table(join(at, "breaker"));
            self.breaker(&table, &table, breaker);
        }
        self.retry(at, &join(at, "retry"), retry);
    }

    fn retry(&mut self, table: &str, at: &str, retry: &RetrySettings) {
        let RetrySettings {
            attempts_max,
            throttled_counts,
            unsafe_503,
            backoff: Backoff { family, base, max },
            budget_ratio,
            budget_floor_per_minute,
        } = retry;
        self.put(table, at, "attempts_max", attempts_max.to_string());
        self.put(table, at, "throttled_counts", throttled_counts.to_string());
        self.put(table, at, "unsafe_503", unsafe_503.to_string());
        let family = match family {
            BackoffFamily::FullJitter => "full_jitter".into(),
            BackoffFamily::DecorrelatedJitter => "decorrelated_jitter".into(),
            BackoffFamily::Exponential => "exponential".into(),
            BackoffFamily::Linear => "linear".into(),
            BackoffFamily::Fixed => "fixed".into(),
            BackoffFamily::Uniform => "uniform".into(),
            BackoffFamily::Steps(steps) => {
                let steps: Vec<String> = steps.iter().map(|step| print_duration(*step)).collect();
                format!("steps {}", steps.join(", "))
            }
        };
        self.put(table, at, "backoff", family);
        self.put(table, at, "backoff_base", print_duration(*base));
        self.put(table, at, "backoff_max", print_duration(*max));
        self.put(table, at, "budget_ratio", budget_ratio.to_string());
        self.put(table, at, "budget_floor_per_minute", budget_floor_per_minute.to_string());
    }

    fn breaker(&mut self, table: &str, at: &str, breaker: &BreakerSettings) {
        let BreakerSettings {
            consecutive_failures,
            failure_rate,
            window,
            samples_min,
            open_for,
            open_for_max,
            successes_to_close,
            slow_after,
            slow_rate,
        } = breaker;
        let rate = if *failure_rate > 1.0 { "off".into() } else { failure_rate.to_string() };
        self.put(table, at, "consecutive_failures", consecutive_failures.to_string());
        self.put(table, at, "failure_rate", rate);
        self.put(table, at, "window", print_duration(*window));
        self.put(table, at, "samples_min", samples_min.to_string());
        self.put(table, at, "open_for", print_duration(*open_for));
        self.put(table, at, "open_for_max", print_duration(*open_for_max));
        self.put(table, at, "successes_to_close", successes_to_close.to_string());
        self.put(table, at, "slow_after", or_not_set(slow_after.map(print_duration)));
        self.put(table, at, "slow_rate", slow_rate.to_string());
    }

    /// Whether a table is there; the empty one always is.
    pub(super) fn has_table(&self, table: &str) -> bool {
        table.is_empty() || self.tables.contains(table)
    }

    fn table(&mut self, path: String) -> String {
        self.tables.insert(path.clone());
        path
    }

    fn put(&mut self, table: &str, at: &str, name: &str, text: String) {
        self.values.insert(join(at, name), Shown { text, secret: None, table: table.into() });
    }

    /// A listener counts by itself, also where its upstream comes or goes: it must be bound.
    fn put_listener(&mut self, at: &str, listen: Option<SocketAddr>) {
        if let Some(listen) = listen {
            self.put("", at, "listen", listen.to_string());
        }
    }

    fn put_secret(&mut self, table: &str, path: &str, secret: Option<&Secret>) {
        if let Some(secret) = secret {
            let shown =
                Shown { text: "***".into(), secret: Some(secret.clone()), table: table.into() };
            self.values.insert(path.into(), shown);
        }
    }
}

fn or_not_set(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NOT_SET.into(), |value| value.to_string())
}

/// The word of a choice: its variant in lower case.
fn word(choice: &impl std::fmt::Debug) -> String {
    format!("{choice:?}").to_ascii_lowercase()
}
