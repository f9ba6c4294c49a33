//! Virtual time, clients and the events that are to come.
//!
//! join → ask; on a wait, an event at its end; on a wake-up, ask again; on go, the model answers
//! later → settle → relay, and the body ends later; or release, rejoin and ask. After every call
//! the events are taken and turns at shared limits are given, until none is left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use super::model::{Model, Reply, Told};
pub use super::watch::{End, Watch};
use crate::policy::classify::Failure;
use crate::policy::limits::{Limits, UpstreamId};
use crate::policy::line::{Band, BucketId, CredentialId, FlowId, Needs, RouteId, TicketId};
use crate::policy::outcome::{Class, Safety, Waits};
use crate::policy::profile::{GENERIC, Profile};
use crate::policy::retry::Replay;
use crate::policy::settings::{LimitSettings, UpstreamSettings};
use crate::policy::time::{MonoTime, WallTime};
use crate::policy::upstream::{Context, Event, Permit, Refusal, Sent, Ticket, UpstreamPolicy};

/// Rounds of wake-ups and turns within one moment; far more than there can be exchanges in line.
const ROUNDS_MAX: u32 = 100_000;

/// What the wall clock shows at the beginning, unless a recorded past says otherwise.
pub const WALL_START: WallTime = WallTime { unix_ms: 1_800_000_000_000 };

/// To the response head, unless settings say otherwise.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// One request, as a client would send it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Index of the upstream.
    pub up: usize,
    /// Index of the route in the upstream's settings.
    pub route: usize,
    /// Which quota it spends; `None` for that of its route.
    pub bucket: Option<BucketId>,
    /// What it has in common with requests that differ in ids only.
    pub shape: u64,
    /// Whose quota it spends.
    pub credential: CredentialId,
    /// What it may do if it is processed twice.
    pub safety: Safety,
    /// Concurrency keys.
    pub keys: Arc<[String]>,
    /// Whose fair share it uses.
    pub flow: FlowId,
    /// How urgent it is.
    pub band: Band,
    /// Units of quota that it spends, as far as forbear knows; at least 1.
    pub cost: u32,
    /// Whether its body can be sent again.
    pub replay: Replay,
    /// Longest it may be held.
    pub wait_max: Duration,
    /// From its arrival; `None` for ever.
    pub patience: Option<Duration>,
    /// One in so many is left in the middle; 0 for none.
    pub leaves: u32,
    /// What is known of the answer beforehand.
    pub told: Told,
}

impl Request {
    /// One that is safe and the same as all others, on the upstream's first route.
    pub fn new(up: usize, wait_max: Duration) -> Self {
        Self {
            up,
            route: 0,
            bucket: None,
            shape: 0,
            credential: CredentialId(1),
            safety: Safety::Safe,
            keys: [].into(),
            flow: FlowId::default(),
            band: Band::default(),
            cost: 1,
            replay: Replay::Ready,
            wait_max,
            patience: None,
            leaves: 0,
            told: Told::default(),
        }
    }
}

/// One who sends the same request again and again, one after the other.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it sends.
    pub request: Request,
    /// Between two requests, on average.
    pub think: Duration,
    /// How many requests, unless the shared job is empty before.
    pub requests: u32,
}

/// One upstream: its policy, its rules and what answers.
#[derive(Debug)]
pub struct Up {
    /// The policy under test.
    pub policy: UpstreamPolicy,
    /// The rules in force.
    pub cfg: UpstreamSettings,
    /// The policy's id of each route in `cfg`.
    pub ids: Vec<RouteId>,
    /// What answers.
    pub model: Model,
    /// How its answers are read.
    pub dialect: Arc<Profile>,
    /// To the response head.
    pub attempt_timeout: Duration,
    by_ticket: BTreeMap<TicketId, u64>,
}

