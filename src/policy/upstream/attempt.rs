//! How an attempt starts and how its place is given back: circuit, cooldowns, quota and permits, all
//! of them or none.

use std::sync::Arc;
use std::time::Duration;

use super::ticket::collect;
use super::{
    Context, Event, Grant, Permit, SCOPES_MAX, Sent, Ticket, UpstreamPolicy, route_settings,
};
use crate::policy::breaker::{Admission, Breaker};
use crate::policy::limits::{Limits, PoolId};
use crate::policy::line::{
    Band, BucketId, CredentialId, Needs, Obstacle, Place, RouteId, TicketId, Why,
};
use crate::policy::outcome::{WaitKind, Waits};
use crate::policy::scope::Scope;
use crate::policy::settings::{BreakerSettings, Mode, UpstreamSettings};
use crate::policy::time::MonoTime;

/// A probe is lost when it is out for longer.
const PROBE_LEASE: Duration = Duration::from_secs(30);

/// A full table is looked through for room this often at most: every stranger would else pay for
/// all who are known.
const TIDY_PAUSE: Duration = Duration::from_secs(1);

impl UpstreamPolicy {
    /// Takes circuit, cooldown, quota and permits, or nothing.
    pub(super) fn start(
        &mut self,
        cx: &mut Context<'_>,
        id: TicketId,
        needs: &Needs,
    ) -> Result<Grant, Obstacle> {
        let is_shadow = route_settings(cx.cfg, &self.routes, needs.route)
            .is_some_and(|settings| settings.mode == Mode::Shadow);
        let mut shadow = None;
        let mut in_pools = true;
        if let Err(obstacle) = self.check(cx, id, needs) {
            if !is_shadow {
                return Err(obstacle);
            }
            shadow = Some(obstacle.kind);
        }
        if let Err(pool) = cx.limits.try_take_as(self.id, &needs.pools, needs.numbers.as_deref()) {
            if !is_shadow {
                self.awaited.insert(pool);
                return Err(Obstacle {
                    place: Place::Pool(pool),
                    until: None,
                    kind: WaitKind::Queue,
                    why: Why::Pool(pool),
                });
            }
            if !self.line.is_parked_at(Place::Pool(pool)) {
                cx.limits.withdraw(self.id, pool);
            }
            in_pools = false;
            shadow = shadow.or(Some(WaitKind::Queue));
        }
        let (settings, breaker) = self.breaker_of(cx.cfg, needs.route);
        let admission = breaker.admit(settings, cx.now, needs.safety, PROBE_LEASE).ok();
        debug_assert!(admission.is_some() || is_shadow, "checked under the same lock");
        self.in_flight += 1;
        if let Some(route) = self.route(needs.route) {
            route.in_flight += 1;
        }
        let (now, cost) = (cx.now, needs.cost);
        self.whole.start(now, cost);
        self.note_lock_probe(now, needs.credential);
        if let Some(scope) = self.wide_scope(cx.now, cx.cfg, needs.credential) {
            scope.start(now, cost);
        }
        let (key, scope) = self.scope(cx, needs.bucket, needs.credential);
        scope.start(now, cost);
        let in_flight = scope.in_flight();
        Ok(Grant {
            admission,
            permit: Permit {
                route: needs.route,
                credential: needs.credential,
                scope: key,
                cost,
                since: now,
                pools: needs.pools.clone(),
                in_pools,
            },
            sent_at: now,
            in_flight,
            number: 0,
            own_breaker: self.has_own_breaker(needs.route),
            tightened: self.tightened,
            waited: Waits::default(),
            shadow,
        })
    }

    /// A grant that was not used.
    pub(super) fn take_back(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket, grant: Grant) {
        collect(cx.now, ticket, &grant);
        let (sent, permit) = grant.split();
        let narrow = self.scopes.get_mut(&permit.scope);
        let wide = self.credentials.get_mut(&permit.credential);
        for scope in narrow.into_iter().chain(wide) {
            scope.take_back(permit.cost);
        }
        let at = sent.at;
        if let Some(admission) = self.admission(sent, &permit) {
            self.abandon_admission(cx, permit.route, admission);
        }
        self.answered(&permit, at);
        self.give_back(cx, &permit);
    }

    pub(super) fn abandon_admission(
        &mut self,
        cx: &Context<'_>,
        route: RouteId,
        admission: Admission,
    ) {
        let was_probe = admission.is_probe();
        self.breaker_of(cx.cfg, route).1.abandon(cx.now, admission);
        if was_probe {
            self.line.unpark_all();
        }
    }

    /// What the governing breaker gave; nothing if a reload put another one in its place.
    pub(super) fn admission(&self, sent: Sent, permit: &Permit) -> Option<Admission> {
        sent.admission.filter(|_| sent.own_breaker == self.has_own_breaker(permit.route))
    }

    /// The scopes of an attempt hear that it is no longer on its way.
    pub(super) fn answered(&mut self, permit: &Permit, sent_at: MonoTime) {
        self.whole.answered(sent_at, permit.cost);
        if let Some(scope) = self.credentials.get_mut(&permit.credential) {
            scope.answered(sent_at, permit.cost);
        }
        if let Some(scope) = self.scopes.get_mut(&permit.scope) {
            scope.answered(sent_at, permit.cost);
        }
        self.call_scopes(permit);
    }

    /// Calls the first who waits for each scope of this attempt; whoever goes calls the next.
    pub(super) fn call_scopes(&mut self, permit: &Permit) {
        if self.line.has_parked() {
            let (bucket, credential) = permit.scope;
            self.line.unpark_first(Place::Whole);
            self.line.unpark_first(Place::Lock(permit.credential));
            self.line.unpark_first(Place::Credential(permit.credential));
            self.line.unpark_first(Place::Scope(bucket, credential));
            for band in Band::ALL {
                self.line.unpark_first(Place::Reserve(bucket, credential, band));
            }
        }
    }

