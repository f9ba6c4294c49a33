//! The state of the gateway as people and scrapes see it: plain data, made when somebody asks.

use std::time::Duration;

use super::Gateway;
use super::upstream::Upstream;
use crate::config::settings::{RouteMatch, Scheme, UpstreamConfig};
use crate::policy::breaker::{Circuit, CircuitName};
use crate::policy::settings::Mode;
use crate::policy::time::{MonoTime, TimeAnchor};
use crate::policy::upstream::BreakerImage;
use crate::telemetry::names;
use crate::telemetry::view::{
    BreakerState, BreakerView, CooldownView, KeyView, LockView, Moment, QuotaView, RouteView,
    UpstreamView,
};

impl Gateway {
    /// In order of their names.
    pub fn upstream_views(&self) -> Vec<UpstreamView> {
        self.upstreams.iter().map(|upstream| upstream.view(self.common.clock.anchor())).collect()
    }

    /// Every pool of every key, those in use first.
    pub fn key_views(&self) -> Vec<KeyView> {
        let mut pools = self.common.limits().view();
        // By name, and only once the lock that every exchange needs is free.
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        let mut views: Vec<_> = pools
            .into_iter()
            .filter(|pool| !pool.is_process)
            .map(|pool| KeyView {
                key: pool.name.to_string(),
                pattern: pool.declared.to_string(),
                in_flight_max: pool.limit,
                in_flight: pool.in_use,
                waiting: pool.waiting,
            })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.in_flight));
        views
    }
}

impl Upstream {
    /// Everything there is to see of it.
    pub fn view(&self, anchor: TimeAnchor) -> UpstreamView {
        let image = self.state.image();
        let config = &self.config;
        let routes = config.policy.routes.iter().zip(&config.routes).map(|(policy, route)| {
            let in_flight = image.routes.iter().find(|(name, _)| *name == route.name);
            RouteView {
                name: route.name.to_string(),
                matches: route.matcher.as_ref().map(written),
                mode: match policy.mode {
                    Mode::Enforce => "enforce".to_owned(),
                    Mode::Shadow => "shadow".to_owned(),
                },
                in_flight: in_flight.map_or(0, |(_, in_flight)| *in_flight),
                in_flight_max: policy.in_flight_max,
            }
        });
        UpstreamView {
            name: config.name.to_string(),
            url: url_of(config),
            breaker: image.breakers.iter().map(|breaker| breaker_view(breaker, anchor)).collect(),
            cooldowns: image
                .cooldowns
                .iter()
                .map(|cooldown| CooldownView {
                    scope: cooldown.scope.clone(),
                    until: Moment(anchor.wall(cooldown.until)),
                    remaining_ms: ms(cooldown.until.since(anchor.mono)),
                    source: cooldown.source.map_or("forbear", |source| source.name()).to_owned(),
                    raw: cooldown.raw.as_deref().map(str::to_owned),
                })
                .collect(),
            quotas: image
                .quotas
                .iter()
                .map(|quota| QuotaView {
                    scope: quota.scope.clone(),
                    name: quota.name.as_deref().map(str::to_owned),
                    bucket: quota.bucket.to_string(),
                    is_told: quota.is_told,
                    limit: quota.limit,
                    remaining: quota.remaining,
                    reset_at: quota.reset.map(|at| Moment(anchor.wall(at))),
                    reset_in_ms: quota.reset.map(|at| ms(at.since(anchor.mono))),
                })
                .collect(),
            locks: image
                .locks
                .iter()
                .map(|(credential, until)| LockView {
                    credential: credential.clone(),
                    until: Moment(anchor.wall(*until)),
                    remaining_ms: ms(until.since(anchor.mono)),
                })
                .collect(),
            in_flight: image.in_flight,
            in_flight_max: config.policy.in_flight_max,
            adaptive_limit: image.adaptive_limit,
            queued: u32::try_from(image.queued).unwrap_or(u32::MAX),
            queued_by_band: image
                .queued_by_band
                .iter()
                .map(|(band, n)| (band.name().to_owned(), *n))
                .collect(),
            queue_max: config.policy.queue_max,
            retry_budget_remaining_ratio: image.budget_left,
            routes: routes.collect(),
            connections: u32::try_from(self.target.open_connections()).unwrap_or(0),
        }
    }
}

/// The label of a circuit.
pub fn state(circuit: CircuitName) -> BreakerState {
    match circuit {
        CircuitName::Closed => BreakerState::Closed,
        CircuitName::Open => BreakerState::Open,
        CircuitName::HalfOpen => BreakerState::HalfOpen,
        CircuitName::ForcedOpen => BreakerState::ForcedOpen,
        CircuitName::ForcedClosed => BreakerState::Disabled,
    }
}

fn breaker_view(breaker: &BreakerImage, anchor: TimeAnchor) -> BreakerView {
    let open_until: Option<MonoTime> = match breaker.circuit {
        Circuit::Open { until } | Circuit::ForcedOpen { until } => Some(until),
        Circuit::Closed | Circuit::HalfOpen | Circuit::ForcedClosed { .. } => None,
    };
    BreakerView {
        scope: match &breaker.route {
            Some(route) => names::breaker_of_route(route),
            None => names::BREAKER_UPSTREAM.to_owned(),
        },
        state: state(breaker.circuit.name()),
        open_until: open_until.map(|at| Moment(anchor.wall(at))),
        open_remaining_ms: open_until.map(|at| ms(at.since(anchor.mono))),
        failure_ratio: breaker.failure_ratio,
        forced_reason: breaker.forced.as_ref().map(|forced| forced.reason.to_string()),
        forced_until: breaker.forced.as_ref().map(|forced| Moment(anchor.wall(forced.until))),
    }
}

/// Scheme, host, port where it is not the scheme's own, and base path.
pub fn url_of(config: &UpstreamConfig) -> String {
    let origin = &config.origin;
    let scheme = match origin.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let host =
        if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let port = if origin.port == super::route::default_port(origin.scheme) {
        String::new()
    } else {
        format!(":{}", origin.port)
    };
    format!("{scheme}://{host}{port}{}", config.base_path)
}

fn written(matcher: &RouteMatch) -> String {
    match &matcher.method {
        Some(method) => format!("{method} {}", matcher.path),
        None => matcher.path.clone(),
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
