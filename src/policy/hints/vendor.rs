//! Fields in the forms that only a profile can tell.

use std::borrow::Cow;
use std::time::Duration;

use super::fields::{Fields, MEMBERS_MAX, StatedBy, longest, split, window_name};
use super::quota::{Draft, PROFILE, Told};
use super::value::{self, Clock, Count, Decimal, Stated};
use crate::policy::profile::{Field, Form, Part, Unit};

/// Objects and keys of a JSON field that are looked at.
const KEYS_MAX: usize = 16;

/// Reads a field as its profile says; whether anything was understood.
pub(super) fn read<'a>(
    fields: &mut Fields<'a>,
    field: &'a Field,
    name: &'a str,
    text: &'a str,
    clock: &Clock<'_>,
) -> bool {
    let quota: &'a str =
        if field.quota.is_empty() { field.star(name).unwrap_or_default() } else { &field.quota };
    let is_state = !matches!(field.form, Form::Wait(_) | Form::Scope | Form::Ignored);
    if is_state && clock.is_cached() {
        return true;
    }
    let at = Place { name, text, quota, clock };
    match &field.form {
        Form::Part(part) => one_part(fields, &at, *part),
        Form::UsedOfLimit => used_of_limit(fields, &at),
        Form::KeyValues => key_values(fields, &at),
        Form::List { part, windows, aligned } => list(fields, &at, *part, windows, *aligned),
        Form::Json { percent, wait } => json(fields, &at, percent, wait),
        Form::Categories => categories(fields, &at),
        Form::PerSecond => per_second(fields, &at),
        Form::Wait(unit) => {
            let read = |text: &str| value::retry_after(text, *unit, clock);
            longest(&mut fields.vendor, name, text, read)
        }
        Form::Scope => {
            fields.scope = Some(text);
            true
        }
        Form::Ignored => true,
    }
}

/// A field and where it stands.
struct Place<'a, 'c> {
    name: &'a str,
    text: &'a str,
    quota: &'a str,
    clock: &'c Clock<'c>,
}

impl<'a> Place<'a, '_> {
    fn told(&self, stated: Stated) -> Told<'a> {
        Told { stated, field: self.name, raw: self.text }
    }

    fn draft(&self, fields: &mut Fields<'a>, change: impl FnOnce(&mut Draft<'a>)) {
        fields.drafts.at(PROFILE, Cow::Borrowed(self.quota), change);
    }
}

fn one_part<'a>(fields: &mut Fields<'a>, at: &Place<'a, '_>, part: Part) -> bool {
    match part {
        Part::Limit | Part::Remaining | Part::Used => {
            let count = value::count(at.text);
            at.draft(fields, |draft| put(draft, part, count));
            count != Count::Unreadable
        }
        Part::Reset(unit) => {
            let Some(stated) = value::reset(at.text, unit, at.clock) else { return false };
            at.draft(fields, |draft| draft.reset(at.told(stated)));
            true
        }
        Part::Window(unit) => {
            let Some(stated) = value::span(at.text, unit) else { return false };
            at.draft(fields, |draft| draft.window(stated.wait));
            true
        }
    }
}

fn put(draft: &mut Draft<'_>, part: Part, count: Count) {
    match (count, part) {
        (Count::Known(count), Part::Limit) => draft.limit(count),
        (Count::Known(count), Part::Remaining) => draft.remaining(count),
        (Count::Known(count), Part::Used) => draft.used(count),
        (Count::Unknown, Part::Limit | Part::Remaining) => draft.void(),
        (Count::Unknown | Count::Unreadable, _)
        | (Count::Known(_), Part::Reset(_) | Part::Window(_)) => {}
    }
}

/// `39/40`, `api-usage=18/5000; per-app-api-usage=17/250(appName=x)`.
fn used_of_limit<'a>(fields: &mut Fields<'a>, at: &Place<'a, '_>) -> bool {
    let mut understood = false;
    for item in at.text.split([';', ',']).take(MEMBERS_MAX) {
        let (name, pair) = item.trim().rsplit_once('=').unwrap_or(("", item.trim()));
        // A remark in brackets may have an equals sign of its own.
        let (name, pair) = item.split_once('(').map_or((name, pair), |(item, _)| {
            item.trim().split_once('=').unwrap_or(("", item.trim()))
        });
        let pair = pair.split_once('/').and_then(|(used, limit)| {
            Some((value::count(used).known()?, value::count(limit).known()?))
        });
        let Some((used, limit)) = pair else { continue };
        let name = if name.is_empty() { at.quota } else { name };
        fields.drafts.at(PROFILE, Cow::Borrowed(name), |draft| {
            draft.used(used);
            draft.limit(limit);
        });
        understood = true;
    }
    understood
}

/// `total=100; remaining=99; resets=41`.
fn key_values<'a>(fields: &mut Fields<'a>, at: &Place<'a, '_>) -> bool {
    let mut understood = false;
    let pairs = at.text.split([';', ',']).take(MEMBERS_MAX);
    for (key, text) in pairs.filter_map(|pair| pair.split_once('=')) {
        let part = match key.trim() {
            "limit" | "total" | "max" => Part::Limit,
            "remaining" | "left" => Part::Remaining,
            "used" => Part::Used,
            "reset" | "resets" => Part::Reset(None),
            "window" | "interval" => Part::Window(Unit::Seconds),
            _ => continue,
        };
        let pair = Place { name: at.name, text: text.trim(), quota: at.quota, clock: at.clock };
        understood |= one_part(fields, &pair, part);
    }
    understood
}

