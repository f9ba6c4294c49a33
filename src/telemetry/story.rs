//! The story of one exchange: what the response headers, the access log, the metrics and later
//! the ledger tell of it. One value, filled as the exchange goes on, told once at its end.

use std::sync::Arc;
use std::time::Duration;

use super::trace::Trace;
use crate::policy::line::CredentialId;
use crate::policy::outcome::{Class, Hint, QuotaReading, Sent, WaitKind, Waits};
use crate::policy::time::WallTime;

/// One exchange from its head to its last byte.
#[derive(Clone, Debug)]
pub struct Story {
    /// 26 characters, sortable by time.
    pub id: RequestId,
    /// When the head was complete.
    pub started: WallTime,
    /// Empty until a route was found.
    pub upstream: Option<Arc<str>>,
    /// Name of the route group.
    pub route: Option<Arc<str>>,
    /// As it came; labels fold it to a closed set.
    pub method: http::Method,
    /// Without the query, which may hold secrets.
    pub path: String,
    /// Concurrency keys that the exchange joined.
    pub keys: Vec<Arc<str>>,
    /// `Forbear-Flow`.
    pub flow: Option<Arc<str>>,
    /// `Forbear-Run`.
    pub run: Option<Arc<str>>,
    /// Its place in a distributed trace; `None` where nobody told of one and none was begun.
    pub trace: Option<Trace>,
    /// In the order in which they were sent.
    pub attempts: Vec<AttemptStory>,
    /// Deliberate waits.
    pub waited: Waits,
    /// In shadow mode: what would have held it, had decisions been carried out.
    pub shadow: Option<WaitKind>,
    /// What forbear did about it.
    pub decision: Decision,
    /// Status given to the client; 0 if it left before.
    pub status: u16,
    /// How it ended.
    pub ending: Ending,
    /// Request body bytes taken from the client.
    pub bytes_up: u64,
    /// Response body bytes given to the client.
    pub bytes_down: u64,
    /// From the head to the last byte.
    pub took: Duration,
    /// The part of `took` in which the response body went to the client: the upstream's time and
    /// the reader's, not forbear's.
    pub streamed: Duration,
    /// What only the ledger tells.
    pub notes: Notes,
}

/// What only the ledger tells of an exchange.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Whose quota it spent.
    pub credential: CredentialId,
    /// Exchanges that stood in line before it, if it had to wait.
    pub behind: Option<u32>,
    /// An attempt was sent and has not ended; at the end of the story: nobody waited for its end.
    pub sending: bool,
    /// When it is worth coming back, as the client was told.
    pub retry_at: Option<WallTime>,
    /// A refusal's sentence.
    pub reason: Option<Box<str>>,
}

impl Story {
    /// Number of the attempt that comes after those that are told.
    pub fn next_attempt(&self) -> u8 {
        u8::try_from(self.attempts.len() + 1).unwrap_or(u8::MAX)
    }

    /// Moves the story out; what stays behind has the same numbers and no texts.
    pub fn take(&mut self) -> Self {
        Self {
            upstream: self.upstream.take(),
            route: self.route.take(),
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            keys: std::mem::take(&mut self.keys),
            flow: self.flow.take(),
            run: self.run.take(),
            attempts: std::mem::take(&mut self.attempts),
            notes: std::mem::take(&mut self.notes),
            ..*self
        }
    }
}

/// Twenty-six characters of Crockford's base 32: 48 bits of time, 80 bits of chance (a ULID).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 26]);

/// Crockford's: no letter that can be taken for a digit.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fn digit_value(byte: u8) -> Option<u8> {
    let at = DIGITS.iter().position(|digit| *digit == byte.to_ascii_uppercase())?;
    u8::try_from(at).ok()
}

