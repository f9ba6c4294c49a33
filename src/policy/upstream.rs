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

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Admission, Breaker, Held, Transition};
use super::budget::RetryBudget;
use super::limits::{Limits, PoolId, UpstreamId};
use super::line::{CredentialId, Line, Needs, Obstacle, Place, RouteId, TicketId, Why};
use super::outcome::{WaitKind, Waits};
use super::scope::{Closed, Scope};
use super::settings::{BreakerSettings, Mode, RouteSettings, UpstreamSettings};
use super::time::MonoTime;

mod force;
mod settle;
mod view;

pub use self::force::Forced;
pub use self::settle::{GiveUp, Report, RetryPlan, Verdict};
pub use self::view::{BreakerImage, CooldownImage, QuotaImage, UpstreamImage};

/// Scopes of (route, credential) remembered. At about 300 bytes each this is 300 KB; a scope that
/// is idle and says nothing makes room, and beyond that strangers share one.
pub const SCOPES_MAX: usize = 1024;

/// A probe is lost when it is out for longer.
const PROBE_LEASE: Duration = Duration::from_secs(30);

/// What every call needs besides the state: the rules, the shared limits and the time.
#[derive(Debug)]
pub struct Context<'a> {
    /// The upstream's settings now in force.
    pub cfg: &'a UpstreamSettings,
    /// Limits that span upstreams.
    pub limits: &'a mut Limits,
    /// Read once, by the caller.
    pub now: MonoTime,
}

/// What an exchange wants of an upstream.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Route, credential, safety and keys.
    pub needs: Needs,
    /// Longest it may be held in all its waits together.
    pub wait_max: Duration,
    /// No wait ends later; [`MonoTime::MAX`] for none.
    pub deadline: MonoTime,
}

/// A place in line. Neither `Clone` nor `Copy`: it is given up with [`UpstreamPolicy::quit`].
#[derive(Debug)]
#[must_use = "a ticket that is not given up stands in line for ever"]
pub struct Ticket {
    pub(super) id: TicketId,
    pub(super) needs: Needs,
    pub(super) wait_left: Duration,
    pub(super) deadline: MonoTime,
    /// Since when the present wait lasts, and until when it may.
    pub(super) waiting_since: MonoTime,
    pub(super) resting: Option<Rest>,
    pub(super) granted: Option<Grant>,
    /// Waits since the last attempt.
    pub(super) waited: Waits,
    pub(super) attempts: u8,
    pub(super) counted: u8,
    pub(super) used_once: bool,
    pub(super) last_backoff: Duration,
}

impl Ticket {
    /// Its number, to be woken by.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// Waits that no attempt came after: what a refused exchange waited at last.
    pub fn waited(&self) -> Waits {
        self.waited
    }

    /// Attempts granted so far.
    pub fn attempts(&self) -> u8 {
        self.attempts
    }

    fn give_up_at(&self) -> MonoTime {
        (self.waiting_since + self.wait_left).min(self.deadline)
    }
}

/// A pause of one exchange's own, between two attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    pub(super) since: MonoTime,
    pub(super) until: MonoTime,
}

/// The right to send one attempt now, and a place in flight until it is released.
#[derive(Debug)]
#[must_use = "settle or abandon it, and release its permit"]
pub struct Grant {
    pub(super) admission: Option<Admission>,
    pub(super) permit: Permit,
    pub(super) sent_at: MonoTime,
    pub(super) in_flight: u32,
    tightened: u64,
    /// Waits before this attempt.
    pub waited: Waits,
    /// In shadow mode: what would have been in the way.
    pub shadow: Option<WaitKind>,
}

impl Grant {
    /// Takes it apart: the admission is settled with the outcome, the permit lives on.
    pub fn split(self) -> (Sent, Permit) {
        let sent = Sent { admission: self.admission, at: self.sent_at, in_flight: self.in_flight };
        (sent, self.permit)
    }
}

/// An attempt on its way.
#[derive(Debug)]
#[must_use = "settle or abandon it, or the breaker never hears how the attempt ended"]
pub struct Sent {
    pub(super) admission: Option<Admission>,
    pub(super) at: MonoTime,
    pub(super) in_flight: u32,
}

/// A place in flight. Given back with [`UpstreamPolicy::release`].
#[derive(Debug)]
#[must_use = "a permit that is not released is lost until the process ends"]
pub struct Permit {
    route: RouteId,
    credential: CredentialId,
    /// Where the scope is kept: strangers share one when the table is full.
    scope: (RouteId, CredentialId),
    pools: Arc<[PoolId]>,
    in_pools: bool,
}

