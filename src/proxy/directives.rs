//! What a client asks of forbear itself: the `Forbear-*` fields of a request, and the deadlines
//! that SDKs announce anyway.
//!
//! A `Forbear-*` field that is malformed or unknown is refused, since ignoring it would break the
//! caller's expectation without a word. What SDKs announce is advice: malformed, it is ignored.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{HeaderName, Method};

use super::head::is_forbear;
use super::made_key::KEY;
use super::reject::{Rejection, shown};
use super::survey::{Kind, Survey};
use crate::policy::line::Band;
use crate::policy::outcome::Safety;
use crate::policy::time::WallTime;

/// Concurrency keys per request at most: all their permits are taken in one step.
pub const KEYS_MAX: usize = 4;
/// Bytes of a key, flow or run id at most: a UUID with a long prefix fits three times.
pub const ID_BYTES_MAX: usize = 128;
/// Units of quota per request at most; anything larger is a typing error.
pub const COST_MAX: u32 = 1_000_000;
/// The longest span that can be asked for; also keeps all arithmetic on spans harmless.
pub const SPAN_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The share of a caller's announced time that forbear uses: an answer needs time to travel, and
/// one that comes just after its reader has left was wasted quota.
const DEADLINE_SHARE: f64 = 0.9;

/// Fields in which requests of Dagster and Airflow jobs tell their run; they reach the upstream, too.
const RUN_FIELDS: [&str; 3] = ["x-dagster-run-id", "x-airflow-run-id", "x-airflow-dag-run-id"];

/// How long an SDK waits itself: AWS and those that follow it, and those made by Stainless.
const AMZ: HeaderName = HeaderName::from_static("amz-sdk-request");
const STAINLESS: HeaderName = HeaderName::from_static("x-stainless-read-timeout");

/// Everything that a request asks of forbear.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directives {
    /// Concurrency keys to join, at most [`KEYS_MAX`], each once.
    pub keys: Vec<Arc<str>>,
    /// Unit of fairness, should it differ from the run.
    pub flow: Option<Arc<str>>,
    /// Band of the queue.
    pub priority: Option<Band>,
    /// What may be used of the time left to the caller, counted from the head's receipt.
    pub deadline: Option<Duration>,
    /// Longest it wants to be held in all waits together; zero for `none`.
    pub wait: Option<Duration>,
    /// Which repeats it wants.
    pub retry: Option<RetryWish>,
    /// Units of quota that the request costs; at least 1.
    pub cost: Option<u32>,
    /// Run or job id, for log and ledger.
    pub run: Option<Arc<str>>,
    /// Run id in a field that orchestrators' tools send to the upstream; advice, so of any form.
    pub tool_run: Option<Arc<str>>,
}

/// `Forbear-Retry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryWish {
    /// One attempt.
    Off,
    /// Only what is safe by method and idempotency key, which is also the rule without the field.
    Safe,
    /// The caller guarantees that a repeat does no harm.
    Idempotent,
}

impl Directives {
    /// Reads the fields of one request, received at `now`.
    ///
    /// # Errors
    ///
    /// `bad_request`, naming the field, what was found and what would be right.
    pub fn parse(headers: &HeaderMap, seen: Survey, now: WallTime) -> Result<Self, Rejection> {
        let mut read = Self::default();
        if !seen.saw(Kind::Directive) {
            return Ok(read);
        }
        for (name, value) in headers {
            if is_forbear(name) {
                read.take(name, value)?;
            } else if name.as_str().starts_with("x-")
                && read.tool_run.is_none()
                && RUN_FIELDS.contains(&name.as_str())
            {
                read.tool_run = value.to_str().ok().map(Into::into);
            }
        }
        let announced = read.deadline.or_else(|| sdk_deadline(headers, now));
        read.deadline = announced.map(|left| left.mul_f64(DEADLINE_SHARE));
        Ok(read)
    }

    fn take(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Rejection> {
        // RFC 9110 5.5: white space around a value is no part of it.
        let text = value.to_str().unwrap_or("\u{fffd}").trim();
        let field = Field { name: name.as_str(), text };
        match name.as_str() {
            "forbear-key" => self.take_keys(&field),
            "forbear-flow" => field.set(&mut self.flow, id(text), ID_FORM),
            "forbear-priority" => field.set(
                &mut self.priority,
                Band::named(text),
                "one of critical, high, default, low, backfill",
            ),
            "forbear-deadline" => field.set(
                &mut self.deadline,
                span(text),
                "the time left, such as `120s`, `1500ms` or `2m`, at most 30 days",
            ),
            "forbear-wait" => field.set(
                &mut self.wait,
                if text == "none" { Some(Duration::ZERO) } else { span(text) },
                "`none` or a time such as `30s` or `1500ms`, at most 30 days",
            ),
            "forbear-retry" => {
                field.set(&mut self.retry, retry_wish(text), "one of off, safe, idempotent")
            }
            "forbear-cost" => {
                field.set(&mut self.cost, cost(text), "a whole number from 1 to 1000000")
            }
            "forbear-run" => field.set(&mut self.run, id(text), ID_FORM),
            unknown => Err(unknown_field(unknown)),
        }
    }

    /// A list, also over several fields: an intermediary may have joined them (RFC 9110 5.3).
    fn take_keys(&mut self, field: &Field<'_>) -> Result<(), Rejection> {
        for key in field.text.split(',') {
            let key = id(key.trim()).ok_or_else(|| field.malformed(ID_FORM))?;
            if self.keys.contains(&key) {
                continue;
            }
            if self.keys.len() == KEYS_MAX {
                return Err(field.malformed("at most 4 keys per request"));
            }
            self.keys.push(key);
        }
        Ok(())
    }
}

/// What a request may do if it is processed twice (RFC 9110 9.2). An idempotency key is the
/// client's promise that the upstream will notice a repeat; `own_key` is the field in which its
/// API expects one, if that has a name of its own.
pub fn safety(
    method: &Method,
    headers: &HeaderMap,
    directives: &Directives,
    own_key: Option<&HeaderName>,
) -> Safety {
    let names = |name: &HeaderName| headers.get(name).is_some_and(|key| !key.is_empty());
    let has_key = || names(&KEY) || own_key.is_some_and(names);
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Safety::Safe,
        Method::PUT | Method::DELETE => Safety::Idempotent,
        _ if has_key() || directives.retry == Some(RetryWish::Idempotent) => Safety::Idempotent,
        _ => Safety::Unsafe,
    }
}

