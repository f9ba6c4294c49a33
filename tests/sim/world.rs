//! The simulated world under examination: what is done to it, and what is remembered to judge it.

use std::collections::BTreeMap;
use std::time::Duration;

use forbear::policy::breaker::{CircuitName, Force};
use forbear::policy::line::{CredentialId, FlowId, RouteId};
use forbear::policy::outcome::{Class, Outcome};
use forbear::policy::retry::RepeatKind;
use forbear::policy::settings::{LimitSettings, UpstreamSettings};
use forbear::policy::time::MonoTime;
use forbear::policy::upstream::{Event, Refusal};
use forbear::simulate::model::Model;
use forbear::simulate::world::{End, Exchange, Watch, World as Simulated};

use crate::properties;

pub type World = Simulated<Checks>;

/// Events in one history; more, and it never ends.
const EVENTS_MAX: u32 = 2_000_000;

/// What somebody does from outside.
#[derive(Clone, Debug)]
pub enum Cruelty {
    Limits(LimitSettings),
    Upstream(usize, UpstreamSettings),
    Force(usize, Option<&'static str>, Force, Duration),
    ClearCooldowns(usize),
    Jump(Duration),
    WakeEverybody(usize),
    Drain(usize),
}

/// What is remembered of an upstream to judge the policy by.
#[derive(Default)]
pub struct Seen {
    /// "Not before", as each (route, credential) was told.
    pub told: BTreeMap<(RouteId, CredentialId), MonoTime>,
    pub firsts: Vec<MonoTime>,
    pub retries: Vec<MonoTime>,
    pub closed_at: Option<MonoTime>,
    pub was_half_open: bool,
    pub was_forced: bool,
    pub reloaded_at: Option<MonoTime>,
    pub refused: u32,
    pub good: u32,
    pub last_good: MonoTime,
    pub refused_at: Vec<MonoTime>,
    pub turns: Vec<Turn>,
}

/// An attempt that went.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub at: MonoTime,
    pub exchange: u64,
    pub flow: FlowId,
    pub waited: Duration,
}

/// What is remembered of an exchange.
#[derive(Clone, Copy, Default)]
pub struct Judged {
    pub counted: u32,
    pub used_once: bool,
    pub is_probe: bool,
}

/// Examines every step.
pub struct Checks {
    pub seed: u64,
    pub limit_settings: LimitSettings,
    pub limits_changed: Option<MonoTime>,
    pub seen: Vec<Seen>,
    pub judged: BTreeMap<u64, Judged>,
    pub cruelties: Vec<Cruelty>,
    pub relayed: u64,
    pub refusals: u64,
    /// Exchanges whose account was found right.
    pub accounts: u64,
    /// How far the clock jumped in all: nobody can be on time after that.
    pub jumped: Duration,
    /// Whether moments of rest are examined.
    pub strict: bool,
    /// Whether woken tasks come late, as on a busy machine.
    pub sluggish: bool,
    pub log: Option<Vec<String>>,
    events: u32,
}

pub fn new(seed: u64, limit_settings: &LimitSettings) -> World {
    let checks = Checks {
        seed,
        limit_settings: limit_settings.clone(),
        limits_changed: None,
        seen: Vec::new(),
        judged: BTreeMap::new(),
        cruelties: Vec::new(),
        relayed: 0,
        refusals: 0,
        accounts: 0,
        jumped: Duration::ZERO,
        strict: true,
        sluggish: false,
        log: None,
        events: 0,
    };
    Simulated::new(seed, limit_settings, checks)
}

pub fn add_upstream(world: &mut World, cfg: UpstreamSettings, model: Model) {
    world.add_upstream(cfg, model);
    world.watch.seen.push(Seen::default());
}

pub fn add_cruelty(world: &mut World, cruelty: Cruelty, after: Duration) {
    world.watch.cruelties.push(cruelty);
    let at = world.now + after;
    world.plan_other(at, world.watch.cruelties.len() - 1);
}

/// Fails with what replays it.
pub fn require(world: &World, holds: bool, what: impl FnOnce() -> String) {
    if holds {
        return;
    }
    for line in world.watch.log.iter().flatten() {
        println!("{line}");
    }
    panic!(
        "{}\n  at {:?}; replay: FORBEAR_SIM_SEED={:#x} cargo test --test sim -- --nocapture",
        what(),
        world.now.since(MonoTime::ZERO),
        world.watch.seed
    );
}

