//! How a scope comes back after a refusal.

use super::*;
use crate::policy::outcome::QuotaReading;

/// Sends what the scope lets go at `now`, at most `max`; all of it is under way afterwards.
fn send(scope: &mut Scope, now: MonoTime, max: u32) -> u32 {
    let mut sent = 0;
    while sent < max && scope.check(now, 1).is_ok() {
        scope.start(now, 1);
        scope.send(1);
        sent += 1;
    }
    sent
}

fn serve(scope: &mut Scope, now: MonoTime, sent: MonoTime, count: u32) {
    for _ in 0..count {
        scope.answered(sent, 1);
        scope.succeeded(now, sent, 16);
        scope.end();
    }
}

fn refuse(scope: &mut Scope, now: MonoTime, sent: MonoTime, seconds: u64) {
    scope.answered(sent, 1);
    let wait = Duration::from_secs(seconds);
    let hint = Hint { wait, source: HintSource::RetryAfterDelta, raw: None };
    scope.cool_down(now, &hint, false);
    scope.end();
}

fn at(ms: u64) -> MonoTime {
    MonoTime::ZERO + Duration::from_millis(ms)
}

#[test]
fn a_hint_is_never_shortened_and_one_goes_first() {
    let mut scope = Scope::default();
    send(&mut scope, at(1), 1);
    refuse(&mut scope, at(10), at(1), 10);
    assert_eq!(send(&mut scope, at(10_009), 5), 0);
    assert_eq!(send(&mut scope, at(10_200), 5), 1);
}

#[test]
fn one_refusal_alone_makes_no_pace() {
    let mut scope = Scope::default();
    send(&mut scope, at(1), 1);
    refuse(&mut scope, at(10), at(1), 20);
    let mut now = at(20_300);
    for at_once in [1, 1, 1, 2, 4, 8] {
        assert_eq!(send(&mut scope, now, 99), at_once);
        serve(&mut scope, now + Duration::from_millis(50), now, at_once);
        now = now + Duration::from_millis(60);
    }
}

#[test]
fn what_fitted_may_go_at_once_and_a_try_for_more_that_fails_is_not_made_in_the_next_window() {
    let mut scope = Scope::default();
    send(&mut scope, at(1), 6);
    serve(&mut scope, at(10), at(1), 5);
    refuse(&mut scope, at(10), at(1), 10);
    // The window after it: a canary, the other four, and one more, which is refused.
    let opened = at(10_200);
    assert_eq!(send(&mut scope, opened, 9), 1);
    serve(&mut scope, at(10_300), opened, 1);
    assert_eq!(send(&mut scope, at(10_300), 9), 5, "the other four and one try");
    serve(&mut scope, at(10_400), at(10_300), 4);
    refuse(&mut scope, at(10_400), at(10_300), 9);
    // And the one after that: it is used up, and nothing beyond is tried.
    let opened = at(20_200);
    assert_eq!(send(&mut scope, opened, 9), 1);
    serve(&mut scope, at(20_300), opened, 1);
    assert_eq!(send(&mut scope, at(20_300), 9), 4);
    serve(&mut scope, at(20_400), at(20_300), 4);
    assert_eq!(send(&mut scope, at(26_000), 9), 0);
    assert_eq!(send(&mut scope, at(30_300), 9), 1, "the next window");
}

#[test]
fn a_canary_that_came_too_early_does_not_unlearn_what_fits() {
    let mut scope = Scope::default();
    send(&mut scope, at(1), 9);
    serve(&mut scope, at(10), at(1), 8);
    refuse(&mut scope, at(10), at(1), 1);
    send(&mut scope, at(1_100), 1);
    refuse(&mut scope, at(1_200), at(1_100), 1);
    send(&mut scope, at(2_300), 1);
    serve(&mut scope, at(2_400), at(2_300), 1);
    assert_eq!(send(&mut scope, at(2_400), 20), 8, "the other seven and one try");
}

#[test]
fn nothing_goes_beyond_a_described_quota_whatever_the_order_of_its_answers() {
    let mut scope = Scope::default();
    let told = |remaining| {
        let reset = Some(Duration::from_secs(60));
        [QuotaReading { name: None, limit: Some(10), remaining, reset, window: None }]
    };
    send(&mut scope, at(1), 4);
    for (number, remaining) in [(4, 6), (1, 9), (3, 7)] {
        scope.answered(at(1), 1);
        scope.learn(at(50), number, &told(remaining), false);
        scope.end();
    }
    assert_eq!(send(&mut scope, at(60), 20), 5, "one is still out");
    scope.answered(at(1), 1);
    scope.learn(at(70), 2, &told(8), false);
    assert_eq!(send(&mut scope, at(80), 20), 1);
    assert_eq!(send(&mut scope, at(59_000), 20), 0);
    (0..6).for_each(|_| scope.answered(at(80), 1));
    assert_eq!(send(&mut scope, at(61_000), 20), 1, "a new window, of which nothing is known");
    scope.answered(at(61_000), 1);
    scope.learn(at(61_050), 11, &told(9), false);
    assert_eq!(send(&mut scope, at(61_060), 20), 9);
    (0..9).for_each(|_| scope.answered(at(61_060), 1));
    assert_eq!(send(&mut scope, at(123_000), 20), 10, "everything was there again the last time");
}

#[test]
fn a_quota_without_an_end_that_is_told_no_more_is_forgotten() {
    let mut scope = Scope::default();
    send(&mut scope, at(1), 1);
    scope.answered(at(1), 1);
    let reading = [QuotaReading::default()];
    scope.learn(at(2), 1, &reading, false);
    scope.end();
    assert_eq!(send(&mut scope, at(3), 9), 1, "one finds out");
    scope.answered(at(3), 1);
    scope.learn(at(4), 2, &[], false);
    scope.end();
    assert_eq!(send(&mut scope, at(4), 9), 9);
}
