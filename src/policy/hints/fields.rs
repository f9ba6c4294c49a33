//! One pass over the fields of a response: waits, and quotas as the generic names tell them.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;

use super::names::{self, Key, Member, Named};
use super::quota::{Drafts, IETF, Told};
use super::value::{self, Clock, Count, Stated};
use super::vendor;
use crate::policy::profile::{Profile, Unit};

/// Fields about limits that are looked at; a sane response has a dozen.
pub(super) const FIELDS_MAX: usize = 64;
/// Members of one list field that are looked at.
pub(super) const MEMBERS_MAX: usize = 16;
/// Fields that could not be read and are named; more are not of use to anybody.
const UNREAD_MAX: usize = 16;

/// A wait that a field states.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatedBy<'a> {
    pub(super) stated: Stated,
    pub(super) field: &'a str,
    pub(super) raw: &'a str,
}

/// What the fields say.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// The longest wait of each kind, in the order in which they are believed.
    pub(super) in_ms: Option<StatedBy<'a>>,
    pub(super) retry_after: Option<StatedBy<'a>>,
    pub(super) vendor: Option<StatedBy<'a>>,
    /// A wait that only a profile can tell is one.
    pub(super) by_profile: Option<StatedBy<'a>>,
    pub(super) drafts: Drafts<'a>,
    pub(super) scope: Option<&'a str>,
    pub(super) bucket: Option<&'a str>,
    /// Fields of interest whose values mean nothing.
    pub(super) unread: Vec<(&'a str, Cow<'a, str>)>,
}

/// Collects everything that can be about limits. Most responses have nothing, and then nothing is
/// allocated and no date is read.
pub(super) fn of_interest<'a>(
    headers: &'a HeaderMap,
    profile: &Profile,
) -> Vec<(&'a str, &'a [u8])> {
    /// Whoever tells one thing about limits mostly tells some.
    const USUAL: usize = 8;
    let vendor = !profile.fields.is_empty();
    let mut found = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        if names::may_tell(name) || (vendor && profile.field(name).is_some()) {
            if found.is_empty() {
                found.reserve(USUAL);
            }
            found.push((name, value.as_bytes()));
            if found.len() == FIELDS_MAX {
                break;
            }
        }
    }
    found
}

impl<'a> Fields<'a> {
    /// Reads what [`of_interest`] found. Quotas are left out where a cache answered.
    pub(super) fn read(
        found: &[(&'a str, &'a [u8])],
        profile: &'a Profile,
        clock: &Clock<'_>,
    ) -> Self {
        let mut fields = Self::default();
        let mut policies = Vec::new();
        for &(name, bytes) in found {
            let Ok(text) = std::str::from_utf8(bytes) else {
                fields.unread(name, String::from_utf8_lossy(bytes));
                continue;
            };
            let text = text.trim();
            let understood = match profile.field(name) {
                Some(own) => vendor::read(&mut fields, own, name, text, clock),
                None => fields.generic(name, text, profile, clock, &mut policies),
            };
            if !understood {
                fields.unread(name, Cow::Borrowed(text));
            }
        }
        for policy in policies {
            fields.policies(policy);
        }
        fields
    }

    /// Whether any field states a wait outright.
    pub(super) fn states_wait(&self) -> bool {
        self.in_ms.or(self.retry_after).or(self.vendor).is_some()
    }

    pub(super) fn unread(&mut self, name: &'a str, raw: Cow<'a, str>) {
        if self.unread.len() < UNREAD_MAX {
            self.unread.push((name, raw));
        }
    }

    fn generic(
        &mut self,
        name: &'a str,
        text: &'a str,
        profile: &Profile,
        clock: &Clock<'_>,
        policies: &mut Vec<&'a str>,
    ) -> bool {
        let unit = profile.retry_after_unit.unwrap_or(Unit::Seconds);
        let retry_after = |text: &str| value::retry_after(text, unit, clock);
        match names::named(name) {
            Named::RetryAfter => longest(&mut self.retry_after, name, text, retry_after),
            Named::VendorRetryAfter => longest(&mut self.vendor, name, text, retry_after),
            Named::RetryAfterMs => {
                longest(&mut self.in_ms, name, text, |text: &str| value::span(text, Unit::Millis))
            }
            Named::Policy => {
                policies.push(text);
                true
            }
            Named::Scope => {
                self.scope.get_or_insert(text);
                true
            }
            Named::Bucket => {
                self.bucket.get_or_insert(text);
                true
            }
            // What a cache answers is not the state of the quota any more.
            Named::Bare(_) | Named::Member(..) if clock.is_cached() => true,
            Named::Bare(key) => self.bare(name, key, text, clock),
            Named::Member(member, key) => self.member(member, key, name, text, profile, clock),
            Named::Other => true,
        }
    }

    fn member(
        &mut self,
        member: Member,
        key: Key<'a>,
        name: &'a str,
        text: &'a str,
        profile: &Profile,
        clock: &Clock<'_>,
    ) -> bool {
        let stated = match member {
            Member::Limit | Member::Remaining => {
                let count = value::count(text);
                self.drafts.at(key.family, Cow::Borrowed(key.qualifier), |draft| {
                    match (count, member) {
                        (Count::Known(count), Member::Limit) => draft.limit(count),
                        (Count::Known(count), _) => draft.remaining(count),
                        (Count::Unknown, _) => draft.void(),
                        (Count::Unreadable, _) => {}
                    }
                    if let Some(window) = value::window(text) {
                        draft.window(window);
                    }
                });
                return count != Count::Unreadable;
            }
            Member::Reset | Member::Next => value::reset(text, profile.reset_unit, clock),
            Member::ResetAfter => value::span(text, profile.reset_unit.unwrap_or(Unit::Seconds)),
            Member::ResetSeconds => value::span(text, Unit::Seconds),
            Member::ResetMs => value::reset(text, Some(Unit::Millis), clock),
        };
        let Some(stated) = stated else { return false };
        let told = Told { stated, field: name, raw: text };
        self.drafts.at(key.family, Cow::Borrowed(key.qualifier), |draft| {
            if member == Member::Next { draft.next(told) } else { draft.reset(told) }
        });
        true
    }

