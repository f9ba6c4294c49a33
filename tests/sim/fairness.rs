//! Who gets how much of a queue: flows, bands, age, a full line, and strict order.
//!
//! What limits is the number in flight: 8 places, each taken for 100 to 200 ms.

use std::time::Duration;

use forbear::policy::line::{Band, FlowId};
use forbear::policy::settings::KeySettings;
use forbear::policy::time::MonoTime;
use forbear::simulate::model::{Hints, Limiter, Model};
use forbear::simulate::world::{Client, Request};

use crate::history::{limits, route, upstream};
use crate::properties::check_end;
use crate::world::{Turn, World, add_upstream, new};

const LATENCY: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);
const SEEDS: std::ops::Range<u64> = 1..5;

fn world(seed: u64, queue_max: u32) -> World {
    let mut limits = limits();
    limits.queue_max = queue_max;
    let mut world = new(seed, &limits);
    world.watch.strict = false;
    let mut cfg = upstream();
    (cfg.in_flight_max, cfg.queue_max) = (8, queue_max);
    add_upstream(&mut world, cfg, Model::new(Limiter::Open, Hints::None, LATENCY));
    world
}

/// Somebody who always has one request under way.
fn client(flow: u64, band: Band) -> Client {
    let request = Request { flow: FlowId(flow), band, ..Request::new(0, HOUR) };
    Client { request, think: Duration::from_millis(1), requests: u32::MAX }
}

fn add(world: &mut World, count: usize, client: &Client) {
    for _ in 0..count {
        world.add_client(client.clone(), Duration::ZERO);
    }
}

/// Turns of a flow after the first ten seconds, in which everybody arrives.
fn turns(world: &World, flow: u64) -> Vec<Turn> {
    let from = MonoTime::ZERO + Duration::from_secs(10);
    let of_flow = |turn: &&Turn| turn.flow == FlowId(flow) && turn.at > from;
    world.watch.seen[0].turns.iter().filter(of_flow).copied().collect()
}

/// 1 where all have the same, 1/n where one has all.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// Mean and 95th percentile in seconds.
fn waits(turns: &[Turn]) -> (f64, f64) {
    let mut waits: Vec<f64> = turns.iter().map(|turn| turn.waited.as_secs_f64()).collect();
    waits.sort_by(f64::total_cmp);
    (waits.iter().sum::<f64>() / waits.len() as f64, waits[waits.len() * 19 / 20])
}

#[test]
fn flows_with_backlog_get_equal_shares_however_many_clients_they_have() {
    for seed in SEEDS {
        let mut world = world(seed, 4000);
        let clients = [4, 8, 16, 64, 256];
        for (flow, count) in (1..).zip(clients) {
            add(&mut world, count, &client(flow, Band::Default));
        }
        world.run_for(Duration::from_secs(70));
        let shares: Vec<f64> = (1..=5).map(|flow| turns(&world, flow).len() as f64).collect();
        let index = jain(&shares);
        println!("seed {seed}: {shares:?} turns for {clients:?} clients, Jain index {index:.5}");
        assert!(index >= 0.95, "{shares:?}");
    }
}

#[test]
fn what_a_turn_costs_is_paid_by_its_flow() {
    let mut world = world(1, 4000);
    let mut dear = client(1, Band::Default);
    dear.request.cost = 5;
    add(&mut world, 32, &dear);
    add(&mut world, 32, &client(2, Band::Default));
    world.run_for(Duration::from_secs(70));
    let ratio = turns(&world, 2).len() as f64 / turns(&world, 1).len() as f64;
    assert!((4.5..5.5).contains(&ratio), "{ratio:.2} cheap turns for a dear one");
}