/// One `Forbear-*` field while it is read.
struct Field<'a> {
    name: &'a str,
    text: &'a str,
}

impl Field<'_> {
    fn set<T>(&self, slot: &mut Option<T>, value: Option<T>, form: &str) -> Result<(), Rejection> {
        let value = value.ok_or_else(|| self.malformed(form))?;
        if slot.replace(value).is_some() {
            // Two values would have to be ranked, and the caller would not know how.
            return Err(Rejection::bad_request(format!("{} came twice; send it once", self.name)));
        }
        Ok(())
    }

    fn malformed(&self, form: &str) -> Rejection {
        let found = shown(self.text.as_bytes());
        Rejection::bad_request(format!("{} is `{found}`; it should be {form}", self.name))
    }
}

const KNOWN: [&str; 8] = [
    "forbear-key",
    "forbear-flow",
    "forbear-priority",
    "forbear-deadline",
    "forbear-wait",
    "forbear-retry",
    "forbear-cost",
    "forbear-run",
];

/// Names this similar (Jaro-Winkler, without the common prefix) are taken for a typing error.
const SIMILARITY_MIN: f64 = 0.75;

fn unknown_field(name: &str) -> Rejection {
    let bare = |name: &str| name.trim_start_matches("forbear-").to_owned();
    let similarity = |known: &str| strsim::jaro_winkler(&bare(name), &bare(known));
    let close = KNOWN
        .into_iter()
        .map(|known| (similarity(known), known))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    let hint = match close {
        Some((_, known)) => format!("did you mean {known}?"),
        None => format!("known are {}", KNOWN.join(", ")),
    };
    let name = shown(name.as_bytes());
    Rejection::bad_request(format!("{name} is not a field that forbear knows; {hint}"))
}

const ID_FORM: &str = "1 to 128 printable ASCII characters without blank, comma or quote";

fn id(text: &str) -> Option<Arc<str>> {
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b',' && byte != b'"';
    let fits = (1..=ID_BYTES_MAX).contains(&text.len());
    (fits && text.bytes().all(legal)).then(|| text.into())
}

fn retry_wish(text: &str) -> Option<RetryWish> {
    Some(match text {
        "off" => RetryWish::Off,
        "safe" => RetryWish::Safe,
        "idempotent" => RetryWish::Idempotent,
        _ => return None,
    })
}

fn cost(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|cost| plain && (1..=COST_MAX).contains(cost))
}

/// `120s`, `1500ms`, `1.5s`, `2m`, `1h`; a bare number is seconds.
fn span(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    decimal(number).map(|number| number * unit).and_then(seconds)
}

/// Digits with an optional fraction and nothing else: no sign, exponent, `inf` or `nan`.
fn decimal(text: &str) -> Option<f64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(fraction)).then(|| text.parse().ok())?
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|span| *span <= SPAN_MAX)
}

/// The time that an SDK gives its own request, if it says so in passing. Zero and the past are
/// ignored: the one means "no limit" to some, the other a clock that differs from ours.
fn sdk_deadline(headers: &HeaderMap, now: WallTime) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let amz = text(&AMZ)
        .and_then(|parts| parts.split(';').find_map(|part| part.trim().strip_prefix("ttl=")))
        .and_then(basic_utc)
        .map(|until| until.since(now));
    let stainless = || text(&STAINLESS).and_then(decimal).and_then(seconds);
    let usable = |span: &Duration| !span.is_zero() && *span <= SPAN_MAX;
    amz.filter(usable).or_else(|| stainless().filter(usable))
}

/// `20260115T100000Z`, the basic form of ISO 8601 in UTC.
fn basic_utc(text: &str) -> Option<WallTime> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range || text.get(8..9) != Some("T") || text.get(15..) != Some("Z") {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar; the year begins in March, so that the leap
    // day is its last day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(WallTime { unix_ms: seconds * 1000 })
}

/// All fields that are read here.
#[cfg(test)]
pub(super) fn fields() -> impl Iterator<Item = HeaderName> {
    let named = KNOWN.into_iter().chain(RUN_FIELDS).map(HeaderName::from_static);
    named.chain([AMZ, STAINLESS])
}

#[cfg(test)]
mod tests;
