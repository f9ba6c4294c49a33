//! What a response says about limits: how long to wait, and what is left of a quota.
//!
//! APIs say it in fields of many names and forms. This reader knows `Retry-After`, its kin in
//! milliseconds, the `RateLimit` fields of all IETF drafts and the `X-RateLimit-*` families;
//! fields of single vendors are not its business. Its input comes from the network: whatever the
//! bytes, it never panics, it looks at a bounded number of them, and what it cannot read is as if
//! it were not there. A wait is never made shorter than stated, except by `WAIT_MAX`.

mod date;
mod value;

use std::time::Duration;

use http::HeaderMap;

use super::outcome::{Hint, HintSource, QuotaReading, Reading};
use super::time::WallTime;
use value::{Clock, Decimal};

/// Longer waits are cut to this: a month is for ever, and cannot overflow anything.
const WAIT_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// Lines of one name that are looked at; a sane response has one or two.
const LINES_MAX: usize = 16;

/// Members of one list field that are looked at.
const MEMBERS_MAX: usize = 16;

/// Fields in milliseconds. The last one is so in spite of its name.
const MS_FIELDS: [&str; 3] = ["retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after"];

/// Families of quota fields that agree in what follows the prefix.
const FAMILIES: [Family; 3] = [
    Family {
        limit: "ratelimit-limit",
        remaining: "ratelimit-remaining",
        reset: "ratelimit-reset",
        reset_after: "ratelimit-reset-after",
    },
    Family {
        limit: "x-ratelimit-limit",
        remaining: "x-ratelimit-remaining",
        reset: "x-ratelimit-reset",
        reset_after: "x-ratelimit-reset-after",
    },
    Family {
        limit: "x-rate-limit-limit",
        remaining: "x-rate-limit-remaining",
        reset: "x-rate-limit-reset",
        reset_after: "x-rate-limit-reset-after",
    },
];

struct Family {
    limit: &'static str,
    remaining: &'static str,
    reset: &'static str,
    reset_after: &'static str,
}

/// One quota, as far as a response tells of it.
#[derive(Clone, Copy, Debug, Default)]
struct Quota {
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<Duration>,
}

/// Reads a response's fields. `now` is the wall time of receipt.
///
/// A hint is given for refusals only (403, 429 and 5xx except 501 and 505): elsewhere
/// `Retry-After` speaks of something else, and some CDNs put a 0 on everything. The quota is read
/// from every response.
pub fn read(status: u16, headers: &HeaderMap, now: WallTime) -> Reading {
    let cached = lines(headers, "age").filter_map(Decimal::parse).any(|age| age.whole > 0);
    let clock = Clock { now: if cached { now } else { server_clock(headers, now) } };
    // What a cache answers is not the state of the quota any more.
    let quotas = if cached { Vec::new() } else { quotas(headers, clock) };
    let hint = match status {
        501 | 505 => None,
        403 | 429 | 500..=599 => hint(headers, &quotas, clock),
        _ => None,
    };
    Reading { hint, quota: binding(&quotas) }
}

/// The server's clock, if it is told and differs by more than the network explains.
fn server_clock(headers: &HeaderMap, now: WallTime) -> WallTime {
    const NETWORK_AND_ROUNDING_MS: u64 = 5_000;
    match lines(headers, "date").find_map(|line| date::parse_http_date(line, now)) {
        Some(date) if date.unix_ms.abs_diff(now.unix_ms) > NETWORK_AND_ROUNDING_MS => date,
        Some(_) | None => now,
    }
}

/// The wait of a refusal: the first source that states one.
fn hint(headers: &HeaderMap, quotas: &[Quota], clock: Clock) -> Option<Hint> {
    let in_ms = MS_FIELDS
        .into_iter()
        .flat_map(|name| members(headers, name))
        .filter_map(Decimal::parse)
        .map(|ms| (ms.millis(), HintSource::RetryAfterMs));
    let by_wait = |stated: &(Duration, HintSource)| stated.0;
    let stated = in_ms.max_by_key(by_wait).or_else(|| {
        let fields = members(headers, "retry-after");
        fields.filter_map(|text| value::retry_after(text, clock)).max_by_key(by_wait)
    });
    let (wait, source) = stated.or_else(|| {
        let exhausted = quotas.iter().filter(|quota| quota.remaining == Some(0));
        // If something is left of every quota, some other limit refused, and their resets are
        // not the answer; if nothing says what is left, a reset alone can only mean this.
        let told = quotas.iter().any(|quota| quota.remaining.is_some());
        let alone = quotas.iter().filter(|_| !told);
        let reset = exhausted.chain(alone).filter_map(|quota| quota.reset).max()?;
        Some((reset, HintSource::RateLimitReset))
    })?;
    Some(Hint { wait: wait.min(WAIT_MAX), source })
}