impl Watch for Checks {
    fn note(&mut self, at: MonoTime, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let at = at.since(MonoTime::ZERO);
            log.push(format!("{:>12.6} {}", at.as_secs_f64(), line()));
        }
    }

    fn happens(world: &mut World, number: usize) {
        let cruelty = world.watch.cruelties[number].clone();
        world.note(|| format!("cruelty {cruelty:?}"));
        let now = world.now;
        match cruelty {
            Cruelty::Limits(settings) => {
                world.limits.configure(&settings);
                world.watch.limit_settings = settings;
                world.watch.limits_changed = Some(now);
            }
            Cruelty::Upstream(up, cfg) => {
                let it = &mut world.ups[up];
                it.ids = it.policy.configure(&cfg);
                it.cfg = cfg;
                world.watch.seen[up].reloaded_at = Some(now);
                world.with(up, |policy, cx| policy.turn(cx));
            }
            Cruelty::Force(up, route, to, lasts) => {
                world.watch.seen[up].was_forced = true;
                world.with(up, |policy, cx| {
                    policy.force(cx, route, to, now + lasts, "a person knows better")
                });
            }
            Cruelty::ClearCooldowns(up) => {
                world.with(up, |policy, cx| policy.clear_cooldowns(cx, None));
                world.watch.seen[up].told.clear();
            }
            Cruelty::Jump(by) => {
                world.now = world.now + by;
                world.watch.jumped += by;
            }
            Cruelty::WakeEverybody(up) => world.ups[up].policy.wake_everybody(),
            Cruelty::Drain(up) => world.ups[up].policy.drain(),
        }
    }

    fn moves_on(world: &mut World, _to: MonoTime) {
        if world.watch.strict {
            properties::check_rest(world);
        }
        world.watch.events += 1;
        require(world, world.watch.events < EVENTS_MAX, || "it never ends".into());
    }

    fn goes(world: &mut World, id: u64, waited: Duration) {
        let exchange = &world.exchanges[&id];
        let (up, needs) = (exchange.up, exchange.needs.clone());
        let (now, is_first) = (world.now, exchange.sends == 1);
        let seen = &mut world.watch.seen[up];
        if is_first {
            seen.firsts.push(now);
        }
        seen.turns.push(Turn { at: now, exchange: id, flow: needs.flow, waited });
        properties::check_go(world, id, up, &needs);
    }

    fn waits(world: &mut World, id: u64, until: MonoTime) {
        require(world, until > world.now, || format!("{id} waits until the past"));
    }

    fn answered(world: &mut World, id: u64, outcome: &Outcome, _status: Option<u16>) {
        let now = world.now;
        let exchange = &world.exchanges[&id];
        let key = (exchange.needs.route, exchange.needs.credential);
        let seen = &mut world.watch.seen[exchange.up];
        match outcome.class {
            Class::Throttled | Class::Exhausted => {
                seen.refused += 1;
                seen.refused_at.push(now);
            }
            Class::Ok | Class::Permanent => {
                seen.good += 1;
                seen.last_good = now;
            }
            _ => {}
        }
        if let Some(hint) = &outcome.reading.hint
            && matches!(
                outcome.class,
                Class::Throttled | Class::Exhausted | Class::Unhealthy | Class::Overloaded
            )
        {
            let told = seen.told.entry(key).or_default();
            *told = (*told).max(now + hint.wait);
        }
    }

    fn repeats(world: &mut World, id: u64, outcome: &Outcome, kind: RepeatKind) {
        if kind == RepeatKind::Failure {
            let (now, up) = (world.now, world.exchanges[&id].up);
            world.watch.seen[up].retries.push(now);
        }
        properties::check_retry(world, id, outcome, kind);
    }

    fn refused(world: &mut World, id: u64, refusal: &Refusal) {
        world.watch.refusals += 1;
        properties::check_refusal(world, id, refusal);
    }

    fn turned_away(world: &mut World, _up: usize, _refusal: &Refusal) {
        world.watch.refusals += 1;
    }

    fn ended(world: &mut World, exchange: &Exchange, end: End) {
        let relayed = matches!(end, End::Answered(Class::Ok | Class::Permanent));
        world.watch.relayed += u64::from(relayed);
        world.watch.accounts += 1;
        properties::check_account(world, exchange);
    }

    fn event(world: &mut World, up: usize, event: &Event) {
        world.note(|| format!("{up}: {event:?}"));
        let now = world.now;
        let seen = &mut world.watch.seen[up];
        if let Event::Breaker(_, transition) = event {
            seen.was_half_open |= transition.to == CircuitName::HalfOpen;
            if transition.to == CircuitName::Closed {
                seen.closed_at = Some(now);
            }
        }
    }

    fn late(world: &mut World) -> Option<Duration> {
        let is_late = world.watch.sluggish && world.rng.bool();
        is_late.then(|| Duration::from_micros(world.rng.u64(1..3_000)))
    }

    fn stuck(world: &mut World) {
        require(world, false, || "wake-ups and turns never end".into());
    }

    fn over(world: &mut World) {
        properties::check_end(world);
    }
}
