//! What one kind of request meets leaves all others alone: a pause of one bucket, and refusals that
//! never end.
//!
//! Waits are those of the virtual clock, and everything is compared with the same run without the
//! trouble, so that nothing depends on the machine.

use std::time::Duration;

use forbear::policy::line::{BucketId, CredentialId, FlowId, Needs, RouteId};
use forbear::policy::outcome::{
    Class, Health, Hint, HintSource, Outcome, Reading, Repeat, Safety, Sent,
};
use forbear::policy::retry::{Replay, RetryMode};
use forbear::policy::time::{Draw, MonoTime};
use forbear::policy::upstream::{Answer, Ask, Report};
use forbear::simulate::model::{Hints, Limiter, Model, Told};
use forbear::simulate::world::{Client, Request};

use crate::history::{limits, route, upstream};
use crate::world::{Turn, World, add_upstream, new};

const LATENCY: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const OTHERS: FlowId = FlowId(1);
const TROUBLED: FlowId = FlowId(2);

/// Eight places, and two routes with a bucket each.
fn world(seed: u64) -> World {
    let mut world = new(seed, &limits());
    world.watch.strict = false;
    let mut cfg = upstream();
    cfg.in_flight_max = 8;
    cfg.routes.push(route("search"));
    add_upstream(&mut world, cfg, Model::new(Limiter::Open, Hints::None, LATENCY));
    world
}

fn add(world: &mut World, count: usize, request: &Request) {
    for _ in 0..count {
        let client = Client { request: request.clone(), think: LATENCY, requests: u32::MAX };
        world.add_client(client, Duration::ZERO);
    }
}

fn others() -> Request {
    Request { flow: OTHERS, ..Request::new(0, HOUR) }
}

/// What goes to the other route, by the same credential.
fn search(wait_max: Duration) -> Request {
    Request { route: 1, flow: TROUBLED, ..Request::new(0, wait_max) }
}

/// One request to the other route is answered with 429 and this `Retry-After`.
fn refuse_search(world: &mut World, wait: Duration) {
    let route = world.ups[0].ids[1];
    let needs = Needs {
        route,
        bucket: BucketId::Route(RouteId(route.0)),
        credential: CredentialId(1),
        safety: Safety::Safe,
        pools: [].into(),
        numbers: None,
        flow: TROUBLED,
        band: Default::default(),
        cost: 1,
    };
    let ask = Ask { needs, shape: 0, wait_max: Duration::ZERO, deadline: MonoTime::MAX };
    let hint = Hint { wait, source: HintSource::RetryAfterDelta, raw: None };
    let outcome = Outcome {
        class: Class::Throttled,
        health: Health::Alive,
        sent: Sent::Answered,
        repeat: Repeat::Refused,
        reading: Reading { hint: Some(hint), ..Reading::default() },
    };
    world.with(0, |policy, cx| {
        let mut ticket = policy.join(cx, ask).expect("there is room");
        let Answer::Go(grant) = policy.ask(cx, &mut ticket) else { panic!("nobody else is there") };
        let (sent, permit) = grant.split();
        let report = Report {
            outcome,
            exchange: ticket.id().0,
            took: LATENCY,
            replay: Replay::Ready,
            retry_mode: RetryMode::Normal,
            draws: [Draw(0), Draw(0)],
        };
        policy.settle(cx, &mut ticket, sent, &permit, &report);
        policy.quit(cx, ticket);
        policy.release(cx, permit);
    });
}

/// Of the others: how many turns, and the middle and the 99th percentile of their waits in seconds.
fn figures(world: &World) -> (usize, f64, f64) {
    let turns = world.watch.seen[0].turns.iter();
    let of_others = turns.filter(|turn: &&Turn| turn.flow == OTHERS);
    let mut waits: Vec<f64> = of_others.map(|turn| turn.waited.as_secs_f64()).collect();
    waits.sort_by(f64::total_cmp);
    (waits.len(), waits[waits.len() / 2], waits[waits.len() * 99 / 100])
}

#[test]
fn while_one_bucket_pauses_the_others_wait_as_if_nobody_wanted_it() {
    for seed in 1..5 {
        let run = |crowd: usize| {
            let mut world = world(seed);
            refuse_search(&mut world, MINUTE * 2);
            add(&mut world, 16, &others());
            add(&mut world, crowd, &search(HOUR));
            world.run_for(MINUTE);
            let troubled = world.watch.seen[0].turns.iter().filter(|it| it.flow == TROUBLED);
            assert_eq!(troubled.count(), 0, "the pause holds");
            assert!(world.ups[0].policy.queued() >= crowd, "and they wait");
            figures(&world)
        };
        let (alone, beside) = (run(0), run(200));
        println!("seed {seed}: {alone:.3?} alone, {beside:.3?} beside a bucket that pauses");
        assert!(alone.2 > 0.05, "there is something to wait for: {alone:?}");
        assert!(beside.2 <= alone.2 * 1.05, "{beside:?} instead of {alone:?}");
        assert!(beside.0 as f64 >= alone.0 as f64 * 0.95, "{beside:?} instead of {alone:?}");
    }
}

#[test]
fn a_kind_of_request_that_is_always_refused_leaves_the_others_their_median() {
    for seed in 1..5 {
        let run = |crowd: usize| {
            let mut world = world(seed);
            let told = Told { status: Some(429), ..Told::default() };
            add(&mut world, 16, &others());
            add(&mut world, crowd, &Request { told, ..search(Duration::from_secs(5)) });
            world.run_for(MINUTE * 2);
            let troubled = world.watch.seen[0].turns.iter().filter(|it| it.flow == TROUBLED);
            (figures(&world), troubled.count())
        };
        let ((alone, _), (beside, tries)) = (run(0), run(8));
        println!("seed {seed}: {alone:.3?} alone, {beside:.3?} beside {tries} that were refused");
        assert!((5..30).contains(&tries), "they are tried, ever more rarely: {tries}");
        assert!(beside.1 <= alone.1 * 1.05, "{beside:?} instead of {alone:?}");
        assert!(beside.0 as f64 >= alone.0 as f64 * 0.95, "{beside:?} instead of {alone:?}");
    }
}