impl RequestId {
    /// Builds an id from the wall time and 80 bits of chance.
    pub fn new(now: WallTime, chance: u128) -> Self {
        let time = u128::from(now.unix_ms.unsigned_abs()) & ((1 << 48) - 1);
        let value = (time << 80) | (chance & ((1 << 80) - 1));
        let mut text = [b'0'; 26];
        let mut rest = value;
        for slot in text.iter_mut().rev() {
            let digit = usize::try_from(rest & 31).unwrap_or(0);
            *slot = DIGITS.get(digit).copied().unwrap_or(b'0');
            rest >>= 5;
        }
        Self(text)
    }

    /// When an id was made, from its text; `None` if it is none.
    pub fn time_of(text: &str) -> Option<WallTime> {
        let is_id = text.len() == 26 && text.bytes().all(|byte| digit_value(byte).is_some());
        let digits = text.bytes().take(10).filter_map(digit_value);
        let unix_ms = digits.fold(0_i64, |value, digit| (value << 5) | i64::from(digit));
        is_id.then_some(WallTime { unix_ms })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One attempt within an exchange.
#[derive(Clone, Debug)]
pub struct AttemptStory {
    /// From 1.
    pub n: u8,
    /// Status of the answer; `None` when none came.
    pub status: Option<u16>,
    /// What it meant.
    pub class: Class,
    /// How much of the request went out.
    pub sent: Sent,
    /// Token of the transport's failure, as in `forbear_upstream_attempt_errors_total`.
    pub error: Option<&'static str>,
    /// From the exchange's head until it was let go.
    pub sent_after: Duration,
    /// To the response head, or to the failure.
    pub took: Duration,
    /// "Not before", if the answer said so.
    pub hint: Option<Hint>,
    /// What the answer said of quotas, for the ledger alone.
    pub told: Told,
    /// Waits just before this attempt.
    pub waited: Waits,
}

/// What an answer said of quotas; empty where it said nothing.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The bucket that it named.
    pub bucket: Option<Box<str>>,
    /// All that it described.
    pub quotas: Vec<QuotaReading>,
}

impl Told {
    /// Of several quotas, the one of which the smallest share is left: it refuses first.
    pub fn tightest(&self) -> Option<&QuotaReading> {
        let share = |quota: &QuotaReading| {
            let limit = quota.limit.unwrap_or(u64::MAX).max(1);
            quota.remaining as f64 / limit as f64
        };
        self.quotas.iter().min_by(|a, b| share(a).total_cmp(&share(b)))
    }
}

/// What forbear did, in one word; `Forbear-Decision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Sent once, answered.
    Pass,
    /// More than one attempt, the last one's answer given.
    Retried,
    /// Held before it was sent, then answered at the first attempt.
    Waited,
    /// A failure was given to the client because a retry was not safe or not wanted.
    NotRetryable,
    /// … because all attempts were used.
    AttemptsSpent,
    /// … because the retry budget was empty.
    RetryBudgetExhausted,
    /// … because the wait would have been longer than the exchange may be held.
    DeadlineTooNear,
    /// … because the body could not be sent again.
    BodyNotReplayable,
    /// Refused by forbear; the code of the refusal.
    Rejected(&'static str),
    /// The bytes of an upgraded connection.
    Upgraded,
}

impl Decision {
    /// The word in headers, logs and bodies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Retried => "retried",
            Self::Waited => "waited",
            Self::NotRetryable => "not_retryable",
            Self::AttemptsSpent => "attempts_spent",
            Self::RetryBudgetExhausted => "retry_budget_exhausted",
            Self::DeadlineTooNear => "deadline_too_near",
            Self::BodyNotReplayable => "body_not_replayable",
            Self::Rejected(code) => code,
            Self::Upgraded => "upgraded",
        }
    }
}

/// How an exchange ended; the `outcome` label of `forbear_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// 2xx, 3xx or an upgrade.
    Ok,
    /// 4xx of the upstream that is not about limits.
    ClientError,
    /// 429 and its kin.
    Throttled,
    /// 5xx of the upstream.
    ServerError,
    /// Its body ended before it was whole.
    BodyError,
    /// The client left.
    ClientDisconnect,
    /// forbear's own refusal, with its code.
    Rejected(&'static str),
}
