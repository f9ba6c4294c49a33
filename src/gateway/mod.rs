//! The running configuration: immutable, swapped whole.
//!
//! A [`Gateway`] is what one configuration means; an exchange keeps the one it began with to its
//! end. [`Common`] is what all of them share: clock, limits, counters. State that was learned lies
//! in [`upstream::UpstreamState`] and is handed on from one gateway to the next.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::broadcast;

pub mod clock;

pub mod route;

pub mod spending;

pub mod renewal;

mod path;

mod prefixes;

pub mod upstream;

pub mod view;

use self::clock::Clock;
use self::renewal::Look;
use self::route::Routes;
use self::spending::Spending;
use self::upstream::{Upstream, UpstreamState};
use crate::config::settings::{Settings, UpstreamConfig};
use crate::policy::limits::{Limits, UpstreamId};
use crate::policy::line::CredentialId;
use crate::policy::time::Draw;
use crate::proxy::head::UpstreamHead;
use crate::store::ledger::Ledger;
use crate::telemetry::access::AccessLogger;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{Backlog, Tracer};
use crate::telemetry::view::{EventKind, EventView};
use crate::transport::{ReplayMemory, Target, TargetError};

/// Events kept for a reader that falls behind.
const EVENT_BACKLOG: usize = 256;

/// What one configuration means.
pub struct Gateway {
    /// The configuration itself.
    pub settings: Arc<Settings>,
    /// From a request head to an upstream and a route.
    pub routes: Routes,
    /// In the order of the settings.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Which exchanges get a line, and how it looks.
    pub access: AccessLogger,
    /// Takes part in traces; `None` where none are exported.
    pub tracer: Option<Tracer>,
    /// Request bodies kept for a repeat, all exchanges together.
    pub replay_memory: Arc<ReplayMemory>,
    /// What all configurations share.
    pub common: Arc<Common>,
}

/// The gateway in force. Reading it costs an atomic load.
pub type Live = Arc<ArcSwap<Gateway>>;

/// What outlives every configuration.
pub struct Common {
    /// The one clock.
    pub clock: Clock,
    /// Everything that is counted.
    pub metrics: Arc<Metrics>,
    /// Where finished stories go.
    pub ledger: Ledger,
    /// Where those wait that are to become spans.
    pub traces: Backlog,
    draining: AtomicBool,
    limits: Mutex<Limits>,
    states: Mutex<HashMap<UpstreamId, Weak<UpstreamState>>>,
    next_state: AtomicU32,
    events: broadcast::Sender<EventView>,
    salt: u128,
    /// Where there are files to look at.
    look: OnceLock<Look>,
}

/// Why a configuration cannot be put to work.
#[derive(Debug, thiserror::Error)]
#[error("upstreams.{upstream}: {cause}")]
pub struct BuildError {
    /// Whose settings.
    pub upstream: Arc<str>,
    /// What is wrong with them.
    #[source]
    pub cause: TargetError,
}

impl Gateway {
    /// Builds everything anew, except the state of upstreams that are still the same upstream
    /// (name and origin). Nothing of the running gateway is touched: should this fail, it goes on.
    ///
    /// # Errors
    ///
    /// A certificate file that cannot be used.
    pub fn build(
        settings: Arc<Settings>,
        access: AccessLogger,
        common: &Arc<Common>,
        previous: Option<&Self>,
    ) -> Result<Self, BuildError> {
        let mut upstreams = Vec::with_capacity(settings.upstreams.len());
        common.states().retain(|_, state| state.strong_count() > 0);
        for config in &settings.upstreams {
            let same = previous.and_then(|previous| previous.same(config));
            upstreams.push(Arc::new(build_upstream(config, common, same)?));
        }
        let memory_max = settings.limits.replay_memory_max;
        let replay_memory = previous.map_or_else(
            || Arc::new(ReplayMemory::new(memory_max)),
            |previous| previous.replay_memory.clone(),
        );
        let routes = Routes::new(&settings.upstreams);
        let tracing = settings.tracing.as_ref();
        let tracer = tracing.map(|tracing| Tracer::new(tracing, common.traces.clone()));
        let common = common.clone();
        Ok(Self { routes, upstreams, access, tracer, replay_memory, common, settings })
    }