#[test]
fn a_backfill_of_ten_thousand_does_not_hold_an_interactive_run_up() {
    for (band, flows) in [(Band::Default, 1), (Band::High, 1), (Band::Default, 10_000)] {
        let run = |backfill: u64| {
            let mut world = world(1, 20_000);
            for n in 0..backfill {
                let flow = 100 + n % flows;
                add(&mut world, 1, &Client { requests: 1, ..client(flow, Band::Backfill) });
            }
            world.run_for(Duration::from_secs(5));
            add(&mut world, 32, &client(2, band));
            world.run_for(Duration::from_secs(45));
            waits(&turns(&world, 2))
        };
        let (alone, beside) = (run(0), run(10_000));
        let name = band.name();
        println!("{name}: waits of {alone:.3?} s alone, {beside:.3?} s beside {flows} flows");
        assert!(beside.0 <= alone.0 * 1.1, "{beside:?} instead of {alone:?}");
        assert!(beside.1 <= alone.1 * 1.1, "{beside:?} instead of {alone:?}");
    }
}

#[test]
fn a_backfill_leaves_an_interactive_run_its_share_of_a_quota() {
    // Fifty in each ten seconds, told in every answer; the run wants twenty of them, and waits for
    // none when it is alone.
    let run = |backfill: usize| {
        let mut world = world(1, 20_000);
        let window = Duration::from_secs(10);
        world.ups[0].model =
            Model::new(Limiter::Fixed { max: 50, window }, Hints::ExactQuota, LATENCY);
        add(
            &mut world,
            1,
            &Client { think: Duration::from_millis(350), ..client(2, Band::Default) },
        );
        world.run_for(Duration::from_secs(11));
        add(&mut world, backfill, &Client { requests: 1, ..client(9, Band::Backfill) });
        world.run_for(Duration::from_secs(120));
        (waits(&turns(&world, 2)), turns(&world, 9).len(), world.watch.seen[0].refused)
    };
    let (alone, beside) = (run(0), run(10_000));
    println!("waits of {:.3?} s alone, {:.3?} s beside a backfill", alone.0, beside.0);
    assert!(beside.0.1 <= alone.0.1 + 0.01, "{beside:?} instead of {alone:?}");
    assert!(beside.1 >= 12 * 20, "the backfill gets the rest: {}", beside.1);
    assert_eq!(beside.2, 0, "nothing is refused");
}

#[test]
fn ten_backfills_do_not_outweigh_one_run_of_a_higher_band() {
    let mut world = world(1, 4000);
    for flow in 1..=10 {
        add(&mut world, 32, &client(flow, Band::Low));
    }
    add(&mut world, 32, &client(11, Band::Default));
    world.run_for(Duration::from_secs(70));
    let others: usize = (1..=10).map(|flow| turns(&world, flow).len()).sum();
    let share = turns(&world, 11).len() as f64;
    let share = share / (share + others as f64);
    assert!((0.93..0.97).contains(&share), "{share:.3} for the one");
}

#[test]
fn a_band_keeps_a_twentieth_beside_its_saturated_neighbour() {
    for seed in SEEDS {
        let mut world = world(seed, 4000);
        add(&mut world, 64, &client(1, Band::Low));
        add(&mut world, 64, &client(2, Band::Backfill));
        world.run_for(Duration::from_secs(70));
        let (low, backfill) = (turns(&world, 1).len() as f64, turns(&world, 2).len() as f64);
        let share = backfill / (low + backfill);
        println!("seed {seed}: {share:.4} of the turns are the backfill's");
        assert!((0.04..0.06).contains(&share), "{share:.4}");
    }
}

#[test]
fn every_lower_band_keeps_a_twentieth_whichever_bands_are_there_and_the_highest_has_the_rest() {
    use Band::{Backfill, Critical, Default, High, Low};
    for bands in [
        &[Default, Backfill][..],
        &[Critical, Low],
        &[Critical, Default, Backfill],
        &[Critical, High, Default, Low, Backfill],
    ] {
        let mut world = world(1, 4000);
        for (flow, band) in (1..).zip(bands) {
            add(&mut world, 64, &client(flow, *band));
        }
        world.run_for(Duration::from_secs(70));
        let counts: Vec<usize> =
            (1..).zip(bands).map(|(flow, _)| turns(&world, flow).len()).collect();
        let all = counts.iter().sum::<usize>() as f64;
        let shares: Vec<f64> = counts.iter().map(|count| *count as f64 / all).collect();
        println!("{bands:?}: {shares:.3?}");
        for share in &shares[1..] {
            assert!((0.045..0.055).contains(share), "{bands:?}: {shares:.3?}");
        }
    }
}

