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

/// Ten at once in each window of a second, refused beyond that with the time that is left.
fn with_a_cycle(refusals: u32) -> Scope {
    let mut scope = Scope::default();
    for window in 0..refusals {
        let begin = at(u64::from(window) * 2_100 + 1);
        let mut sent = 0;
        while sent < 10 {
            let now_sent = send(&mut scope, begin, 10 - sent).max(1);
            serve(&mut scope, begin, begin, now_sent);
            sent += now_sent;
        }
        let now = begin + Duration::from_millis(100);
        send(&mut scope, now, 1);
        refuse(&mut scope, now, now, 1);
    }
    scope
}

/// The same API and another process, a scope of which begins at `now`.
fn after_restart(before: &Scope, saved: MonoTime, now: MonoTime) -> Scope {
    let mut scope = Scope::default();
    for learned in before.learned(saved) {
        scope.restore_learned(now, learned);
    }
    scope
}

#[test]
fn a_pace_that_was_learned_is_where_the_next_process_begins() {
    let before = with_a_cycle(3);
    let now = at(10_000);
    let mut scope = after_restart(&before, now, now);

    assert_eq!(send(&mut scope, now, 99), 1, "one goes first");
    serve(&mut scope, now, now, 1);
    let next = now + Duration::from_millis(1);
    assert_eq!(send(&mut scope, next, 99), 0, "what fits at once may be used up");
    let mut sent = 0;
    for ms in 2..1_000 {
        let now = now + Duration::from_millis(ms);
        let out = send(&mut scope, now, 99);
        assert!(out <= 1, "{out} at once");
        serve(&mut scope, now, now, out);
        sent += out;
    }
    assert!((4..=10).contains(&sent), "{sent} in the rest of the second");
    // Without what the process before knew, all would have gone at once.
    assert_eq!(send(&mut Scope::default(), now, 99), 99);
    // Nobody came for a while: what fitted may go.
    let later = now + Duration::from_secs(20);
    assert!(send(&mut scope, later, 99) > 3);
}

#[test]
fn what_was_learned_is_kept_no_longer_than_the_process_itself_would_have_known_it() {
    let before = with_a_cycle(3);
    assert_eq!(before.learned(at(600_000)).count(), 1);
    assert_eq!(before.learned(at(620_000)).count(), 0);
    // One refusal alone says nothing.
    assert_eq!(with_a_cycle(1).learned(at(3_000)).count(), 0);
    // A restart teaches nothing new, and what it knew ends when it would have.
    let now = at(10_000);
    let after = after_restart(&before, now, now);
    assert!(after.learned(now).eq(before.learned(now)));
}

#[test]
fn a_refusal_right_after_a_restart_spoils_nothing_that_was_learned() {
    let before = with_a_cycle(3);
    let now = at(10_000);
    let mut scope = after_restart(&before, now, now);
    send(&mut scope, now, 1);
    refuse(&mut scope, now, now, 1);

    let opened = now + Duration::from_millis(1_100);
    assert_eq!(send(&mut scope, opened, 99), 1);
    serve(&mut scope, opened, opened, 1);
    assert_eq!(send(&mut scope, opened, 99), 9, "this window is known from its beginning");
}

#[test]
fn what_is_kept_of_a_cycle_is_believed_only_if_it_can_be() {
    let now = at(10_000);
    let [Learned::Cycle(cycle)] = with_a_cycle(3).learned(now).collect::<Vec<_>>()[..] else {
        panic!("a cycle is learned");
    };
    let year = Duration::from_secs(31_536_000);
    for length in [Duration::ZERO, year] {
        let mut scope = Scope::default();
        scope.restore_learned(now, Learned::Cycle(SavedCycle { length, ..cycle }));
        assert_eq!(send(&mut scope, now, 99), 99, "{length:?}");
    }
    let most = u32::MAX;
    let wild = SavedCycle { burst: most, served: 0, failed_tries: most, ..cycle };
    let mut scope = Scope::default();
    scope.restore_learned(now, Learned::Cycle(wild));
    for second in 0..100 {
        let now = now + Duration::from_secs(second);
        let out = send(&mut scope, now, 2);
        assert!(out > 0, "no pace is slower than one a second");
        serve(&mut scope, now, now, out);
        refuse(&mut scope, now, now, 0);
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
