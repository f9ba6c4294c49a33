//! The life of a breaker: how it opens; then how it is half-open; then random histories.

mod half_open;
mod histories;

use super::*;

const EVEN: Draw = Draw(1 << 31);
const LEASE: Duration = Duration::from_secs(20);

fn settings() -> BreakerSettings {
    BreakerSettings {
        consecutive_failures: 5,
        failure_rate: 0.5,
        window: secs(60),
        samples_min: 10,
        open_for: secs(30),
        open_for_max: secs(600),
        successes_to_close: 2,
        slow_after: None,
        slow_rate: 0.8,
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn at(secs: u64) -> MonoTime {
    MonoTime::ZERO + Duration::from_secs(secs)
}

/// A breaker with its settings and a clock that the test moves.
struct Bench {
    breaker: Breaker,
    cfg: BreakerSettings,
    now: MonoTime,
    exchange: u64,
}

impl Bench {
    fn new(cfg: BreakerSettings) -> Self {
        Self { breaker: Breaker::default(), cfg, now: at(1_000), exchange: 0 }
    }

    /// One that was tripped by failures in a row and whose open time is just over.
    fn due() -> Self {
        let mut bench = Self::new(settings());
        let span = bench.trip();
        bench.wait(span);
        bench
    }

    fn wait(&mut self, span: Duration) -> &mut Self {
        self.now = self.now + span;
        self
    }

    fn admit(&mut self, safety: Safety) -> Result<Admission, Held> {
        self.breaker.admit(&self.cfg, self.now, safety, LEASE)
    }

    fn end(&mut self, admission: Admission, health: Health) -> Option<Transition> {
        self.end_with(admission, health, Duration::ZERO, None, EVEN)
    }

    fn end_with(
        &mut self,
        admission: Admission,
        health: Health,
        took: Duration,
        hint: Option<Duration>,
        draw: Draw,
    ) -> Option<Transition> {
        self.exchange += 1;
        let Self { breaker, cfg, now, exchange } = self;
        breaker.record(cfg, *now, admission, *exchange, health, took, hint, draw)
    }

    /// One attempt of an exchange of its own.
    fn attempt(&mut self, health: Health) -> Option<Transition> {
        let admission = self.admit(Safety::Safe).expect("the test expects it to be admitted");
        self.end(admission, health)
    }

    fn attempts(&mut self, count: u32, health: Health) -> Option<Transition> {
        (0..count).fold(None, |_, _| self.attempt(health))
    }

    fn circuit(&self) -> CircuitName {
        self.breaker.circuit(self.now).name()
    }

    /// Trips it by failures in a row and gives the open time.
    fn trip(&mut self) -> Duration {
        self.attempts(self.cfg.consecutive_failures, Health::Failure);
        self.open_for()
    }

    fn open_for(&self) -> Duration {
        assert_eq!(self.circuit(), CircuitName::Open);
        self.breaker.open_until().unwrap().since(self.now)
    }
}

#[test]
fn failures_in_a_row_open_it_and_nothing_passes_until_the_open_time_is_over() {
    let mut bench = Bench::new(settings());
    assert_eq!(bench.attempts(4, Health::Failure), None);
    let transition = bench.attempt(Health::Failure).unwrap();
    assert_eq!((transition.from, transition.to), (CircuitName::Closed, CircuitName::Open));
    assert_eq!(transition.reason, TransitionReason::ConsecutiveFailures);
    let until = bench.now + secs(30);
    bench.wait(secs(29));
    assert_eq!(bench.admit(Safety::Safe).unwrap_err(), Held::Open { until });
    assert!(bench.wait(secs(1)).admit(Safety::Safe).unwrap().is_probe());
}

#[test]
fn a_success_ends_a_streak_and_what_is_no_evidence_does_not() {
    use Health::{Alive, Failure, HalfFailure, Neutral, Success};
    let check = |between, expected| {
        let mut bench = Bench::new(BreakerSettings { failure_rate: 1.1, ..settings() });
        bench.attempts(4, Failure);
        bench.attempts(3, between);
        bench.attempt(Failure);
        assert_eq!(bench.circuit(), expected, "{between:?}");
    };
    check(Success, CircuitName::Closed);
    check(Neutral, CircuitName::Open);
    check(Alive, CircuitName::Open);
    check(HalfFailure, CircuitName::Open);
}

#[test]
fn failures_of_a_single_exchange_do_not_open_it_unless_one_is_enough() {
    let check = |consecutive_failures, expected| {
        let mut bench = Bench::new(BreakerSettings { consecutive_failures, ..settings() });
        for _ in 0..8 {
            let Ok(admission) = bench.admit(Safety::Safe) else {
                break;
            };
            bench.exchange = 7;
            let _ = bench.end(admission, Health::Failure);
        }
        assert_eq!(bench.circuit(), expected);
    };
    check(5, CircuitName::Closed);
    check(1, CircuitName::Open);
}

#[test]
fn a_streak_is_forgotten_after_ten_minutes_without_any_attempt() {
    let check = |pause, expected| {
        let mut bench = Bench::new(settings());
        bench.attempts(4, Health::Failure);
        bench.wait(pause).attempt(Health::Failure);
        assert_eq!(bench.circuit(), expected, "{pause:?}");
    };
    check(secs(599), CircuitName::Open);
    check(secs(600), CircuitName::Closed);
}

#[test]
fn a_share_of_failures_opens_it_once_there_are_enough_samples() {
    let mut bench = Bench::new(BreakerSettings { consecutive_failures: 0, ..settings() });
    for _ in 0..4 {
        bench.attempt(Health::Success);
        bench.attempt(Health::Failure);
    }
    bench.attempt(Health::Success);
    assert_eq!(bench.circuit(), CircuitName::Closed);
    let reason = bench.attempt(Health::Failure).unwrap().reason;
    assert_eq!(reason, TransitionReason::FailureRate);
}

#[test]
fn an_overloaded_upstream_counts_half_in_the_share() {
    let overloaded = |failure_rate| {
        let cfg = BreakerSettings { consecutive_failures: 0, failure_rate, ..settings() };
        let mut bench = Bench::new(cfg);
        bench.attempts(10, Health::HalfFailure);
        bench.circuit()
    };
    assert_eq!(overloaded(0.5), CircuitName::Open);
    assert_eq!(overloaded(0.51), CircuitName::Closed);
}

#[test]
fn both_detectors_can_be_switched_off() {
    let off = BreakerSettings { consecutive_failures: 0, failure_rate: 1.1, ..settings() };
    let mut bench = Bench::new(off);
    bench.attempts(1_000, Health::Failure);
    assert_eq!(bench.circuit(), CircuitName::Closed);
    assert!((bench.breaker.failure_ratio(&bench.cfg, bench.now) - 1.0).abs() < 1e-9);
}

#[test]
fn slow_answers_open_it_when_that_is_configured() {
    let run = |slow_after, fast_answers, slow_answers| {
        let cfg = BreakerSettings { slow_after, ..settings() };
        let mut bench = Bench::new(cfg);
        for n in 0..fast_answers + slow_answers {
            let Ok(admission) = bench.admit(Safety::Safe) else {
                break;
            };
            let took = if n < fast_answers { secs(10) } else { secs(11) };
            let _ = bench.end_with(admission, Health::Success, took, None, EVEN);
        }
        bench.circuit()
    };
    assert_eq!(run(Some(secs(10)), 4, 16), CircuitName::Open);
    assert_eq!(run(Some(secs(10)), 5, 15), CircuitName::Closed);
    assert_eq!(run(Some(secs(10)), 0, 19), CircuitName::Closed);
    assert_eq!(run(None, 0, 20), CircuitName::Closed);
}

#[test]
fn the_open_time_is_jittered_by_a_fifth_and_never_shorter_than_the_hint() {
    let check = |hint: Option<u64>, draw, expected_s| {
        let mut bench = Bench::new(BreakerSettings { consecutive_failures: 1, ..settings() });
        let admission = bench.admit(Safety::Safe).unwrap();
        let _ = bench.end_with(admission, Health::Failure, secs(0), hint.map(secs), draw);
        let off = bench.open_for().abs_diff(secs(expected_s));
        assert!(off < Duration::from_millis(1), "{hint:?}: {:?}", bench.open_for());
    };
    check(None, Draw(0), 24);
    check(None, Draw(u32::MAX), 36);
    check(Some(10), EVEN, 30);
    check(Some(90), EVEN, 90);
    check(Some(7_200), EVEN, 7_200);
}

#[test]
fn an_override_holds_until_it_ends_and_leaves_clean_counts() {
    let mut bench = Bench::new(settings());
    bench.attempts(4, Health::Failure);
    let (now, until) = (bench.now, bench.now + secs(3_600));
    let transition = bench.breaker.force(now, Force::Open, until).unwrap();
    assert_eq!(transition.to, CircuitName::ForcedOpen);
    assert_eq!(transition.reason, TransitionReason::Forced);
    assert_eq!(bench.admit(Safety::Safe).unwrap_err(), Held::Open { until });
    let transition = bench.breaker.force(now, Force::Closed, until).unwrap();
    assert_eq!(transition.to, CircuitName::ForcedClosed);
    bench.attempts(100, Health::Failure);
    assert_eq!(bench.breaker.circuit(now), Circuit::ForcedClosed { until });
    bench.wait(secs(3_600));
    assert_eq!(bench.circuit(), CircuitName::Closed);
    assert_eq!(bench.breaker.advance(until).unwrap().reason, TransitionReason::ForceExpired);
    bench.attempts(4, Health::Failure);
    assert_eq!(bench.circuit(), CircuitName::Closed);
}

#[test]
fn auto_lifts_an_override_and_touches_nothing_else() {
    let (mut bench, far) = (Bench::new(settings()), MonoTime::MAX);
    assert_eq!(bench.breaker.force(bench.now, Force::Auto, far), None);
    bench.trip();
    assert_eq!(bench.breaker.force(bench.now, Force::Auto, far), None);
    assert_eq!(bench.circuit(), CircuitName::Open);
    bench.breaker.force(bench.now, Force::Open, far).unwrap();
    assert_eq!(bench.breaker.force(bench.now, Force::Open, at(2_000)), None);
    assert_eq!(bench.breaker.open_until(), Some(at(2_000)));
    let transition = bench.breaker.force(bench.now, Force::Auto, far).unwrap();
    assert_eq!(transition.to, CircuitName::Closed);
    assert_eq!(bench.breaker.in_flight_cap(bench.now), Some(2));
}
