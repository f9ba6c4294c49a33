//! How long to wait between two attempts when the upstream did not say.
//!
//! Waits grow so that an ill upstream gets air, and are random so that clients which failed
//! together do not return together. `max` bounds what grows or is drawn; a fixed wait and the
//! steps of a list are the operator's own words and are taken as they are.

use std::time::Duration;

use super::settings::{Backoff, BackoffFamily};
use super::time::Draw;

/// A jittered wait of almost nothing is a second request at the worst moment.
const FULL_JITTER_FLOOR: Duration = Duration::from_millis(100);

/// The waits after a refusal without a time (429 or 529): longer than after a failure, because
/// the upstream is well and has just said that it was asked too much.
pub const REFUSED: Backoff = Backoff {
    family: BackoffFamily::FullJitter,
    base: Duration::from_secs(5),
    max: Duration::from_secs(60),
};

/// The wait before retry number `retry`, counted from 1.
///
/// `previous` is the wait before the retry that came before this one; zero if there was none.
pub fn delay(backoff: &Backoff, retry: u32, previous: Duration, draw: Draw) -> Duration {
    let Backoff { ref family, base, max } = *backoff;
    match family {
        BackoffFamily::FullJitter => {
            let window = doubled(base, retry.saturating_sub(1), max);
            draw.between(Duration::ZERO, window).max(FULL_JITTER_FLOOR.min(max))
        }
        BackoffFamily::DecorrelatedJitter => {
            draw.between(base, previous.max(base).saturating_mul(3)).min(max)
        }
        BackoffFamily::Exponential => doubled(base, retry.saturating_sub(1), max),
        BackoffFamily::Linear => base.saturating_mul(retry.max(1)).min(max),
        BackoffFamily::Fixed => base,
        BackoffFamily::Uniform => draw.between(Duration::ZERO, base),
        BackoffFamily::Steps(steps) => {
            let place = usize::try_from(retry.saturating_sub(1)).unwrap_or(usize::MAX);
            steps.get(place).or(steps.last()).copied().unwrap_or(base)
        }
    }
}

/// The wait before retry number `retry`, counted from 1, of an attempt that was refused with a
/// 429 or 529 which named no time: half of it is certain, half is drawn.
pub fn refused_delay(retry: u32, draw: Draw) -> Duration {
    let window = doubled(REFUSED.base, retry.saturating_sub(1), REFUSED.max);
    draw.between(window / 2, window)
}

/// min(max, base·2^times), without overflow for any `times`.
pub(super) fn doubled(base: Duration, times: u32, max: Duration) -> Duration {
    // After 94 doublings a nanosecond has become more than a duration can hold.
    (0..times.min(94)).fold(base, |wait, _| wait.saturating_mul(2)).min(max)
}

#[cfg(test)]
mod tests;
