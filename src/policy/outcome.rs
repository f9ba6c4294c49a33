//! The vocabulary that every other policy module speaks: how an attempt ended and what follows.
//!
//! A throttled answer is no sign of illness: the upstream is well enough to say no. It moves
//! cooldowns and quotas, never the breaker. Health therefore has more than two values.

use std::sync::Arc;
use std::time::Duration;

/// How much of an attempt's request reached the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Not one byte of the request was written, or the peer said that it was not processed
    /// (HTTP/2 `REFUSED_STREAM`, or a stream above the last one of a `GOAWAY`; RFC 9113 8.7).
    Nothing,
    /// Some of it was written and no response head came: the upstream may have acted on it.
    Partly,
    /// A response head came back.
    Answered,
}

/// What an attempt's end means. The rows of the classification table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 2xx, 3xx, 101.
    Ok,
    /// The request itself is at fault: 400, 404, 409, 422, 501 …
    Permanent,
    /// 401 or 403 without a throttle signature.
    Credential,
    /// 429, or whatever the profile says means the same. Nothing was processed.
    Throttled,
    /// Throttled, and the wait is longer than an hour.
    Exhausted,
    /// 408, 425.
    Transient,
    /// 421: the connection was for another origin.
    Misdirected,
    /// The upstream is ill: 500, 502, 503, 504, 52x, and every transport failure.
    Unhealthy,
    /// 529.
    Overloaded,
    /// No response head within the attempt's time.
    TimedOut,
    /// A pooled connection turned out to be closed. Says nothing about the upstream.
    Stale,
    /// The downstream side left or broke its own request body.
    Client,
}

/// Which way an attempt moves a breaker. Three-valued on purpose: counting a neutral end as a
/// success would clear real failure streaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The upstream works.
    Success,
    /// The upstream is ill.
    Failure,
    /// Counts half (529).
    HalfFailure,
    /// Neutral while closed, but a half-open breaker takes it as a sign of life (429, 401, 403).
    Alive,
    /// No evidence at all.
    Neutral,
}

/// Under which condition an attempt may be repeated, given attempts, time and budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Never.
    Never,
    /// The upstream refused before it did anything: any method.
    Refused,
    /// Once per exchange, at once, whatever the method, on a new connection (421), or again (425).
    Once,
    /// By method, idempotency and bytes sent.
    BySafety,
    /// As `BySafety`, and an unsafe exchange only where the profile permits (503 with a hint).
    BySafetyOrUnsafe503,
}

/// What a request may do if it is processed twice (RFC 9110 9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Safety {
    /// GET, HEAD, OPTIONS, TRACE.
    Safe,
    /// PUT, DELETE, or any method with an idempotency key or the caller's own guarantee.
    Idempotent,
    /// Everything else.
    Unsafe,
}

/// "Not before", in the upstream's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// From the moment of receipt; margins not included.
    pub wait: Duration,
    /// The field that decided.
    pub source: HintSource,
    /// Its name and what stood in it, short and printable, to be shown; `None` where nothing was
    /// kept.
    pub raw: Option<Arc<str>>,
}

/// Which field of a response named a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HintSource {
    /// `retry-after-ms` and its kin, milliseconds.
    RetryAfterMs,
    /// `Retry-After` as delay-seconds, fractions accepted (RFC 9110 10.2.3).
    RetryAfterDelta,
    /// `Retry-After` as an HTTP-date.
    RetryAfterDate,
    /// A vendor's own field whose name ends in `retry-after`, or one that its profile names.
    VendorRetryAfter,
    /// A value that the API documents, from its profile.
    Profile,
    /// The body: a key such as `retry_after`, or a sentence.
    Body,
    /// A reset of an exhausted quota, as a span.
    RateLimitReset,
    /// A reset of an exhausted quota, as a moment.
    RateLimitResetAt,
}

