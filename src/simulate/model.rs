//! APIs that enforce limits, fail and are slow, as the real ones do.
//!
//! A model decides at the moment a request arrives, and says when its answer is back. It speaks
//! through real header fields, so that the classifier is part of every history.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

pub use self::limiter::Limiter;
use self::limiter::{Count, Judgement};
use crate::policy::classify::Failure;
use crate::policy::profile::Unit;
use crate::policy::time::MonoTime;

mod limiter;

/// A server that does not answer is silent for longer than anybody waits.
const SILENCE: Duration = Duration::from_secs(24 * 3600);

/// What a refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// `Retry-After`, rounded up to seconds.
    Seconds,
    /// `retry-after-ms`.
    Millis,
    /// Nothing.
    None,
    /// The fields of a quota on every answer, besides `Retry-After`.
    Quota,
    /// The same, with fractions of seconds.
    ExactQuota,
}

/// How the fields of a quota are called, and in which unit the reset is told.
#[derive(Clone, Debug)]
pub struct QuotaFields {
    /// What there is in a window.
    pub limit: HeaderName,
    /// What is left.
    pub remaining: HeaderName,
    /// Until it is renewed.
    pub reset: HeaderName,
    /// Of `reset`.
    pub reset_unit: Unit,
    /// Of `Retry-After`.
    pub retry_after_unit: Unit,
}

impl Default for QuotaFields {
    fn default() -> Self {
        Self {
            limit: HeaderName::from_static("x-ratelimit-limit"),
            remaining: HeaderName::from_static("x-ratelimit-remaining"),
            reset: HeaderName::from_static("x-ratelimit-reset"),
            reset_unit: Unit::Seconds,
            retry_after_unit: Unit::Seconds,
        }
    }
}

/// What happens to requests while an outage lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// 500.
    Error,
    /// 503 with `Retry-After: 3`.
    Unavailable,
    /// Nobody listens.
    Refused,
    /// The connection breaks after the request was sent.
    Reset,
    /// No answer within the attempt's time.
    Silent,
}

/// What is known of the answer to one request beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Whose limit it uses, where everybody has one of their own; see [`owner`].
    pub whose: u64,
    /// What it costs, less one.
    pub extra_units: u32,
    /// To the head of a response that is not a refusal.
    pub took: Option<Duration>,
    /// From its head to its end.
    pub body: Option<Duration>,
    /// Its status, where it is not refused.
    pub status: Option<u16>,
}

/// One upstream's behaviour and state.
#[derive(Clone, Debug)]
pub struct Model {
    /// To the head of a response: at least and at most.
    pub latency: (Duration, Duration),
    /// When refusals came, in order, and how long each took to its head; a new one takes as long as
    /// the last one before it. A quarter of the other if there are none.
    pub refusals_took: Vec<(MonoTime, Duration)>,
    /// From head to end of a response: at least and at most.
    pub body: (Duration, Duration),
    /// From, to, and what happens then.
    pub outages: Vec<(MonoTime, MonoTime, Outage)>,
    /// One request in so many fails for no reason; 0 for none.
    pub odd_failure: u32,
    /// Statuses of requests that are not refused, one as likely as the other; 200 if empty.
    pub statuses: Vec<u16>,
    /// How the fields of a quota are called.
    pub fields: QuotaFields,
    hints: Hints,
    /// Limits on all together …
    counts: Vec<Count>,
    /// … or on each owner alone, and what was counted for those who came.
    each: Option<Vec<Limiter>>,
    own: HashMap<u64, Vec<Count>>,
    in_flight: u32,
}

/// An answer, known when the request arrives and delivered after `after`.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status and fields, or the failure and whether nothing was sent.
    pub result: Result<(u16, HeaderMap), (Failure, bool)>,
    /// To the head, or to the failure.
    pub after: Duration,
    /// From then to the end.
    pub body: Duration,
    /// Whether the request had its effect.
    pub processed: bool,
}