/// The quota that binds: an exhausted one with the latest reset, else the one with the smallest
/// share left.
fn binding(quotas: &[Quota]) -> Option<QuotaReading> {
    let share_left = |quota: &Quota| match (quota.remaining, quota.limit) {
        (Some(remaining), Some(limit)) => remaining as f64 / limit.max(1) as f64,
        (Some(0), None) => 0.0,
        (Some(_), None) | (None, _) => 1.0,
    };
    let told = quotas.iter().filter(|quota| quota.remaining.is_some());
    let quota = told.min_by(|a, b| {
        share_left(a).total_cmp(&share_left(b)).then_with(|| b.reset.cmp(&a.reset))
    })?;
    let remaining = quota.remaining?;
    // Half a quota may stand in one family and the other half in another.
    let agrees = |other: &&Quota| other.remaining.is_none_or(|other| other == remaining);
    let siblings = || quotas.iter().filter(agrees);
    Some(QuotaReading {
        limit: quota.limit.or_else(|| siblings().find_map(|other| other.limit)),
        remaining,
        reset: quota
            .reset
            .or_else(|| siblings().find_map(|other| other.reset))
            .map(|reset| reset.min(WAIT_MAX)),
    })
}

/// Every quota that the fields tell of; empty ones are left out.
fn quotas(headers: &HeaderMap, clock: Clock) -> Vec<Quota> {
    let families = FAMILIES.iter().filter_map(|family| by_family(headers, family, clock));
    families.chain(by_ietf(headers, clock)).collect()
}

/// Duplicate lines that disagree are taken at their worst: least left, latest reset.
fn by_family(headers: &HeaderMap, family: &Family, clock: Clock) -> Option<Quota> {
    let count = |name| {
        let mut counts = Vec::new();
        for line in lines(headers, name) {
            match value::count(line) {
                value::Count::Known(count) => counts.push(count),
                value::Count::Unreadable => {}
                value::Count::Unknown => return Err(()),
            }
        }
        Ok(counts.into_iter().min())
    };
    let (Ok(limit), Ok(remaining)) = (count(family.limit), count(family.remaining)) else {
        return None;
    };
    // Relative values need no clock and are preferred.
    let after = lines(headers, family.reset_after).filter_map(Decimal::parse).map(Decimal::seconds);
    let reset = after.max().or_else(|| {
        lines(headers, family.reset).filter_map(|line| value::reset(line, clock)).max()
    });
    let told = limit.is_some() || remaining.is_some() || reset.is_some();
    told.then_some(Quota { limit, remaining, reset })
}

/// `RateLimit: limit=100, remaining=50, reset=5` (draft 07) and `RateLimit: "name";r=50;t=30`
/// (drafts 08 and later).
fn by_ietf(headers: &HeaderMap, clock: Clock) -> impl Iterator<Item = Quota> {
    lines(headers, "ratelimit").flat_map(move |line| {
        let members = || split(line, ',').take(MEMBERS_MAX);
        let dictionary = quota_of(members(), ["limit", "remaining", "reset"], clock);
        let items =
            members().map(move |item| quota_of(split(item, ';').skip(1), ["", "r", "t"], clock));
        std::iter::once(dictionary).chain(items).filter(|quota| quota.remaining.is_some())
    })
}

/// One quota from `key=value` pairs whose keys for limit, remaining and reset are `keys`.
fn quota_of<'a>(pairs: impl Iterator<Item = &'a str>, keys: [&str; 3], clock: Clock) -> Quota {
    let [limit, remaining, reset] = keys;
    let mut quota = Quota::default();
    for (key, text) in pairs.filter_map(|pair| pair.split_once('=')) {
        match key.trim() {
            "" => {}
            key if key == limit => quota.limit = value::count(text).known(),
            key if key == remaining => quota.remaining = value::count(text).known(),
            key if key == reset => quota.reset = value::reset(text, clock),
            _ => {}
        }
    }
    quota
}

/// The lines of a field that are text, trimmed.
fn lines<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let all = headers.get_all(name).into_iter().take(LINES_MAX);
    all.filter_map(|line| line.to_str().ok()).map(str::trim)
}

/// The members of a field's lists. A date is cut at its comma, which costs only the weekday.
fn members<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    lines(headers, name).flat_map(|line| line.split(',').take(MEMBERS_MAX)).map(str::trim)
}

/// Cuts at `separator`, but not within a quoted string (RFC 9651 3.3.3).
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |char| {
        let cut = char == separator && !quoted;
        if char == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && char == '\\' && !escaped;
        cut
    })
}

#[cfg(test)]
mod tests;