/// An exchange that is not over.
#[derive(Debug)]
pub struct Exchange {
    /// Whose it is, if a client waits for its end.
    pub client: Option<usize>,
    /// Index of the upstream.
    pub up: usize,
    /// What it needs.
    pub needs: Needs,
    /// When it came.
    pub joined: MonoTime,
    /// When its caller's time is over.
    pub deadline: MonoTime,
    /// Longest it may be held.
    pub wait_max: Duration,
    /// Where it stands.
    pub state: State,
    /// All waits before its attempts.
    pub waits: Waits,
    /// Time in attempts, to their heads.
    pub attempts: Duration,
    /// From the last head to the end, known at the end.
    pub streamed: Duration,
    /// Attempts that had their effect.
    pub processed: u32,
    /// Attempts.
    pub sends: u32,
    pub(super) ticket: Option<Ticket>,
    pub(super) replay: Replay,
    pub(super) told: Told,
    pub(super) timer: u64,
    /// What the last response meant, and the failure after it.
    pub(super) answered: Option<Class>,
    pub(super) failure: Option<Failure>,
}

/// Where an exchange stands.
#[derive(Debug)]
pub enum State {
    /// Until when it sleeps unless it is woken.
    Waiting(MonoTime),
    /// An attempt is on its way, since then.
    Flying(Sent, Permit, Box<Reply>, MonoTime),
    /// The response streams, since then.
    Body(Permit, MonoTime),
}

/// An answer that was acted upon.
#[derive(Debug)]
pub enum Said {
    /// It went.
    Go,
    /// It waits until then.
    Wait(MonoTime),
    /// It is over.
    Refuse(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Arrive(usize),
    /// The timer with this number, so that an old one is known.
    Timer(u64, u64),
    Answer(u64),
    BodyEnd(u64),
    Leave(u64),
    Other(usize),
}

/// Everything there is, at one moment.
#[derive(Debug)]
pub struct World<W> {
    /// Who looks on.
    pub watch: W,
    /// All chance there is.
    pub rng: fastrand::Rng,
    /// The present.
    pub now: MonoTime,
    /// The wall clock at [`MonoTime::ZERO`].
    pub wall: WallTime,
    /// Limits that span upstreams.
    pub limits: Limits,
    /// In the order in which they were added.
    pub ups: Vec<Up>,
    /// In the order in which they were added.
    pub clients: Vec<Client>,
    /// Those that are not over.
    pub exchanges: BTreeMap<u64, Exchange>,
    /// Exchanges so far.
    pub joined: u64,
    /// Exchanges that are over.
    pub ended: u64,
    /// Requests left in the job that all clients share.
    pub job: u32,
    /// Between two requests of all clients together; zero lets them go as they come.
    pub spacing: Duration,
    next_start: MonoTime,
    heap: BinaryHeap<Reverse<(MonoTime, u64, Due)>>,
    serial: u64,
}

impl<W: Watch> World<W> {
    /// An empty world; the same seed and the same calls give the same history.
    pub fn new(seed: u64, limits: &LimitSettings, watch: W) -> Self {
        Self {
            watch,
            rng: fastrand::Rng::with_seed(seed),
            now: MonoTime::from_nanos(1),
            wall: WALL_START,
            limits: Limits::new(limits),
            ups: Vec::new(),
            clients: Vec::new(),
            exchanges: BTreeMap::new(),
            joined: 0,
            ended: 0,
            job: u32::MAX,
            spacing: Duration::ZERO,
            next_start: MonoTime::ZERO,
            heap: BinaryHeap::new(),
            serial: 0,
        }
    }

    /// Adds an upstream whose answers are read without a profile; gives its index.
    pub fn add_upstream(&mut self, cfg: UpstreamSettings, model: Model) -> usize {
        let id = UpstreamId(u32::try_from(self.ups.len()).unwrap_or(u32::MAX));
        let mut policy = UpstreamPolicy::new(id, &cfg);
        let ids = policy.configure(&cfg);
        self.ups.push(Up {
            policy,
            cfg,
            ids,
            model,
            dialect: Arc::new(GENERIC.clone()),
            attempt_timeout: ATTEMPT_TIMEOUT,
            by_ticket: BTreeMap::new(),
        });
        self.ups.len() - 1
    }

    /// Adds a client whose first request comes after that time.
    pub fn add_client(&mut self, client: Client, from: Duration) {
        self.clients.push(client);
        let at = self.place(self.now + from);
        self.plan(at, Due::Arrive(self.clients.len() - 1));
    }

