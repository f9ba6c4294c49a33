//! Which quota is spent, and whom a word of the upstream holds back.

use super::*;
use crate::policy::outcome::{QuotaReading, Reach};
use crate::policy::settings::QuotaSettings;

const CREDENTIAL: u64 = 7;
/// A reset that is told exactly, and far away.
const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

fn told(name: Option<&str>, limit: u64, remaining: u64, reset: Option<Duration>) -> QuotaReading {
    QuotaReading { name: name.map(Into::into), limit: Some(limit), remaining, reset, window: None }
}

/// A good answer that tells of these quotas.
fn telling(quotas: Vec<QuotaReading>) -> Outcome {
    Outcome { reading: Reading { quotas, ..Reading::default() }, ..ok() }
}

fn refused() -> Outcome {
    end(Class::Credential, Health::Alive, Repeat::Never, None)
}

impl Bench {
    fn join_as(&mut self, change: impl FnOnce(&mut Ask)) -> Ticket {
        self.try_join_as(change).expect("nothing speaks against waiting")
    }

    fn try_join_as(&mut self, change: impl FnOnce(&mut Ask)) -> Result<Ticket, Refusal> {
        let mut ask = Ask {
            needs: Needs {
                route: RouteId(0),
                bucket: BucketId::Route(RouteId(0)),
                cost: 1,
                credential: CredentialId(CREDENTIAL),
                safety: Safety::Safe,
                pools: [].into(),
                numbers: None,
                flow: FlowId::default(),
                band: Band::Default,
            },
            shape: 0,
            wait_max: Duration::from_secs(50),
            deadline: MonoTime::MAX,
        };
        change(&mut ask);
        self.with(|policy, cx| policy.join(cx, ask))
    }

    fn bucket(&mut self, name: &str) -> BucketId {
        self.policy.bucket_named(name).expect("there is room")
    }

    /// One exchange from its beginning to its end.
    fn exchange(&mut self, outcome: Outcome, change: impl FnOnce(&mut Ask)) {
        let mut ticket = self.join_as(change);
        let (sent, permit) = self.go(&mut ticket);
        self.settle(&mut ticket, sent, &permit, outcome);
        self.release(permit);
        self.quit(ticket);
    }

    /// How many of such exchanges, sixteen at most, may be out at once. They are sent, and what
    /// becomes of them is never told.
    fn room(&mut self, change: impl Fn(&mut Ask)) -> usize {
        let mut out = Vec::new();
        while out.len() < 16 {
            let Ok(mut ticket) = self.try_join_as(&change) else { break };
            match self.ask(&mut ticket) {
                Answer::Go(grant) => out.push((ticket, grant)),
                Answer::Wait { .. } | Answer::Refuse(_) => {
                    self.quit(ticket);
                    break;
                }
            }
        }
        let room = out.len();
        for (ticket, grant) in out {
            let (sent, permit) = grant.split();
            self.with(|policy, cx| policy.abandon(cx, &permit, sent));
            self.release(permit);
            self.quit(ticket);
        }
        room
    }
}

/// Whether such an exchange may go at once. It is not sent: what it could spend is still there.
fn may_go(bench: &mut Bench, change: impl FnOnce(&mut Ask)) -> bool {
    bench.try_join_as(change).is_ok_and(|ticket| {
        let goes = ticket.granted.is_some();
        bench.quit(ticket);
        goes
    })
}

#[test]
fn a_refusal_holds_back_its_bucket_and_no_other() {
    let mut bench = Bench::new(|_| {});
    let (core, search) = (bench.bucket("core"), bench.bucket("search"));
    bench.exchange(throttled(30), |ask| ask.needs.bucket = search);
    assert!(!may_go(&mut bench, |ask| ask.needs.bucket = search));
    assert!(may_go(&mut bench, |ask| ask.needs.bucket = core));
    // A second bucket that is refused says nothing of the rest, as two routes would.
    bench.exchange(throttled(30), |ask| ask.needs.bucket = core);
    assert!(may_go(&mut bench, |_| {}));
}

#[test]
fn a_word_for_everything_holds_back_all_that_goes_with_the_credential() {
    let mut bench = Bench::new(|_| {});
    let mut outcome = throttled(30);
    outcome.reading.reach = Reach::Credential;
    bench.exchange(outcome, |_| {});
    assert!(!may_go(&mut bench, |ask| ask.needs.route = RouteId(1)));
    assert!(may_go(&mut bench, |ask| ask.needs.credential = CredentialId(8)));
}

