//! One exchange: what it is, how much time it has, and its story, told exactly once.
//!
//! Being dropped is an outcome: whoever lets go of a [`Teller`] before the end tells of a client
//! that left. Nothing on the path has to remember to.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use super::directives::Directives;
use super::made_key::MadeKey;
use super::reject::Rejection;
use super::survey::{Kind, Survey};
use crate::gateway::Gateway;
use crate::gateway::upstream::Upstream;
use crate::policy::limits::PoolId;
use crate::policy::line::{CredentialId, FlowId};
use crate::policy::outcome::{Safety, Waits};
use crate::policy::retry::{Replay as CanRepeat, RetryMode};
use crate::policy::time::{MonoTime, TimeAnchor};
use crate::telemetry::story::{Decision, Ending, RequestId, Story};
use crate::telemetry::trace::Trace;
use crate::transport::{BodyFault, Replay, ReplayState};

mod carrier;

/// Fields that identify a caller to an upstream; quotas and cooldowns belong to the first of them
/// that a request has. The value is hashed with a salt and forgotten.
pub(super) const CREDENTIAL_FIELDS: [HeaderName; 6] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("apikey"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("private-token"),
];

/// Bodies up to this size are read while their exchange waits in line; larger ones stay with the
/// client until they can be sent.
const READ_AHEAD_MAX: u64 = 64 * 1024;

/// Everything about an exchange that its attempts need.
pub(super) struct Exchange<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) upstream: &'a Arc<Upstream>,
    /// Place of the route in the configuration.
    pub(super) route: usize,
    pub(super) parts: &'a Parts,
    pub(super) seen: Survey,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) directives: &'a Directives,
    pub(super) safety: Safety,
    /// Goes with every attempt.
    pub(super) made_key: Option<&'a MadeKey>,
    /// The protocol to change to, if the client asked for one.
    pub(super) upgrade: Option<HeaderValue>,
    pub(super) body: &'a Replay,
    /// Whether the client holds its body back until it is told to go on.
    pub(super) expects_continue: bool,
    /// Both clocks when its head was complete.
    pub(super) anchor: TimeAnchor,
    /// [`MonoTime::MAX`] if the caller named none.
    pub(super) deadline: MonoTime,
    /// Differs from that of every other exchange.
    pub(super) number: u64,
}

impl Exchange<'_> {
    /// Whether the body can be sent by one more attempt.
    pub(super) fn can_repeat(&self) -> CanRepeat {
        match self.body.state() {
            ReplayState::Ready => CanRepeat::Ready,
            ReplayState::Streamed | ReplayState::Broken => CanRepeat::Impossible,
        }
    }

    /// Reads a small body while its exchange waits, so that a client that leaves is noticed. Only
    /// ever returns with what the client did wrong. A client that waits to be told to go on is
    /// not told so by this.
    pub(super) async fn read_ahead(&self) -> BodyFault {
        if !self.expects_continue
            && let Err(fault) = self.body.read_ahead(READ_AHEAD_MAX).await
        {
            return fault;
        }
        std::future::pending().await
    }

    pub(super) fn retry_mode(&self) -> RetryMode {
        use super::directives::RetryWish;
        match self.directives.retry {
            // What was begun as another protocol cannot be begun again.
            _ if self.upgrade.is_some() => RetryMode::Off,
            Some(RetryWish::Off) => RetryMode::Off,
            Some(RetryWish::Safe) => RetryMode::SafeOnly,
            Some(RetryWish::Idempotent) | None => RetryMode::Normal,
        }
    }

    /// To the response head, if the caller leaves as much.
    pub(super) fn attempt_timeout(&self) -> Duration {
        self.upstream.route(self.route).map_or(Duration::ZERO, |route| route.attempt_timeout)
    }

    /// To the response head from `now`, and between two pieces of its body; no attempt outlives the
    /// caller.
    pub(super) fn timeouts(&self, now: MonoTime) -> (Duration, Duration) {
        let left = self.deadline.since(now);
        let idle = self.upstream.route(self.route).map_or(Duration::ZERO, |it| it.idle_timeout);
        (self.attempt_timeout().min(left), idle)
    }

    /// Whether the time that the caller named is over.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.deadline <= self.gateway.common.clock.now()
    }

    /// Longest this exchange is held, all waits together, as its caller is told.
    pub(super) fn held_max(&self) -> Duration {
        let wait_max = self.wait_max();
        self.directives.deadline.map_or(wait_max, |deadline| deadline.min(wait_max))
    }

    /// Longest this exchange is held, all waits together.
    pub(super) fn wait_max(&self) -> Duration {
        let configured = self
            .upstream
            .config
            .policy
            .routes
            .get(self.route)
            .map_or(Duration::ZERO, |route| route.max_wait);
        self.directives.wait.map_or(configured, |wish| wish.min(configured))
    }

    /// Whose fair share it uses: the flow that its caller names, else its run, else its credential.
    pub(super) fn flow(&self, credential: CredentialId) -> FlowId {
        let Directives { flow, run, tool_run, .. } = self.directives;
        let name = flow.as_ref().or(run.as_ref()).or(tool_run.as_ref());
        let common = &self.gateway.common;
        FlowId(name.map_or(credential.0, |name| common.salted(name.as_bytes())))
    }

    /// Whose quota it spends: the injected secret's, or the caller's own.
    pub(super) fn credential(&self) -> u64 {
        let common = &self.gateway.common;
        if self.upstream.config.credential.is_some() {
            return common.injected(&self.upstream.config);
        }
        let named = self.upstream.config.credential_from.as_ref();
        let named = named.and_then(|carrier| carrier::found(carrier, self.parts));
        let usual = || {
            let seen = self.seen.saw(Kind::Credential);
            seen.then(|| CREDENTIAL_FIELDS.iter().find_map(|name| self.parts.headers.get(name)))
        };
        let value = named.or_else(|| usual().flatten().map(HeaderValue::as_bytes));
        value.map_or(0, |value| common.salted(value))
    }
}