/// May it send now?
#[derive(Debug)]
pub enum Answer {
    /// Yes; send at once.
    Go(Grant),
    /// Not yet: ask again then, or when woken.
    Wait {
        /// At the latest.
        until: MonoTime,
    },
    /// No, and it would be wrong to wait.
    Refuse(Refusal),
}

/// Why an exchange is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Open for longer than the exchange may be held.
    BreakerOpen {
        /// When a probe may go.
        until: MonoTime,
    },
    /// The upstream's own wait is longer than that.
    Cooldown {
        /// When it ends.
        until: MonoTime,
    },
    /// Hours until the reset.
    Exhausted {
        /// When it ends.
        until: MonoTime,
    },
    /// The next place in the quota is later than that.
    Paced {
        /// When there is one.
        until: MonoTime,
    },
    /// As many wait as may, here or in the whole process.
    QueueFull,
    /// No permit in time; the key that was full, if it was one.
    QueueTimeout {
        /// The pool in the way.
        pool: Option<PoolId>,
    },
    /// Shutting down.
    Draining,
}

impl Refusal {
    /// When it would work, if that is known.
    pub fn until(&self) -> Option<MonoTime> {
        match self {
            Self::BreakerOpen { until }
            | Self::Cooldown { until }
            | Self::Exhausted { until }
            | Self::Paced { until } => Some(*until),
            Self::QueueFull | Self::QueueTimeout { .. } | Self::Draining => None,
        }
    }
}

/// What the adapter must do once the lock is released.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This ticket should ask again.
    Wake(TicketId),
    /// A breaker changed; `None` is the upstream's own.
    Breaker(Option<Arc<str>>, Transition),
    /// A pause began or grew.
    Cooldown(CooldownImage),
}

/// Policy state of one upstream.
#[derive(Debug)]
pub struct UpstreamPolicy {
    id: UpstreamId,
    line: Line,
    granted: HashMap<TicketId, Grant>,
    next_ticket: u64,
    in_flight: u32,
    routes: Vec<Route>,
    breaker: Breaker,
    forced: Option<Forced>,
    scopes: HashMap<(RouteId, CredentialId), Scope>,
    credentials: HashMap<CredentialId, Scope>,
    whole: Scope,
    budget: RetryBudget,
    /// Changes whenever a barrier went up, so that a grant from before is looked at again.
    tightened: u64,
    /// Shared limits on whose lists this upstream stands.
    awaited: HashSet<PoolId>,
    draining: bool,
    events: Vec<Event>,
}

