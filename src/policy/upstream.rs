//! Everything that is decided about one upstream, behind one type.
//!
//! An exchange *joins* and gets a [`Ticket`]; it *asks* until the answer is [`Answer::Go`], which
//! takes circuit, cooldown, quota and all permits in one step; it *settles* what came back and
//! either relays it or waits again; it *releases* its place when the last byte is through. A
//! waiting exchange holds a ticket and nothing else.
//!
//! All state of the upstream is in here, so that one lock makes every decision consistent and a
//! simulator can drive it without a runtime. [`Line`] knows who waits, [`Scope`] what the upstream
//! said, [`Breaker`] how it is; this file only puts the questions in their order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::Breaker;
use super::budget::RetryBudget;
use super::hash::{IdMap, IdSet};
use super::limits::{PoolId, UpstreamId};
use super::line::{BucketId, CredentialId, Line, Place, RouteId, TicketId};
use super::outcome::Waits;
use super::scope::Scope;
use super::settings::UpstreamSettings;
use super::time::MonoTime;

mod attempt;
mod barren;
mod barriers;
mod buckets;
mod cool;
mod force;
mod locks;
mod preflight;
mod reserve;
mod saved;
mod settle;
mod ticket;
mod verdict;
mod view;
mod waiting;

use self::barriers::route_settings;
use self::buckets::Buckets;
pub use self::force::Forced;
use self::locks::Locks;
pub use self::locks::{LOCKED_FOR_MAX, Lock};
use self::preflight::Held;
pub use self::preflight::Preflight;
use self::reserve::Seen;
pub use self::saved::{SavedBreaker, SavedQuota, SavedScope, SavedUpstream};
pub use self::ticket::{Answer, Ask, Context, Event, Grant, Permit, Refusal, Sent, Ticket};
use self::ticket::{Rest, collect, too_late};
pub use self::verdict::{GiveUp, Report, RetryPlan, Verdict};
pub use self::view::{
    BreakerImage, CooldownImage, QuotaImage, UpstreamImage, credential_digits, credential_name,
};

/// Scopes of (bucket, credential) remembered. At about 300 bytes each this is 300 KB; a scope that
/// is idle and says nothing makes room, and beyond that strangers share one.
pub const SCOPES_MAX: usize = 1024;

/// Policy state of one upstream.
#[derive(Debug)]
pub struct UpstreamPolicy {
    id: UpstreamId,
    line: Line,
    granted: IdMap<TicketId, Grant>,
    /// Tickets in a pause of their own, between two attempts.
    resting: IdSet<TicketId>,
    /// Tickets that gave their place in line up and have not asked since: what they had waited, and
    /// when it was.
    evicted: IdMap<TicketId, (Waits, MonoTime)>,
    next_ticket: u64,
    in_flight: u32,
    routes: Vec<Route>,
    breaker: Breaker,
    forced: Option<Forced>,
    buckets: Buckets,
    /// Refusals in a row of each shape of request.
    barren: IdMap<u64, u32>,
    scopes: IdMap<(BucketId, CredentialId), Scope>,
    locks: Locks,
    credentials: IdMap<CredentialId, Scope>,
    /// Whether the operator limits all that goes with a credential.
    limits_credentials: bool,
    /// Before this, a full table of scopes is not looked through for room again.
    tidy_at: MonoTime,
    whole: Scope,
    budget: RetryBudget,
    held: Held,
    seen: Seen,
    /// Changes whenever a barrier went up, so that a grant from before is looked at again.
    tightened: u64,
    /// Shared limits on whose lists this upstream stands.
    awaited: BTreeSet<PoolId>,
    draining: bool,
    events: Vec<Event>,
}

/// A route's state; found by name after a reload.
#[derive(Debug)]
struct Route {
    name: Arc<str>,
    /// Index in the settings now in force; routes that are gone are treated as the default one,
    /// under the upstream's own breaker.
    setting: usize,
    in_flight: u32,
    breaker: Option<Breaker>,
    forced: Option<Forced>,
}

impl UpstreamPolicy {
    /// A policy that knows nothing yet.
    pub fn new(id: UpstreamId, cfg: &UpstreamSettings) -> Self {
        let mut policy = Self {
            id,
            line: Line::default(),
            granted: IdMap::default(),
            resting: IdSet::default(),
            evicted: IdMap::default(),
            next_ticket: 1,
            in_flight: 0,
            routes: Vec::new(),
            breaker: Breaker::default(),
            forced: None,
            buckets: Buckets::default(),
            barren: IdMap::default(),
            scopes: IdMap::default(),
            locks: Locks::default(),
            credentials: IdMap::default(),
            limits_credentials: false,
            tidy_at: MonoTime::ZERO,
            whole: Scope::default(),
            budget: RetryBudget::default(),
            held: Held::default(),
            seen: Seen::default(),
            tightened: 0,
            awaited: BTreeSet::new(),
            draining: false,
            events: Vec::new(),
        };
        policy.configure(cfg);
        policy
    }