    /// Puts the rules of this gateway in force for everybody who waits or will come.
    pub fn enforce(&self) {
        self.common.limits().configure(&self.settings.limits);
        for key in &self.settings.limits.keys {
            // Its counters exist at 0 from here on.
            self.common.metrics.key(&key.pattern);
        }
        self.replay_memory.set_max(self.settings.limits.replay_memory_max);
        for upstream in &self.upstreams {
            upstream.state.configure(&upstream.config.policy, &upstream.metrics);
            upstream.state.renewal.put(upstream.head.injected.clone());
            if upstream.has_new_secret {
                let credential = CredentialId(self.common.injected(&upstream.config));
                upstream.state.with(|policy, cx| policy.unlock(cx, credential));
            }
        }
        let turns = self.common.limits().take_turns();
        self.common.give_turns(turns);
    }

    /// The upstream of that name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(self.routes.named(name)?)
    }

    fn same(&self, config: &UpstreamConfig) -> Option<&Arc<Upstream>> {
        self.upstream(&config.name).filter(|upstream| upstream.config.origin == config.origin)
    }
}

fn build_upstream(
    config: &UpstreamConfig,
    common: &Arc<Common>,
    same: Option<&Arc<Upstream>>,
) -> Result<Upstream, BuildError> {
    let config = Arc::new(config.clone());
    let metrics = common.metrics.upstream(&config);
    // A target owns its connections; one that would be the same is kept, with them.
    let kept = same.filter(|same| {
        same.config.tls == config.tls
            && same.config.connect_timeout == config.connect_timeout
            && config.tls == crate::config::settings::TlsConfig::default()
    });
    let target = match kept {
        Some(same) => same.target.clone(),
        None => Arc::new(
            Target::new(&config.origin, &config.tls, config.connect_timeout)
                .map_err(|cause| BuildError { upstream: config.name.clone(), cause })?,
        ),
    };
    let state = match same {
        Some(same) => same.state.clone(),
        None => common.new_state(&config, &metrics),
    };
    let before = same.map(|same| &same.config.credential);
    let has_new_secret = before.is_some_and(|before| *before != config.credential);
    let (route_ids, spending) = state
        .with(|policy, _| (policy.learn_routes(&config.policy), Spending::new(&config, policy)));
    let head = UpstreamHead::new(&config).ok_or_else(|| BuildError {
        upstream: config.name.clone(),
        cause: TargetError::Settings(
            "its host, path or credential is not legal in HTTP".to_owned(),
        ),
    })?;
    Ok(Upstream { head, target, route_ids, spending, has_new_secret, metrics, state, config })
}

impl Common {
    /// Everything at its beginning, without a ledger.
    pub fn new(clock: Clock, metrics: Arc<Metrics>, settings: &Settings) -> Arc<Self> {
        Self::with_ledger(clock, metrics, settings, Ledger::off(), Self::new_salt())
    }

    /// A salt that nobody can guess: the standard library seeds its hashers from the system.
    pub fn new_salt() -> u128 {
        let half = |n: u8| u128::from(RandomState::new().hash_one(n));
        (half(0) << 64) | half(1)
    }

    /// Everything at its beginning; the salt is the one under which state was kept.
    pub fn with_ledger(
        clock: Clock,
        metrics: Arc<Metrics>,
        settings: &Settings,
        ledger: Ledger,
        salt: u128,
    ) -> Arc<Self> {
        let traces = Backlog::new(metrics.traces_dropped.clone());
        Arc::new(Self {
            clock,
            metrics,
            ledger,
            traces,
            draining: AtomicBool::new(false),
            limits: Mutex::new(Limits::new(&settings.limits)),
            states: Mutex::default(),
            next_state: AtomicU32::new(1),
            events: broadcast::channel(EVENT_BACKLOG).0,
            salt,
            look: OnceLock::new(),
        })
    }

