//! What one process knew, the next one goes on with.

use super::*;
use crate::policy::breaker::Circuit;
use crate::policy::outcome::QuotaReading;
use crate::policy::settings::QuotaSettings;

/// A policy that goes on where `before` stopped, `later` seconds on.
fn restarted(before: &Bench, later: u64) -> Bench {
    let saved = before.policy.saved(before.now);
    let mut after = Bench::new(|cfg| *cfg = before.cfg.clone());
    after.now = before.now;
    after.pass(later);
    after.with(|policy, cx| policy.restore(cx, &saved));
    after
}

/// One attempt on this route and with this credential ended so.
fn one_ended(bench: &mut Bench, route: u16, credential: u64, how: Outcome) {
    let mut ticket = bench.join(route, credential, &[]);
    let (sent, permit) = bench.go(&mut ticket);
    bench.settle(&mut ticket, sent, &permit, how);
    bench.release(permit);
    bench.quit(ticket);
}

#[test]
fn a_cooldown_goes_on_for_those_whom_it_was_said_to_and_nobody_else() {
    let mut before = Bench::new(|_| {});
    one_ended(&mut before, 1, 7, throttled(30));

    let mut after = restarted(&before, 10);

    assert_eq!(after.policy.saved(after.now).cooldowns, before.policy.saved(after.now).cooldowns);
    let mut held = after.join(1, 7, &[]);
    assert!(after.waits(&mut held));
    let mut other = after.join(1, 8, &[]);
    let _in_flight = after.go(&mut other);
    after.pass(21);
    let mut canary = held;
    let _in_flight = after.go(&mut canary);
    let mut next = after.join(1, 7, &[]);
    assert!(after.waits(&mut next), "one goes first");
}

#[test]
fn what_has_passed_is_not_begun_again() {
    let mut before = Bench::new(|_| {});
    one_ended(&mut before, 1, 7, throttled(30));
    let until = before.now + Duration::from_secs(60);
    before.with(|policy, cx| policy.force(cx, None, Force::Open, until, "a minute"));

    let mut after = restarted(&before, 61);

    assert_eq!(after.policy.saved(after.now), SavedUpstream::default());
    let mut ticket = after.join(1, 7, &[]);
    let _in_flight = after.go(&mut ticket);
}

#[test]
fn an_open_breaker_stays_open_and_an_old_one_gets_one_probe() {
    let mut before = Bench::new(|_| {});
    one_ended(&mut before, 0, 0, ill());
    let [saved] = before.policy.saved(before.now).breakers.try_into().unwrap();
    assert_eq!((saved.circuit.failures, saved.circuit.openings), (1, 1));

    let mut soon = restarted(&before, 1);
    let mut held = soon.join(0, 0, &[]);
    assert!(soon.waits(&mut held));

    let mut late = restarted(&before, 3_600);
    let (mut probe, mut other) = (late.join(0, 0, &[]), late.join(0, 1, &[]));
    let _in_flight = late.go(&mut probe);
    assert!(late.waits(&mut other), "one probe and no more");
}

#[test]
fn an_override_by_hand_keeps_its_end_and_its_reason() {
    let mut before = Bench::new(|_| {});
    let until = before.now + Duration::from_secs(3_600);
    before.with(|policy, cx| policy.force(cx, None, Force::Open, until, "their incident 7"));

    let mut after = restarted(&before, 60);

    let image = after.with(|policy, cx| policy.image(cx));
    assert_eq!(image.breakers[0].circuit, Circuit::ForcedOpen { until });
    assert_eq!(&*image.breakers[0].forced.as_ref().unwrap().reason, "their incident 7");
}

#[test]
fn a_quota_is_no_larger_after_a_restart() {
    let mut before = Bench::new(|_| {});
    let mut told = ok();
    let reset = Some(Duration::from_secs(100));
    told.reading.quotas =
        vec![QuotaReading { name: None, limit: Some(10), remaining: 2, reset, window: None }];
    one_ended(&mut before, 0, 0, told);

    let mut after = restarted(&before, 60);

    let mut tickets: Vec<Ticket> = (0..3).map(|_| after.join(0, 0, &[])).collect();
    let mut third = tickets.pop().unwrap();
    let sent: Vec<_> = tickets.iter_mut().map(|ticket| after.go(ticket)).collect();
    assert_eq!(sent.len(), 2);
    assert!(after.waits(&mut third), "two were left");
    assert_eq!(restarted(&before, 102).policy.saved(before.now).quotas, []);
}

#[test]
fn a_closed_breaker_and_a_route_that_is_gone_leave_nothing() {
    let mut before = Bench::new(|cfg| cfg.breaker.consecutive_failures = 5);
    one_ended(&mut before, 0, 0, ill());
    assert_eq!(before.policy.saved(before.now).breakers, []);

    one_ended(&mut before, 1, 7, throttled(30));
    let saved = before.policy.saved(before.now);
    let mut after = Bench::new(|cfg| drop(cfg.routes.pop()));
    after.with(|policy, cx| policy.restore(cx, &saved));
    assert_eq!(after.policy.saved(before.now).cooldowns, []);
}

#[test]
fn what_went_of_a_limit_of_the_operator_still_counts() {
    let rule = |name: &str| QuotaSettings {
        name: name.into(),
        limits: name.into(),
        requests: 5,
        per: Duration::from_secs(60),
        pacing: Pacing::Observe,
    };
    // Of a whole credential, and of a route.
    for (name, route) in [("all", 0), ("other", 1)] {
        let mut before = Bench::new(|cfg| cfg.quotas = vec![rule(name)]);
        (0..4).for_each(|_| one_ended(&mut before, route, 7, ok()));

        let mut after = restarted(&before, 30);

        one_ended(&mut after, route, 7, ok());
        let mut sixth = after.join(route, 7, &[]);
        assert!(after.waits(&mut sixth), "{name}");
        after.pass(31);
        let _in_flight = after.go(&mut sixth);
    }
}

#[test]
fn how_many_go_at_once_where_nobody_says_is_known_to_the_next_process() {
    let mut before = Bench::new(|cfg| cfg.in_flight_max = 16);
    let mut bare = throttled(1);
    bare.reading.hint = None;
    // The fourth at once is refused, while the others are served.
    let mut tickets: Vec<Ticket> = (0..4).map(|_| before.join(1, 7, &[])).collect();
    let going: Vec<_> = tickets.iter_mut().map(|ticket| before.go(ticket)).collect();
    let answers = [ok(), ok(), ok(), bare];
    for ((ticket, (sent, permit)), how) in tickets.iter_mut().zip(going).zip(answers).rev() {
        before.settle(ticket, sent, &permit, how);
        before.release(permit);
    }

    let mut after = restarted(&before, 30);

    let mut tickets: Vec<Ticket> = (0..4).map(|_| after.join(1, 7, &[])).collect();
    let mut fourth = tickets.pop().unwrap();
    let going: Vec<_> = tickets.iter_mut().map(|ticket| after.go(ticket)).collect();
    assert_eq!(going.len(), 3);
    assert!(after.waits(&mut fourth), "three were served at once");
    assert_eq!(restarted(&before, 86_500).policy.saved(after.now).learned, []);
}