/// Concurrency keys that an exchange joined; left when dropped.
pub(super) struct Keys {
    gateway: Arc<Gateway>,
    /// Sorted, each once.
    pub(super) pools: Arc<[PoolId]>,
    /// Its number in those whose order is strict.
    pub(super) numbers: Option<Arc<[(PoolId, u64)]>>,
}

impl Keys {
    pub(super) fn join(gateway: &Arc<Gateway>, names: &[Arc<str>]) -> Self {
        let mut pools = Vec::new();
        let mut numbers = Vec::new();
        if !names.is_empty() {
            let mut limits = gateway.common.limits();
            for name in names {
                if let Some(pool) = limits.join(name) {
                    if pools.contains(&pool) {
                        limits.leave(pool);
                    } else {
                        pools.push(pool);
                    }
                }
            }
            pools.sort_unstable();
            let numbered = |id: &PoolId| Some((*id, limits.number(*id)?));
            numbers.extend(pools.iter().filter_map(numbered));
        }
        let numbers = (!numbers.is_empty()).then(|| numbers.into());
        Self { gateway: gateway.clone(), pools: pools.into(), numbers }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if self.pools.is_empty() {
            return;
        }
        let mut limits = self.gateway.common.limits();
        for pool in self.pools.iter() {
            limits.leave(*pool);
        }
        if let Some(numbers) = &self.numbers {
            for (pool, number) in numbers.iter() {
                limits.pass_on(*pool, *number);
            }
            let turns = limits.take_turns();
            drop(limits);
            self.gateway.common.give_turns(turns);
        }
    }
}

/// Holds the story, and tells it to the metrics and the access log at the end.
pub(super) struct Teller {
    pub(super) story: Story,
    gateway: Arc<Gateway>,
    upstream: Option<Arc<Upstream>>,
    /// Both clocks at the beginning.
    pub(super) anchor: TimeAnchor,
    /// When the response head was ready for the client.
    headed: Option<MonoTime>,
    told: bool,
}

impl Teller {
    /// Boxed, since it goes through many hands.
    pub(super) fn begin(
        gateway: &Arc<Gateway>,
        method: http::Method,
        path: &str,
        trace: Option<Trace>,
    ) -> Box<Self> {
        let anchor = gateway.common.clock.anchor();
        let wall = anchor.wall;
        Box::new(Self {
            story: Story {
                id: RequestId::new(wall, crate::gateway::Common::chance()),
                started: wall,
                upstream: None,
                route: None,
                method,
                path: path.to_owned(),
                keys: Vec::new(),
                flow: None,
                run: None,
                trace,
                // Mostly there is one, and a vector that grows begins with four.
                attempts: Vec::with_capacity(1),
                waited: Waits::default(),
                decision: Decision::Pass,
                status: 0,
                ending: Ending::ClientDisconnect,
                bytes_up: 0,
                bytes_down: 0,
                took: Duration::ZERO,
                streamed: Duration::ZERO,
                notes: Default::default(),
                shadow: None,
            },
            gateway: gateway.clone(),
            upstream: None,
            anchor,
            headed: None,
            told: false,
        })
    }

    pub(super) fn routed(&mut self, upstream: &Arc<Upstream>, route: usize) {
        self.story.upstream = Some(upstream.config.name.clone());
        self.story.route = upstream.route(route).map(|route| route.name.clone());
        self.upstream = Some(upstream.clone());
    }

    pub(super) fn rejected(&mut self, rejection: &Rejection) {
        let code = rejection.code.name();
        self.story.decision = Decision::Rejected(code);
        self.story.ending = Ending::Rejected(code);
        self.story.status = rejection.status.as_u16();
        self.story.notes.retry_at = rejection.retry_at.map(|(at, _)| at);
        self.story.notes.reason = Some(rejection.detail.as_str().into());
    }

    /// From then on time belongs to the body and its reader.
    pub(super) fn headed(&mut self, at: MonoTime) {
        self.headed = Some(at);
    }

    /// How it ended, should that not be told yet.
    pub(super) fn end_as(&mut self, ending: Ending) {
        if !self.told {
            self.story.ending = ending;
        }
    }

    /// Whether the story is over.
    pub(super) fn has_told(&self) -> bool {
        self.told
    }

    pub(super) fn now(&self) -> MonoTime {
        self.gateway.common.clock.now()
    }

    /// The story is over; what it says of its ending is true.
    pub(super) fn tell(&mut self) {
        self.tell_at(self.now());
    }

    /// As [`Self::tell`], by a clock that was read just before.
    pub(super) fn tell_at(&mut self, now: MonoTime) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let common = &self.gateway.common;
        self.story.took = now.since(self.anchor.mono);
        self.story.streamed = self.headed.map_or(Duration::ZERO, |headed| now.since(headed));
        match &self.upstream {
            Some(upstream) => upstream.metrics.exchange(&self.story),
            None => common.metrics.unrouted(&self.story),
        }
        self.gateway.access.exchange(&self.story);
        if let Some(tracer) = &self.gateway.tracer {
            let upstream = self.upstream.as_ref().map(|upstream| &upstream.config);
            tracer.tell(&self.story, upstream);
        }
        common.ledger.tell(&mut self.story);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if !self.told {
            self.story.ending = Ending::ClientDisconnect;
            self.tell();
        }
    }
}
