//! What is in the way of an exchange, in the order in which it is asked.

use std::time::Duration;

use super::{Context, Route, UpstreamPolicy};
use crate::policy::breaker::Held;
use crate::policy::line::{Line, Needs, Obstacle, Place, RouteId, TicketId, Why};
use crate::policy::outcome::WaitKind;
use crate::policy::scope::Closed;
use crate::policy::settings::{RouteSettings, UpstreamSettings};

/// Slow start ends by time, too, and nobody may be there to notice: whoever waits for it looks
/// again this often.
const SLOW_START_LOOK: Duration = Duration::from_secs(1);

impl UpstreamPolicy {
    /// What is in the way, shared limits aside.
    pub(super) fn check(
        &mut self,
        cx: &Context<'_>,
        id: TicketId,
        needs: &Needs,
    ) -> Result<(), Obstacle> {
        self.check_barriers(cx, id, needs)?;
        let capacity = |place, slow_start: Option<u32>| Obstacle {
            place,
            until: slow_start.map(|_| cx.now + SLOW_START_LOOK),
            kind: WaitKind::Queue,
            why: Why::Capacity,
        };
        if self.in_flight >= self.house(cx) {
            let slow_start = self.breaker.in_flight_cap(cx.now);
            return Err(capacity(Place::House, slow_start));
        }
        let limit = route_settings(cx.cfg, &self.routes, needs.route)
            .and_then(|settings| settings.in_flight_max);
        let now = cx.now;
        if let Some(route) = self.route(needs.route) {
            let slow_start = route.breaker.as_mut().and_then(|breaker| breaker.in_flight_cap(now));
            let limit = limit.unwrap_or(u32::MAX).min(slow_start.unwrap_or(u32::MAX));
            if route.in_flight >= limit {
                return Err(capacity(Place::Route(needs.route), slow_start));
            }
        }
        Ok(())
    }

    /// Breaker and cooldowns: what may go up between a grant and its collection.
    pub(super) fn check_barriers(
        &mut self,
        cx: &Context<'_>,
        id: TicketId,
        needs: &Needs,
    ) -> Result<(), Obstacle> {
        let now = cx.now;
        self.note_time(cx, needs.route);
        let (settings, breaker) = self.breaker_of(cx.cfg, needs.route);
        if let Err(held) = breaker.check(settings, now, needs.safety) {
            let (until, why) = match held {
                Held::Open { until } => (until, Why::Breaker),
                Held::Probing { until } => (until, Why::Probe),
            };
            return Err(Obstacle {
                place: Place::Breaker(needs.route, needs.safety),
                until: Some(until),
                kind: WaitKind::Breaker,
                why,
            });
        }
        // Who costs more and comes first is not overtaken by whoever costs less.
        let is_alone = !self.line.has_parked();
        let cost = |line: &mut Line, place| {
            let before = if is_alone { 0 } else { line.cost_before(id, needs, place) };
            needs.cost.max(before)
        };
        let dearest = cost(&mut self.line, Place::Whole);
        self.whole.check(now, dearest).map_err(|closed| closed_at(Place::Whole, closed))?;
        self.check_lock(now, needs.credential)?;
        let place = Place::Credential(needs.credential);
        let dearest = cost(&mut self.line, place);
        if let Some(scope) = self.wide_scope(now, cx.cfg, needs.credential) {
            scope.check(now, dearest).map_err(|closed| closed_at(place, closed))?;
        }
        let (key, _) = self.scope(cx, needs.bucket, needs.credential);
        let place = Place::Scope(key.0, key.1);
        let dearest = cost(&mut self.line, place);
        if let Some(scope) = self.scopes.get_mut(&key) {
            scope.check(now, dearest).map_err(|closed| closed_at(place, closed))?;
        }
        self.check_reserve(cx, needs)
    }

    /// The barrier that somebody waits at whose turn comes before, although it would let this exchange through.
    pub(super) fn yields_to(
        &mut self,
        cx: &Context<'_>,
        id: TicketId,
        needs: &Needs,
    ) -> Option<Place> {
        if !self.line.has_parked() {
            return None;
        }
        let ((bucket, credential), _) = self.scope(cx, needs.bucket, needs.credential);
        let barriers = [
            Place::Breaker(needs.route, needs.safety),
            Place::Whole,
            Place::Lock(needs.credential),
            Place::Credential(needs.credential),
            Place::Scope(bucket, credential),
            Place::Reserve(bucket, credential, needs.band),
        ];
        let mut barriers = barriers.into_iter();
        let older = barriers.find(|place| self.line.waits_before(id, needs, *place))?;
        self.check_barriers(cx, id, needs).is_ok().then_some(older)
    }
}

fn closed_at(place: Place, closed: Closed) -> Obstacle {
    Obstacle {
        place,
        until: closed.until,
        kind: closed.kind,
        why: match closed.kind {
            WaitKind::Cooldown | WaitKind::Pacing if closed.exhausted => Why::Exhausted,
            WaitKind::Cooldown | WaitKind::Backoff => Why::Cooldown,
            WaitKind::Pacing => Why::Pacing,
            WaitKind::Breaker => Why::Breaker,
            WaitKind::Queue => Why::Capacity,
        },
    }
}

/// The settings of a route, by the id under which the policy knows it.
pub(super) fn route_settings<'c>(
    cfg: &'c UpstreamSettings,
    routes: &[Route],
    id: RouteId,
) -> Option<&'c RouteSettings> {
    let setting = routes.get(usize::from(id.0)).map_or(0, |route| route.setting);
    cfg.routes.get(setting)
}
