//! One upstream at run time: what a configuration says of it, and the state that outlives it.
//!
//! The policy is reached only through [`UpstreamState::with`]: one short lock, a closure that
//! cannot await, one reading of the clock. What the policy wants done — wake a ticket, tell of a
//! breaker, give another upstream its turn at a shared limit — is done after the locks are free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Common;
use super::renewal::{Injected, Renewal};
use super::spending::Spending;
use crate::config::settings::{Origin, UpstreamConfig};
use crate::policy::breaker::Transition;
use crate::policy::hints::ServerClock;
use crate::policy::limits::UpstreamId;
use crate::policy::line::{CredentialId, RouteId, TicketId};
use crate::policy::scope::QuotaState;
use crate::policy::settings::UpstreamSettings;
use crate::policy::time::{MonoTime, WallTime};
use crate::policy::upstream::{
    Context, CooldownImage, Event, UpstreamImage, UpstreamPolicy, credential_name,
};
use crate::proxy::head::UpstreamHead;
use crate::telemetry::upstream::UpstreamMetrics;
use crate::telemetry::view::{EventKind, EventView, Moment};
use crate::transport::Target;

/// One upstream as one configuration sees it; built anew by a reload.
pub struct Upstream {
    /// What the file says.
    pub config: Arc<UpstreamConfig>,
    /// How its request heads are made.
    pub head: UpstreamHead,
    /// Where its bytes go.
    pub target: Arc<Target>,
    /// Under which id the policy knows each route of `config`.
    pub route_ids: Vec<RouteId>,
    /// Which quota its requests spend, and how much.
    pub spending: Spending,
    /// Whether the secret that is put on its requests is another one than before.
    pub has_new_secret: bool,
    /// Its counters.
    pub metrics: Arc<UpstreamMetrics>,
    /// What outlives a reload.
    pub state: Arc<UpstreamState>,
}

/// What outlives a reload.
pub struct UpstreamState {
    /// Its place in the table of states.
    pub id: UpstreamId,
    /// As configured.
    pub name: Arc<str>,
    /// State belongs to this origin; another one starts fresh.
    pub origin: Origin,
    locked: Mutex<Locked>,
    wakers: Mutex<HashMap<TicketId, Arc<Notify>>>,
    /// How an attempt failed that was the last to do so, in a few words.
    last_failure: Mutex<Option<Arc<str>>>,
    /// What its clock shows.
    server: Mutex<ServerClock>,
    /// The secret in force, where one is put on its requests.
    pub renewal: Renewal,
    common: Arc<Common>,
}

/// The settings lie beside the policy, under its lock, so that a reload changes the rules for
/// those already in line, too.
struct Locked {
    policy: UpstreamPolicy,
    settings: Arc<UpstreamSettings>,
    metrics: Arc<UpstreamMetrics>,
    /// The newest time that the policy has seen.
    latest: MonoTime,
}

impl UpstreamState {
    /// State that knows nothing yet.
    pub fn new(
        id: UpstreamId,
        config: &UpstreamConfig,
        metrics: Arc<UpstreamMetrics>,
        common: Arc<Common>,
    ) -> Self {
        Self {
            id,
            name: config.name.clone(),
            origin: config.origin.clone(),
            locked: Mutex::new(Locked {
                policy: UpstreamPolicy::new(id, &config.policy),
                settings: config.policy.clone(),
                metrics,
                latest: MonoTime::ZERO,
            }),
            wakers: Mutex::default(),
            last_failure: Mutex::default(),
            server: Mutex::default(),
            renewal: Renewal::default(),
            common,
        }
    }

    /// Asks or tells the policy something. Everything that follows from it has been done when this
    /// returns.
    pub fn with<R>(&self, f: impl FnOnce(&mut UpstreamPolicy, &mut Context<'_>) -> R) -> R {
        self.with_at(self.now(), f)
    }

    /// By the clock of everybody.
    pub fn now(&self) -> MonoTime {
        self.common.clock.now()
    }

    /// As [`Self::with`], by a clock that was read just before. An earlier time than the present
    /// one is the safe side: nothing ends sooner by it.
    pub fn with_at<R>(
        &self,
        now: MonoTime,
        f: impl FnOnce(&mut UpstreamPolicy, &mut Context<'_>) -> R,
    ) -> R {
        let mut turns = Vec::new();
        let result = self.with_own(now, &mut turns, f);
        if !turns.is_empty() {
            self.common.give_turns(turns);
        }
        result
    }

    /// As [`Self::with`], and those whose `turns` it is at shared limits are the caller's to wake.
    pub(super) fn with_own<R>(
        &self,
        now: MonoTime,
        turns: &mut Vec<UpstreamId>,
        f: impl FnOnce(&mut UpstreamPolicy, &mut Context<'_>) -> R,
    ) -> R {
        let (result, told) = {
            let mut locked = self.lock();
            let Locked { policy, settings, metrics, latest } = &mut *locked;
            // Whoever read the clock first may come to the lock last. For the policy, time does not
            // go back: what it has charged to a wait would be charged again.
            *latest = now.max(*latest);
            let now = *latest;
            let mut limits = self.common.limits();
            let mut cx = Context { cfg: settings, limits: &mut limits, now };
            let result = f(policy, &mut cx);
            let events = policy.take_events();
            turns.append(&mut limits.take_turns());
            (result, (!events.is_empty()).then(|| (events, metrics.clone())))
        };
        if let Some((events, metrics)) = told {
            for event in events {
                self.act_on(event, &metrics);
            }
        }
        result
    }

    /// Takes over new rules; whoever waits looks again.
    pub fn configure(
        &self,
        settings: &Arc<UpstreamSettings>,
        metrics: &Arc<UpstreamMetrics>,
    ) -> Vec<RouteId> {
        {
            let mut locked = self.lock();
            locked.settings = settings.clone();
            locked.metrics = metrics.clone();
        }
        self.with(|policy, cx| {
            let ids = policy.configure(cx.cfg);
            policy.wake_everybody();
            policy.turn(cx);
            ids
        })
    }

    /// Refuses newcomers and whoever waits.
    pub fn drain(&self) {
        self.with(|policy, _| policy.drain());
        // Those that pause between two attempts stand in no line.
        for waker in self.wakers().values() {
            waker.notify_one();
        }
    }

    /// The state as plain data, with the settings it was judged by.
    pub fn image(&self) -> UpstreamImage {
        self.with(|policy, cx| policy.image(cx))
    }

    /// Whether a refused secret is one no more; see [`Renewal`].
    pub async fn is_renewed(&self, sent: &Injected) -> bool {
        self.renewal.has_other(sent, &self.common, &self.name).await
    }

    /// Remembers how an attempt failed: `503 unhealthy`, `connect`.
    pub fn note_failure(&self, what: String) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    }

    /// How the last attempt that failed did so.
    pub fn last_failure(&self) -> Option<Arc<str>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What its clock shows, by its last answers.
    pub fn server_time(&self, now: MonoTime) -> Option<WallTime> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).at(now)
    }