/// `200,2000` or `20:1,100:120`: one quota for each window.
fn list<'a>(
    fields: &mut Fields<'a>,
    at: &Place<'a, '_>,
    part: Part,
    windows: &[Duration],
    aligned: bool,
) -> bool {
    let mut understood = false;
    for (place, member) in at.text.split(',').take(MEMBERS_MAX).enumerate() {
        let (number, seconds) =
            member.split_once(':').map_or((member, None), |(number, seconds)| {
                (number, Decimal::parse(seconds.trim()).map(Decimal::seconds))
            });
        let Some(window) = seconds.or_else(|| windows.get(place).copied()) else { continue };
        let count = value::count(number);
        understood |= count != Count::Unreadable;
        fields.drafts.at(PROFILE, window_name(at.quota, window), |draft| {
            put(draft, part, count);
            draft.window(window);
            if aligned {
                draft.reset(at.told(Stated::span(until_multiple(window, at.clock))));
            }
        });
    }
    understood
}

/// Until the next multiple of a window since midnight UTC.
fn until_multiple(window: Duration, clock: &Clock<'_>) -> Duration {
    let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX).max(1);
    let since = clock.now().unix_ms.rem_euclid(window_ms);
    Duration::from_millis(u64::try_from(window_ms - since).unwrap_or(0))
}

/// Shares in percent, waits, and the usual members.
fn json<'a>(
    fields: &mut Fields<'a>,
    at: &Place<'a, '_>,
    percent: &[Box<str>],
    waits: &[(Box<str>, Unit)],
) -> bool {
    let numbers = |key: &str| {
        let values = json_values(at.text, key).filter_map(|text| Decimal::prefix(text));
        values.map(|(number, _)| number).max_by_key(|number| (number.whole, number.nano))
    };
    let used = percent.iter().filter_map(|key| numbers(key)).map(|number| number.ceil()).max();
    let wait = waits.iter().filter_map(|(key, unit)| Some(numbers(key)?.in_unit(*unit)));
    let wait = wait.max().filter(|wait| !wait.is_zero()).map(Stated::span);
    if let Some(stated) = wait {
        let by = StatedBy { stated, field: at.name, raw: at.text };
        if fields.by_profile.is_none_or(|old| old.stated.wait < stated.wait) {
            fields.by_profile = Some(by);
        }
    }
    if let Some(used) = used {
        at.draft(fields, |draft| {
            draft.limit(100);
            draft.used(used);
            if let Some(stated) = wait {
                draft.reset(at.told(stated));
            }
        });
    }
    let plain = json_quota(fields, at.name, at.quota, at.text, at.clock);
    plain || used.is_some() || wait.is_some()
}

/// `{"limit": 50, "remaining": 49, "until": "2026-01-15T10:00:00Z"}`.
pub(super) fn json_quota<'a>(
    fields: &mut Fields<'a>,
    name: &'a str,
    quota: &'a str,
    text: &'a str,
    clock: &Clock<'_>,
) -> bool {
    let first = |keys: &[&str]| keys.iter().find_map(|key| json_values(text, key).next());
    let count = |keys: &[&str]| first(keys).map(value::count).and_then(Count::known);
    let (limit, remaining) = (count(&["limit", "max", "total"]), count(&["remaining", "left"]));
    let reset = first(&["until", "reset", "resets", "reset_at", "resetAt", "reset_after"]);
    let stated = reset.and_then(|text| value::reset(text, None, clock));
    if limit.is_none() && remaining.is_none() {
        return false;
    }
    fields.drafts.at(PROFILE, Cow::Borrowed(quota), |draft| {
        if let Some(limit) = limit {
            draft.limit(limit);
        }
        if let Some(remaining) = remaining {
            draft.remaining(remaining);
        }
        if let Some(stated) = stated {
            draft.reset(Told { stated, field: name, raw: text });
        }
        if let Some((window, _)) = first(&["period", "window"]).and_then(Decimal::prefix) {
            draft.window(window.seconds());
        }
    });
    true
}

/// The values of a key in a JSON text, without quotes.
fn json_values<'a, 'k>(text: &'a str, key: &'k str) -> impl Iterator<Item = &'a str> + use<'a, 'k> {
    text.match_indices(key).take(KEYS_MAX).filter_map(move |(at, _)| {
        if !text.get(..at)?.ends_with('"') {
            return None;
        }
        let rest = text.get(at + key.len()..)?.strip_prefix('"')?.trim_start();
        let rest = rest.strip_prefix(':')?.trim_start();
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split([',', '}', ']']).next().map(str::trim),
        }
    })
}

/// `60:error;transaction:organization:reason, 2700:default`.
fn categories<'a>(fields: &mut Fields<'a>, at: &Place<'a, '_>) -> bool {
    let mut understood = false;
    for item in split(at.text, ',').take(MEMBERS_MAX) {
        let mut parts = item.trim().split(':');
        let stated = parts.next().and_then(|text| value::span(text, Unit::Seconds));
        let Some(stated) = stated else { continue };
        // No category stands for all of them.
        let name = parts.next().unwrap_or_default().trim();
        fields.drafts.at(PROFILE, Cow::Borrowed(name), |draft| {
            draft.remaining(0);
            draft.reset(at.told(stated));
            if !name.is_empty() {
                draft.of_category();
            }
        });
        understood = true;
    }
    understood
}

/// A rate: the next request fits after one over it.
fn per_second<'a>(fields: &mut Fields<'a>, at: &Place<'a, '_>) -> bool {
    let Some(rate) = at.text.parse::<f64>().ok().filter(|rate| *rate > 0.0) else { return false };
    let Ok(wait) = Duration::try_from_secs_f64(1.0 / rate) else { return false };
    fields.by_profile = Some(StatedBy { stated: Stated::span(wait), field: at.name, raw: at.text });
    true
}
