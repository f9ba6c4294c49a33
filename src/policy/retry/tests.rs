//! The table of retry safety, cell by cell, and what no combination of facts may permit.

use std::num::NonZeroU8;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::outcome::{Health, Reading};
use crate::policy::settings::{Backoff, BackoffFamily};

const SAFETIES: [Safety; 3] = [Safety::Safe, Safety::Idempotent, Safety::Unsafe];

fn settings(attempts_max: u8) -> RetrySettings {
    let second = Duration::from_secs(1);
    RetrySettings {
        attempts_max: NonZeroU8::new(attempts_max).unwrap(),
        throttled_counts: false,
        unsafe_503: false,
        backoff: Backoff { family: BackoffFamily::Fixed, base: second, max: second },
        budget_ratio: 0.2,
        budget_floor_per_minute: 10,
    }
}

fn outcome(class: Class, sent: Sent, repeat: Repeat) -> Outcome {
    Outcome { class, health: Health::Neutral, sent, repeat, reading: Reading::default() }
}

fn ask(safety: Safety) -> RetryAsk {
    RetryAsk {
        attempt: 1,
        counted: 1,
        safety,
        replay: Replay::Ready,
        used_once: false,
        retry_mode: RetryMode::Normal,
    }
}

#[test]
fn each_situation_permits_what_the_table_says_for_safe_idempotent_and_unsafe() {
    use {Class as C, Repeat as R, RepeatKind as K, Sent as S};
    let check = |class, sent, repeat, expected: [Option<RepeatKind>; 3]| {
        for (safety, expected) in SAFETIES.into_iter().zip(expected) {
            let given = permitted(&outcome(class, sent, repeat), &settings(4), &ask(safety));
            let expected = expected.ok_or(GiveUp::NotRetryable);
            assert_eq!(given, expected, "{class:?} {sent:?} {repeat:?} {safety:?}");
        }
    };
    let failure = Some(K::Failure);
    // Not sent.
    check(C::Unhealthy, S::Nothing, R::BySafety, [failure; 3]);
    check(C::TimedOut, S::Nothing, R::BySafety, [failure; 3]);
    // A stale connection.
    check(C::Stale, S::Nothing, R::BySafety, [Some(K::Stale); 3]);
    check(C::Stale, S::Partly, R::BySafety, [Some(K::Stale), Some(K::Stale), None]);
    // A refusal.
    check(C::Throttled, S::Answered, R::Refused, [Some(K::Refused); 3]);
    check(C::Exhausted, S::Answered, R::Never, [None; 3]);
    // 503 with a hint, and every other failure.
    check(C::Unhealthy, S::Answered, R::BySafetyOrUnsafe503, [failure, failure, None]);
    check(C::Unhealthy, S::Answered, R::BySafety, [failure, failure, None]);
    check(C::Unhealthy, S::Partly, R::BySafety, [failure, failure, None]);
    check(C::TimedOut, S::Partly, R::BySafety, [failure, failure, None]);
    check(C::Overloaded, S::Answered, R::BySafety, [failure, failure, None]);
    check(C::Transient, S::Answered, R::BySafety, [failure, failure, None]);
    // 421 and 425, and what is final.
    check(C::Misdirected, S::Answered, R::Once, [Some(K::Once); 3]);
    check(C::Ok, S::Answered, R::Never, [None; 3]);
}

#[test]
fn an_unsafe_exchange_is_repeated_after_a_503_with_a_hint_only_where_that_is_configured() {
    let opted_in = RetrySettings { unsafe_503: true, ..settings(4) };
    let with_hint = outcome(Class::Unhealthy, Sent::Answered, Repeat::BySafetyOrUnsafe503);
    let without = outcome(Class::Unhealthy, Sent::Answered, Repeat::BySafety);
    assert_eq!(permitted(&with_hint, &opted_in, &ask(Safety::Unsafe)), Ok(RepeatKind::Failure));
    assert_eq!(permitted(&without, &opted_in, &ask(Safety::Unsafe)), Err(GiveUp::NotRetryable));
}

#[test]
fn the_repeat_at_once_is_given_one_time() {
    let used = RetryAsk { used_once: true, ..ask(Safety::Safe) };
    let misdirected = outcome(Class::Misdirected, Sent::Answered, Repeat::Once);
    let stale = outcome(Class::Stale, Sent::Nothing, Repeat::BySafety);
    assert_eq!(permitted(&misdirected, &settings(4), &used), Err(GiveUp::NotRetryable));
    assert_eq!(permitted(&stale, &settings(4), &used), Ok(RepeatKind::Failure));
}