#[test]
fn whoever_comes_to_a_crowd_of_a_lower_band_has_its_share_at_once() {
    let mut world = world(1, 4000);
    for flow in 100..300 {
        add(&mut world, 2, &client(flow, Band::Backfill));
    }
    world.run_for(Duration::from_secs(10));
    add(&mut world, 32, &client(1, Band::Default));
    let from = world.now;
    world.run_for(Duration::from_secs(5));
    let turns = world.watch.seen[0].turns.iter().copied().filter(|turn| turn.at > from);
    let (own, others): (Vec<Turn>, Vec<Turn>) = turns.partition(|turn| turn.flow == FlowId(1));
    println!("{} turns for the one, {} for the crowd", own.len(), others.len());
    // The first few go to those that had been called.
    assert!(own.len() > 17 * others.len().saturating_sub(4), "{} of {}", own.len(), others.len());
}

#[test]
fn a_low_band_that_asks_for_one_thing_after_the_other_gets_no_more_than_its_share() {
    let mut world = world(1, 4000);
    add(&mut world, 64, &client(1, Band::Default));
    add(&mut world, 1, &client(2, Band::Backfill));
    world.run_for(Duration::from_secs(130));
    let (usual, trickle) = (turns(&world, 1).len(), turns(&world, 2).len());
    println!("{usual} turns for the crowd, {trickle} for the one");
    assert!(trickle > 0 && trickle * 19 <= usual, "{trickle} of {usual}");
}

#[test]
fn a_slow_route_keeps_its_bands_beside_a_busy_one() {
    for busy in [0, 64] {
        let mut world = world(1, 4000);
        let it = &mut world.ups[0];
        it.cfg.routes.push(route("search"));
        it.cfg.routes[0].in_flight_max = Some(6);
        it.cfg.routes[1].in_flight_max = Some(1);
        it.ids = it.policy.configure(&it.cfg);
        for (flow, band) in [(1, Band::Default), (2, Band::Low)] {
            let mut slow = client(flow, band);
            slow.request.route = 1;
            add(&mut world, 16, &slow);
        }
        for flow in [3, 4] {
            add(&mut world, busy, &client(flow, Band::Default));
        }
        world.run_for(Duration::from_secs(130));
        let counts = [1, 2, 3, 4].map(|flow| turns(&world, flow).len());
        println!("{counts:?} turns, the first two on the slow route");
        assert!(counts[0] > 15 * counts[1], "{counts:?}");
        assert!(counts[1] > 0, "{counts:?}");
    }
}

#[test]
fn who_was_held_back_elsewhere_has_no_credit_for_it() {
    let mut world = world(1, 4000);
    add(&mut world, 64, &client(1, Band::Default));
    let mut held = client(2, Band::Default);
    held.request.keys = ["tenant".to_owned()].into();
    let key = |in_flight_max| {
        vec![KeySettings { pattern: "tenant".into(), in_flight_max, ordered: false }]
    };
    world.watch.limit_settings.keys = key(1);
    world.limits.configure(&world.watch.limit_settings);
    add(&mut world, 64, &held);
    world.run_for(Duration::from_secs(100));
    let before = [1, 2].map(|flow| turns(&world, flow).len());
    world.watch.limit_settings.keys = key(100);
    world.limits.configure(&world.watch.limit_settings);
    world.run_for(Duration::from_secs(20));
    let after = [1, 2].map(|flow| turns(&world, flow).len());
    let shares = [after[0] - before[0], after[1] - before[1]];
    println!("{before:?} turns while one was limited, {shares:?} when it was not");
    assert!(shares[0] * 10 > shares[1] * 8, "{shares:?}");
}

