//! What an exchange costs while others wait: each pass one comes, one ends, and somebody goes.
//!
//! Whoever is woken asks, as it would in the proxy, so that a step which wakes everybody pays for
//! everybody.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use forbear::policy::limits::PoolId;
use forbear::policy::line::{Band, FlowId, Needs, TicketId};
use forbear::policy::outcome::Outcome;
use forbear::policy::settings::{KeySettings, UpstreamSettings};
use forbear::policy::time::MonoTime;
use forbear::policy::upstream::{Answer, Event, Permit, Sent, Ticket};

use super::harness::{Case, Pass};
use super::world::{World, ask, needs, no_limits, report, served, served_of, throttled};

const SIZES: &[usize] = &[0, 10, 100, 1_000, 10_000];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "queue/one-lane",
        what: "so many wait for the upstream's places, all alike",
        sizes: SIZES,
        setup: |size| queue(size, 1, |cfg| cfg.in_flight_max = 4, None, served()),
    },
    Case {
        name: "queue/lanes-house",
        what: "the same, each with a key of its own",
        sizes: SIZES,
        setup: |size| queue(size, size.max(1), |cfg| cfg.in_flight_max = 4, None, served()),
    },
    Case {
        name: "queue/flows-house",
        what: "the same, each in a flow of its own",
        sizes: SIZES,
        setup: flows,
    },
    Case {
        name: "queue/lanes-process",
        what: "so many wait for the places of the process, each with a key of its own",
        sizes: SIZES,
        setup: |size| queue(size, size.max(1), |_| {}, Some(4), served()),
    },
    Case {
        name: "queue/lanes-quota",
        what: "so many wait for one quota that tells one place, each with a key of its own",
        sizes: SIZES,
        setup: |size| queue(size, size.max(1), |_| {}, None, served_of(1)),
    },
    Case {
        name: "queue/lanes-paced",
        what: "so many wait in a scope that is paced, each with a key of its own",
        sizes: SIZES,
        setup: |size| paced(size, &[1]),
    },
    Case {
        name: "queue/lanes-paced-wide",
        what: "the same, on two routes, so that the pace is the credential's",
        sizes: SIZES,
        setup: |size| paced(size, &[0, 1]),
    },
];

fn queue(
    size: usize,
    lanes: usize,
    change: impl FnOnce(&mut UpstreamSettings),
    process_max: Option<u32>,
    outcome: Outcome,
) -> Pass {
    let mut crowd = Crowd::new(lanes, process_max, change, outcome);
    crowd.fill(size);
    Box::new(move || crowd.pass())
}

/// As many flows as exchanges, in all bands.
fn flows(size: usize) -> Pass {
    let mut crowd = Crowd::new(size.max(1), None, |cfg| cfg.in_flight_max = 4, served());
    crowd.flows = u64::MAX;
    crowd.fill(size);
    Box::new(move || crowd.pass())
}

/// Every fiftieth is refused for two seconds, on these routes in turn: most of the time those who
/// wait go at a pace.
fn paced(size: usize, routes: &'static [usize]) -> Pass {
    let mut crowd = Crowd::new(size.max(1), None, |_| {}, served());
    crowd.routes = routes;
    crowd.refuse_every = Some(50);
    crowd.fill(size);
    for _ in 0..500 {
        crowd.pass();
    }
    Box::new(move || crowd.pass())
}

/// Later than any pass comes, earlier than anybody gives up.
const NEVER: MonoTime = MonoTime::from_nanos(500_000_000_000_000_000);

/// Exchanges in all stages, and their timers.
struct Crowd {
    world: World,
    pools: Vec<PoolId>,
    outcome: Outcome,
    refuse_every: Option<u64>,
    ended: u64,
    routes: &'static [usize],
    flows: u64,
    next: usize,
    /// By number, the first of which is that of the front.
    waiting: VecDeque<Option<Ticket>>,
    front: u64,
    timers: BTreeSet<(MonoTime, TicketId)>,
    running: VecDeque<(Ticket, Sent, Permit)>,
}

