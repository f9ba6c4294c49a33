//! What a window remembers and forgets.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn at(secs: u64) -> MonoTime {
    MonoTime::ZERO + Duration::from_secs(secs)
}

fn total(window: &Window<u32>, now: MonoTime) -> u32 {
    window.recent(now, MINUTE).sum()
}

#[test]
fn what_happened_within_nine_tenths_is_counted_and_after_the_whole_window_it_is_not() {
    for first in [0, 3, 5, 59, 61, 1_000_000] {
        let mut window = Window::<u32>::default();
        *window.current(at(first), MINUTE) += 1;
        assert_eq!(total(&window, at(first + 54)), 1, "first at {first}");
        assert_eq!(total(&window, at(first + 60)), 0, "first at {first}");
    }
}

#[test]
fn a_place_in_the_ring_is_cleared_before_it_is_used_again() {
    let mut window = Window::<u32>::default();
    *window.current(at(0), MINUTE) += 7;
    *window.current(at(60), MINUTE) += 1;
    assert_eq!(total(&window, at(60)), 1);
}

#[test]
fn a_jump_of_any_size_forgets_and_a_step_back_does_not_erase() {
    let mut window = Window::<u32>::default();
    *window.current(at(10), MINUTE) += 1;
    assert_eq!(total(&window, MonoTime::MAX), 0);
    *window.current(MonoTime::MAX, MINUTE) += 1;
    *window.current(MonoTime::MAX - Duration::from_secs(70), MINUTE) += 1;
    assert!(total(&window, MonoTime::MAX) >= 1);
}

#[test]
fn a_window_of_another_length_starts_empty() {
    let mut window = Window::<u32>::default();
    *window.current(at(10), MINUTE) += 1;
    assert_eq!(window.recent(at(10), Duration::from_secs(10)).sum::<u32>(), 0);
    *window.current(at(10), Duration::ZERO) += 1;
    assert_eq!(window.recent(at(10), Duration::ZERO).sum::<u32>(), 1);
    assert_eq!(total(&window, at(10)), 0);
}

#[test]
fn an_overloaded_answer_is_one_sample_and_half_a_failure() {
    let mut tally = Tally::default();
    tally.count(Health::Success, Speed::Normal);
    tally.count(Health::HalfFailure, Speed::Slow);
    tally.count(Health::Alive, Speed::Slow);
    tally.count(Health::Neutral, Speed::Slow);
    assert_eq!(tally.samples(), 2);
    assert!((tally.failure_ratio() - 0.25).abs() < 1e-9);
    assert!((tally.slow_ratio() - 0.5).abs() < 1e-9);
    assert!(Tally::default().failure_ratio().abs() < 1e-9);
}