    /// An answer that came at `now` was dated so.
    pub fn hear_date(&self, date: WallTime, now: MonoTime) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).hear(date, now);
    }

    /// Whoever waits under this number is woken through what is returned.
    pub fn waker(&self, ticket: TicketId) -> Arc<Notify> {
        self.wakers().entry(ticket).or_default().clone()
    }

    /// Nobody waits under this number any more.
    pub fn forget_waker(&self, ticket: TicketId) {
        self.wakers().remove(&ticket);
    }

    fn act_on(&self, event: Event, metrics: &UpstreamMetrics) {
        match event {
            Event::Wake(ticket) => {
                if let Some(waker) = self.wakers().get(&ticket) {
                    waker.notify_one();
                }
            }
            Event::Breaker(route, transition) => {
                self.tell_breaker(route.as_deref(), transition, metrics);
            }
            Event::Cooldown(image) => self.tell_cooldown(&image),
            Event::Quota { scope, quota } => self.tell_quota(scope, &quota),
            Event::Locked { credential, until } => self.tell_lock(credential, until),
            Event::Unlocked { credential } => self.tell_unlock(credential),
        }
    }

    fn tell_breaker(&self, route: Option<&str>, change: Transition, metrics: &UpstreamMetrics) {
        let scope = route.map_or_else(|| "upstream".to_owned(), |route| format!("route {route}"));
        let (from, to) = (super::view::state(change.from), super::view::state(change.to));
        metrics.transition(&scope, from, to);
        let (upstream, reason) = (&*self.name, change.reason.name());
        let (from, to) = (from.name(), to.name());
        tracing::warn!(upstream, scope, from, to, reason, "breaker changed");
        self.tell(EventKind::Breaker, scope, format!("{from} → {to}: {reason}"));
    }

    fn tell_cooldown(&self, image: &CooldownImage) {
        let until = self.common.clock.anchor().wall(image.until);
        let source = image.source.map_or("forbear", |source| source.name());
        let (upstream, scope) = (&*self.name, image.scope.clone());
        let wait_ms = u64::try_from(image.wait.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(upstream, scope, %until, wait_ms, source, "cooling down");
        self.tell(EventKind::Cooldown, scope, format!("nothing before {until} ({source})"));
    }

    fn tell_quota(&self, scope: String, quota: &QuotaState) {
        let QuotaState { name, limit, left, reset, is_told: _ } = quota;
        let name = name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
        let limit = limit.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
        let until = reset.map(|at| format!(" until {}", self.common.clock.anchor().wall(at)));
        let detail = format!("{name}{left} of {limit} left{}", until.unwrap_or_default());
        tracing::info!(upstream = &*self.name, scope, detail, "quota learned");
        self.tell(EventKind::Quota, scope, detail);
    }

    fn tell_lock(&self, credential: CredentialId, until: MonoTime) {
        let until = self.common.clock.anchor().wall(until);
        let (upstream, scope) = (&*self.name, credential_name(credential));
        tracing::warn!(upstream, scope, %until, "refused again and again: locked");
        self.tell(
            EventKind::Credential,
            scope,
            format!("refused again and again: locked until {until}"),
        );
    }

    fn tell_unlock(&self, credential: CredentialId) {
        let (upstream, scope) = (&*self.name, credential_name(credential));
        tracing::info!(upstream, scope, "unlocked");
        self.tell(EventKind::Credential, scope, "unlocked".to_owned());
    }

    fn tell(&self, kind: EventKind, scope: String, detail: String) {
        self.common.tell(EventView {
            time: Moment(self.common.clock.wall()),
            kind,
            upstream: Some(self.name.to_string()),
            scope: Some(scope),
            detail,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        // A panic under the lock left whole values behind; refusing all traffic would be worse.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> MutexGuard<'_, HashMap<TicketId, Arc<Notify>>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// The settings of a route, by its place in the configuration.
    pub fn route(&self, index: usize) -> Option<&crate::config::settings::RouteConfig> {
        self.config.routes.get(index)
    }
}