impl Crowd {
    fn new(
        lanes: usize,
        process_max: Option<u32>,
        change: impl FnOnce(&mut UpstreamSettings),
        outcome: Outcome,
    ) -> Self {
        let mut limits = no_limits();
        limits.keys =
            vec![KeySettings { pattern: "tenant:*".into(), in_flight_max: 1_000, ordered: false }];
        limits.in_flight_max = process_max.unwrap_or(limits.in_flight_max);
        let mut world = World::new(1, &limits, |cfg| {
            cfg.in_flight_max = 1_000_000;
            cfg.queue_max = 1_000_000;
            change(cfg);
        });
        let join = |n| world.limits.join(&format!("tenant:{n}")).expect("it is declared");
        let pools = (0..lanes).map(join).collect();
        Self {
            world,
            pools,
            outcome,
            refuse_every: None,
            ended: 0,
            routes: &[1],
            flows: 1,
            next: 0,
            waiting: VecDeque::new(),
            front: 0,
            timers: BTreeSet::new(),
            running: VecDeque::new(),
        }
    }

    /// Until so many wait.
    fn fill(&mut self, size: usize) {
        self.come();
        while self.world.policies[0].queued() < size {
            self.come();
        }
    }

    fn pass(&mut self) {
        self.come();
        while self.running.is_empty() {
            let (at, _) = *self.timers.first().expect("somebody waits for a time");
            self.world.now = self.world.now.max(at);
            while let Some((at, id)) = self.timers.first().copied()
                && at <= self.world.now
            {
                self.timers.pop_first();
                self.ask(id);
            }
            self.deliver();
        }
        self.end();
        self.deliver();
    }

    fn come(&mut self) {
        self.next = (self.next + 1) % self.pools.len();
        let route = self.routes[self.next % self.routes.len()];
        let mut needs: Needs = needs(route, 7, &self.pools[self.next..=self.next]);
        needs.flow = FlowId(self.next as u64 % self.flows);
        if self.flows > 1 {
            needs.band = Band::ALL[self.next % Band::ALL.len()];
        }
        let joined = self.world.with(0, |policy, cx| policy.join(cx, ask(needs)));
        let ticket = joined.expect("the queue is long enough");
        let id = ticket.id();
        if self.waiting.is_empty() {
            self.front = id.0;
        }
        // Numbers were given to exchanges of the setup, too.
        while self.front + (self.waiting.len() as u64) < id.0 {
            self.waiting.push_back(None);
        }
        self.waiting.push_back(Some(ticket));
        self.ask(id);
        self.deliver();
    }

    fn ask(&mut self, id: TicketId) {
        let at = usize::try_from(id.0.wrapping_sub(self.front)).unwrap_or(usize::MAX);
        let Some(ticket) = self.waiting.get_mut(at).and_then(Option::as_mut) else { return };
        match self.world.with(0, |policy, cx| policy.ask(cx, ticket)) {
            Answer::Go(grant) => {
                let (sent, permit) = grant.split();
                let ticket = self.waiting[at].take().expect("it has just asked");
                self.running.push_back((ticket, sent, permit));
                while let Some(None) = self.waiting.front() {
                    self.waiting.pop_front();
                    self.front += 1;
                }
            }
            Answer::Wait { until } => {
                if until < NEVER {
                    self.timers.insert((until, id));
                }
            }
            Answer::Refuse(refusal) => panic!("everybody has time: {refusal:?}"),
        }
    }

    fn end(&mut self) {
        let Some((mut ticket, sent, permit)) = self.running.pop_front() else { return };
        self.world.now = self.world.now + Duration::from_micros(10);
        self.ended += 1;
        let is_refused = self.refuse_every.is_some_and(|nth| self.ended.is_multiple_of(nth));
        let refusal = throttled(Duration::from_secs(2));
        let report = report(&ticket, if is_refused { refusal } else { self.outcome.clone() });
        self.world.with(0, |policy, cx| policy.settle(cx, &mut ticket, sent, &permit, &report));
        self.world.with(0, |policy, cx| policy.quit(cx, ticket));
        self.world.with(0, |policy, cx| policy.release(cx, permit));
        self.deliver();
    }

    /// Whoever is woken asks; whoever's turn it is looks.
    fn deliver(&mut self) {
        loop {
            for _ in self.world.limits.take_turns() {
                self.world.with(0, |policy, cx| policy.turn(cx));
            }
            let events = self.world.policies[0].take_events();
            if events.is_empty() {
                return;
            }
            for event in events {
                match event {
                    Event::Wake(id) => self.ask(id),
                    Event::Breaker(..)
                    | Event::Cooldown(_)
                    | Event::Quota { .. }
                    | Event::Locked { .. }
                    | Event::Unlocked { .. } => {}
                }
            }
        }
    }
}