#[test]
fn nobody_starves_beside_the_highest_band() {
    let mut world = world(1, 4000);
    for (flow, band) in (1..).zip(Band::ALL) {
        add(&mut world, 32, &client(flow, band));
    }
    world.run_for(Duration::from_secs(300));
    for (flow, band) in (1..).zip(Band::ALL) {
        let turns = turns(&world, flow);
        let gaps = turns.windows(2).map(|pair| pair[1].at.since(pair[0].at));
        let longest = gaps.max().expect("it had several turns");
        println!("{}: {} turns, {longest:.1?} between two at most", band.name(), turns.len());
        // Four bands of thirty seconds each, and what stands before it then.
        assert!(longest <= Duration::from_secs(125), "{}: {longest:?}", band.name());
    }
}

#[test]
fn a_full_line_drops_the_newest_of_the_longest_flow_in_the_lowest_band() {
    let mut world = world(1, 20);
    let once = |flow, band| Client { requests: 1, ..client(flow, band) };
    for (flow, count, band) in
        [(1, 8, Band::Default), (2, 6, Band::Low), (3, 5, Band::Backfill), (4, 9, Band::Backfill)]
    {
        add(&mut world, count, &once(flow, band));
        world.run_for(Duration::ZERO);
    }
    let waiting = |world: &World| {
        [1, 2, 3, 4].map(|flow| {
            let all = world.exchanges.iter().filter(|(_, ex)| ex.needs.flow == FlowId(flow));
            all.map(|(id, _)| *id).collect::<Vec<u64>>()
        })
    };
    let before = waiting(&world);
    assert_eq!((world.ups[0].policy.queued(), world.watch.refusals), (20, 0));
    add(&mut world, 1, &once(4, Band::Backfill));
    world.run_for(Duration::ZERO);
    assert_eq!((waiting(&world), world.watch.refusals), (before.clone(), 1), "the arrival itself");
    add(&mut world, 6, &once(1, Band::Default));
    world.run_for(Duration::ZERO);
    let after = waiting(&world);
    // Nine and five: four go from the longer one, then they take turns.
    assert_eq!([after[2].len(), after[3].len()], [4, 4]);
    assert_eq!(after.each_ref().map(Vec::len)[..2], [14, 6]);
    assert!(before[3].starts_with(&after[3]), "the newest left");
    assert_eq!(world.watch.refusals, 7);
    world.run_for(HOUR);
    check_end(&mut world);
}

#[test]
fn a_key_in_strict_order_keeps_it_across_upstreams_and_repeats() {
    for seed in SEEDS {
        let mut world = world(seed, 4000);
        let mut model = Model::new(Limiter::Open, Hints::None, LATENCY);
        model.odd_failure = 4;
        add_upstream(&mut world, upstream(), model);
        world.watch.limit_settings.keys =
            vec![KeySettings { pattern: "ledger".into(), in_flight_max: 1, ordered: true }];
        world.limits.configure(&world.watch.limit_settings);
        world.job = 200;
        for up in [0, 1] {
            let mut client = client(up as u64, Band::ALL[up]);
            client.request.up = up;
            client.request.keys = ["ledger".to_owned()].into();
            add(&mut world, 8, &client);
        }
        world.run();
        let mut turns: Vec<Turn> =
            world.watch.seen.iter().flat_map(|seen| seen.turns.clone()).collect();
        turns.sort_by_key(|turn| turn.at);
        let repeats = turns.len() - 200;
        println!("seed {seed}: {repeats} repeats");
        assert!(repeats > 5, "repeats are what endangers the order");
        assert!(turns.is_sorted_by_key(|turn| turn.exchange), "as they came");
    }
}