#[test]
fn a_refusal_without_a_time_stops_no_other_route() {
    let mut bench = Bench::new(|_| {});
    let bare = end(Class::Throttled, Health::Alive, Repeat::Refused, None);
    for _ in 0..20 {
        bench.exchange(bare.clone(), |_| {});
        bench.pass(45);
        assert_eq!(
            bench.room(|ask| {
                ask.needs.route = RouteId(1);
                ask.needs.bucket = BucketId::Route(RouteId(1));
            }),
            16
        );
    }
}

#[test]
fn requests_of_a_shape_belong_to_the_bucket_that_an_answer_named() {
    let mut bench = Bench::new(|_| {});
    let mut outcome = throttled(30);
    outcome.reading.bucket = Some("a1b2".into());
    bench.exchange(outcome, |ask| ask.shape = 11);
    assert!(!may_go(&mut bench, |ask| ask.shape = 11));
    assert!(may_go(&mut bench, |ask| ask.shape = 12), "it was told of another bucket, or of none");
}

#[test]
fn a_request_waits_for_every_window_and_two_credentials_share_none() {
    let mut bench = Bench::new(|_| {});
    let day = Some(Duration::from_secs(86_400));
    let quotas = vec![told(Some("minute"), 100, 5, MINUTE), told(Some("day"), 1000, 3, day)];
    bench.exchange(telling(quotas), |_| {});
    assert_eq!(bench.room(|_| {}), 3, "what is left of the day");
    assert_eq!(bench.room(|ask| ask.needs.credential = CredentialId(8)), 16);
}

#[test]
fn what_is_used_up_for_hours_is_refused_as_such_and_for_seconds_waited_for() {
    let mut bench = Bench::new(|_| {});
    let day = Some(Duration::from_secs(86_400));
    bench.exchange(telling(vec![told(None, 100, 0, day)]), |_| {});
    assert!(matches!(bench.try_join_as(|_| {}), Err(Refusal::Exhausted { .. })));
    let other = CredentialId(8);
    bench.exchange(telling(vec![told(None, 100, 0, MINUTE)]), |ask| ask.needs.credential = other);
    let patient = bench.try_join_as(|ask| {
        ask.needs.credential = other;
        ask.wait_max = Duration::from_secs(70);
    });
    bench.quit(patient.expect("it may wait"));
    let hasty = bench.try_join_as(|ask| ask.needs.credential = other);
    assert!(matches!(hasty, Err(Refusal::Paced { .. })));
}

#[test]
fn what_costs_more_takes_more() {
    let mut bench = Bench::new(|_| {});
    bench.exchange(telling(vec![told(None, 100, 10, MINUTE)]), |_| {});
    assert_eq!(bench.room(|ask| ask.needs.cost = 4), 2);
    assert_eq!(bench.room(|_| {}), 2, "of ten, eight went");
}

#[test]
fn two_routes_whose_answers_tell_of_one_quota_share_it() {
    let mut bench = Bench::new(|_| {});
    let other = |ask: &mut Ask| {
        ask.needs.route = RouteId(1);
        ask.needs.bucket = BucketId::Route(RouteId(1));
    };
    for left in [99, 98, 97] {
        bench.exchange(telling(vec![told(None, 100, left, MINUTE)]), |_| {});
    }
    bench.exchange(telling(vec![told(None, 100, 96, MINUTE)]), other);
    // Now it is known that they are one: what the one learns holds for the other.
    bench.exchange(telling(vec![told(None, 100, 2, MINUTE)]), |_| {});
    assert_eq!(bench.room(other), 2);
}

#[test]
fn two_routes_with_equal_quotas_of_their_own_share_nothing() {
    let mut bench = Bench::new(|_| {});
    let other = |ask: &mut Ask| {
        ask.needs.route = RouteId(1);
        ask.needs.bucket = BucketId::Route(RouteId(1));
    };
    for left in [9, 8, 7, 6, 5] {
        bench.exchange(telling(vec![told(None, 10, left, MINUTE)]), |_| {});
        bench.exchange(telling(vec![told(None, 10, left, MINUTE)]), other);
    }
    assert_eq!((bench.room(|_| {}), bench.room(other)), (5, 5));
}