impl Model {
    /// An API with this limit that answers within once to twice `latency`.
    pub fn new(limiter: Limiter, hints: Hints, latency: Duration) -> Self {
        Self::with_limits(&[limiter], hints, (latency, latency * 2))
    }

    /// An API with several limits at once.
    pub fn with_limits(limiters: &[Limiter], hints: Hints, latency: (Duration, Duration)) -> Self {
        Self {
            latency,
            refusals_took: Vec::new(),
            body: (Duration::ZERO, Duration::ZERO),
            outages: Vec::new(),
            odd_failure: 0,
            statuses: Vec::new(),
            fields: QuotaFields::default(),
            hints,
            counts: counts(limiters),
            each: None,
            own: HashMap::new(),
            in_flight: 0,
        }
    }

    /// From now on these are the limits, of all together or of each owner as they were before.
    pub fn limit(&mut self, limiters: Vec<Limiter>, hints: Hints) {
        self.hints = hints;
        self.counts = counts(&limiters);
        self.own.clear();
        self.each = self.each.take().map(|_| limiters);
    }

    /// What refusals say.
    pub fn hints(&self) -> Hints {
        self.hints
    }

    /// Each owner has these limits alone, unless it is told otherwise.
    pub fn limit_each(&mut self, limiters: Vec<Limiter>) {
        self.each = Some(limiters);
    }

    /// This owner has these limits alone.
    pub fn limit_one(&mut self, whose: u64, limiters: &[Limiter]) {
        self.own.insert(whose, counts(limiters));
    }

    /// A request arrives.
    pub fn receive(&mut self, now: MonoTime, told: Told, rng: &mut fastrand::Rng) -> Reply {
        let drawn = between(self.latency, rng);
        let after = told.took.unwrap_or(drawn);
        self.in_flight += 1;
        let mut outages = self.outages.iter();
        if let Some((_, _, outage)) = outages.find(|(from, to, _)| *from <= now && now < *to) {
            return broken(*outage, after);
        }
        if self.odd_failure > 0 && rng.u32(0..self.odd_failure) == 0 {
            return odd(after, rng);
        }
        let judgement = self.judge(now, told);
        let mut headers = HeaderMap::new();
        if matches!(self.hints, Hints::Quota | Hints::ExactQuota) {
            let fields = &self.fields;
            put(&mut headers, &fields.limit, judgement.limit.into());
            put(&mut headers, &fields.remaining, judgement.remaining.into());
            if self.hints == Hints::ExactQuota {
                headers.insert(fields.reset.clone(), exactly(judgement.reset));
            } else {
                put(&mut headers, &fields.reset, ceil(judgement.reset, fields.reset_unit));
            }
        }
        let Some(wait) = judgement.wait else {
            let drawn = if self.statuses.len() > 1 { rng.usize(0..self.statuses.len()) } else { 0 };
            let status = told.status.or(self.statuses.get(drawn).copied()).unwrap_or(200);
            let body = told.body.unwrap_or_else(|| between(self.body, rng));
            return Reply { result: Ok((status, headers)), after, body, processed: true };
        };
        match self.hints {
            Hints::Seconds | Hints::Quota => {
                let value = ceil(wait, self.fields.retry_after_unit);
                put(&mut headers, &http::header::RETRY_AFTER, value);
            }
            Hints::ExactQuota => {
                headers.insert(http::header::RETRY_AFTER, exactly(wait));
            }
            Hints::Millis => {
                let name = HeaderName::from_static("retry-after-ms");
                put(&mut headers, &name, ceil(wait, Unit::Millis));
            }
            Hints::None => {}
        }
        Reply {
            result: Ok((429, headers)),
            after: self.refusal_takes(now).unwrap_or(after / 4),
            body: Duration::ZERO,
            processed: false,
        }
    }