    /// Says under which id each route of these settings is known, in their order. A new route
    /// gets an id; nothing is judged by the settings yet.
    pub fn learn_routes(&mut self, cfg: &UpstreamSettings) -> Vec<RouteId> {
        let mut ids = Vec::with_capacity(cfg.routes.len());
        for settings in &cfg.routes {
            let at = self.routes.iter().position(|route| route.name == settings.name);
            let at = at.unwrap_or_else(|| {
                self.routes.push(Route {
                    name: settings.name.clone(),
                    setting: 0,
                    in_flight: 0,
                    breaker: None,
                    forced: None,
                });
                self.routes.len() - 1
            });
            ids.push(RouteId(u16::try_from(at).unwrap_or(0)));
        }
        ids
    }

    /// Takes over new settings. Nothing learned is lost; whoever waits is judged by the new rules
    /// from the next call on, so let [`Self::turn`] follow. Returns what [`Self::learn_routes`]
    /// does.
    pub fn configure(&mut self, cfg: &UpstreamSettings) -> Vec<RouteId> {
        let ids = self.learn_routes(cfg);
        for route in &mut self.routes {
            route.setting = 0;
        }
        for ((setting, settings), id) in cfg.routes.iter().enumerate().zip(&ids) {
            let Some(route) = self.routes.get_mut(usize::from(id.0)) else { continue };
            route.setting = setting;
            match (&settings.breaker, &route.breaker) {
                (Some(_), None) => route.breaker = Some(Breaker::default()),
                (None, Some(_)) => (route.breaker, route.forced) = (None, None),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        for (at, route) in self.routes.iter_mut().enumerate() {
            if !ids.iter().any(|id| usize::from(id.0) == at) {
                (route.breaker, route.forced) = (None, None);
            }
        }
        self.configure_quotas(cfg);
        self.line.unpark_all();
        ids
    }

    /// Stands in line. Whoever can go at once may ask for it right away.
    ///
    /// # Errors
    ///
    /// Refused if too many wait already, or if the wait is known to be longer than the exchange
    /// may be held.
    pub fn join(&mut self, cx: &mut Context<'_>, ask: Ask) -> Result<Ticket, Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let mut needs = ask.needs;
        needs.bucket = self.buckets.of_shape(ask.shape).unwrap_or(needs.bucket);
        let mut ticket = Ticket {
            id: TicketId(self.next_ticket),
            needs,
            shape: ask.shape,
            wait_left: ask.wait_max,
            deadline: ask.deadline,
            waiting_since: cx.now,
            resting: None,
            granted: None,
            waited: Waits::default(),
            attempts: 0,
            counted: 0,
            used_once: false,
            last_backoff: Duration::ZERO,
        };
        self.next_ticket += 1;
        self.seen.note(cx.now, ticket.needs.band);
        self.line.unpark_due(cx.now);
        self.call_pools(&ticket.needs.pools);
        self.pump(cx);
        if !self.line.has_lane(&ticket.needs)
            && self.yields_to(cx, ticket.id, &ticket.needs).is_none()
        {
            match self.start(cx, ticket.id, &ticket.needs) {
                Ok(grant) => {
                    self.line.serve_passing(cx.now, &ticket.needs);
                    ticket.granted = Some(grant);
                    return Ok(ticket);
                }
                Err(obstacle) => {
                    if let Some(refusal) = too_late(&obstacle, ticket.give_up_at()) {
                        return Err(refusal);
                    }
                }
            }
        }
        if !self.make_room(cx, &ticket.needs) {
            self.forget_turns(cx);
            return Err(Refusal::QueueFull);
        }
        self.line.enter(cx.now, &ticket.needs, ticket.id, ticket.give_up_at());
        self.pump(cx);
        Ok(ticket)
    }

    /// May it send now?
    pub fn ask(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Answer {
        if self.was_evicted(cx.now, ticket) {
            return Answer::Refuse(Refusal::QueueFull);
        }
        if let Some(grant) = ticket.granted.take().or_else(|| self.granted.remove(&ticket.id)) {
            match self.confirm(cx, ticket, grant) {
                Some(grant) => return self.go(cx, ticket, grant),
                None => self.pump(cx),
            }
        }
        if let Some(rest) = ticket.resting {
            if cx.now < rest.until && !self.draining {
                return Answer::Wait { until: rest.until };
            }
            self.end_rest(cx.now, ticket, rest);
            if self.draining {
                return Answer::Refuse(Refusal::Draining);
            }
            self.reenter(cx, ticket);
        }
        self.line.unpark_due(cx.now);
        self.pump(cx);
        if let Some(grant) = self.granted.remove(&ticket.id) {
            return self.go(cx, ticket, grant);
        }
        self.wait_or_refuse(cx, ticket)
    }

    /// Gives the ticket up, whatever its state. Says what it waited since its last attempt.
    pub fn quit(&mut self, cx: &mut Context<'_>, mut ticket: Ticket) -> Waits {
        let granted = ticket.granted.take();
        if let Some(grant) = granted.or_else(|| self.granted.remove(&ticket.id)) {
            self.take_back(cx, &mut ticket, grant);
            self.pump(cx);
        }
        if let Some(rest) = ticket.resting {
            self.end_rest(cx.now, &mut ticket, rest);
        }
        self.was_evicted(cx.now, &mut ticket);
        if self.leave_line(cx, &mut ticket) {
            self.pump(cx);
            self.forget_turns(cx);
        }
        ticket.waited
    }

    /// An attempt ended without a verdict: its caller has gone.
    pub fn abandon(&mut self, cx: &mut Context<'_>, permit: &Permit, sent: Sent) {
        let at = sent.at;
        if let Some(admission) = self.admission(sent, permit) {
            self.abandon_admission(cx, permit.route, admission);
        }
        self.answered(permit, at);
        self.pump(cx);
    }

    /// A place in flight is free.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used up by its release")]
    pub fn release(&mut self, cx: &mut Context<'_>, permit: Permit) {
        self.held.hear(cx.now.since(permit.since));
        self.give_back(cx, &permit);
        self.pump(cx);
    }

    /// It is this upstream's turn at a shared limit, or time has passed: look who can go.
    pub fn turn(&mut self, cx: &mut Context<'_>) {
        for pool in &self.awaited {
            self.line.unpark_first(Place::Pool(*pool));
        }
        self.line.unpark_due(cx.now);
        self.pump(cx);
        self.forget_turns(cx);
    }

    /// From now on nobody is let in, and whoever waits is refused.
    pub fn drain(&mut self) {
        self.draining = true;
        self.wake_everybody();
    }

    /// Everybody looks again: the rules changed.
    pub fn wake_everybody(&mut self) {
        self.line.unpark_all();
        let mut waiting: Vec<TicketId> = self.line.all().collect();
        waiting.extend(&self.resting);
        waiting.sort_unstable();
        self.events.extend(waiting.into_iter().map(Event::Wake));
    }

    /// What the adapter must do once the lock is released.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Attempts in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Exchanges in line.
    pub fn queued(&self) -> usize {
        self.line.len()
    }

    /// A grant that was made a moment ago still holds, unless a barrier went up meanwhile.
    fn confirm(
        &mut self,
        cx: &mut Context<'_>,
        ticket: &mut Ticket,
        grant: Grant,
    ) -> Option<Grant> {
        if grant.tightened == self.tightened || grant.shadow.is_some() {
            return Some(grant);
        }
        self.take_back(cx, ticket, grant);
        self.reenter(cx, ticket);
        None
    }

    fn go(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket, mut grant: Grant) -> Answer {
        if cx.now > ticket.deadline {
            self.take_back(cx, ticket, grant);
            self.pump(cx);
            return Answer::Refuse(Refusal::QueueTimeout { pool: None });
        }
        collect(cx.now, ticket, &grant);
        grant.waited = std::mem::take(&mut ticket.waited);
        grant.sent_at = cx.now;
        if let Some(scope) = self.scopes.get_mut(&grant.permit.scope) {
            grant.number = scope.send(grant.permit.cost);
        }
        if let Some(scope) = self.credentials.get_mut(&grant.permit.credential) {
            scope.send(grant.permit.cost);
        }
        ticket.wait_left = ticket.wait_left.saturating_sub(cx.now.since(ticket.waiting_since));
        if ticket.attempts == 0 {
            self.budget.deposit(cx.now);
        }
        ticket.attempts = ticket.attempts.saturating_add(1);
        Answer::Go(grant)
    }

    fn route(&mut self, id: RouteId) -> Option<&mut Route> {
        self.routes.get_mut(usize::from(id.0))
    }
}

#[cfg(test)]
mod tests;