    /// Calls the first who waits for each of these pools, and for the process: of one upstream,
    /// too, who came first goes first.
    pub(super) fn call_pools(&mut self, pools: &[PoolId]) {
        for pool in std::iter::once(&Limits::PROCESS).chain(pools) {
            self.line.unpark_first(Place::Pool(*pool));
        }
    }

    pub(super) fn give_back(&mut self, cx: &mut Context<'_>, permit: &Permit) {
        debug_assert!(self.in_flight > 0, "a permit is released once");
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(route) = self.route(permit.route) {
            route.in_flight = route.in_flight.saturating_sub(1);
        }
        self.whole.end();
        if let Some(scope) = self.credentials.get_mut(&permit.credential) {
            scope.end();
        }
        if let Some(scope) = self.scopes.get_mut(&permit.scope) {
            scope.end();
        }
        if permit.in_pools {
            cx.limits.give_back(&permit.pools);
        }
        self.line.unpark_first(Place::Route(permit.route));
        self.call_pools(&permit.pools);
        self.call_scopes(permit);
    }

    /// Attempts that may be in flight now: the setting, or less while the upstream recovers.
    pub(super) fn house(&mut self, cx: &Context<'_>) -> u32 {
        self.breaker
            .in_flight_cap(cx.now)
            .map_or(cx.cfg.in_flight_max, |cap| cap.min(cx.cfg.in_flight_max))
    }

    /// The breaker that governs a route, with its settings.
    pub(super) fn breaker_of<'a, 'c>(
        &'a mut self,
        cfg: &'c UpstreamSettings,
        route: RouteId,
    ) -> (&'c BreakerSettings, &'a mut Breaker) {
        let settings =
            route_settings(cfg, &self.routes, route).and_then(|settings| settings.breaker.as_ref());
        let own =
            self.routes.get_mut(usize::from(route.0)).and_then(|route| route.breaker.as_mut());
        match (settings, own) {
            (Some(settings), Some(breaker)) => (settings, breaker),
            _ => (&cfg.breaker, &mut self.breaker),
        }
    }

    /// Lets a breaker notice what time alone changed, so that it is told like any transition.
    pub(super) fn note_time(&mut self, cx: &Context<'_>, route: RouteId) {
        let (_, breaker) = self.breaker_of(cx.cfg, route);
        if let Some(transition) = breaker.advance(cx.now) {
            let name = self.breaker_name(route);
            self.events.push(Event::Breaker(name, transition));
        }
    }

    pub(super) fn has_own_breaker(&self, route: RouteId) -> bool {
        self.routes.get(usize::from(route.0)).is_some_and(|route| route.breaker.is_some())
    }

    /// `None` for the upstream's own breaker.
    pub(super) fn breaker_name(&self, route: RouteId) -> Option<Arc<str>> {
        self.routes
            .get(usize::from(route.0))
            .filter(|route| route.breaker.is_some())
            .map(|route| route.name.clone())
    }

    pub(super) fn scope(
        &mut self,
        cx: &Context<'_>,
        bucket: BucketId,
        credential: CredentialId,
    ) -> ((BucketId, CredentialId), &mut Scope) {
        let mut key = (self.buckets.root(bucket), credential);
        if !self.scopes.contains_key(&key) {
            key = self.room_for(cx.now, key);
            let rules =
                if cx.cfg.quotas.is_empty() { Vec::new() } else { self.rules(cx.cfg, key.0) };
            let scope = self.scopes.entry(key).or_default();
            scope.configure(&rules, cx.cfg.pacing);
        }
        (key, self.scopes.entry(key).or_default())
    }

    /// The key under which a scope finds room: strangers share one when the table is full.
    fn room_for(
        &mut self,
        now: MonoTime,
        key: (BucketId, CredentialId),
    ) -> (BucketId, CredentialId) {
        const STRANGERS: CredentialId = CredentialId::STRANGERS;
        if self.scopes.len() >= SCOPES_MAX && now >= self.tidy_at {
            self.tidy_at = now + TIDY_PAUSE;
            self.scopes.retain(|(_, owner), scope| *owner == STRANGERS || !scope.is_idle(now));
            if self.scopes.len() >= SCOPES_MAX {
                // What holds nobody back now is the least to lose.
                self.scopes.retain(|(_, owner), scope| *owner == STRANGERS || scope.binds(now));
            }
        }
        if self.scopes.len() >= SCOPES_MAX { (key.0, STRANGERS) } else { key }
    }

    /// What holds for all that goes with a credential: because the upstream said so, or because the
    /// operator limits it.
    pub(super) fn wide_scope(
        &mut self,
        now: MonoTime,
        cfg: &UpstreamSettings,
        credential: CredentialId,
    ) -> Option<&mut Scope> {
        if self.limits_credentials {
            self.make_wide_scope(now, cfg, credential);
        }
        if self.credentials.is_empty() { None } else { self.credentials.get_mut(&credential) }
    }

    /// Remembers a credential as a whole, if there is room.
    pub(super) fn make_wide_scope(
        &mut self,
        now: MonoTime,
        cfg: &UpstreamSettings,
        credential: CredentialId,
    ) {
        if self.credentials.contains_key(&credential) {
            return;
        }
        if self.credentials.len() >= SCOPES_MAX {
            self.credentials.retain(|_, scope| !scope.is_idle(now));
        }
        if self.credentials.len() < SCOPES_MAX {
            let rules = Self::wide_rules(cfg);
            self.credentials.entry(credential).or_default().configure(&rules, cfg.pacing);
        }
    }
}
