//! What is promised where an API tells of its quota in every answer: after the first window nothing
//! is refused, and nearly all that is permitted is used.
//!
//! The optimum is the time that the limiter alone would take. A client that obeys whole seconds
//! waits for up to one second longer than it has to at each renewal; `rounding` is the bound of
//! that, and counts for nobody.

use std::time::Duration;

use forbear::policy::settings::{Pacing, QuotaSettings, UpstreamSettings};
use forbear::policy::time::MonoTime;
use forbear::simulate::model::{Hints, Limiter, Model};
use forbear::simulate::world::{Client, Request};

use crate::history::{limits, upstream};
use crate::world::{World, add_upstream, new};

const LATENCY: Duration = Duration::from_millis(50);

fn client() -> Client {
    let request = Request::new(0, Duration::from_secs(3600));
    Client { request, think: Duration::from_millis(1), requests: u32::MAX }
}

fn finished(seed: u64, model: Model, clients: u32, job: u32, settings: UpstreamSettings) -> World {
    let mut world = new(seed, &limits());
    world.watch.strict = false;
    world.job = job;
    add_upstream(&mut world, settings, model);
    for _ in 0..clients {
        world.add_client(client(), Duration::ZERO);
    }
    world.run();
    world
}

/// A limiter, how many requests are made of it, the time it takes for them, and how often it is
/// renewed meanwhile.
struct Case {
    name: &'static str,
    limiter: Limiter,
    job: u32,
    optimum: f64,
    renewals: f64,
    /// What the run may take, where resets are told exactly.
    bound: f64,
}

fn cases() -> Vec<Case> {
    let fixed = |name, max, seconds, job: u32| Case {
        name,
        limiter: Limiter::Fixed { max, window: Duration::from_secs(seconds) },
        job,
        optimum: f64::from((job - 1) / max) * seconds as f64,
        renewals: f64::from((job - 1) / max),
        bound: 1.01,
    };
    // What is free again is found out by a request at each renewal, so a sliding window stretches by
    // its round trip.
    let sliding = |name, max, seconds, job| Case {
        limiter: Limiter::Sliding { max, window: Duration::from_secs(seconds) },
        bound: 1.025,
        ..fixed(name, max, seconds, job)
    };
    let bucket = |name, per_second: f64, burst: f64, job: u32| Case {
        name,
        limiter: Limiter::Bucket { per_second, burst },
        job,
        optimum: (f64::from(job) - burst) / per_second,
        // Each time it is full, if it is waited for.
        renewals: (f64::from(job) - burst) / burst,
        bound: 1.01,
    };
    vec![
        fixed("100 in each 10 s", 100, 10, 1000),
        fixed("60 in each minute", 60, 60, 600),
        fixed("25 in each 5 s", 25, 5, 500),
        sliding("100 in any 10 s", 100, 10, 1000),
        sliding("60 in any minute", 60, 60, 600),
        bucket("a bucket of 20, 10 a second", 10.0, 20.0, 1000),
        bucket("a bucket of 50, 5 a second", 5.0, 50.0, 500),
    ]
}

fn check(case: &Case, hints: Hints, clients: u32) {
    for seed in 1..4 {
        let model = Model::new(case.limiter.clone(), hints, LATENCY);
        let world = finished(seed, model, clients, case.job, upstream());
        let seen = &world.watch.seen[0];
        let took = seen.last_good.since(MonoTime::ZERO).as_secs_f64();
        let name = case.name;
        println!(
            "{name}, {hints:?}, {clients} clients: {:.3} of {} s",
            took / case.optimum,
            case.optimum
        );
        // Of the first burst nobody knows anything.
        let later = seen.refused_at.iter().filter(|at| **at > MonoTime::ZERO + LATENCY * 2);
        assert_eq!(later.count(), 0, "{name}, {hints:?}: all was told");
        assert_eq!(seen.good, case.job, "{name}: nothing is lost");
        let rounding = if hints == Hints::Quota { case.renewals } else { 0.0 };
        let bound = case.optimum * case.bound + rounding;
        assert!(took <= bound, "{name}, {hints:?}: {took:.2} s of {bound:.2} s");
    }
}

#[test]
fn where_all_is_told_nothing_is_refused_and_the_limit_is_used_up() {
    for case in cases() {
        for clients in [32, 200] {
            check(&case, Hints::ExactQuota, clients);
            check(&case, Hints::Quota, clients);
        }
    }
}

#[test]
fn sixty_four_workers_on_a_small_window_take_no_longer_than_the_window_does() {
    let limiter = Limiter::Fixed { max: 10, window: Duration::from_secs(5) };
    let name = "10 in each 5 s";
    let case = Case { name, limiter, job: 200, optimum: 95.0, renewals: 19.0, bound: 1.02 };
    check(&case, Hints::ExactQuota, 64);
}