#[test]
fn a_limit_of_the_operator_holds_for_its_route_or_for_the_whole_credential() {
    let rule = |name: &str, requests| QuotaSettings {
        name: name.into(),
        limits: name.into(),
        requests,
        per: Duration::from_secs(60),
        pacing: Pacing::Observe,
    };
    let mut bench = Bench::new(|cfg| cfg.quotas = vec![rule("other", 2), rule("all", 5)]);
    let other = |ask: &mut Ask| {
        ask.needs.route = RouteId(1);
        ask.needs.bucket = BucketId::Route(RouteId(1));
    };
    bench.exchange(ok(), other);
    assert_eq!(bench.room(other), 1);
    assert_eq!(bench.room(|_| {}), 3, "two went on the other route");
    assert_eq!(bench.room(|ask| ask.needs.credential = CredentialId(8)), 5);
    bench.pass(61);
    assert_eq!(bench.room(other), 2);
}

#[test]
fn a_changed_limit_counts_what_went_already() {
    let rule = |requests| QuotaSettings {
        name: "all".into(),
        limits: "all".into(),
        requests,
        per: Duration::from_secs(60),
        pacing: Pacing::Observe,
    };
    let mut bench = Bench::new(|cfg| cfg.quotas = vec![rule(5)]);
    (0..4).for_each(|_| bench.exchange(ok(), |_| {}));
    assert_eq!(bench.room(|_| {}), 1, "the fifth");
    bench.cfg.quotas = vec![rule(10)];
    let cfg = bench.cfg.clone();
    bench.policy.configure(&cfg);
    assert_eq!(bench.room(|_| {}), 5);
}

#[test]
fn a_credential_that_is_refused_again_and_again_is_locked_and_no_other() {
    let mut bench = Bench::new(|_| {});
    for _ in 0..5 {
        bench.exchange(refused(), |_| {});
    }
    assert!(matches!(bench.try_join_as(|_| {}), Err(Refusal::Locked { .. })));
    let patient = bench.try_join_as(|ask| ask.wait_max = Duration::from_secs(3600));
    assert!(matches!(patient, Err(Refusal::Locked { .. })), "waiting heals no secret");
    assert!(may_go(&mut bench, |ask| ask.needs.credential = CredentialId(8)));
    // One finds out after a minute, and if it is refused, too, the lock is twice as long.
    bench.pass(61);
    let mut probe = bench.join_as(|_| {});
    let (sent, permit) = bench.go(&mut probe);
    assert!(!may_go(&mut bench, |_| {}), "one only");
    bench.settle(&mut probe, sent, &permit, refused());
    bench.release(permit);
    bench.pass(61);
    assert!(!may_go(&mut bench, |_| {}));
    bench.pass(60);
    bench.exchange(ok(), |_| {});
    assert_eq!(bench.room(|_| {}), 16, "it is accepted again");
}

#[test]
fn a_success_between_refusals_and_a_new_secret_leave_nothing_locked() {
    let mut bench = Bench::new(|_| {});
    for _ in 0..4 {
        (0..4).for_each(|_| bench.exchange(refused(), |_| {}));
        bench.exchange(ok(), |_| {});
    }
    assert!(may_go(&mut bench, |_| {}));
    (0..5).for_each(|_| bench.exchange(refused(), |_| {}));
    assert!(!may_go(&mut bench, |_| {}));
    bench.with(|policy, cx| policy.unlock(cx, CredentialId(CREDENTIAL)));
    assert!(may_go(&mut bench, |_| {}));
}

#[test]
fn what_was_refused_with_a_secret_that_is_one_no_more_counts_against_no_credential() {
    let mut bench = Bench::new(|_| {});
    for _ in 0..20 {
        let mut ticket = bench.join_as(|_| {});
        let (sent, permit) = bench.go(&mut ticket);
        let outcome = Outcome { repeat: Repeat::Once, ..refused() };
        let verdict = bench.settle(&mut ticket, sent, &permit, outcome);
        bench.release(permit);
        let Verdict::Retry(plan) = verdict else { panic!("{verdict:?}") };
        bench.with(|policy, cx| policy.rejoin(cx, &mut ticket, plan));
        let (sent, permit) = bench.go(&mut ticket);
        let outcome = Outcome { repeat: Repeat::Once, ..refused() };
        let again = bench.settle(&mut ticket, sent, &permit, outcome);
        assert!(matches!(again, Verdict::GiveUp(_)), "once for each exchange: {again:?}");
        bench.release(permit);
    }
    assert!(may_go(&mut bench, |_| {}));
}