    /// The first moment from `at` on that the rate of all clients leaves free.
    pub(super) fn place(&mut self, at: MonoTime) -> MonoTime {
        if self.spacing.is_zero() {
            return at;
        }
        let at = at.max(self.next_start);
        self.next_start = at + self.spacing;
        at
    }

    /// Lets [`Watch::happens`] be called with this number.
    pub fn plan_other(&mut self, at: MonoTime, number: usize) {
        self.plan(at, Due::Other(number));
    }

    /// Runs until nothing is left to happen.
    pub fn run(&mut self) {
        while self.step() {}
        W::over(self);
    }

    /// Runs until so much time has passed; whoever waits then is left where it is.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while self.heap.peek().is_some_and(|Reverse((at, _, _))| *at <= until) {
            self.step();
        }
    }

    /// Lets the next event happen; `false` if there is none.
    pub fn step(&mut self) -> bool {
        let Some(Reverse((at, _, due))) = self.heap.pop() else { return false };
        if at > self.now {
            W::moves_on(self, at);
            self.now = self.now.max(at);
        }
        match due {
            Due::Arrive(client) => self.arrive(client),
            Due::Timer(id, timer) => {
                if self.exchanges.get(&id).is_some_and(|exchange| exchange.timer == timer) {
                    self.ask(id);
                }
            }
            Due::Answer(id) => self.answer(id),
            Due::BodyEnd(id) => self.body_ends(id),
            Due::Leave(id) => self.leave(id),
            Due::Other(number) => W::happens(self, number),
        }
        self.settle_down();
        true
    }

    /// Takes events and gives turns until there are none.
    pub fn settle_down(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut woken = Vec::new();
            for up in 0..self.ups.len() {
                for event in self.up(up).policy.take_events() {
                    W::event(self, up, &event);
                    if let Event::Wake(ticket) = event {
                        woken.extend(self.up(up).by_ticket.get(&ticket).copied());
                    }
                }
            }
            let turns = self.limits.take_turns();
            if woken.is_empty() && turns.is_empty() {
                return;
            }
            for id in woken {
                match W::late(self) {
                    Some(late) => self.come_late(id, late),
                    None => self.ask(id),
                }
            }
            for UpstreamId(up) in turns {
                self.with(up as usize, |policy, cx| policy.turn(cx));
            }
        }
        W::stuck(self);
    }

    fn come_late(&mut self, id: u64, late: Duration) {
        if let Some(exchange) = self.exchanges.get(&id) {
            self.plan(self.now + late, Due::Timer(id, exchange.timer));
        }
    }

    /// Calls the policy of an upstream, as the lock of the proxy lets it be called.
    pub fn with<R>(
        &mut self,
        up: usize,
        call: impl FnOnce(&mut UpstreamPolicy, &mut Context<'_>) -> R,
    ) -> R {
        let up = self.ups.get_mut(up).expect("upstreams are only ever added");
        let mut cx = Context { cfg: &up.cfg, limits: &mut self.limits, now: self.now };
        call(&mut up.policy, &mut cx)
    }

    /// An upstream by its index.
    ///
    /// # Panics
    /// If none was added under this index.
    pub fn up(&mut self, up: usize) -> &mut Up {
        self.ups.get_mut(up).expect("upstreams are only ever added")
    }

    /// What the wall clock shows.
    pub fn wall(&self) -> WallTime {
        self.wall + self.now.since(MonoTime::ZERO)
    }

    pub(super) fn know_ticket(&mut self, up: usize, ticket: TicketId, id: u64) {
        self.up(up).by_ticket.insert(ticket, id);
    }

    pub(super) fn forget_ticket(&mut self, up: usize, ticket: TicketId) {
        self.up(up).by_ticket.remove(&ticket);
    }

    pub(super) fn plan(&mut self, at: MonoTime, due: Due) {
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, due)));
    }

    /// Notes a line of the history, if somebody keeps one.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        self.watch.note(self.now, line);
    }
}
