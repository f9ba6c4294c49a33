//! Probes, and what follows them.

use super::*;

#[test]
fn one_probe_at_a_time_and_the_others_hear_when_its_lease_ends() {
    let mut bench = Bench::due();
    let probe = bench.admit(Safety::Safe).unwrap();
    let until = bench.now + LEASE;
    assert_eq!(bench.admit(Safety::Safe).unwrap_err(), Held::Probing { until });
    assert_eq!(bench.end(probe, Health::Success), None);
    assert_eq!(bench.circuit(), CircuitName::HalfOpen);
    let transition = bench.attempt(Health::Success).unwrap();
    assert_eq!(transition.reason, TransitionReason::ProbesSucceeded);
    assert_eq!(bench.circuit(), CircuitName::Closed);
}

#[test]
fn an_abandoned_or_neutral_probe_gives_its_place_back() {
    let mut bench = Bench::due();
    let probe = bench.admit(Safety::Safe).unwrap();
    bench.breaker.abandon(bench.now, probe);
    let probe = bench.admit(Safety::Safe).unwrap();
    assert_eq!(bench.end(probe, Health::Neutral), None);
    assert!(bench.admit(Safety::Safe).is_ok());
}

#[test]
fn the_place_of_a_lost_probe_is_given_away_and_its_late_result_does_not_count() {
    let mut bench = Bench::due();
    let lost = bench.admit(Safety::Safe).unwrap();
    let next = bench.wait(LEASE).admit(Safety::Safe).unwrap();
    assert_eq!(bench.end(lost, Health::Failure), None);
    let until = bench.now + LEASE;
    assert_eq!(bench.admit(Safety::Safe).unwrap_err(), Held::Probing { until });
    assert_eq!(bench.end(next, Health::Alive).map(|change| change.to), Some(CircuitName::Closed));
}

#[test]
fn a_lost_probe_that_is_abandoned_late_does_not_free_the_place_of_the_next() {
    let mut bench = Bench::due();
    let lost = bench.admit(Safety::Safe).unwrap();
    let _next = bench.wait(LEASE).admit(Safety::Safe).unwrap();
    bench.breaker.abandon(bench.now, lost);
    assert!(bench.admit(Safety::Safe).is_err());
}

#[test]
fn no_lease_is_longer_than_thirty_seconds() {
    let mut bench = Bench::due();
    let _lost = bench.breaker.admit(&bench.cfg, bench.now, Safety::Safe, secs(3_600)).unwrap();
    assert!(bench.wait(secs(29)).admit(Safety::Safe).is_err());
    assert!(bench.wait(secs(1)).admit(Safety::Safe).is_ok());
}

#[test]
fn a_safe_exchange_may_probe_first_then_an_idempotent_one_then_any() {
    let mut bench = Bench::due();
    let since = bench.now;
    let mut check = |after, safety, held_until: Option<u64>| {
        let expected = held_until.map_or(Ok(()), |s| Err(Held::Probing { until: since + secs(s) }));
        bench.now = since + secs(after);
        assert_eq!(bench.breaker.check(&bench.cfg, bench.now, safety), expected);
        let admitted = bench.admit(safety).map(|probe| bench.breaker.abandon(bench.now, probe));
        assert_eq!(admitted, expected, "{safety:?} after {after} s");
    };
    check(0, Safety::Idempotent, Some(5));
    check(0, Safety::Unsafe, Some(10));
    check(0, Safety::Safe, None);
    check(5, Safety::Idempotent, None);
    check(9, Safety::Unsafe, Some(10));
    check(10, Safety::Unsafe, None);
}

#[test]
fn a_throttled_probe_closes_at_once_and_an_overloaded_one_opens_again() {
    let check = |health, expected, reason| {
        let mut bench = Bench::due();
        let transition = bench.attempt(health).unwrap();
        assert_eq!((bench.circuit(), transition.reason), (expected, reason));
    };
    check(Health::Alive, CircuitName::Closed, TransitionReason::ProbeAlive);
    check(Health::HalfFailure, CircuitName::Open, TransitionReason::ProbeFailed);
    check(Health::Failure, CircuitName::Open, TransitionReason::ProbeFailed);
}

#[test]
fn a_late_failure_from_before_the_trip_does_not_reopen_a_recovering_circuit() {
    let mut bench = Bench::new(settings());
    let late = bench.admit(Safety::Safe).unwrap();
    let span = bench.trip();
    let probe = bench.wait(span).admit(Safety::Safe).unwrap();
    assert_eq!(bench.end(late, Health::Failure), None);
    assert_eq!(bench.end(probe, Health::Alive).map(|change| change.to), Some(CircuitName::Closed));
}

#[test]
fn the_open_time_doubles_with_each_failed_probe_up_to_its_maximum() {
    let mut bench = Bench::new(settings());
    let mut times = vec![bench.trip().as_secs()];
    for _ in 0..6 {
        let span = bench.open_for();
        bench.wait(span).attempt(Health::Failure);
        times.push(bench.open_for().as_secs());
    }
    assert_eq!(times, [30, 60, 120, 240, 480, 600, 600]);
}

#[test]
fn a_trip_soon_after_closing_opens_for_longer_and_after_ten_good_minutes_it_does_not() {
    let check = |well_for, expected_s| {
        let mut bench = Bench::due();
        bench.attempts(2, Health::Success);
        assert_eq!(bench.circuit(), CircuitName::Closed);
        bench.wait(well_for);
        assert_eq!(bench.trip(), secs(expected_s), "{well_for:?}");
    };
    check(secs(599), 60);
    check(secs(600), 30);
}

#[test]
fn after_closing_traffic_grows_from_two_and_is_free_after_thirty_seconds() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.breaker.in_flight_cap(bench.now), None);
    let mut bench = Bench::due();
    bench.attempts(2, Health::Success);
    for expected in [2, 4, 8, 16] {
        assert_eq!(bench.breaker.in_flight_cap(bench.now), Some(expected));
        bench.attempts(5, Health::Success);
    }
    bench.attempts(1_000, Health::Success);
    assert!(bench.breaker.in_flight_cap(bench.now).is_none_or(|cap| cap > 1_000));
    bench.wait(secs(30));
    assert_eq!(bench.breaker.in_flight_cap(bench.now), None);
}
