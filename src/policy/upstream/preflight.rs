//! How long a number of requests would take now, by what is known at this moment.

use std::time::Duration;

use super::{Context, UpstreamPolicy, route_settings};
use crate::policy::line::{BucketId, RouteId};
use crate::policy::scope::{Bound, Scope};
use crate::policy::time::MonoTime;

/// The newest of so many requests counts one part in this of what an exchange takes on average.
const AVERAGE_OF: u32 = 8;

/// How long a place in flight is held, on average over the last ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held(Option<Duration>);

impl Held {
    pub(super) fn hear(&mut self, took: Duration) {
        self.0 = Some(self.0.map_or(took, |mean| mean - mean / AVERAGE_OF + took / AVERAGE_OF));
    }
}

/// What a number of requests would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// Until the last of them is answered, if they are sent as fast as forbear lets them.
    pub takes: Duration,
    /// Until the first of them may go.
    pub starts_in: Duration,
    /// What they wait for most.
    pub bound_by: Bound,
    /// As in cooldowns and quotas: whose state this is from; `None` while nothing was sent yet.
    pub scope: Option<String>,
    /// Exchanges that wait already, and go before them.
    pub queued: usize,
    /// At once at most, as configured or learned.
    pub in_flight_max: u32,
    /// What one takes; `None` while nothing was answered yet, and then `takes` leaves it out.
    pub per_request: Option<Duration>,
}

impl UpstreamPolicy {
    /// What `requests` more would take on the route of that name, with the credential that was
    /// served there last. `None` if there is no such route.
    pub fn preflight(&mut self, cx: &Context<'_>, route: &str, requests: u32) -> Option<Preflight> {
        let at = self.routes.iter().position(|known| *known.name == *route)?;
        let route = RouteId(u16::try_from(at).ok()?);
        let open = self.open_for(cx, route);
        let key = self.best_known(route);
        let scope = key.and_then(|key| self.scopes.get(&key));
        let queued = self.line.len();
        let units = u64::from(requests).saturating_add(u64::try_from(queued).unwrap_or(u64::MAX));
        let settings = route_settings(cx.cfg, &self.routes, route);
        let own = settings.and_then(|settings| settings.in_flight_max).unwrap_or(u32::MAX);
        let learned = scope.and_then(|scope| scope.adaptive.limit()).unwrap_or(u32::MAX);
        let in_flight_max = cx.cfg.in_flight_max.min(own).min(learned).max(1);
        let per_request = self.held.0;
        let fill = |units: u64| {
            let rounds = units.div_ceil(u64::from(in_flight_max));
            per_request
                .unwrap_or_default()
                .saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
        };
        let wide = key.and_then(|key| self.credentials.get(&key.1));
        let least = (fill(units), Bound::Concurrency);
        let scopes = scope.into_iter().chain(wide).chain(std::iter::once(&self.whole));
        let locked = key.map_or(Duration::ZERO, |key| self.locked_for(cx.now, key.1));
        let closed =
            [(open + fill(units), Bound::Breaker), (locked + fill(units), Bound::Credential)];
        let forecasts = scopes.map(|scope: &Scope| scope.forecast(cx.now, units, fill));
        let (takes, bound_by) = forecasts
            .chain(closed)
            .fold(least, |most, other| if other.0 > most.0 { other } else { most });
        let scope = key.map(|key| self.scope_name(key));
        let starts_in = match &bound_by {
            Bound::Credential => locked.max(open),
            Bound::Breaker => open,
            Bound::Concurrency | Bound::Quota(_) | Bound::Refusals | Bound::Cooldown => {
                let scope = key.and_then(|key| self.scopes.get(&key));
                let one = scope.map_or(Duration::ZERO, |scope| {
                    scope.forecast(cx.now, 1, |_| Duration::ZERO).0
                });
                one.max(open)
            }
        };
        Some(Preflight { takes, starts_in, bound_by, scope, queued, in_flight_max, per_request })
    }

    /// The scope that was served last among those of a route's requests.
    fn best_known(&self, route: RouteId) -> Option<(BucketId, crate::policy::line::CredentialId)> {
        let own = self.buckets.root(BucketId::Route(route));
        let of_route = self.scopes.iter().filter(|((bucket, _), _)| *bucket == own);
        // Where answers name buckets, a route's requests are in those.
        let named = self.scopes.iter().filter(|((bucket, _), _)| {
            route == RouteId::default() && matches!(bucket, BucketId::Named(_))
        });
        let newest = of_route.chain(named).max_by_key(|(_, scope)| scope.last_success());
        newest.map(|(key, _)| *key)
    }

    fn open_for(&mut self, cx: &Context<'_>, route: RouteId) -> Duration {
        use crate::policy::breaker::Circuit;
        let now: MonoTime = cx.now;
        match self.breaker_of(cx.cfg, route).1.circuit(now) {
            Circuit::Open { until } | Circuit::ForcedOpen { until } => until.since(now),
            Circuit::Closed | Circuit::HalfOpen | Circuit::ForcedClosed { .. } => Duration::ZERO,
        }
    }
}
