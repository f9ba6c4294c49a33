//! What a response says about limits: what it means, how long to wait, and what is left of which
//! quota.
//!
//! APIs say it in fields of many names and forms, and some in the body. This reader knows the
//! forms that have one meaning wherever they stand; what only one API does comes with its
//! [`Profile`]. It says what the server said: how long a request is held, backoff and margins are
//! decided elsewhere. Its input comes from the network: whatever the bytes, it never panics, it
//! looks at a bounded number of them, and what it cannot read is as if it were not there. A wait
//! is never made shorter than stated, except by `WAIT_MAX`.

mod body;
mod date;
mod fields;
mod names;
mod prose;
mod quota;
mod server;
mod value;
mod vendor;
mod verdict;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

pub use self::body::BODY_PREFIX;
use self::body::Body;
use self::fields::Fields;
pub use self::server::ServerClock;
use self::value::Clock;
use self::verdict::Facts;
use super::outcome::{Hint, HintSource, QuotaReading, Reach, Reading};
use super::profile::{Answer, Profile};
use super::time::WallTime;

/// Longer waits are cut to this: a month is for ever, and cannot overflow anything.
pub const WAIT_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// What there is of a response.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// The beginning of its body, if that was waited for; see [`Profile::wants_body`].
    pub body: Option<&'a [u8]>,
    /// When it was received, by our own clock.
    pub received: WallTime,
    /// The same by the server's, as its last answers have it; see [`ServerClock`].
    pub server: Option<WallTime>,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq)]
pub struct Interpretation<'a> {
    /// What it means.
    pub answer: Answer,
    /// Whether a rate limit, quota or throttle refused the request. A refusal that waiting does
    /// not heal is limited, too, and its answer is [`Answer::Permanent`].
    pub limited: bool,
    /// How long it asks to wait: before this request is sent again if it was refused, before the
    /// next one if it was served with the last of a quota.
    pub wait: Option<Wait<'a>>,
    /// Every quota that it tells of.
    pub quotas: Vec<Quota<'a>>,
    /// What it covers, in the server's words.
    pub scope: Option<Cow<'a, str>>,
    /// How far the wait reaches.
    pub reach: Reach,
    /// The bucket or resource that the request belongs to, in the server's words.
    pub bucket: Option<&'a str>,
    /// Fields about limits that could not be read, with their values.
    pub unread: Vec<(&'a str, Cow<'a, str>)>,
    /// Its `Date`, if that was looked at because it names moments.
    pub date: Option<WallTime>,
}

/// "Not before", and who says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait<'a> {
    /// From the moment of receipt; margins not included.
    pub duration: Duration,
    /// What kind of source decided.
    pub source: HintSource,
    /// The field that decided; `body`, `window`, or the name of a profile whose documented value
    /// it is.
    pub field: Cow<'a, str>,
    /// What stood there; may be empty where nothing did.
    pub raw: Cow<'a, str>,
}

/// One quota, as far as a response tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota<'a> {
    /// Which fields told of it; quotas of one name in two families are one.
    family: &'a str,
    /// What distinguishes it from others, such as `tokens`; empty for the only one.
    pub name: Cow<'a, str>,
    /// What there is in a window.
    pub limit: Option<u64>,
    /// What is left.
    pub remaining: Option<u64>,
    /// Until it is renewed, from the moment of receipt.
    pub reset: Option<Duration>,
    /// The length of its window.
    pub window: Option<Duration>,
    /// Whether the reset was named as a moment, in whole seconds.
    reset_is_absolute: bool,
    /// The field that named the reset, and its value.
    reset_field: Option<(&'a str, &'a str)>,
    /// Whether it is that of one category of requests, and the response may be another one's.
    is_of_category: bool,
}

/// Longer names of buckets are none: those of real APIs are words or hashes.
const BUCKET_NAME_MAX: usize = 64;
/// Bytes of a server's words that are kept to be shown: enough to recognise them.
const RAW_MAX: usize = 64;

impl Wait<'_> {
    /// Field and text as they are shown: printable ASCII stays, the rest becomes `?`, and what is
    /// too long ends in `...`.
    fn shown(&self) -> Arc<str> {
        let separator = if self.raw.is_empty() { "" } else { ": " };
        let texts = [&*self.field, separator, &*self.raw];
        let printable = |char| if matches!(char, ' '..='~') { char } else { '?' };
        let mut chars = texts.into_iter().flat_map(str::chars).map(printable);
        let mut shown: String = chars.by_ref().take(RAW_MAX).collect();
        if chars.next().is_some() {
            shown.truncate(RAW_MAX - 3);
            shown.push_str("...");
        }
        shown.into()
    }
}

