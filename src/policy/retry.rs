//! Whether an attempt may be repeated: the table of retry safety, and nothing else.
//!
//! RFC 9110 9.2.2 forbids a proxy to repeat what is not idempotent, unless it knows that the
//! request was not processed. So three facts decide: what the request may do twice, how much of
//! it went out, and whether the upstream refused it before it did anything. How long to wait,
//! whether the budget has a retry left and whether the deadline permits it, is the caller's.

use super::outcome::{Class, Outcome, Repeat, Safety, Sent};
use super::settings::RetrySettings;

/// Whether the body can be sent again as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It is held whole, or there is none.
    Ready,
    /// It is larger than the replay buffer, or was already streamed.
    Impossible,
}

/// What an exchange knows of itself when it asks for one more attempt.
#[derive(Clone, Copy, Debug)]
pub struct RetryAsk {
    /// Number of the attempt that ended, from 1.
    pub attempt: u8,
    /// How many attempts, the one that ended included, use up `attempts_max`.
    pub counted: u8,
    /// What the request may do if it is processed twice.
    pub safety: Safety,
    /// Whether its body can be sent again.
    pub replay: Replay,
    /// Whether the one repeat at once was already used.
    pub used_once: bool,
    /// The caller's own word.
    pub retry_mode: RetryMode,
}

/// `Forbear-Retry`, as far as it limits repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryMode {
    /// As the settings say.
    Normal,
    /// `off`: no repeat at all.
    Off,
    /// `safe`: repeats of safe exchanges only.
    SafeOnly,
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// A repeat would not be safe, not help, or is not wanted.
    NotRetryable,
    /// It would, but all attempts were used.
    AttemptsSpent,
    /// It would, but the body cannot be sent again.
    BodyNotReplayable,
}

/// How a permitted repeat is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatKind {
    /// The upstream refused before processing: any method, not charged to the retry budget.
    Refused,
    /// At once, one time per exchange.
    Once,
    /// At once, on a new connection, not counted as an attempt.
    Stale,
    /// After a backoff, charged to the retry budget.
    Failure,
}

/// What kind of repeat of the attempt that ended with `outcome` is permitted.
///
/// `attempts_max = 1` permits none, refusals by a rate limit included; only a stale connection is
/// replaced, because that repeat is not counted as an attempt.
///
/// # Errors
///
/// The first reason against a repeat, in the order of [`GiveUp`].
pub fn permitted(
    outcome: &Outcome,
    settings: &RetrySettings,
    ask: &RetryAsk,
) -> Result<RepeatKind, GiveUp> {
    match ask.retry_mode {
        RetryMode::Normal => {}
        RetryMode::SafeOnly if ask.safety == Safety::Safe => {}
        RetryMode::SafeOnly | RetryMode::Off => return Err(GiveUp::NotRetryable),
    }
    let kind = kind(outcome, settings, ask).ok_or(GiveUp::NotRetryable)?;
    let attempts_max = settings.attempts_max.get();
    let spent = match kind {
        RepeatKind::Stale => false,
        RepeatKind::Refused if !settings.throttled_counts => attempts_max == 1,
        RepeatKind::Refused | RepeatKind::Once | RepeatKind::Failure => ask.counted >= attempts_max,
    };
    // Whatever does not count is still bounded: attempts are numbered by one byte.
    if spent || ask.attempt == u8::MAX {
        return Err(GiveUp::AttemptsSpent);
    }
    match ask.replay {
        Replay::Ready => Ok(kind),
        Replay::Impossible => Err(GiveUp::BodyNotReplayable),
    }
}

/// What kind of repeat this would be; `None` if none is safe.
fn kind(outcome: &Outcome, settings: &RetrySettings, ask: &RetryAsk) -> Option<RepeatKind> {
    let repeatable = match (outcome.sent, ask.safety) {
        (Sent::Nothing, _) | (_, Safety::Safe | Safety::Idempotent) => true,
        (Sent::Partly | Sent::Answered, Safety::Unsafe) => false,
    };
    // The second one in a row was a connection that had just been made: a failure after all.
    let stale = outcome.class == Class::Stale && !ask.used_once;
    let kind = if stale { RepeatKind::Stale } else { RepeatKind::Failure };
    match outcome.repeat {
        Repeat::Never => None,
        Repeat::Refused => Some(RepeatKind::Refused),
        Repeat::Once => (!ask.used_once).then_some(RepeatKind::Once),
        Repeat::BySafety => repeatable.then_some(kind),
        Repeat::BySafetyOrUnsafe503 => (repeatable || settings.unsafe_503).then_some(kind),
    }
}

#[cfg(test)]
mod tests;
