//! The bound on retries, by examples and over random histories.

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> MonoTime {
    MonoTime::ZERO + Duration::from_millis(ms)
}

/// Retries granted when as many as possible are asked for at once.
fn drain(budget: &mut RetryBudget, ratio: f64, floor: u32, now: MonoTime) -> usize {
    (0..10_000).take_while(|_| budget.try_withdraw(ratio, floor, now)).count()
}

#[test]
fn a_fifth_of_the_first_attempts_and_the_floor_may_be_repeated() {
    for (firsts, ratio, floor, expected) in
        [(0, 0.2, 10, 10), (100, 0.2, 10, 30), (4, 0.2, 0, 0), (5, 0.2, 0, 1), (9, 0.0, 0, 0)]
    {
        let mut budget = RetryBudget::default();
        (0..firsts).for_each(|_| budget.deposit(at(0)));
        assert_eq!(drain(&mut budget, ratio, floor, at(1)), expected, "{firsts} {ratio}");
    }
}

#[test]
fn a_minute_later_the_budget_is_whole_again_and_nothing_was_saved_up() {
    let mut budget = RetryBudget::default();
    (0..1000).for_each(|_| budget.deposit(at(0)));
    assert_eq!(drain(&mut budget, 0.2, 10, at(0)), 210);
    assert!(budget.remaining_ratio(0.2, 10, at(0)).abs() < 1e-9);
    assert!((budget.remaining_ratio(0.2, 10, at(60_000)) - 1.0).abs() < 1e-9);
    assert_eq!(drain(&mut budget, 0.2, 10, at(60_000)), 10);
}

proptest! {
    #[test]
    fn over_any_nine_tenths_of_a_minute_retries_stay_within_ratio_and_floor(
        steps in prop::collection::vec((0_u64..3_000, any::<bool>()), 1..400),
        ratio in 0.0..1.0_f64,
        floor in 0_u32..20,
    ) {
        let (mut budget, mut now) = (RetryBudget::default(), 0);
        let (mut firsts, mut retries) = (Vec::new(), Vec::new());
        for (pause, is_first) in steps {
            now += pause;
            if is_first {
                budget.deposit(at(now));
                firsts.push(now);
            } else if budget.try_withdraw(ratio, floor, at(now)) {
                retries.push(now);
                let within = |times: &[u64], span| {
                    times.iter().filter(|&&time| time + span > now).count() as f64
                };
                prop_assert!(
                    within(&retries, 54_000)
                        <= ratio * within(&firsts, 60_000) + f64::from(floor)
                );
            }
        }
    }

    #[test]
    fn what_is_left_is_a_share_whatever_the_settings(
        ratio in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), 0.0..2.0_f64],
        floor in prop_oneof![Just(0), Just(u32::MAX), 0_u32..20],
    ) {
        let mut budget = RetryBudget::default();
        budget.deposit(at(0));
        let granted = budget.try_withdraw(ratio, floor, at(0));
        prop_assert!((0.0..=1.0).contains(&budget.remaining_ratio(ratio, floor, at(0))));
        prop_assert!(!granted || floor > 0 || ratio >= 1.0);
    }
}