impl<'a> Interpretation<'a> {
    /// The quota that binds: an exhausted one with the latest reset, else the one with the
    /// smallest share left, else whatever is told.
    pub fn binding(&self) -> Option<&Quota<'a>> {
        quota::binding(&self.quotas, |_| true)
    }

    /// What the policy needs of it. A hint is there for refusals only: what a served response
    /// says of the next one is its quota. A quota of other requests than this one is none of its.
    pub fn reading(&self) -> Reading {
        let refused = match self.answer {
            Answer::RateLimited | Answer::Transient => true,
            Answer::Permanent => self.limited,
            Answer::Ok | Answer::Auth => false,
        };
        let wait = self.wait.as_ref().filter(|_| refused);
        let hint = wait.map(|wait| {
            let raw = Some(wait.shown());
            Hint { wait: wait.duration, source: wait.source, raw }
        });
        let applies = |quota: &&Quota<'_>| self.limited || !quota.is_of_category;
        let quotas = self.quotas.iter().filter(applies).filter_map(|quota| {
            let name = Some(&*quota.name).filter(|name| !name.is_empty()).map(Into::into);
            let Quota { limit, reset, window, .. } = *quota;
            Some(QuotaReading { name, limit, remaining: quota.remaining?, reset, window })
        });
        let bucket = self.bucket.filter(|name| (1..=BUCKET_NAME_MAX).contains(&name.len()));
        Reading {
            hint,
            reach: self.reach,
            bucket: bucket.map(Into::into),
            quotas: quotas.collect(),
        }
    }
}

/// Reads a response.
pub fn interpret<'a>(response: Response<'a>, profile: &'a Profile) -> Interpretation<'a> {
    let Response { status, headers, body, received, server } = response;
    let found = fields::of_interest(headers, profile);
    let served = (100..400).contains(&status);
    if served && found.is_empty() && body.is_none() && !profile.recognises(status) {
        return Interpretation::nothing();
    }
    let clock = Clock::new(headers, received, server);
    let mut fields = Fields::read(&found, profile, &clock);
    let wanted = body.filter(|body| !body.is_empty() && (!served || profile.wants_body(status)));
    let body = wanted.map(Body::new);
    let mut quotas = std::mem::take(&mut fields.drafts).finish(profile.window_is_wait);
    if let Some(body) = &body {
        quotas.extend(verdict::body_quotas(status, body, profile, &clock));
    }
    for quota in &mut quotas {
        quota.reset = quota.reset.map(|reset| reset.min(WAIT_MAX));
    }
    let facts = Facts {
        status,
        headers,
        fields: &fields,
        quotas: &quotas,
        body: body.as_ref(),
        profile,
        signature: verdict::signature(status, headers, body.as_ref(), profile),
        clock: &clock,
    };
    let (answer, limited) = facts.answer();
    let wait = facts.wait(answer, limited);
    let scope = facts.scope();
    let reach = facts.reach();
    let (bucket, unread, date) = (fields.bucket, fields.unread, clock.date());
    Interpretation { answer, limited, wait, quotas, scope, reach, bucket, unread, date }
}

impl Interpretation<'_> {
    /// A response that was served and says nothing.
    const fn nothing() -> Self {
        Self {
            answer: Answer::Ok,
            limited: false,
            wait: None,
            quotas: Vec::new(),
            scope: None,
            reach: Reach::Bucket,
            bucket: None,
            unread: Vec::new(),
            date: None,
        }
    }
}

/// Reads a response's fields as those of an API of which nothing is known. `now` is the wall time
/// of receipt.
pub fn read(status: u16, headers: &HeaderMap, now: WallTime) -> Reading {
    let response = Response { status, headers, body: None, received: now, server: None };
    interpret(response, &super::profile::GENERIC).reading()
}

/// A moment as people type it: RFC 3339, or an HTTP-date of four digits for the year.
pub fn moment(text: &str) -> Option<WallTime> {
    let epoch = WallTime { unix_ms: 0 };
    date::parse_rfc3339(text).or_else(|| date::parse_http_date(text, epoch))
}

#[cfg(test)]
mod tests;
