//! `retry` and `breaker` tables: how failures are answered.

use std::num::NonZeroU8;
use std::time::Duration;

use super::problem::Fault;
use super::scope::{Resolver, Scope};
use super::units::print_duration;
use crate::policy::settings::{Backoff, BackoffFamily, BreakerSettings, RetrySettings};

/// `retry`, with what it inherits.
pub(super) fn retry(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    max_wait: Duration,
) -> RetrySettings {
    let attempts: u32 = resolver.value(scope, "attempts_max");
    let attempts_max =
        u8::try_from(attempts).ok().and_then(NonZeroU8::new).unwrap_or(NonZeroU8::MIN);
    RetrySettings {
        attempts_max,
        throttled_counts: resolver.value(scope, "throttled_counts"),
        unsafe_503: resolver.value(scope, "unsafe_503"),
        backoff: backoff(resolver, scope, attempts_max.get() > 1, max_wait),
        budget_ratio: resolver.value(scope, "budget_ratio"),
        budget_floor_per_minute: resolver.value(scope, "budget_floor_per_minute"),
    }
}

fn backoff(
    resolver: &mut Resolver<'_, '_>,
    scope: &Scope<'_>,
    retries: bool,
    max_wait: Duration,
) -> Backoff {
    let families = [
        ("decorrelated_jitter", BackoffFamily::DecorrelatedJitter),
        ("exponential", BackoffFamily::Exponential),
        ("linear", BackoffFamily::Linear),
        ("fixed", BackoffFamily::Fixed),
        ("uniform", BackoffFamily::Uniform),
    ];
    // Whichever of the two was typed nearer decides.
    let steps_decide = match (scope.depth("steps"), scope.depth("backoff")) {
        (Some(steps), Some(backoff)) if steps == backoff => {
            let fault = Fault::new("backoff says how waits grow, too", "Keep one of the two.");
            resolver.contradiction(scope, "steps", fault);
            true
        }
        (Some(steps), Some(backoff)) => steps < backoff,
        (steps, None) => steps.is_some(),
        (None, Some(_)) => false,
    };
    let family = if steps_decide {
        BackoffFamily::Steps(resolver.optional(scope, "steps").unwrap_or_default())
    } else {
        let word: String = resolver.value(scope, "backoff");
        let named = families.into_iter().find(|(name, _)| *name == word);
        named.map_or(BackoffFamily::FullJitter, |(_, family)| family)
    };
    let (base, max) = (resolver.value(scope, "backoff_base"), resolver.value(scope, "backoff_max"));
    let sound = scope.peek("backoff_base").is_some() && scope.peek("backoff_max").is_some();
    if sound && base > max {
        let culprit =
            if scope.depth("backoff_base").is_some() { "backoff_base" } else { "backoff_max" };
        let (base, max) = (print_duration(base), print_duration(max));
        let why = format!("the first wait ({base}) would be longer than the longest ({max})");
        resolver.contradiction(
            scope,
            culprit,
            Fault::new(why, "Write a backoff_max of at least backoff_base."),
        );
    } else if scope.depth("backoff_base").is_some()
        && sound
        && retries
        && !max_wait.is_zero()
        && base > max_wait
    {
        let why = format!(
            "an exchange is held for {} at most (max_wait), so it would never be repeated",
            print_duration(max_wait)
        );
        resolver.contradiction(
            scope,
            "backoff_base",
            Fault::new(why, "Write a shorter backoff_base or a longer max_wait."),
        );
    }
    Backoff { family, base, max }
}

/// `breaker`, with what it inherits.
pub(super) fn breaker(resolver: &mut Resolver<'_, '_>, scope: &Scope<'_>) -> BreakerSettings {
    let (open_for, open_for_max) =
        (resolver.value(scope, "open_for"), resolver.value(scope, "open_for_max"));
    let sound = scope.peek("open_for").is_some() && scope.peek("open_for_max").is_some();
    if sound && open_for > open_for_max {
        let culprit = if scope.depth("open_for").is_some() { "open_for" } else { "open_for_max" };
        let why = format!(
            "the first open time ({}) would be longer than the longest ({})",
            print_duration(open_for),
            print_duration(open_for_max)
        );
        resolver.contradiction(
            scope,
            culprit,
            Fault::new(why, "Write an open_for_max of at least open_for."),
        );
    }
    BreakerSettings {
        consecutive_failures: resolver.value(scope, "consecutive_failures"),
        failure_rate: resolver.value(scope, "failure_rate"),
        window: resolver.value(scope, "window"),
        samples_min: resolver.value(scope, "samples_min"),
        open_for,
        open_for_max,
        successes_to_close: resolver.value(scope, "successes_to_close"),
        slow_after: resolver.optional(scope, "slow_after"),
        slow_rate: resolver.value(scope, "slow_rate"),
    }
}
