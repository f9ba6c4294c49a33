//! The composition, one promise at a time. Whole histories are in `tests/sim`.

mod restored;
mod spending;

use std::num::NonZeroU8;

use super::*;
use crate::policy::breaker::Force;
use crate::policy::limits::Limits;
use crate::policy::line::{Band, FlowId, Needs};
use crate::policy::outcome::{Class, Health, Hint, HintSource, Outcome, Reading, Repeat, Safety};
use crate::policy::outcome::{Sent as Told, WaitKind};
use crate::policy::retry::{Replay, RetryMode};
use crate::policy::settings::{
    Backoff, BackoffFamily, BreakerSettings, KeySettings, LimitSettings, Mode, Pacing,
    RetrySettings, RouteSettings,
};
use crate::policy::time::{Draw, MonoTime};

/// One upstream with two routes, one clock and the shared limits.
struct Bench {
    cfg: UpstreamSettings,
    policy: UpstreamPolicy,
    limits: Limits,
    now: MonoTime,
}

impl Bench {
    fn new(change: impl FnOnce(&mut UpstreamSettings)) -> Self {
        let mut cfg = settings();
        change(&mut cfg);
        let limits = Limits::new(&LimitSettings {
            in_flight_max: 100,
            queue_max: 100,
            replay_memory_max: 0,
            keys: vec![KeySettings { pattern: "key".into(), in_flight_max: 1, ordered: false }],
        });
        Self {
            policy: UpstreamPolicy::new(UpstreamId(0), &cfg),
            cfg,
            limits,
            now: MonoTime::from_nanos(1),
        }
    }