#[test]
fn attempts_that_count_are_bounded_and_refusals_count_only_where_configured() {
    use {Class as C, Repeat as R, RepeatKind as K};
    let counting = RetrySettings { throttled_counts: true, ..settings(4) };
    let spent = Err(GiveUp::AttemptsSpent);
    let check = |class, repeat, settings: &RetrySettings, counted, expected| {
        let ask = RetryAsk { counted, attempt: counted, ..ask(Safety::Safe) };
        let given = permitted(&outcome(class, Sent::Answered, repeat), settings, &ask);
        assert_eq!(given, expected, "{class:?} after {counted}");
    };
    check(C::Unhealthy, R::BySafety, &settings(4), 3, Ok(K::Failure));
    check(C::Unhealthy, R::BySafety, &settings(4), 4, spent);
    check(C::Misdirected, R::Once, &settings(4), 4, spent);
    check(C::Throttled, R::Refused, &settings(4), 4, Ok(K::Refused));
    check(C::Throttled, R::Refused, &counting, 4, spent);
    check(C::Throttled, R::Refused, &settings(4), u8::MAX, spent);
    check(C::Stale, R::BySafety, &settings(4), 4, Ok(K::Stale));
    // 1 switches retries off.
    check(C::Unhealthy, R::BySafety, &settings(1), 1, spent);
    check(C::Throttled, R::Refused, &settings(1), 0, spent);
    check(C::Stale, R::BySafety, &settings(1), 1, Ok(K::Stale));
}

#[test]
fn a_body_that_is_gone_is_the_reason_only_when_a_repeat_was_possible_otherwise() {
    let check = |repeat, counted, expected| {
        let ask = RetryAsk { replay: Replay::Impossible, counted, ..ask(Safety::Safe) };
        let ended = outcome(Class::Unhealthy, Sent::Partly, repeat);
        assert_eq!(permitted(&ended, &settings(4), &ask), Err(expected));
    };
    check(Repeat::BySafety, 1, GiveUp::BodyNotReplayable);
    check(Repeat::Refused, 1, GiveUp::BodyNotReplayable);
    check(Repeat::BySafety, 4, GiveUp::AttemptsSpent);
    check(Repeat::Never, 1, GiveUp::NotRetryable);
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    use {Class as C, Repeat as R, Sent as S};
    let class = prop::sample::select(vec![
        C::Ok,
        C::Throttled,
        C::Exhausted,
        C::Transient,
        C::Misdirected,
        C::Unhealthy,
        C::Overloaded,
        C::TimedOut,
        C::Stale,
        C::Client,
    ]);
    let sent = prop::sample::select(vec![S::Nothing, S::Partly, S::Answered]);
    let repeats = [R::Never, R::Refused, R::Once, R::BySafety, R::BySafetyOrUnsafe503];
    (class, sent, prop::sample::select(repeats.to_vec()))
        .prop_map(|(class, sent, repeat)| outcome(class, sent, repeat))
}

fn any_ask() -> impl Strategy<Value = RetryAsk> {
    let modes = [RetryMode::Normal, RetryMode::Off, RetryMode::SafeOnly];
    (
        (any::<u8>(), 0..10_u8, any::<bool>()),
        prop::sample::select(SAFETIES.to_vec()),
        prop::sample::select(vec![Replay::Ready, Replay::Impossible]),
        prop::sample::select(modes.to_vec()),
    )
        .prop_map(|((attempt, counted, used_once), safety, replay, retry_mode)| RetryAsk {
            attempt,
            counted,
            safety,
            replay,
            used_once,
            retry_mode,
        })
}

proptest! {
    #[test]
    fn nothing_unsafe_is_repeated_once_any_of_it_was_sent_unless_it_was_refused(
        ended in any_outcome(),
        ask in any_ask(),
        throttled_counts in any::<bool>(),
        attempts_max in 1..6_u8,
    ) {
        let settings = RetrySettings { throttled_counts, ..settings(attempts_max) };
        if permitted(&ended, &settings, &ask).is_ok() && ask.safety == Safety::Unsafe {
            let refused = matches!(ended.repeat, Repeat::Refused | Repeat::Once);
            prop_assert!(refused || ended.sent == Sent::Nothing);
        }
    }

    #[test]
    fn a_repeat_respects_the_caller_the_body_and_the_number_of_attempts(
        ended in any_outcome(),
        ask in any_ask(),
        attempts_max in 1..6_u8,
    ) {
        let Ok(kind) = permitted(&ended, &settings(attempts_max), &ask) else { return Ok(()) };
        prop_assert_ne!(ended.repeat, Repeat::Never);
        prop_assert_eq!(ask.replay, Replay::Ready);
        prop_assert_ne!(ask.retry_mode, RetryMode::Off);
        prop_assert!(ask.retry_mode == RetryMode::Normal || ask.safety == Safety::Safe);
        prop_assert!(ask.attempt < u8::MAX);
        let counts = matches!(kind, RepeatKind::Once | RepeatKind::Failure);
        prop_assert!(!counts || ask.counted < attempts_max);
    }
}
