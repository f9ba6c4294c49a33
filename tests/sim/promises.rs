//! Promises of the product over whole runs: 32 clients share one job, and the API says no.
//!
//! Settings are the defaults. The optimum is the time that the limiter alone would take.

use std::time::Duration;

use forbear::policy::time::MonoTime;
use forbear::simulate::model::{Hints, Limiter, Model, Outage};
use forbear::simulate::world::{Client, Request};

use crate::history::{limits, upstream};
use crate::world::{World, add_upstream, new};

const JOB: u32 = 400;
const SEEDS: std::ops::Range<u64> = 1..9;
const LATENCY: Duration = Duration::from_millis(80);

/// What a run came to.
#[derive(Debug)]
struct Figures {
    good: u32,
    refused: u32,
    refusals: u64,
    relayed: u64,
    took: f64,
    refused_at: Vec<MonoTime>,
}

impl Figures {
    fn refused_per_good(&self) -> f64 {
        f64::from(self.refused) / f64::from(self.good)
    }
}

fn run(seed: u64, model: Model) -> Figures {
    figures(&finished(seed, model, JOB))
}

/// A job without limits or failures; says how many exchanges it had.
pub fn undisturbed(job: u32) -> u32 {
    let model = Model::new(Limiter::Open, Hints::None, LATENCY);
    figures(&finished(1, model, job)).good
}

fn finished(seed: u64, model: Model, job: u32) -> World {
    let mut world = new(seed, &limits());
    world.watch.strict = false;
    world.job = job;
    add_upstream(&mut world, upstream(), model);
    for _ in 0..32 {
        let client = Client {
            request: Request::new(0, Duration::from_secs(50)),
            think: Duration::from_millis(1),
            requests: u32::MAX,
        };
        world.add_client(client, Duration::ZERO);
    }
    world.run();
    world
}

fn figures(world: &World) -> Figures {
    let seen = &world.watch.seen[0];
    Figures {
        good: seen.good,
        refused: seen.refused,
        refusals: world.watch.refusals,
        relayed: world.watch.relayed,
        took: seen.last_good.since(MonoTime::ZERO).as_secs_f64(),
        refused_at: seen.refused_at.clone(),
    }
}

/// Runs all seeds; every run loses nothing, sends nothing in a pause and keeps these bounds.
fn promise(name: &str, limiter: &Limiter, hints: Hints, optimum: f64, bound: f64) -> Vec<Figures> {
    let model = Model::new(limiter.clone(), hints, LATENCY);
    let runs: Vec<Figures> = SEEDS.map(|seed| run(seed, model.clone())).collect();
    for (figures, seed) in runs.iter().zip(SEEDS) {
        let (ratio, slower) = (figures.refused_per_good(), figures.took / optimum);
        println!(
            "{name}, seed {seed}: {ratio:.3} refused per good, {slower:.3} of the optimal {optimum:.1} s"
        );
        assert_eq!(figures.relayed, u64::from(JOB), "{name}: {figures:?}");
        assert_eq!(figures.refusals, 0, "{name}: nothing is lost");
        assert!(ratio <= 0.1, "{name}: {ratio:.3} refused per good answer");
        assert!(slower <= bound, "{name}: {slower:.3} of the optimum");
    }
    runs
}

fn fixed(max: u32, seconds: u64) -> (Limiter, f64) {
    let window = Duration::from_secs(seconds);
    let whole_windows = (JOB - 1) / max;
    let rest = f64::from((JOB - whole_windows * max).div_ceil(16)) * 0.12;
    let optimum = f64::from(whole_windows) * window.as_secs_f64() + rest;
    (Limiter::Fixed { max, window }, optimum)
}

fn bucket(per_second: f64, burst: f64) -> (Limiter, f64) {
    let optimum = (f64::from(JOB) - burst) / per_second;
    (Limiter::Bucket { per_second, burst }, optimum)
}

#[test]
fn a_fixed_window_that_tells_seconds_is_used_up_and_seldom_overdrawn() {
    for (max, seconds) in [(10, 2), (60, 10), (100, 30), (25, 5)] {
        let (limiter, optimum) = fixed(max, seconds);
        let name = format!("fixed window {max} per {seconds} s, Retry-After");
        promise(&name, &limiter, Hints::Seconds, optimum, 1.15);
    }
}

#[test]
fn a_bucket_is_used_up_and_seldom_overdrawn() {
    for (rate, burst) in [(25.0, 50.0), (3.0, 6.0), (10.0, 20.0), (5.0, 10.0)] {
        let (limiter, optimum) = bucket(rate, burst);
        for hints in [Hints::Millis, Hints::Seconds] {
            let name = format!("bucket of {burst}, {rate} per s, {hints:?}");
            promise(&name, &limiter, hints, optimum, 1.15);
        }
    }
}

#[test]
fn an_unannounced_concurrency_limit_is_found_and_kept() {
    for max in [1, 3, 8] {
        let limiter = Limiter::Concurrency { max };
        let optimum = f64::from(JOB) / f64::from(max) * 0.12;
        let name = format!("concurrency {max}, bare 429");
        promise(&name, &limiter, Hints::None, optimum, 1.5);
    }
}

#[test]
fn a_limiter_that_punishes_never_locks_anybody_out() {
    for hints in [Hints::Millis, Hints::Seconds] {
        let (_, optimum) = fixed(50, 5);
        let limiter = Limiter::Punishing {
            max: 50,
            window: Duration::from_secs(5),
            penalty: Duration::from_secs(1),
        };
        // The first burst is punished before anybody knows.
        let name = format!("punishing, {hints:?}");
        promise(&name, &limiter, hints, optimum + 5.0, 1.15);
    }
}

#[test]
fn a_described_quota_is_not_overdrawn() {
    for (max, seconds) in [(60, 10), (100, 30), (25, 5)] {
        let (limiter, optimum) = fixed(max, seconds);
        let name = format!("quota {max} per {seconds} s");
        for figures in promise(&name, &limiter, Hints::Quota, optimum, 1.15) {
            assert_eq!(figures.refused_at, [], "{name}: all was told");
        }
    }
}

#[test]
fn a_short_outage_loses_nothing_and_is_not_made_worse() {
    for outage in [Outage::Error, Outage::Refused, Outage::Reset, Outage::Unavailable] {
        let mut model = Model::new(Limiter::Open, Hints::None, LATENCY);
        let from = MonoTime::ZERO + Duration::from_millis(500);
        model.outages = vec![(from, from + Duration::from_secs(2), outage)];
        for seed in SEEDS {
            let figures = run(seed, model.clone());
            println!("{outage:?}: {:.1} s, {} good", figures.took, figures.good);
            assert_eq!(figures.refusals, 0, "{outage:?}: nothing is refused");
            assert_eq!(figures.good, JOB, "{outage:?}: nothing is lost");
        }
    }
}
