//! A model of an API with a concurrency limit that it does not announce.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> MonoTime {
    MonoTime::ZERO + Duration::from_millis(ms)
}

/// What came of a simulated run.
struct Run {
    refusals: u32,
    /// Limit in force at each answer.
    limits: Vec<u32>,
}

/// One attempt in flight.
#[derive(Clone, Copy)]
struct InFlight {
    ends_ms: u64,
    sent_ms: u64,
    in_flight_when_sent: u32,
    refused: bool,
}

/// Keeps a client with endless work busy until `answers` came. The API takes `capacity(answer)`
/// attempts at once and answers a bare 429 beyond, for even seeds faster than it serves.
fn simulate(answers: u32, max: u32, seed: u32, capacity: impl Fn(u32) -> usize) -> Run {
    let refusal_takes_ms = if seed.is_multiple_of(2) { 5 } else { 50 };
    let mut limit = AdaptiveLimit::default();
    let mut run = Run { refusals: 0, limits: Vec::new() };
    let (mut now_ms, mut in_flight) = (0, Vec::<InFlight>::new());
    let mut chance = seed;
    for answer in 0..answers {
        let allowed = limit.limit().unwrap_or(max).min(max) as usize;
        while in_flight.len() < allowed {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let served = in_flight.iter().filter(|attempt| !attempt.refused).count();
            let refused = served >= capacity(answer);
            let takes_ms = if refused { refusal_takes_ms } else { 50 } + u64::from(chance >> 26);
            in_flight.push(InFlight {
                ends_ms: now_ms + takes_ms,
                sent_ms: now_ms,
                in_flight_when_sent: in_flight.len() as u32 + 1,
                refused,
            });
        }
        let next = (0..in_flight.len()).min_by_key(|&place| in_flight[place].ends_ms).unwrap();
        let attempt = in_flight.swap_remove(next);
        now_ms = attempt.ends_ms;
        if attempt.refused {
            run.refusals += 1;
            limit.on_refused(at(now_ms), attempt.in_flight_when_sent, at(attempt.sent_ms));
        } else {
            limit.on_success(at(attempt.sent_ms), max);
        }
        run.limits.push(limit.limit().unwrap_or(max));
    }
    run
}

#[test]
fn an_unannounced_limit_is_found_and_kept_with_at_most_one_refusal_in_fifty_answers() {
    for (seed, capacity) in (0..50).flat_map(|seed| (1..=16).map(move |k| (seed, k))) {
        let run = simulate(2_000, 16, seed, |_| capacity);
        assert!(run.refusals <= 40, "capacity {capacity}, seed {seed}: {}", run.refusals);
        let settled = &run.limits[200..];
        let near = settled.iter().all(|limit| limit.abs_diff(capacity as u32) <= 1);
        assert!(near, "capacity {capacity}, seed {seed}: the limit strayed");
        let used = settled.iter().filter(|&&limit| limit as usize >= capacity).count();
        assert!(used * 100 >= settled.len() * 97, "capacity {capacity}, seed {seed}: not used");
    }
}

#[test]
fn a_limit_that_was_lowered_is_followed_and_one_that_was_raised_is_found() {
    for seed in 0..20 {
        let lowered = simulate(3_000, 64, seed, |answer| if answer < 1_000 { 40 } else { 5 });
        assert!(lowered.limits[2_000..].iter().all(|limit| (4..=6).contains(limit)));
        let raised = simulate(6_000, 64, seed, |answer| if answer < 1_000 { 5 } else { 40 });
        assert!(raised.limits[5_000..].iter().all(|limit| (36..=41).contains(limit)));
    }
}

#[test]
fn nothing_is_bounded_before_something_was_refused() {
    let mut limit = AdaptiveLimit::default();
    (0..1_000).for_each(|_| limit.on_success(MonoTime::MAX, 16));
    assert_eq!(limit.limit(), None);
}

#[test]
fn one_burst_of_refusals_cuts_to_just_below_its_lowest_level_and_no_further() {
    let mut limit = AdaptiveLimit::default();
    for level in [12, 10, 9, 11, 10] {
        limit.on_refused(at(20), level, at(0));
    }
    assert_eq!(limit.limit(), Some(8));
}

#[test]
fn a_refusal_soon_after_a_cut_takes_three_tenths_and_the_same_round_trip_no_more() {
    let mut limit = AdaptiveLimit::default();
    limit.on_refused(at(20), 101, at(0));
    limit.on_refused(at(40), 100, at(21));
    limit.on_refused(at(41), 100, at(22));
    assert_eq!(limit.limit(), Some(70));
}