    /// Limits that span upstreams. Always locked after an upstream, never before one.
    pub fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A draw, so that the policy's decisions can be replayed with the same one.
    pub fn draw() -> Draw {
        Draw(fastrand::u32(..))
    }

    /// 80 bits and more of chance, for an id.
    pub fn chance() -> u128 {
        fastrand::u128(..)
    }

    /// Tells whoever follows the events, and the ledger. What others depend on is on disk soon.
    pub fn tell(&self, event: EventView) {
        let is_urgent =
            matches!(event.kind, EventKind::Breaker | EventKind::Cooldown | EventKind::Credential);
        self.ledger.event(&event, is_urgent);
        // Nobody listening is the usual case.
        let _ = self.events.send(event);
    }

    /// Follows the events from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<EventView> {
        self.events.subscribe()
    }

    /// A salted hash of what identifies a caller; tells two apart, reveals neither.
    pub fn salted(&self, bytes: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.salt.hash(&mut hasher);
        bytes.hash(&mut hasher);
        // Zero is nobody.
        hasher.finish().max(1)
    }

    /// The same for the secret that is put on every request to an upstream, by where it comes from:
    /// it may be replaced, and its quota stays.
    pub fn injected(&self, config: &UpstreamConfig) -> u64 {
        config.credential.as_ref().map_or(0, |it| self.salted(it.source.as_bytes()))
    }

    /// From now on refused secrets are looked at again in this way; the first one counts.
    pub fn look_by(&self, look: Look) {
        // A second one would be a second sidecar on the same gateway, and there is none.
        let _ = self.look.set(look);
    }

    /// Puts the secret of that upstream in force if there is a new one. May block.
    fn look_at_secret(&self, upstream: &str) {
        if let Some(look) = self.look.get() {
            look(upstream);
        }
    }

    /// Refuses new exchanges and those that wait, also at upstreams that a reload has removed.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        let states: Vec<_> = self.states().values().filter_map(Weak::upgrade).collect();
        for state in states {
            state.drain();
        }
    }

    /// Whether new exchanges are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Lets these upstreams look whether somebody can go, and those whose turn comes by that.
    pub fn give_turns(&self, turns: Vec<UpstreamId>) {
        // Each turn either takes a permit or leaves a list, so the rounds are bounded by nature;
        // the bound here is for the bug that would make them endless.
        const ROUNDS_MAX: usize = 10_000;
        let mut pending = VecDeque::from(turns);
        for _ in 0..ROUNDS_MAX {
            let Some(id) = pending.pop_front() else { return };
            let state = self.states().get(&id).and_then(Weak::upgrade);
            match state {
                Some(state) => {
                    let mut turns = Vec::new();
                    state.with_own(self.clock.now(), &mut turns, |policy, cx| policy.turn(cx));
                    pending.extend(turns);
                }
                None => {
                    let mut limits = self.limits();
                    limits.forget(id);
                    pending.extend(limits.take_turns());
                }
            }
        }
        debug_assert!(false, "turns went round and round");
    }

    fn new_state(
        self: &Arc<Self>,
        config: &UpstreamConfig,
        metrics: &Arc<crate::telemetry::upstream::UpstreamMetrics>,
    ) -> Arc<UpstreamState> {
        let id = UpstreamId(self.next_state.fetch_add(1, Ordering::Relaxed));
        let state = Arc::new(UpstreamState::new(id, config, metrics.clone(), self.clone()));
        self.states().insert(id, Arc::downgrade(&state));
        state
    }

    fn states(&self) -> MutexGuard<'_, HashMap<UpstreamId, Weak<UpstreamState>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