/// A route's state; found by name after a reload.
#[derive(Debug)]
struct Route {
    name: Arc<str>,
    /// Index in the settings now in force; routes that are gone are treated as the default one.
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
            granted: HashMap::new(),
            next_ticket: 1,
            in_flight: 0,
            routes: Vec::new(),
            breaker: Breaker::default(),
            forced: None,
            scopes: HashMap::new(),
            credentials: HashMap::new(),
            whole: Scope::default(),
            budget: RetryBudget::default(),
            tightened: 0,
            awaited: HashSet::new(),
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
    /// from now on. Returns what [`Self::learn_routes`] does.
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
                (None, Some(_)) => route.breaker = None,
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
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
        let mut ticket = Ticket {
            id: TicketId(self.next_ticket),
            needs: ask.needs,
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
        self.line.unpark_due(cx.now);
        self.pump(cx);
        if !self.line.has_lane(&ticket.needs) {
            match self.start(cx, &ticket.needs) {
                Ok(grant) => {
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
        if self.line.len() >= usize::try_from(cx.cfg.queue_max).unwrap_or(usize::MAX)
            || cx.limits.enter_queue().is_err()
        {
            self.forget_turns(cx);
            return Err(Refusal::QueueFull);
        }
        self.line.enter(cx.now, &ticket.needs, ticket.id, ticket.give_up_at());
        self.pump(cx);
        Ok(ticket)
    }

    /// May it send now?
    pub fn ask(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Answer {
        if let Some(grant) = ticket.granted.take().or_else(|| self.granted.remove(&ticket.id)) {
            match self.confirm(cx, ticket, grant) {
                Some(grant) => return self.go(cx, ticket, grant),
                None => self.pump(cx),
            }
        }
        if let Some(rest) = ticket.resting {
            if self.draining {
                ticket.waited.charge(WaitKind::Backoff, cx.now.since(rest.since));
                ticket.resting = None;
                return Answer::Refuse(Refusal::Draining);
            }
            if cx.now < rest.until {
                return Answer::Wait { until: rest.until };
            }
            ticket.waited.charge(WaitKind::Backoff, cx.now.since(rest.since));
            ticket.resting = None;
            self.reenter(cx, ticket);
        }
        self.line.unpark_due(cx.now);
        self.pump(cx);
        if let Some(grant) = self.granted.remove(&ticket.id) {
            return self.go(cx, ticket, grant);
        }
        self.wait_or_refuse(cx, ticket)
    }

    /// Gives the ticket up, whatever its state.
    pub fn quit(&mut self, cx: &mut Context<'_>, ticket: Ticket) {
        if let Some(grant) = ticket.granted.or_else(|| self.granted.remove(&ticket.id)) {
            self.undo(cx, grant);
            self.pump(cx);
        }
        if self.leave_line(cx, ticket.id).is_some() {
            self.pump(cx);
            self.forget_turns(cx);
        }
    }

    /// An attempt ended without a verdict: its caller has gone.
    pub fn abandon(&mut self, cx: &mut Context<'_>, permit: &Permit, sent: Sent) {
        if let Some(admission) = sent.admission {
            let was_probe = admission.is_probe();
            self.breaker_of(cx.cfg, permit.route).1.abandon(cx.now, admission);
            if was_probe {
                self.line.unpark_all();
            }
        }
        self.pump(cx);
    }

    /// A place in flight is free.
    pub fn release(&mut self, cx: &mut Context<'_>, permit: Permit) {
        self.give_back(cx, &permit);
        self.pump(cx);
    }

    /// It is this upstream's turn at a shared limit, or time has passed: look who can go.
    pub fn turn(&mut self, cx: &mut Context<'_>) {
        let pools = self.line.parked_pools();
        for pool in pools {
            self.line.unpark_first(Place::Pool(pool));
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
        self.events.extend(self.line.all().map(Event::Wake));
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

    /// Lets go whoever can, first come first served.
    fn pump(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some((head, needs)) = self.line.next_ready() else {
                if self.in_flight < self.house(cx) && self.line.unpark_first(Place::House) {
                    continue;
                }
                break;
            };
            match self.start(cx, &needs) {
                Ok(mut grant) => {
                    if let Some(waits) = self.leave_line(cx, head) {
                        grant.waited = waits;
                    }
                    self.granted.insert(head, grant);
                    self.events.push(Event::Wake(head));
                }
                Err(obstacle) => {
                    let impatient = self.line.park(cx.now, head, obstacle);
                    self.events.extend(impatient.into_iter().map(Event::Wake));
                }
            }
        }
    }

    fn reenter(&mut self, cx: &mut Context<'_>, ticket: &Ticket) {
        cx.limits.reenter_queue();
        self.line.enter(cx.now, &ticket.needs, ticket.id, ticket.give_up_at());
    }

    fn leave_line(&mut self, cx: &mut Context<'_>, id: TicketId) -> Option<Waits> {
        let left = self.line.leave(cx.now, id)?;
        cx.limits.leave_queue();
        self.events.extend(left.new_head.map(Event::Wake));
        Some(left.waits)
    }

    /// Takes circuit, cooldown, quota and permits, or nothing.
    fn start(&mut self, cx: &mut Context<'_>, needs: &Needs) -> Result<Grant, Obstacle> {
        let is_shadow = route_settings(cx.cfg, &self.routes, needs.route)
            .is_some_and(|settings| settings.mode == Mode::Shadow);
        let mut shadow = None;
        let mut in_pools = true;
        if let Err(obstacle) = self.check(cx, needs) {
            if !is_shadow {
                return Err(obstacle);
            }
            shadow = Some(obstacle.kind);
        }
        if let Err(pool) = cx.limits.try_take(self.id, &needs.pools) {
            if !is_shadow {
                self.awaited.insert(pool);
                return Err(Obstacle {
                    place: Place::Pool(pool),
                    until: None,
                    kind: WaitKind::Queue,
                    why: Why::Pool(pool),
                });
            }
            cx.limits.withdraw(self.id, pool);
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
        let now = cx.now;
        self.whole.start(now);
        if let Some(scope) = self.credentials.get_mut(&needs.credential) {
            scope.start(now);
        }
        let (key, scope) = self.scope(now, needs.route, needs.credential);
        scope.start(now);
        let in_flight = scope.in_flight();
        Ok(Grant {
            admission,
            permit: Permit {
                route: needs.route,
                credential: needs.credential,
                scope: key,
                pools: needs.pools.clone(),
                in_pools,
            },
            sent_at: now,
            in_flight,
            tightened: self.tightened,
            waited: Waits::default(),
            shadow,
        })
    }

    /// What is in the way, shared limits aside.
    fn check(&mut self, cx: &Context<'_>, needs: &Needs) -> Result<(), Obstacle> {
        self.check_barriers(cx, needs)?;
        let capacity =
            |place| Obstacle { place, until: None, kind: WaitKind::Queue, why: Why::Capacity };
        if self.in_flight >= self.house(cx) {
            return Err(capacity(Place::House));
        }
        let limit = route_settings(cx.cfg, &self.routes, needs.route)
            .and_then(|settings| settings.in_flight_max);
        let now = cx.now;
        if let Some(route) = self.route(needs.route) {
            let slow_start = route.breaker.as_mut().and_then(|breaker| breaker.in_flight_cap(now));
            let limit = limit.unwrap_or(u32::MAX).min(slow_start.unwrap_or(u32::MAX));
            if route.in_flight >= limit {
                return Err(capacity(Place::Route(needs.route)));
            }
        }
        Ok(())
    }

    /// Breaker and cooldowns: what may go up between a grant and its collection.
    fn check_barriers(&mut self, cx: &Context<'_>, needs: &Needs) -> Result<(), Obstacle> {
        let now = cx.now;
        self.note_time(cx, needs.route);
        let (settings, breaker) = self.breaker_of(cx.cfg, needs.route);
        if let Err(held) = breaker.check(settings, now, needs.safety) {
            let (until, why) = match held {
                Held::Open { until } => (until, Why::Breaker),
                Held::Probing { until } => (until, Why::Probing),
            };
            let (place, kind) = (Place::Clock, WaitKind::Breaker);
            return Err(Obstacle { place, until: Some(until), kind, why });
        }
        let place = Place::Scope(needs.route, needs.credential);
        self.whole.check(now).map_err(|closed| closed_at(place, closed))?;
        if let Some(scope) = self.credentials.get_mut(&needs.credential) {
            scope.check(now).map_err(|closed| closed_at(place, closed))?;
        }
        let (_, scope) = self.scope(now, needs.route, needs.credential);
        scope.check(now).map_err(|closed| closed_at(place, closed))
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
        ticket.waited.add(&grant.waited);
        self.undo(cx, grant);
        self.reenter(cx, ticket);
        None
    }

    fn go(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket, mut grant: Grant) -> Answer {
        ticket.waited.add(&grant.waited);
        grant.waited = std::mem::take(&mut ticket.waited);
        grant.sent_at = cx.now;
        ticket.wait_left = ticket.wait_left.saturating_sub(cx.now.since(ticket.waiting_since));
        if ticket.attempts == 0 {
            self.budget.deposit(cx.now);
        }
        ticket.attempts = ticket.attempts.saturating_add(1);
        Answer::Go(grant)
    }

    fn wait_or_refuse(&mut self, cx: &mut Context<'_>, ticket: &mut Ticket) -> Answer {
        let give_up_at = ticket.give_up_at();
        if self.draining {
            let waits = self.leave_line(cx, ticket.id);
            ticket.waited.add(&waits.unwrap_or_default());
            return Answer::Refuse(Refusal::Draining);
        }
        let Some((obstacle, is_head)) = self.line.obstacle(ticket.id) else {
            debug_assert!(false, "whoever asks and has no grant stands in line");
            return Answer::Wait { until: give_up_at };
        };
        let refusal = too_late(&obstacle, give_up_at)
            .or_else(|| (cx.now >= give_up_at).then(|| timed_out(&obstacle, cx.now)));
        if let Some(refusal) = refusal {
            let waits = self.leave_line(cx, ticket.id);
            ticket.waited.add(&waits.unwrap_or_default());
            self.pump(cx);
            self.forget_turns(cx);
            return Answer::Refuse(refusal);
        }
        // Only the head of a lane minds the obstacle's clock; the others would wake for nothing.
        let until = obstacle.until.filter(|_| is_head).unwrap_or(MonoTime::MAX);
        Answer::Wait { until: until.min(give_up_at) }
    }

    fn undo(&mut self, cx: &mut Context<'_>, grant: Grant) {
        let now = cx.now;
        if let Some(admission) = grant.admission {
            self.breaker_of(cx.cfg, grant.permit.route).1.abandon(now, admission);
        }
        self.give_back(cx, &grant.permit);
    }

    fn give_back(&mut self, cx: &mut Context<'_>, permit: &Permit) {
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
        let is_careful = !self.whole.is_free()
            || self.credentials.get(&permit.credential).is_some_and(|scope| !scope.is_free());
        if is_careful {
            // Others may wait for this one, whatever their route.
            self.line.unpark_all();
        } else {
            while self.line.unpark_first(Place::Scope(permit.route, permit.credential)) {}
        }
    }

    /// Attempts that may be in flight now: the setting, or less while the upstream recovers.
    fn house(&mut self, cx: &Context<'_>) -> u32 {
        self.breaker
            .in_flight_cap(cx.now)
            .map_or(cx.cfg.in_flight_max, |cap| cap.min(cx.cfg.in_flight_max))
    }

    /// The breaker that governs a route, with its settings.
    fn breaker_of<'a, 'c>(
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
    fn note_time(&mut self, cx: &Context<'_>, route: RouteId) {
        let (_, breaker) = self.breaker_of(cx.cfg, route);
        if let Some(transition) = breaker.advance(cx.now) {
            let name = self.breaker_name(route);
            self.events.push(Event::Breaker(name, transition));
        }
    }

    /// `None` for the upstream's own breaker.
    fn breaker_name(&self, route: RouteId) -> Option<Arc<str>> {
        self.routes
            .get(usize::from(route.0))
            .filter(|route| route.breaker.is_some())
            .map(|route| route.name.clone())
    }

    fn route(&mut self, id: RouteId) -> Option<&mut Route> {
        self.routes.get_mut(usize::from(id.0))
    }

    fn scope(
        &mut self,
        now: MonoTime,
        route: RouteId,
        credential: CredentialId,
    ) -> ((RouteId, CredentialId), &mut Scope) {
        const STRANGERS: CredentialId = CredentialId(u64::MAX);
        let mut key = (route, credential);
        if self.scopes.len() >= SCOPES_MAX && !self.scopes.contains_key(&key) {
            self.scopes.retain(|_, scope| !scope.is_idle(now));
            if self.scopes.len() >= SCOPES_MAX {
                key = (route, STRANGERS);
            }
        }
        (key, self.scopes.entry(key).or_default())
    }

    /// Takes this upstream off the lists of shared limits that it no longer waits for.
    fn forget_turns(&mut self, cx: &mut Context<'_>) {
        let line = &self.line;
        self.awaited.retain(|pool| {
            let waits = line.is_parked_at(Place::Pool(*pool));
            if !waits {
                cx.limits.withdraw(self.id, *pool);
            }
            waits
        });
    }
}

/// The settings of a route, by the id under which the policy knows it.
fn route_settings<'c>(
    cfg: &'c UpstreamSettings,
    routes: &[Route],
    id: RouteId,
) -> Option<&'c RouteSettings> {
    let setting = routes.get(usize::from(id.0)).map_or(0, |route| route.setting);
    cfg.routes.get(setting)
}

fn closed_at(place: Place, closed: Closed) -> Obstacle {
    Obstacle {
        place: if closed.until.is_some() { Place::Clock } else { place },
        until: closed.until,
        kind: closed.kind,
        why: match closed.kind {
            WaitKind::Cooldown if closed.exhausted => Why::Exhausted,
            WaitKind::Cooldown | WaitKind::Backoff => Why::Cooldown,
            WaitKind::Pacing => Why::Pacing,
            WaitKind::Breaker => Why::Breaker,
            WaitKind::Queue => Why::Capacity,
        },
    }
}

/// A refusal, if the obstacle stands for longer than the exchange may be held.
fn too_late(obstacle: &Obstacle, give_up_at: MonoTime) -> Option<Refusal> {
    let until = obstacle.until.filter(|until| *until > give_up_at)?;
    // A probe may come back at any moment; until then it is too early to say no.
    named(obstacle.why, until).filter(|_| obstacle.why != Why::Probing)
}

/// The refusal of an exchange whose time is over.
fn timed_out(obstacle: &Obstacle, now: MonoTime) -> Refusal {
    obstacle.until.and_then(|until| named(obstacle.why, until.max(now))).unwrap_or(
        Refusal::QueueTimeout {
            pool: match obstacle.why {
                Why::Pool(pool) => Some(pool),
                Why::Capacity
                | Why::Breaker
                | Why::Probing
                | Why::Cooldown
                | Why::Exhausted
                | Why::Pacing => None,
            },
        },
    )
}

fn named(why: Why, until: MonoTime) -> Option<Refusal> {
    match why {
        Why::Breaker | Why::Probing => Some(Refusal::BreakerOpen { until }),
        Why::Cooldown => Some(Refusal::Cooldown { until }),
        Why::Exhausted => Some(Refusal::Exhausted { until }),
        Why::Pacing => Some(Refusal::Paced { until }),
        Why::Capacity | Why::Pool(_) => None,
    }
}
