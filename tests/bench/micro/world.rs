//! The policy with a clock of its own making, and what its exchanges look like.

use std::sync::Arc;
use std::time::Duration;

use forbear::config::{self, settings::Settings};
use forbear::policy::limits::{Limits, PoolId, UpstreamId};
use forbear::policy::line::{Band, BucketId, CredentialId, FlowId, Needs, RouteId};
use forbear::policy::outcome::{
    Class, Health, Hint, HintSource, Outcome, QuotaReading, Reading, Repeat, Safety, Sent as Told,
};
use forbear::policy::retry::{Replay, RetryMode};
use forbear::policy::settings::{LimitSettings, UpstreamSettings};
use forbear::policy::time::{Draw, MonoTime};
use forbear::policy::upstream::{Answer, Ask, Context, Report, Ticket, UpstreamPolicy};

/// What a configuration file with this text means.
pub(super) fn settings(text: &str) -> Settings {
    config::load_str(text, "bench.toml", &|_| None).expect("the text is valid").settings
}

/// `count` upstreams of two routes each, with prefix, host and origin of their own.
pub(super) fn upstreams(count: usize) -> String {
    let one = |n: usize| {
        format!(
            "[upstreams.api-{n}]\nurl = \"http://api-{n}.example\"\nhosts = [\"api-{n}.test\"]\n\
             [[upstreams.api-{n}.routes]]\nname = \"search\"\nmatch = \"GET /search/**\"\n"
        )
    };
    (0..count).map(one).collect()
}

/// Upstreams with one set of settings, their shared limits, and the time.
pub(super) struct World {
    pub(super) cfg: Arc<UpstreamSettings>,
    pub(super) limits: Limits,
    pub(super) policies: Vec<UpstreamPolicy>,
    pub(super) now: MonoTime,
}

impl World {
    /// `change` may alter the settings of the one configured upstream before they are used.
    pub(super) fn new(
        upstreams: usize,
        limits: &LimitSettings,
        change: impl FnOnce(&mut UpstreamSettings),
    ) -> Self {
        let settings = settings(&self::upstreams(1));
        let mut cfg = (*settings.upstreams[0].policy).clone();
        change(&mut cfg);
        let policy = |n| UpstreamPolicy::new(UpstreamId(u32::try_from(n).unwrap_or(0)), &cfg);
        Self {
            policies: (0..upstreams).map(policy).collect(),
            limits: Limits::new(limits),
            cfg: Arc::new(cfg),
            now: MonoTime::from_nanos(1_000_000_000),
        }
    }

    pub(super) fn with<R>(
        &mut self,
        upstream: usize,
        call: impl FnOnce(&mut UpstreamPolicy, &mut Context<'_>) -> R,
    ) -> R {
        let mut cx = Context { cfg: &self.cfg, limits: &mut self.limits, now: self.now };
        call(&mut self.policies[upstream], &mut cx)
    }

    /// The life of one exchange that goes at once, as `proxy::gate` leads it.
    pub(super) fn exchange(&mut self, upstream: usize, needs: Needs, outcome: Outcome) {
        let mut ticket =
            self.with(upstream, |policy, cx| policy.join(cx, ask(needs))).expect("there is room");
        let Answer::Go(grant) = self.with(upstream, |policy, cx| policy.ask(cx, &mut ticket))
        else {
            panic!("nothing is in its way");
        };
        let (sent, permit) = grant.split();
        self.now = self.now + Duration::from_micros(10);
        let report = report(&ticket, outcome);
        self.with(upstream, |policy, cx| policy.settle(cx, &mut ticket, sent, &permit, &report));
        self.with(upstream, |policy, cx| policy.quit(cx, ticket));
        self.with(upstream, |policy, cx| policy.release(cx, permit));
        // As the gateway does after each call.
        drop(self.policies[upstream].take_events());
        drop(self.limits.take_turns());
    }
}

pub(super) fn ask(needs: Needs) -> Ask {
    Ask { needs, shape: 0, wait_max: Duration::from_secs(1_000_000_000), deadline: MonoTime::MAX }
}

pub(super) fn needs(route: usize, credential: u64, pools: &[PoolId]) -> Needs {
    let route = RouteId(u16::try_from(route).unwrap_or(0));
    Needs {
        route,
        bucket: BucketId::Route(route),
        credential: CredentialId(credential),
        safety: Safety::Safe,
        pools: pools.into(),
        numbers: None,
        flow: FlowId::default(),
        band: Band::default(),
        cost: 1,
    }
}

pub(super) fn report(ticket: &Ticket, outcome: Outcome) -> Report {
    Report {
        outcome,
        exchange: ticket.id().0,
        took: Duration::from_millis(20),
        replay: Replay::Ready,
        retry_mode: RetryMode::Normal,
        draws: [Draw(0), Draw(0)],
    }
}

/// Far more than will be used of any limit.
pub(super) fn no_limits() -> LimitSettings {
    LimitSettings {
        in_flight_max: 1_000_000,
        queue_max: 1_000_000,
        replay_memory_max: 0,
        keys: Vec::new(),
    }
}

/// 200, and nothing said of limits.
pub(super) fn served() -> Outcome {
    Outcome {
        class: Class::Ok,
        health: Health::Success,
        sent: Told::Answered,
        repeat: Repeat::Never,
        reading: Reading::default(),
    }
}

/// 200, and so many left of the quota for the next minute.
pub(super) fn served_of(remaining: u64) -> Outcome {
    let reset = Some(Duration::from_secs(60));
    let quotas =
        vec![QuotaReading { name: None, limit: Some(5000), remaining, reset, window: None }];
    Outcome { reading: Reading { quotas, ..Reading::default() }, ..served() }
}

/// 429 with `Retry-After`.
pub(super) fn throttled(wait: Duration) -> Outcome {
    let hint = Hint { wait, source: HintSource::RetryAfterDelta, raw: None };
    Outcome {
        class: Class::Throttled,
        health: Health::Alive,
        sent: Told::Answered,
        repeat: Repeat::Refused,
        reading: Reading { hint: Some(hint), ..Reading::default() },
    }
}