#[test]
fn a_limit_of_one_recovers() {
    let mut limit = AdaptiveLimit::default();
    limit.on_refused(at(1), 1, at(0));
    assert_eq!(limit.limit(), Some(1));
    (0..200).for_each(|_| limit.on_success(MonoTime::MAX, 8));
    assert_eq!(limit.limit(), Some(8));
}

/// Successes until the limit rises.
fn successes_until_more(limit: &mut AdaptiveLimit) -> usize {
    let before = limit.limit();
    let more = (1..10_000).find(|_| {
        limit.on_success(MonoTime::MAX, 100);
        limit.limit() > before
    });
    more.expect("it rises some day")
}

#[test]
fn each_failed_try_doubles_the_successes_before_the_next_and_a_good_one_starts_afresh() {
    let mut limit = AdaptiveLimit::default();
    limit.on_refused(at(1), 11, at(0));
    for (now_ms, expected) in [(2, 32), (3, 64), (4, 128)] {
        assert_eq!(successes_until_more(&mut limit), expected);
        limit.on_refused(at(now_ms), 11, at(now_ms));
    }
    assert_eq!(successes_until_more(&mut limit), 256);
    assert_eq!(successes_until_more(&mut limit), 22);
    limit.on_refused(at(5), 12, at(5));
    assert_eq!(successes_until_more(&mut limit), 64);
}

proptest! {
    #[test]
    fn the_limit_stays_between_one_and_what_is_configured(
        steps in prop::collection::vec((any::<bool>(), 0..100_u32, 0..50_u64), 0..300),
        max in 1..50_u32,
    ) {
        let (mut limit, mut now_ms) = (AdaptiveLimit::default(), 0);
        for (refused, in_flight, pause) in steps {
            now_ms += pause;
            if refused {
                limit.on_refused(at(now_ms), in_flight.min(max), at(now_ms - pause));
            } else {
                limit.on_success(MonoTime::MAX, max);
            }
            prop_assert!(limit.limit().is_none_or(|limit| (1..=max).contains(&limit)));
        }
    }
}

#[test]
fn attempts_that_overtake_each_other_do_not_leave_the_limit_too_low() {
    let mut limit = AdaptiveLimit::default();
    // Of five that went together the upstream takes three; the second of them came fourth.
    limit.on_refused(at(10), 5, at(1));
    limit.on_refused(at(10), 2, at(1));
    assert_eq!(limit.limit(), Some(1));
    (0..3).for_each(|_| limit.on_success(at(1), 16));
    assert_eq!(limit.limit(), Some(3));
}

#[test]
fn the_next_process_begins_with_the_limit_and_forgets_it_a_day_after_the_last_refusal() {
    let at = |seconds| MonoTime::ZERO + Duration::from_secs(seconds);
    let mut before = AdaptiveLimit::default();
    before.on_refused(at(10), 4, at(9));
    let saved = before.saved(at(20)).unwrap();

    let mut after = AdaptiveLimit::default();
    after.restore(saved);

    assert_eq!(after.limit(), Some(3));
    assert_eq!(after.saved(at(20)), Some(saved), "no restart makes it younger");
    // Near the level that was refused, a try for more still needs as many successes.
    (0..31).for_each(|_| after.on_success(at(30), 16));
    assert_eq!(after.limit(), Some(3));
    after.on_success(at(30), 16);
    assert_eq!(after.limit(), Some(4));
    assert_eq!(before.saved(at(86_410)), None);
    assert_eq!(AdaptiveLimit::default().saved(at(1)), None);
}

#[test]
fn a_limit_that_cannot_be_is_none_that_stops_everything() {
    let until = MonoTime::ZERO + Duration::from_secs(60);
    let mut limit = AdaptiveLimit::default();
    let most = u32::MAX;
    limit.restore(SavedLimit { limit: 0, refused_at: Some(0), failed_tries: most, until });
    for second in 1..100 {
        assert!(limit.limit() >= Some(1));
        let now = MonoTime::ZERO + Duration::from_secs(second);
        limit.on_success(now, 16);
        limit.on_refused(now, 1, now);
    }
    // Refusals of this process count for more than what another one found.
    let own = limit.limit();
    limit.restore(SavedLimit { limit: 9, refused_at: None, failed_tries: 0, until });
    assert_eq!(limit.limit(), own);
}