    /// How long a refusal takes now.
    fn refusal_takes(&self, now: MonoTime) -> Option<Duration> {
        let before = self.refusals_took.partition_point(|(at, _)| *at <= now);
        self.refusals_took.get(before.saturating_sub(1)).map(|(_, took)| *took)
    }

    /// A request is over, body included.
    pub fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// One limit that refuses is enough; a request is counted by all or by none. The word is that of
    /// the limit with the least left.
    fn judge(&mut self, now: MonoTime, told: Told) -> Judgement {
        let (in_flight, units) = (self.in_flight, told.extra_units.saturating_add(1));
        let counts = match &self.each {
            Some(each) => self.own.entry(told.whose).or_insert_with(|| counts(each)),
            None => &mut self.counts,
        };
        let said = counts.iter_mut().map(|count| count.look(now, units, in_flight));
        let said: Vec<Judgement> = said.collect();
        if let Some(refusal) =
            said.into_iter().filter(|it| it.wait.is_some()).max_by_key(|it| it.wait)
        {
            return refusal;
        }
        let said = counts.iter_mut().map(|count| count.take(now, units, in_flight));
        said.min_by_key(|it| u64::from(it.remaining) * 1_000_000 / u64::from(it.limit.max(1)))
            .unwrap_or(Judgement::OPEN)
    }
}

/// The number of an owner; the same in every history, so that one seed is one history.
pub fn owner(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

fn counts(limiters: &[Limiter]) -> Vec<Count> {
    limiters.iter().cloned().map(Count::new).collect()
}

fn put(headers: &mut HeaderMap, name: &HeaderName, value: u64) {
    headers.insert(name.clone(), HeaderValue::from(value));
}

/// A failure for no reason.
fn odd(after: Duration, rng: &mut fastrand::Rng) -> Reply {
    let odd = [
        (Failure::Stale, true),
        (Failure::Stale, false),
        (Failure::Reset, false),
        (Failure::HeadTimeout, false),
        (Failure::Connect, true),
    ];
    let (failure, nothing_sent) = rng.choice(odd).unwrap_or((Failure::Reset, false));
    let after = if failure == Failure::HeadTimeout { SILENCE } else { after };
    let processed = !nothing_sent;
    Reply { result: Err((failure, nothing_sent)), after, body: Duration::ZERO, processed }
}

fn broken(outage: Outage, after: Duration) -> Reply {
    let mut headers = HeaderMap::new();
    let (result, after) = match outage {
        Outage::Error => (Ok((500, headers)), after),
        Outage::Unavailable => {
            put(&mut headers, &http::header::RETRY_AFTER, 3);
            (Ok((503, headers)), after)
        }
        Outage::Refused => (Err((Failure::Connect, true)), Duration::from_millis(1)),
        Outage::Reset => (Err((Failure::Reset, false)), after),
        Outage::Silent => (Err((Failure::HeadTimeout, false)), SILENCE),
    };
    let processed = outage != Outage::Refused;
    Reply { result, after, body: Duration::ZERO, processed }
}

/// Seconds with three places, rounded up.
fn exactly(span: Duration) -> HeaderValue {
    let millis = span.as_nanos().div_ceil(1_000_000);
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    HeaderValue::try_from(text).expect("digits and a point are valid in a field")
}

/// So many units, rounded up: an honest API does not name a time that is too early.
fn ceil(span: Duration, unit: Unit) -> u64 {
    let nanos = match unit {
        Unit::Millis => 1_000_000,
        Unit::Seconds => 1_000_000_000,
        Unit::Minutes => 60_000_000_000,
    };
    u64::try_from(span.as_nanos().div_ceil(nanos)).unwrap_or(u64::MAX)
}

/// A span drawn evenly.
pub fn between((low, high): (Duration, Duration), rng: &mut fastrand::Rng) -> Duration {
    low + high.saturating_sub(low).mul_f64(rng.f64())
}
