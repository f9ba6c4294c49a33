//! The deterministic simulation: whole histories over the pure policy, in virtual time.
//!
//! One seed is one history. `FORBEAR_SIM_SEED=0x1f3a cargo test --test sim -- --nocapture` replays
//! one and prints what happened; `FORBEAR_SIM_SEEDS=100000` tries more of them.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test binary: what is out of bounds shall fail, and a replay is printed"
)]

mod fairness;
mod history;
mod honest;
mod neighbours;
mod promises;
mod properties;
mod world;

/// Histories in every test run; widened by `FORBEAR_SIM_SEEDS`.
const SEEDS: u64 = 512;

#[expect(clippy::disallowed_methods, reason = "the only way to tell a test which seed to run")]
fn wish(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(number.expect("a number"))
}

fn log_of(seed: u64) -> Vec<String> {
    let mut world = history::world(seed);
    world.watch.log = Some(Vec::new());
    world.run();
    world.watch.log.unwrap_or_default()
}

#[test]
fn whatever_happens_every_invariant_holds() {
    if let Some(seed) = wish("FORBEAR_SIM_SEED") {
        for line in log_of(seed) {
            println!("{line}");
        }
        return;
    }
    for seed in 0..wish("FORBEAR_SIM_SEEDS").unwrap_or(SEEDS) {
        history::world(seed).run();
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 0..8 {
        let (first, second) = (log_of(seed), log_of(seed));
        assert!(first.len() > 10, "nothing happened");
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Says how fast the policy pass is; what is fast enough depends on the machine.
#[test]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn the_policy_pass_is_measured() {
    let started = std::time::Instant::now();
    let exchanges = promises::undisturbed(20_000);
    let per_second = f64::from(exchanges) / started.elapsed().as_secs_f64();
    println!("{per_second:.0} exchanges per second, world included");
}