fn quota(
    name: &str,
    limits: &str,
    (requests, per): (u64, Duration),
    pacing: Pacing,
) -> QuotaSettings {
    QuotaSettings { name: name.into(), limits: limits.into(), requests, per, pacing }
}

#[test]
fn a_limit_that_only_the_operator_knows_is_kept_and_used_up() {
    for (limiter, job, optimum) in [
        (Limiter::Fixed { max: 100, window: Duration::from_secs(10) }, 1000, 90.0),
        (Limiter::Sliding { max: 100, window: Duration::from_secs(10) }, 1000, 90.0),
    ] {
        for pacing in [Pacing::Observe, Pacing::Smooth] {
            let mut settings = upstream();
            let per = Duration::from_secs(10);
            settings.quotas = vec![quota("known", "known", (100, per), pacing)];
            let model = Model::new(limiter.clone(), Hints::None, LATENCY);
            let world = finished(1, model, 32, job, settings);
            let seen = &world.watch.seen[0];
            let took = seen.last_good.since(MonoTime::ZERO).as_secs_f64();
            println!("{limiter:?}, {pacing:?}: {:.3} of {optimum} s", took / optimum);
            assert_eq!(seen.refused, 0, "{limiter:?}, {pacing:?}");
            // Spread evenly, the first window is not used up at once: it is one window later.
            let late = if pacing == Pacing::Smooth { 10.0 } else { 0.0 };
            assert!(took <= optimum * 1.03 + late, "{limiter:?}, {pacing:?}: {took:.2} s");
        }
    }
}

#[test]
fn a_preflight_says_how_long_it_then_takes() {
    let exact = Hints::ExactQuota;
    let window = Duration::from_secs(10);
    let concurrency = Limiter::Concurrency { max: 4 };
    for (limiter, hints, quotas) in [
        (Limiter::Open, Hints::None, false),
        (Limiter::Fixed { max: 100, window }, exact, false),
        (Limiter::Sliding { max: 100, window }, exact, false),
        (Limiter::Bucket { per_second: 10.0, burst: 20.0 }, exact, false),
        (Limiter::Fixed { max: 50, window }, Hints::Seconds, false),
        (Limiter::Open, Hints::None, true),
        (concurrency, Hints::None, false),
    ] {
        let mut settings = upstream();
        if quotas {
            let (requests, pacing) = (50, Pacing::Observe);
            settings.quotas = vec![quota("known", "known", (requests, window), pacing)];
        }
        let model = Model::new(limiter.clone(), hints, LATENCY);
        let mut world = finished(1, model, 32, 300, settings);
        let told = world.with(0, |policy, cx| policy.preflight(cx, "default", 700));
        let told = told.expect("the route exists");
        let began = world.now;
        world.job = 700;
        for _ in 0..32 {
            world.add_client(client(), Duration::ZERO);
        }
        world.run();
        let took = world.watch.seen[0].last_good.since(began).as_secs_f64();
        let ratio = told.takes.as_secs_f64() / took;
        println!("{limiter:?}, {hints:?}: told {told:?}, took {took:.2} s: {ratio:.3}");
        assert!((0.9..=1.1).contains(&ratio), "{limiter:?}: {told:?}, took {took:.2} s");
    }
}

#[test]
fn of_two_windows_of_one_route_neither_is_exceeded_and_the_longer_is_used_up() {
    let (second, half_minute) = (Duration::from_secs(1), Duration::from_secs(30));
    // Of a route, and of all that goes with a credential.
    for limits in ["default", "account"] {
        let mut settings = upstream();
        settings.quotas = vec![
            quota("burst", limits, (10, second), Pacing::Observe),
            quota("sustained", limits, (100, half_minute), Pacing::Observe),
        ];
        let model = Model::new(Limiter::Open, Hints::None, LATENCY);
        let world = finished(1, model, 32, 1000, settings);
        let seen = &world.watch.seen[0];
        let most = |per: Duration| {
            let within = |from: MonoTime| {
                let until = from + per;
                seen.turns.iter().filter(|turn| turn.at >= from && turn.at < until).count()
            };
            seen.turns.iter().map(|turn| within(turn.at)).max().expect("there were turns")
        };
        let took = seen.last_good.since(MonoTime::ZERO).as_secs_f64();
        let (burst, sustained) = (most(second), most(half_minute));
        println!("{limits}: at most {burst} in a second and {sustained} in 30, {took:.1} s");
        assert_eq!((burst, sustained), (10, 100), "{limits}");
        // Nine whole windows, and the last hundred at ten a second.
        assert!(took <= 279.0 * 1.03, "{limits}: {took:.2} s");
    }
}
