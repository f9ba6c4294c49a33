//! Each family by its formula, and no overflow for any input.

use proptest::prelude::*;

use super::*;

const LOW: Draw = Draw(0);
const HIGH: Draw = Draw(u32::MAX);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn check(family: &BackoffFamily, draw: Draw, expected_ms: [u64; 4]) {
    let backoff = Backoff { family: family.clone(), base: ms(500), max: ms(1_800) };
    let mut previous = Duration::ZERO;
    for (retry, expected) in (1..).zip(expected_ms) {
        let wait = delay(&backoff, retry, previous, draw);
        let off = wait.abs_diff(ms(expected));
        assert!(off < ms(1), "{family:?}, retry {retry}: {wait:?}, not {expected} ms");
        previous = wait;
    }
}

#[test]
fn each_family_grows_as_its_formula_says() {
    use BackoffFamily as F;
    let steps = F::Steps(vec![ms(10), ms(7_000), ms(20)]);
    check(&F::FullJitter, HIGH, [500, 1_000, 1_800, 1_800]);
    check(&F::FullJitter, LOW, [100, 100, 100, 100]);
    check(&F::DecorrelatedJitter, HIGH, [1_500, 1_800, 1_800, 1_800]);
    check(&F::DecorrelatedJitter, LOW, [500, 500, 500, 500]);
    check(&F::Exponential, HIGH, [500, 1_000, 1_800, 1_800]);
    check(&F::Linear, HIGH, [500, 1_000, 1_500, 1_800]);
    check(&F::Fixed, HIGH, [500, 500, 500, 500]);
    check(&F::Uniform, HIGH, [500, 500, 500, 500]);
    check(&F::Uniform, LOW, [0, 0, 0, 0]);
    check(&steps, HIGH, [10, 7_000, 20, 20]);
}

#[test]
fn a_refusal_without_a_time_waits_at_least_half_of_a_window_that_grows_from_5_to_60_seconds() {
    for (retry, window) in [(1, 5), (2, 10), (4, 40), (5, 60), (u32::MAX, 60)] {
        assert_eq!(refused_delay(retry, LOW), Duration::from_secs(window) / 2);
        let longest = refused_delay(retry, HIGH);
        assert!(longest <= Duration::from_secs(window) && longest > ms(window * 990));
    }
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::MAX),
        Just(Duration::from_nanos(1)),
        (0..100_000_u64).prop_map(ms),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
    ]
}

fn growing_family() -> impl Strategy<Value = BackoffFamily> {
    prop_oneof![
        Just(BackoffFamily::FullJitter),
        Just(BackoffFamily::DecorrelatedJitter),
        Just(BackoffFamily::Exponential),
        Just(BackoffFamily::Linear),
    ]
}

proptest! {
    #[test]
    fn no_growing_wait_passes_its_maximum_for_any_retry_number(
        family in growing_family(),
        base in any_duration(),
        max in any_duration(),
        previous in any_duration(),
        retry in prop_oneof![Just(0), Just(u32::MAX), 0..300_u32],
        draw in any::<u32>(),
    ) {
        let wait = delay(&Backoff { family, base, max }, retry, previous, Draw(draw));
        prop_assert!(wait <= max);
    }

    #[test]
    fn full_jitter_stays_below_its_doubled_base(
        base_ms in 1..5_000_u64,
        retry in 1..20_u32,
        draw in any::<u32>(),
    ) {
        let backoff = Backoff {
            family: BackoffFamily::FullJitter,
            base: ms(base_ms),
            max: Duration::from_secs(30),
        };
        let wait = delay(&backoff, retry, Duration::ZERO, Draw(draw));
        let window = ms(base_ms << (retry - 1)).min(backoff.max);
        prop_assert!(wait >= ms(100) && wait <= window.max(ms(100)));
    }
}