    fn with<R>(&mut self, call: impl FnOnce(&mut UpstreamPolicy, &mut Context<'_>) -> R) -> R {
        let mut cx = Context { cfg: &self.cfg, limits: &mut self.limits, now: self.now };
        call(&mut self.policy, &mut cx)
    }

    fn join(&mut self, route: u16, credential: u64, pools: &[PoolId]) -> Ticket {
        let ask = Ask {
            needs: Needs {
                route: RouteId(route),
                bucket: BucketId::Route(RouteId(route)),
                credential: CredentialId(credential),
                safety: Safety::Safe,
                pools: pools.into(),
                numbers: None,
                flow: FlowId::default(),
                band: Band::default(),
                cost: 1,
            },
            shape: 0,
            wait_max: Duration::from_secs(50),
            deadline: MonoTime::MAX,
        };
        self.with(|policy, cx| policy.join(cx, ask)).unwrap()
    }

    fn ask(&mut self, ticket: &mut Ticket) -> Answer {
        self.with(|policy, cx| policy.ask(cx, ticket))
    }

    fn go(&mut self, ticket: &mut Ticket) -> (Sent, Permit) {
        match self.ask(ticket) {
            Answer::Go(grant) => grant.split(),
            Answer::Wait { .. } | Answer::Refuse(_) => panic!("it should go"),
        }
    }

    fn waits(&mut self, ticket: &mut Ticket) -> bool {
        matches!(self.ask(ticket), Answer::Wait { .. })
    }

    fn release(&mut self, permit: Permit) {
        self.with(|policy, cx| policy.release(cx, permit));
    }

    fn quit(&mut self, ticket: Ticket) -> Waits {
        self.with(|policy, cx| policy.quit(cx, ticket))
    }

    fn settle(
        &mut self,
        ticket: &mut Ticket,
        sent: Sent,
        permit: &Permit,
        end: Outcome,
    ) -> Verdict {
        let report = Report {
            outcome: end,
            exchange: ticket.id().0,
            took: Duration::ZERO,
            replay: Replay::Ready,
            retry_mode: RetryMode::Normal,
            draws: [Draw(0), Draw(0)],
        };
        self.with(|policy, cx| policy.settle(cx, ticket, sent, permit, &report))
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }
}

fn settings() -> UpstreamSettings {
    let route = |name: &str| RouteSettings {
        name: name.into(),
        in_flight_max: None,
        max_wait: Duration::from_secs(50),
        retry: RetrySettings {
            attempts_max: NonZeroU8::new(4).unwrap(),
            throttled_counts: false,
            unsafe_503: false,
            backoff: Backoff {
                family: BackoffFamily::Fixed,
                base: Duration::from_secs(2),
                max: Duration::from_secs(30),
            },
            budget_ratio: 0.2,
            budget_floor_per_minute: 10,
        },
        breaker: None,
        mode: Mode::Enforce,
    };
    UpstreamSettings {
        in_flight_max: 16,
        queue_max: 100,
        breaker: BreakerSettings {
            consecutive_failures: 1,
            failure_rate: 2.0,
            window: Duration::from_secs(60),
            samples_min: 10,
            open_for: Duration::from_secs(10),
            open_for_max: Duration::from_secs(10),
            successes_to_close: 1,
            slow_after: None,
            slow_rate: 0.8,
        },
        routes: vec![route("default"), route("other")],
        buckets: Vec::new(),
        quotas: Vec::new(),
        pacing: Pacing::Observe,
    }
}

fn end(class: Class, health: Health, repeat: Repeat, wait: Option<u64>) -> Outcome {
    let hint = wait.map(|seconds| Hint {
        wait: Duration::from_secs(seconds),
        source: HintSource::RetryAfterDelta,
        raw: None,
    });
    let reading = Reading { hint, ..Reading::default() };
    Outcome { class, health, sent: Told::Answered, repeat, reading }
}

fn ok() -> Outcome {
    end(Class::Ok, Health::Success, Repeat::Never, None)
}

fn throttled(seconds: u64) -> Outcome {
    end(Class::Throttled, Health::Alive, Repeat::Refused, Some(seconds))
}

fn ill() -> Outcome {
    end(Class::Unhealthy, Health::Failure, Repeat::BySafety, None)
}

#[test]
fn a_freed_place_that_the_first_cannot_use_goes_to_the_next() {
    let mut bench = Bench::new(|cfg| cfg.routes[1].in_flight_max = Some(1));
    let key = bench.limits.join("key").unwrap();
    let mut on_route = bench.join(1, 0, &[]);
    let (_sent, route_permit) = bench.go(&mut on_route);
    // Both wait for the route; then the key of the first is taken.
    let mut first = bench.join(1, 0, &[key]);
    let mut second = bench.join(1, 1, &[]);
    assert!(bench.waits(&mut first) && bench.waits(&mut second));
    let mut with_key = bench.join(0, 0, &[key]);
    let (_sent, _key_permit) = bench.go(&mut with_key);
    bench.release(route_permit);
    assert!(bench.waits(&mut first));
    assert!(matches!(bench.ask(&mut second), Answer::Go(_)));
}

#[test]
fn a_limited_scope_does_not_take_the_places_of_those_who_came_before() {
    let mut bench = Bench::new(|cfg| cfg.in_flight_max = 2);
    let mut served = bench.join(1, 0, &[]);
    let (_sent, served_permit) = bench.go(&mut served);
    let mut refused = bench.join(1, 0, &[]);
    let (sent, permit) = bench.go(&mut refused);
    let no_hint = end(Class::Throttled, Health::Alive, Repeat::Refused, None);
    bench.settle(&mut refused, sent, &permit, no_hint);
    bench.release(permit);
    // That scope now takes one at a time, and the other place is taken, too.
    let mut filler = bench.join(0, 1, &[]);
    let _in_flight = bench.go(&mut filler);
    let mut patient = bench.join(0, 1, &[]);
    let mut late = bench.join(1, 0, &[]);
    assert!(bench.waits(&mut patient) && bench.waits(&mut late));
    bench.release(served_permit);
    assert!(bench.waits(&mut late));
    assert!(matches!(bench.ask(&mut patient), Answer::Go(_)));
}

#[test]
fn of_one_upstream_too_who_first_waited_for_a_key_gets_it() {
    let mut bench = Bench::new(|cfg| cfg.routes[1].in_flight_max = Some(1));
    let key = bench.limits.join("key").unwrap();
    let mut busy = bench.join(1, 0, &[key]);
    let (_sent, permit) = bench.go(&mut busy);
    let mut patient = bench.join(0, 0, &[key]);
    let mut late = bench.join(1, 1, &[key]);
    assert!(bench.waits(&mut patient) && bench.waits(&mut late));
    bench.release(permit);
    assert!(matches!(bench.ask(&mut patient), Answer::Go(_)));
    assert!(bench.waits(&mut late));
}

#[test]
fn a_probe_that_was_never_sent_gives_its_place_to_the_next_at_once() {
    let mut bench = Bench::new(|_| {});
    let mut first = bench.join(0, 0, &[]);
    let (sent, permit) = bench.go(&mut first);
    bench.settle(&mut first, sent, &permit, ill());
    bench.release(permit);
    bench.pass(11);
    let probe = bench.join(0, 0, &[]);
    let mut next = bench.join(0, 0, &[]);
    assert!(bench.waits(&mut next));
    bench.quit(probe);
    assert!(matches!(bench.ask(&mut next), Answer::Go(_)));
}

#[test]
fn nobody_is_refused_because_a_probe_may_take_long() {
    let mut bench = Bench::new(|_| {});
    let mut first = bench.join(0, 0, &[]);
    let (sent, permit) = bench.go(&mut first);
    bench.settle(&mut first, sent, &permit, ill());
    bench.release(permit);
    let mut probe = bench.join(0, 0, &[]);
    let mut second = bench.join(0, 0, &[]);
    assert!(bench.waits(&mut second));
    bench.pass(30);
    let _in_flight = bench.go(&mut probe);
    assert!(
        bench.waits(&mut second),
        "the lease ends after its patience, the probe most likely before"
    );
}

#[test]
fn a_grant_is_taken_back_when_the_upstream_says_no_before_it_is_collected() {
    let mut bench = Bench::new(|_| {});
    let mut sender = bench.join(0, 0, &[]);
    let (sent, permit) = bench.go(&mut sender);
    let mut granted = bench.join(0, 0, &[]);
    bench.settle(&mut sender, sent, &permit, throttled(5));
    assert!(bench.waits(&mut granted), "the pause covers it, too");
    assert_eq!(bench.policy.in_flight(), 1, "and its place is free");
}

#[test]
fn a_shadow_exchange_does_not_cost_others_their_turn() {
    let mut bench = Bench::new(|cfg| cfg.routes[1].mode = Mode::Shadow);
    let key = bench.limits.join("key").unwrap();
    let other = UpstreamId(9);
    bench.limits.try_take(other, &[key]).unwrap();
    let mut waiting = bench.join(0, 0, &[key]);
    assert!(bench.waits(&mut waiting));
    let mut shadow = bench.join(1, 0, &[key]);
    assert!(matches!(bench.ask(&mut shadow), Answer::Go(_)));
    bench.limits.give_back(&[key]);
    assert_eq!(bench.limits.take_turns(), [UpstreamId(0)]);
    bench.with(|policy, cx| policy.turn(cx));
    assert!(matches!(bench.ask(&mut waiting), Answer::Go(_)));
}

#[test]
fn a_stream_that_lasts_does_not_keep_the_canary_waiting() {
    let mut bench = Bench::new(|_| {});
    let mut stream = bench.join(0, 0, &[]);
    let (sent, body) = bench.go(&mut stream);
    bench.settle(&mut stream, sent, &body, ok());
    let mut refused = bench.join(0, 0, &[]);
    let (sent, permit) = bench.go(&mut refused);
    bench.settle(&mut refused, sent, &permit, throttled(5));
    bench.release(permit);
    bench.pass(6);
    let mut canary = bench.join(0, 0, &[]);
    let _in_flight = bench.go(&mut canary);
    let mut next = bench.join(0, 0, &[]);
    assert!(bench.waits(&mut next), "one goes first");
}

#[test]
fn the_strangers_of_a_full_table_wake_each_other() {
    let mut bench = Bench::new(|_| {});
    for credential in 0..SCOPES_MAX as u64 {
        let mut known = bench.join(0, credential, &[]);
        let (sent, permit) = bench.go(&mut known);
        bench.settle(&mut known, sent, &permit, throttled(3600));
        bench.release(permit);
        bench.quit(known);
        bench.now = bench.now + Duration::from_millis(1);
        bench.policy.take_events();
        bench.policy.credentials.clear();
    }
    let mut one = bench.join(0, 70_001, &[]);
    let (sent, permit) = bench.go(&mut one);
    bench.settle(&mut one, sent, &permit, throttled(1));
    bench.release(permit);
    bench.pass(2);
    let mut canary = bench.join(0, 70_002, &[]);
    let (sent, permit) = bench.go(&mut canary);
    let mut next = bench.join(0, 70_003, &[]);
    let answer = bench.ask(&mut next);
    assert!(matches!(answer, Answer::Wait { .. }), "{answer:?}");
    bench.settle(&mut canary, sent, &permit, ok());
    let woken = bench.policy.take_events();
    assert!(woken.contains(&Event::Wake(next.id())), "{woken:?}");
    assert!(bench.policy.scopes.len() <= SCOPES_MAX + 1);
}

#[test]
fn drain_wakes_those_who_rest_between_two_attempts() {
    let mut bench = Bench::new(|cfg| cfg.breaker.consecutive_failures = 0);
    let mut ticket = bench.join(0, 0, &[]);
    let (sent, permit) = bench.go(&mut ticket);
    let Verdict::Retry(plan) = bench.settle(&mut ticket, sent, &permit, ill()) else {
        panic!("it is repeated");
    };
    bench.release(permit);
    bench.with(|policy, cx| policy.rejoin(cx, &mut ticket, plan));
    bench.policy.take_events();
    bench.policy.drain();
    assert_eq!(bench.policy.take_events(), [Event::Wake(ticket.id())]);
    bench.pass(1);
    assert!(matches!(bench.ask(&mut ticket), Answer::Refuse(Refusal::Draining)));
    let waits = bench.quit(ticket);
    assert_eq!(waits.of(WaitKind::Backoff), Duration::from_secs(1));
    assert!(bench.policy.resting.is_empty());
}

#[test]
fn what_is_over_leaves_nothing_behind() {
    let mut bench = Bench::new(|cfg| cfg.in_flight_max = 1);
    let key = bench.limits.join("key").unwrap();
    let mut first = bench.join(0, 0, &[key]);
    let (sent, permit) = bench.go(&mut first);
    let others: Vec<Ticket> = (0..5).map(|n| bench.join(1, n, &[key])).collect();
    bench.with(|policy, cx| policy.abandon(cx, &permit, sent));
    bench.release(permit);
    bench.quit(first);
    for ticket in others {
        bench.quit(ticket);
    }
    for _ in bench.limits.take_turns() {
        bench.with(|policy, cx| policy.turn(cx));
    }
    assert_eq!((bench.policy.in_flight(), bench.policy.queued()), (0, 0));
    assert!(bench.policy.granted.is_empty() && bench.policy.awaited.is_empty());
    assert_eq!(bench.limits.queued(), 0);
    assert!(bench.limits.view().iter().all(|pool| pool.in_use == 0));
}

#[test]
fn an_override_of_a_route_without_a_breaker_is_refused_and_leaves_no_trace() {
    let mut bench = Bench::new(|_| {});
    let until = bench.now + Duration::from_secs(60);
    let done =
        bench.with(|policy, cx| policy.force(cx, Some("other"), Force::Open, until, "by mistake"));
    assert!(!done);
    assert!(bench.policy.routes.iter().all(|route| route.forced.is_none()));
}
