//! Virtual time, clients and the driver: what the asynchronous adapter does, without a runtime.
//!
//! join → ask; on a wait, an event at its end; on a wake-up, ask again; on go, the model answers
//! later → settle → relay, and the body ends later; or release, rejoin and ask. After every call
//! the events are taken and turns at shared limits are given, until none is left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use forbear::policy::breaker::{CircuitName, Force};
use forbear::policy::limits::{Limits, UpstreamId};
use forbear::policy::line::{Band, CredentialId, FlowId, Needs, RouteId, TicketId};
use forbear::policy::outcome::Safety;
use forbear::policy::retry::Replay;
use forbear::policy::settings::{LimitSettings, UpstreamSettings};
use forbear::policy::time::MonoTime;
use forbear::policy::upstream::{Context, Event, Permit, Refusal, Sent, Ticket, UpstreamPolicy};

use crate::model::{Model, Reply};

/// One who sends requests, one after the other.
#[derive(Clone, Debug)]
pub struct Client {
    pub up: usize,
    pub route: usize,
    pub credential: CredentialId,
    pub safety: Safety,
    pub keys: Vec<String>,
    pub flow: FlowId,
    pub band: Band,
    pub cost: u32,
    pub replay: Replay,
    pub wait_max: Duration,
    /// From the arrival of each request.
    pub patience: Option<Duration>,
    pub think: Duration,
    /// How many requests, unless the shared job is empty before.
    pub requests: u32,
    /// One request in so many is left in the middle; 0 for none.
    pub leaves: u32,
}

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

pub struct Up {
    pub policy: UpstreamPolicy,
    pub cfg: UpstreamSettings,
    pub ids: Vec<RouteId>,
    pub model: Model,
    pub by_ticket: BTreeMap<TicketId, u64>,
    pub seen: Seen,
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
    pub sent: u32,
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

pub struct Exchange {
    pub client: usize,
    pub up: usize,
    pub needs: Needs,
    pub joined: MonoTime,
    pub deadline: MonoTime,
    pub wait_max: Duration,
    pub ticket: Option<Ticket>,
    pub state: State,
    pub waits: Duration,
    pub attempts: Duration,
    pub counted: u32,
    pub used_once: bool,
    pub is_probe: bool,
    pub processed: u32,
    pub sends: u32,
    pub timer: u64,
}

pub enum State {
    /// Until when it sleeps unless it is woken.
    Waiting(MonoTime),
    Flying(Option<Sent>, Permit, Box<Reply>, MonoTime),
    Body(Permit),
}

/// An answer that was acted upon.
pub enum Said {
    Go,
    Wait(MonoTime),
    Refuse(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    Arrive(usize),
    /// The timer with this number, so that an old one is known.
    Timer(u64, u64),
    Answer(u64),
    BodyEnd(u64),
    Leave(u64),
    Cruelty(usize),
}

pub struct World {
    pub seed: u64,
    pub rng: fastrand::Rng,
    pub now: MonoTime,
    pub limits: Limits,
    pub limit_settings: LimitSettings,
    pub limits_changed: Option<MonoTime>,
    pub ups: Vec<Up>,
    pub clients: Vec<Client>,
    pub cruelties: Vec<Cruelty>,
    pub exchanges: BTreeMap<u64, Exchange>,
    heap: BinaryHeap<Reverse<(MonoTime, u64, Due)>>,
    serial: u64,
    pub joined: u64,
    pub ended: u64,
    pub relayed: u64,
    pub refusals: u64,
    /// How far the clock jumped in all: nobody can be on time after that.
    pub jumped: Duration,
    /// Requests left in the job that all clients share.
    pub job: u32,
    /// Whether moments of rest are examined.
    pub strict: bool,
    /// Whether woken tasks come late, as on a busy machine.
    pub sluggish: bool,
    pub log: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, limit_settings: LimitSettings) -> Self {
        Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            now: MonoTime::from_nanos(1),
            limits: Limits::new(&limit_settings),
            limit_settings,
            limits_changed: None,
            ups: Vec::new(),
            clients: Vec::new(),
            cruelties: Vec::new(),
            exchanges: BTreeMap::new(),
            heap: BinaryHeap::new(),
            serial: 0,
            joined: 0,
            ended: 0,
            relayed: 0,
            refusals: 0,
            jumped: Duration::ZERO,
            job: u32::MAX,
            strict: true,
            sluggish: false,
            log: None,
        }
    }

    pub fn add_upstream(&mut self, cfg: UpstreamSettings, model: Model) {
        let id = UpstreamId(self.ups.len() as u32);
        let mut policy = UpstreamPolicy::new(id, &cfg);
        let ids = policy.configure(&cfg);
        self.ups.push(Up {
            policy,
            cfg,
            ids,
            model,
            by_ticket: BTreeMap::new(),
            seen: Seen::default(),
        });
    }

    pub fn add_client(&mut self, client: Client, from: Duration) {
        self.clients.push(client);
        let at = self.now + from;
        self.plan(at, Due::Arrive(self.clients.len() - 1));
    }

    pub fn add_cruelty(&mut self, cruelty: Cruelty, after: Duration) {
        self.cruelties.push(cruelty);
        let at = self.now + after;
        self.plan(at, Due::Cruelty(self.cruelties.len() - 1));
    }