impl HintSource {
    /// The name in bodies and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::RetryAfterMs => "retry-after-ms",
            Self::RetryAfterDelta | Self::RetryAfterDate => "retry-after",
            Self::VendorRetryAfter => "vendor-retry-after",
            Self::Profile => "profile",
            Self::Body => "body",
            Self::RateLimitReset | Self::RateLimitResetAt => "ratelimit-reset",
        }
    }

    /// Whether the wait itself was stated in a field, and not concluded from a quota.
    pub fn is_stated(self) -> bool {
        match self {
            Self::RetryAfterMs
            | Self::RetryAfterDelta
            | Self::RetryAfterDate
            | Self::VendorRetryAfter => true,
            Self::Profile | Self::Body | Self::RateLimitReset | Self::RateLimitResetAt => false,
        }
    }

    /// Whether the source is an absolute time in whole seconds, which asks for a margin.
    pub fn is_absolute(self) -> bool {
        match self {
            Self::RetryAfterDate | Self::RateLimitResetAt => true,
            Self::RetryAfterMs
            | Self::RetryAfterDelta
            | Self::VendorRetryAfter
            | Self::Profile
            | Self::Body
            | Self::RateLimitReset => false,
        }
    }
}

/// What an upstream says of one quota, in the fields of one response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaReading {
    /// What tells it from others of the same response, such as `minute`; `None` for the only one.
    pub name: Option<Box<str>>,
    /// Requests per window, where told.
    pub limit: Option<u64>,
    /// What is left.
    pub remaining: u64,
    /// Until it is renewed, from the moment of receipt.
    pub reset: Option<Duration>,
    /// The length of its window, where told.
    pub window: Option<Duration>,
}

/// Everything a response says about limits. The seam where further dialects plug in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Wait, if one is stated.
    pub hint: Option<Hint>,
    /// How far the wait reaches.
    pub reach: Reach,
    /// The bucket that the request belongs to, where the response names it.
    pub bucket: Option<Box<str>>,
    /// Every quota that is told of and that this request spends.
    pub quotas: Vec<QuotaReading>,
}

/// How far an upstream's "not before" reaches, by its own word or its documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The bucket of the request.
    #[default]
    Bucket,
    /// Everything that is asked with the same credential.
    Credential,
    /// Everybody: an address, or servers that do not keep up.
    Upstream,
}

/// How one attempt ended, decided once, by the classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The row of the table.
    pub class: Class,
    /// What the breaker hears.
    pub health: Health,
    /// How much of the request went out.
    pub sent: Sent,
    /// When it may be repeated.
    pub repeat: Repeat,
    /// What the response says about limits.
    pub reading: Reading,
}

/// Why an exchange waits. Every millisecond inside forbear is charged to exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitKind {
    /// For a permit, or for its turn.
    Queue,
    /// For the next place in a quota.
    Pacing,
    /// Because the upstream said "not before".
    Cooldown,
    /// Between two attempts, without a word from the upstream.
    Backoff,
    /// Because the breaker is open.
    Breaker,
}

impl WaitKind {
    /// All kinds, in the order of [`Waits`].
    pub const ALL: [Self; 5] =
        [Self::Queue, Self::Pacing, Self::Cooldown, Self::Backoff, Self::Breaker];

    /// The name in headers, bodies, logs and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Pacing => "pacing",
            Self::Cooldown => "cooldown",
            Self::Backoff => "backoff",
            Self::Breaker => "breaker",
        }
    }
}

/// Time spent waiting, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits([Duration; 5]);

impl Waits {
    /// Charges `span` to `kind`.
    pub fn charge(&mut self, kind: WaitKind, span: Duration) {
        let Self([queue, pacing, cooldown, backoff, breaker]) = self;
        let slot = match kind {
            WaitKind::Queue => queue,
            WaitKind::Pacing => pacing,
            WaitKind::Cooldown => cooldown,
            WaitKind::Backoff => backoff,
            WaitKind::Breaker => breaker,
        };
        *slot = slot.saturating_add(span);
    }

    /// What was charged to `kind`.
    pub fn of(&self, kind: WaitKind) -> Duration {
        let Self([queue, pacing, cooldown, backoff, breaker]) = *self;
        match kind {
            WaitKind::Queue => queue,
            WaitKind::Pacing => pacing,
            WaitKind::Cooldown => cooldown,
            WaitKind::Backoff => backoff,
            WaitKind::Breaker => breaker,
        }
    }

    /// All kinds together.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// Adds another account to this one.
    pub fn add(&mut self, other: &Self) {
        for kind in WaitKind::ALL {
            self.charge(kind, other.of(kind));
        }
    }

    /// What was charged here since `earlier`, an older copy of the same account.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = Self::default();
        for kind in WaitKind::ALL {
            difference.charge(kind, self.of(kind).saturating_sub(earlier.of(kind)));
        }
        difference
    }
}
