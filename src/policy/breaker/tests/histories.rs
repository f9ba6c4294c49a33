//! Promises that hold after every step of any history.

use proptest::prelude::*;

use super::*;

/// One step of a random history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Admit(Safety),
    /// Ends one of the attempts that are out.
    End(usize, Health, Option<u64>),
    Abandon(usize),
    Force(Force, u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    use Health::{Alive, Failure, HalfFailure, Neutral, Success};
    let safety = prop::sample::select(vec![Safety::Safe, Safety::Idempotent, Safety::Unsafe]);
    let health = prop::sample::select(vec![Success, Failure, Failure, HalfFailure, Alive, Neutral]);
    let force = prop::sample::select(vec![Force::Open, Force::Closed, Force::Auto]);
    let hint = prop::option::weighted(0.1, 0..2_000_u64);
    prop_oneof![
        4 => prop_oneof![0..3_000_u64, 0..60_000_u64, 0..900_000_u64].prop_map(Step::Wait),
        8 => safety.prop_map(Step::Admit),
        8 => (any::<usize>(), health, hint).prop_map(|(n, health, hint)| Step::End(n, health, hint)),
        2 => any::<usize>().prop_map(Step::Abandon),
        1 => (force, 0..100_u64).prop_map(|(force, secs)| Step::Force(force, secs)),
    ]
}

/// Runs a history, checking after each step what must always hold.
fn run(steps: &[Step]) -> Result<Bench, TestCaseError> {
    let mut bench = Bench::new(settings());
    let mut out = Vec::<(Admission, MonoTime)>::new();
    for &step in steps {
        // What time alone brings comes first, so that each step answers for its own change.
        let _ = bench.breaker.advance(bench.now);
        let generation = bench.breaker.generation();
        let mut change = None;
        match step {
            Step::Wait(ms) => {
                bench.wait(Duration::from_millis(ms));
                change = bench.breaker.advance(bench.now);
            }
            Step::Admit(safety) => {
                if let Some(admission) = admit(&mut bench, safety)? {
                    out.push((admission, bench.now));
                }
            }
            Step::End(n, health, hint) if !out.is_empty() => {
                let (admission, _) = out.swap_remove(n % out.len());
                let old = admission.generation != generation;
                change = bench.end_with(admission, health, secs(1), hint.map(secs), EVEN);
                prop_assert!(!old || change.is_none(), "an older generation changed something");
                if change.is_some_and(|change| change.to == CircuitName::Open) {
                    prop_assert!(bench.open_for() >= hint.map_or(secs(24), secs));
                }
            }
            Step::Abandon(n) if !out.is_empty() => {
                let (admission, _) = out.swap_remove(n % out.len());
                bench.breaker.abandon(bench.now, admission);
            }
            Step::Force(force, span) => {
                change = bench.breaker.force(bench.now, force, bench.now + secs(span));
            }
            Step::End(..) | Step::Abandon(_) => {}
        }
        let changed = bench.breaker.generation() != generation;
        prop_assert_eq!(changed, change.is_some(), "{:?}", step);
        let probes = out.iter().filter(|(admission, since)| {
            admission.is_probe()
                && admission.generation == bench.breaker.generation()
                && bench.now.since(*since) < LEASE
        });
        prop_assert!(probes.count() <= 1, "more than one probe is out");
        prop_assert!((0.0..=1.0).contains(&bench.breaker.failure_ratio(&bench.cfg, bench.now)));
    }
    Ok(bench)
}

/// Asks, and checks that the answer fits what the breaker shows.
fn admit(bench: &mut Bench, safety: Safety) -> Result<Option<Admission>, TestCaseError> {
    let shown = bench.circuit();
    let foretold = bench.breaker.check(&bench.cfg, bench.now, safety);
    let admitted = bench.admit(safety);
    prop_assert_eq!(admitted.as_ref().map(|_| ()), foretold.as_ref().map(|_| ()));
    match admitted {
        Ok(admission) => {
            prop_assert!(!matches!(shown, CircuitName::Open | CircuitName::ForcedOpen));
            prop_assert_eq!(admission.is_probe(), shown == CircuitName::HalfOpen);
            Ok(Some(admission))
        }
        Err(Held::Open { until } | Held::Probing { until }) => {
            prop_assert!(until > bench.now, "asking again at once would spin");
            Ok(None)
        }
    }
}

/// Sends one attempt after another, each as soon as it may go, until the goal is reached.
fn reaches(bench: &mut Bench, health: Health, goal: CircuitName) -> bool {
    (0..20).any(|_| {
        match bench.admit(Safety::Unsafe) {
            Ok(admission) => drop(bench.end(admission, health)),
            Err(Held::Open { until } | Held::Probing { until }) => bench.now = until,
        }
        bench.circuit() == goal
    })
}

proptest! {
    #[test]
    fn no_history_lets_anything_through_an_open_circuit_or_two_probes_out(
        steps in prop::collection::vec(any_step(), 0..300),
    ) {
        run(&steps)?;
    }

    #[test]
    fn from_any_history_it_closes_with_good_results_only_and_opens_with_bad_ones_only(
        steps in prop::collection::vec(any_step(), 0..100),
    ) {
        let mut well = run(&steps)?;
        well.breaker.force(well.now, Force::Auto, well.now);
        let breaker = well.breaker.clone();
        let mut ill = Bench { breaker, now: well.now, ..Bench::new(settings()) };
        prop_assert!(reaches(&mut well, Health::Success, CircuitName::Closed));
        prop_assert!(reaches(&mut ill, Health::Failure, CircuitName::Open));
    }

    #[test]
    fn no_settings_make_an_open_time_overflow_or_exceed_its_maximum(
        open_for_s in any::<u64>(),
        open_for_max_s in any::<u64>(),
        openings in any::<u32>(),
        draw in any::<u32>(),
    ) {
        let (open_for, open_for_max) = (secs(open_for_s), secs(open_for_max_s));
        let cfg = BreakerSettings { consecutive_failures: 1, open_for, open_for_max, ..settings() };
        let mut bench = Bench::new(cfg);
        bench.breaker.openings = openings;
        bench.breaker.closed_at = bench.now;
        let admission = bench.admit(Safety::Safe).unwrap();
        let _ = bench.end_with(admission, Health::Failure, secs(0), None, Draw(draw));
        prop_assert!(bench.breaker.open_until().unwrap() <= bench.now + open_for_max);
    }
}