    /// Runs until nothing is left to happen.
    pub fn run(&mut self) {
        let mut steps = 0_u32;
        while let Some(Reverse((at, _, due))) = self.heap.pop() {
            if at > self.now {
                if self.strict {
                    self.check_rest();
                }
                self.now = at;
            }
            self.happen(due);
            self.settle_down();
            steps += 1;
            self.require(steps < 2_000_000, || "it never ends".into());
        }
        self.check_end();
    }

    /// Runs until so much time has passed; whoever waits then is left where it is.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(Reverse((at, _, due))) = self.heap.peek().copied()
            && at <= until
        {
            self.heap.pop();
            self.now = self.now.max(at);
            self.happen(due);
            self.settle_down();
        }
    }

    pub fn happen(&mut self, due: Due) {
        match due {
            Due::Arrive(client) => self.arrive(client),
            Due::Timer(id, timer) => {
                if self.exchanges.get(&id).is_some_and(|ex| ex.timer == timer) {
                    self.ask(id);
                }
            }
            Due::Answer(id) => self.answer(id),
            Due::BodyEnd(id) => self.body_ends(id),
            Due::Leave(id) => self.leave(id),
            Due::Cruelty(number) => self.be_cruel(number),
        }
    }

    fn be_cruel(&mut self, number: usize) {
        let cruelty = self.cruelties[number].clone();
        self.note(|| format!("cruelty {cruelty:?}"));
        let now = self.now;
        match cruelty {
            Cruelty::Limits(settings) => {
                self.limits.configure(&settings);
                self.limit_settings = settings;
                self.limits_changed = Some(now);
            }
            Cruelty::Upstream(up, cfg) => {
                let it = &mut self.ups[up];
                it.ids = it.policy.configure(&cfg);
                it.cfg = cfg;
                it.seen.reloaded_at = Some(now);
                self.with(up, |policy, cx| policy.turn(cx));
            }
            Cruelty::Force(up, route, to, lasts) => {
                self.ups[up].seen.was_forced = true;
                self.with(up, |policy, cx| {
                    policy.force(cx, route, to, now + lasts, "a person knows better")
                });
            }
            Cruelty::ClearCooldowns(up) => {
                self.with(up, |policy, cx| policy.clear_cooldowns(cx, None));
                self.ups[up].seen.told.clear();
            }
            Cruelty::Jump(by) => {
                self.now = self.now + by;
                self.jumped += by;
            }
            Cruelty::WakeEverybody(up) => self.ups[up].policy.wake_everybody(),
            Cruelty::Drain(up) => self.ups[up].policy.drain(),
        }
    }

    /// Takes events and gives turns until there are none.
    pub fn settle_down(&mut self) {
        for _ in 0..100_000 {
            let mut woken = Vec::new();
            for up in 0..self.ups.len() {
                for event in self.ups[up].policy.take_events() {
                    self.see_event(up, &event);
                    if let Event::Wake(ticket) = event {
                        woken.extend(self.ups[up].by_ticket.get(&ticket).copied());
                    }
                }
            }
            let turns = self.limits.take_turns();
            if woken.is_empty() && turns.is_empty() {
                return;
            }
            for id in woken {
                if self.sluggish && self.rng.bool() {
                    self.come_late(id);
                } else {
                    self.ask(id);
                }
            }
            for up in turns {
                self.with(up.0 as usize, |policy, cx| policy.turn(cx));
            }
        }
        self.fail("wake-ups and turns never end");
    }

    fn come_late(&mut self, id: u64) {
        let at = self.now + Duration::from_micros(self.rng.u64(1..3_000));
        if let Some(exchange) = self.exchanges.get(&id) {
            let timer = exchange.timer;
            self.plan(at, Due::Timer(id, timer));
        }
    }

    fn see_event(&mut self, up: usize, event: &Event) {
        self.note(|| format!("{up}: {event:?}"));
        let now = self.now;
        let seen = &mut self.ups[up].seen;
        if let Event::Breaker(_, transition) = event {
            seen.was_half_open |= transition.to == CircuitName::HalfOpen;
            if transition.to == CircuitName::Closed {
                seen.closed_at = Some(now);
            }
        }
    }

    pub fn with<R>(
        &mut self,
        up: usize,
        call: impl FnOnce(&mut UpstreamPolicy, &mut Context<'_>) -> R,
    ) -> R {
        let up = &mut self.ups[up];
        let mut cx = Context { cfg: &up.cfg, limits: &mut self.limits, now: self.now };
        call(&mut up.policy, &mut cx)
    }

    pub fn route_id(&self, up: usize, route: usize) -> RouteId {
        let ids = &self.ups[up].ids;
        ids.get(route).copied().unwrap_or(ids[0])
    }

    pub fn plan(&mut self, at: MonoTime, due: Due) {
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, due)));
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let at = self.now.since(MonoTime::ZERO);
            log.push(format!("{:>12.6} {}", at.as_secs_f64(), line()));
        }
    }

    pub fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(&what());
        }
    }

    fn fail(&self, what: &str) -> ! {
        if let Some(log) = &self.log {
            for line in log {
                println!("{line}");
            }
        }
        panic!(
            "{what}\n  at {:?}; replay: FORBEAR_SIM_SEED={:#x} cargo test --test sim -- --nocapture",
            self.now.since(MonoTime::ZERO),
            self.seed
        );
    }
}