    /// A family's name alone: the limit, the `RateLimit` field of a draft, or JSON.
    fn bare(&mut self, name: &'a str, key: Key<'a>, text: &'a str, clock: &Clock<'_>) -> bool {
        if text.starts_with('{') {
            return vendor::json_quota(self, name, key.qualifier, text, clock);
        }
        if let Count::Known(limit) = value::count(text) {
            self.drafts.at(key.family, Cow::Borrowed(key.qualifier), |draft| draft.limit(limit));
            return true;
        }
        self.ietf(name, text, clock)
    }

    /// `limit=100, remaining=50, reset=5` (draft 07) and `"name";r=50;t=30` (drafts 08 and later).
    fn ietf(&mut self, name: &'a str, text: &'a str, clock: &Clock<'_>) -> bool {
        let members = || split(text, ',').take(MEMBERS_MAX);
        let mut understood =
            self.ietf_quota(name, text, "", members(), ["limit", "remaining", "reset"], clock);
        for item in members() {
            let mut parts = split(item, ';');
            let quota = unquoted(parts.next().unwrap_or_default());
            understood |= self.ietf_quota(name, text, quota, parts, ["", "r", "t"], clock);
        }
        understood
    }

    /// One quota from `key=value` pairs whose keys for limit, remaining and reset are `keys`.
    fn ietf_quota(
        &mut self,
        field: &'a str,
        raw: &'a str,
        quota: &'a str,
        pairs: impl Iterator<Item = &'a str>,
        keys: [&str; 3],
        clock: &Clock<'_>,
    ) -> bool {
        let [limit, remaining, reset] = keys;
        let (mut limit_told, mut left, mut stated) = (None, None, None);
        for (key, text) in pairs.filter_map(|pair| pair.split_once('=')) {
            let known = || value::count(text).known();
            match key.trim() {
                "" => {}
                key if key == limit => limit_told = known(),
                key if key == remaining => left = known(),
                // The drafts have seconds only, but where a date is, a date is meant.
                key if key == reset => stated = value::reset(text, None, clock),
                _ => {}
            }
        }
        // A dictionary may be split over several lines; an item may not.
        let is_part = !limit.is_empty() && (limit_told.is_some() || stated.is_some());
        if left.is_none() && !is_part {
            return false;
        }
        self.drafts.at(IETF, Cow::Borrowed(quota), |draft| {
            if let Some(left) = left {
                draft.remaining(left);
            }
            if let Some(limit) = limit_told {
                draft.limit(limit);
            }
            if let Some(stated) = stated {
                draft.reset(Told { stated, field, raw });
            }
        });
        true
    }

    /// `"name";q=100;w=60`, or `100;w=60` in older drafts.
    fn policies(&mut self, text: &'a str) {
        for item in split(text, ',').take(MEMBERS_MAX) {
            let mut parts = split(item, ';');
            let name = parts.next().unwrap_or_default();
            let (mut limit, mut window) = (value::count(name).known(), None);
            let name = if limit.is_some() { "" } else { unquoted(name) };
            for (key, text) in parts.filter_map(|pair| pair.split_once('=')) {
                match key.trim() {
                    "q" => limit = value::count(text).known(),
                    "w" => window = value::span(text, Unit::Seconds).map(|stated| stated.wait),
                    _ => {}
                }
            }
            self.drafts.policy(name, limit, window);
        }
    }
}

/// Keeps the longest wait of a list; whether there was one.
pub(super) fn longest<'a>(
    place: &mut Option<StatedBy<'a>>,
    field: &'a str,
    raw: &'a str,
    read: impl Fn(&str) -> Option<Stated>,
) -> bool {
    // A date is cut at its comma, which costs only the weekday.
    let members = raw.split(',').take(MEMBERS_MAX).filter_map(|member| read(member.trim()));
    let Some(stated) = members.max_by_key(|stated| stated.wait) else {
        return false;
    };
    if place.is_none_or(|old| old.stated.wait < stated.wait) {
        *place = Some(StatedBy { stated, field, raw });
    }
    true
}

/// A String or Token of RFC 9651, without its quotes.
fn unquoted(text: &str) -> &str {
    text.trim().trim_matches('"')
}

/// Cuts at `separator`, but not within a quoted string (RFC 9651 3.3.3).
pub(super) fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
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

/// A window's length as the name of a quota.
pub(super) fn window_name<'a>(quota: &str, window: Duration) -> Cow<'a, str> {
    let seconds = window.as_secs();
    let short = match seconds {
        0 => String::new(),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s % 60 == 0 => format!("{}min", s / 60),
        s => format!("{s}s"),
    };
    match (quota, short.as_str()) {
        ("", _) => Cow::Owned(short),
        (_, "") => Cow::Owned(quota.to_owned()),
        _ => Cow::Owned(format!("{quota} {short}")),
    }
}