#[test]
fn a_person_clears_what_is_shown_under_one_name_and_nothing_else() {
    let mut bench = Bench::new(|_| {});
    for credential in [CREDENTIAL << 40, 8 << 40] {
        for _ in 0..5 {
            bench.exchange(refused(), |ask| ask.needs.credential = CredentialId(credential));
        }
    }
    let mut clear =
        |scope: Option<&str>| bench.with(|policy, cx| policy.clear_cooldowns(cx, scope));
    assert_eq!(clear(Some("credential 000009")), 0);
    assert_eq!(clear(Some("credential 000007")), 1);
    assert_eq!(clear(Some("credential 000007")), 0);
    let limited = end(Class::Throttled, Health::Alive, Repeat::Never, Some(60));
    bench.exchange(limited, |ask| ask.needs.credential = CredentialId(CREDENTIAL << 40));
    let mut clear =
        |scope: Option<&str>| bench.with(|policy, cx| policy.clear_cooldowns(cx, scope));
    assert_eq!(clear(Some("route other")), 0);
    assert_eq!(clear(Some("route default, credential 000007")), 1);
    assert_eq!(clear(None), 1, "the other lock");
}

#[test]
fn whoever_names_no_credential_is_never_locked_out() {
    let mut bench = Bench::new(|_| {});
    (0..20).for_each(|_| bench.exchange(refused(), |ask| ask.needs.credential = CredentialId(0)));
    assert!(may_go(&mut bench, |ask| ask.needs.credential = CredentialId(0)));
}

#[test]
fn a_limit_is_news_once_and_again_when_it_changes() {
    let mut bench = Bench::new(|_| {});
    let news = |bench: &mut Bench, limit, left| {
        bench.exchange(telling(vec![told(None, limit, left, MINUTE)]), |_| {});
        let events = bench.policy.take_events();
        events.iter().filter(|event| matches!(event, Event::Quota { .. })).count()
    };
    let told = [(100, 99), (100, 98), (100, 97), (200, 196), (200, 195)];
    let seen = told.map(|(limit, left)| news(&mut bench, limit, left));
    assert_eq!(seen, [1, 0, 0, 1, 0]);
}

#[test]
fn one_kind_of_request_that_is_always_refused_slows_no_other_down() {
    let mut bench = Bench::new(|_| {});
    let bare = end(Class::Throttled, Health::Alive, Repeat::Refused, None);
    for _ in 0..50 {
        (0..5).for_each(|_| bench.exchange(ok(), |ask| ask.shape = 1));
        bench.exchange(bare.clone(), |ask| ask.shape = 2);
        assert!(may_go(&mut bench, |ask| ask.shape = 1), "it is not closed for the others");
    }
}

#[test]
fn answers_that_overtake_each_other_lose_nothing_of_what_was_spent() {
    let mut bench = Bench::new(|_| {});
    let mut slow: Vec<_> = (0..9).map(|_| bench.join_as(|_| {})).collect();
    let mut out: Vec<_> = slow.iter_mut().map(|ticket| bench.go(ticket)).collect();
    // The tenth is counted first, and answered before the API has seen the other nine.
    bench.exchange(telling(vec![told(None, 20, 19, MINUTE)]), |_| {});
    for (left, (ticket, (sent, permit))) in (10..19).rev().zip(slow.iter_mut().zip(out.drain(..))) {
        bench.settle(ticket, sent, &permit, telling(vec![told(None, 20, left, MINUTE)]));
        bench.release(permit);
    }
    assert_eq!(bench.room(|_| {}), 10);
}

#[test]
fn the_answer_that_locks_a_credential_names_the_end_of_the_lock() {
    let mut bench = Bench::new(|_| {});
    (0..4).for_each(|_| bench.exchange(refused(), |_| {}));
    let mut fifth = bench.join_as(|_| {});
    let (sent, permit) = bench.go(&mut fifth);
    let verdict = bench.settle(&mut fifth, sent, &permit, refused());
    let Verdict::GiveUp(GiveUp::NotRetryable { opens }) = verdict else { panic!("{verdict:?}") };
    assert_eq!(opens, Some(bench.now + Duration::from_secs(60)));
}

#[test]
fn a_preflight_waits_for_a_locked_credential() {
    let mut bench = Bench::new(|_| {});
    (0..5).for_each(|_| bench.exchange(refused(), |_| {}));
    let told = bench.with(|policy, cx| policy.preflight(cx, "default", 10)).unwrap();
    assert!(told.takes >= Duration::from_secs(60), "{told:?}");
}
