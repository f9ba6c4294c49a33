//! From what fields and body say to what the response means, and how long to wait.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderMap;

use super::body::{self, Body};
use super::fields::{Fields, StatedBy};
use super::quota::binding;
use super::value::{Clock, Decimal};
use super::{Quota, WAIT_MAX, Wait, prose};
use crate::policy::outcome::{HintSource, Reach};
use crate::policy::profile::{Answer, FieldSign, Profile, Signature, Unit, WaitRule};

/// A response as far as it was read.
#[derive(Debug)]
pub(super) struct Facts<'a, 'f> {
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) fields: &'f Fields<'a>,
    pub(super) quotas: &'f [Quota<'a>],
    pub(super) body: Option<&'f Body<'a>>,
    pub(super) profile: &'a Profile,
    pub(super) signature: Option<&'a Signature>,
    pub(super) clock: &'f Clock<'f>,
}

/// The first signature that a response has.
pub(super) fn signature<'a>(
    status: u16,
    headers: &HeaderMap,
    body: Option<&Body<'_>>,
    profile: &'a Profile,
) -> Option<&'a Signature> {
    profile.signatures.iter().find(|signature| {
        let codes = |body: &Body<'_>| {
            signature.codes.iter().all(|sign| body.has_code(&sign.key, &sign.values))
        };
        let texts = |body: &Body<'_>| {
            signature.texts.is_empty()
                || signature
                    .texts
                    .iter()
                    .any(|text| body.lower.contains(&text.to_ascii_lowercase()))
        };
        signature.is_for(status)
            && signature.fields.iter().all(|sign| has_field(headers, sign))
            && (!signature.reads_body() || body.is_some_and(|body| codes(body) && texts(body)))
    })
}

fn has_field(headers: &HeaderMap, sign: &FieldSign) -> bool {
    headers.get_all(&*sign.name).into_iter().any(|value| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        match sign.contains.strip_prefix('=') {
            Some(whole) => value.trim() == whole,
            None => value.contains(&*sign.contains),
        }
    })
}

impl<'a> Facts<'a, '_> {
    /// What the response means, and whether a limit refused the request.
    pub(super) fn answer(&self) -> (Answer, bool) {
        if let Some(answer) = self.signature.and_then(|signature| signature.answer) {
            return (answer, answer == Answer::RateLimited);
        }
        let limited =
            |yes, otherwise| if yes { (Answer::RateLimited, true) } else { (otherwise, false) };
        match self.status {
            100..=399 => (Answer::Ok, false),
            420 | 429 if self.will_never_help() => (Answer::Permanent, true),
            420 | 429 => (Answer::RateLimited, true),
            401 | 407 => (Answer::Auth, false),
            403 => {
                let said =
                    self.fields.states_wait() || self.is_exhausted() || self.is_throttle_code();
                let in_words = || self.body.is_some_and(Body::has_limit_phrase);
                limited(said || in_words(), Answer::Auth)
            }
            503 => limited(self.is_exhausted() || self.is_throttle_code(), Answer::Transient),
            400 => limited(self.is_throttle_code(), Answer::Permanent),
            408 | 425 => (Answer::Transient, false),
            404..=499 | 402 | 501 | 505 => (Answer::Permanent, false),
            // A status beyond 599 is to be taken as a 5xx (RFC 9110 15).
            _ => (Answer::Transient, false),
        }
    }

    /// A quota that only money renews, or a server that says "do not retry".
    fn will_never_help(&self) -> bool {
        let told = ["x-should-retry", "stripe-should-retry"].iter().any(|name| {
            self.headers
                .get(*name)
                .is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"false"))
        });
        let billing = |body: &Body<'_>| {
            ["code", "type"].iter().any(|key| body.has_code(key, &["insufficient_quota"]))
        };
        told || self.body.is_some_and(billing)
    }

    /// Whether a quota that this request needed is used up.
    fn is_exhausted(&self) -> bool {
        self.quotas.iter().any(|quota| quota.remaining == Some(0) && !quota.is_of_category)
    }

    fn is_throttle_code(&self) -> bool {
        let field = self.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        field.is_some_and(body::is_throttle_code) || self.body.is_some_and(Body::is_throttle_code)
    }

    /// How long to wait, by the first source that says it.
    pub(super) fn wait(&self, answer: Answer, limited: bool) -> Option<Wait<'a>> {
        let wait = match answer {
            Answer::RateLimited | Answer::Transient => self.wait_of_refusal(answer),
            Answer::Permanent if limited => self.wait_of_refusal(answer),
            // The request was served, but the next one would not be.
            Answer::Ok => self.reset_wait(|quota| quota.remaining == Some(0)),
            Answer::Permanent | Answer::Auth => None,
        };
        wait.map(|wait| Wait { duration: wait.duration.min(WAIT_MAX), ..wait })
    }

    fn wait_of_refusal(&self, answer: Answer) -> Option<Wait<'a>> {
        let Fields { in_ms, retry_after, vendor, by_profile, .. } = self.fields;
        let in_fields = in_ms
            .map(|by| stated(by, HintSource::RetryAfterMs))
            .or_else(|| {
                retry_after.map(|by| {
                    let absolute = by.stated.absolute;
                    let (date, delta) = (HintSource::RetryAfterDate, HintSource::RetryAfterDelta);
                    stated(by, if absolute { date } else { delta })
                })
            })
            .or_else(|| vendor.map(|by| stated(by, HintSource::VendorRetryAfter)));
        let window = || self.window_instead(in_fields.as_ref());
        if let Some(wait) = window() {
            return Some(wait);
        }
        if let Some(wait) = in_fields {
            return Some(wait);
        }
        if let Some(rule) = self.signature.and_then(|signature| signature.wait.as_ref()) {
            let wait = self.by_rule(rule);
            if wait.is_some() || *rule == WaitRule::Unknown {
                return wait;
            }
        }
        let by_profile = by_profile.map(|by| stated(by, HintSource::Profile));
        by_profile.or_else(|| self.wait_in_body()).or_else(|| {
            let none_told = self.quotas.iter().all(|quota| quota.remaining.is_none());
            // A server that fails tells of other requests' categories, too.
            let is_ours =
                |quota: &Quota<'_>| answer == Answer::RateLimited || !quota.is_of_category;
            let exhausted =
                |quota: &Quota<'_>| (quota.remaining == Some(0) && is_ours(quota)) || none_told;
            if answer == Answer::Permanent { None } else { self.reset_wait(exhausted) }
        })
    }

    fn wait_in_body(&self) -> Option<Wait<'a>> {
        let said = prose::wait(self.body?, self.profile.retry_after_unit, self.clock)?;
        Some(Wait {
            duration: said.stated.wait,
            source: HintSource::Body,
            field: Cow::Borrowed("body"),
            raw: Cow::Owned(said.raw),
        })
    }

    /// Zero says "now" on a refusal, and where the window is known, that is nearer to the truth.
    fn window_instead(&self, told: Option<&Wait<'a>>) -> Option<Wait<'a>> {
        let is_zero = told.is_some_and(|wait| wait.duration.is_zero());
        if is_zero && self.profile.window_is_wait {
            self.reset_wait(|quota| {
                quota.remaining.is_none_or(|left| left == 0) && quota.reset_field.is_none()
            })
        } else {
            None
        }
    }

    /// The latest reset of the quotas that `applies` to: waiting for less than that is no use.
    fn reset_wait(&self, applies: impl Fn(&Quota<'_>) -> bool) -> Option<Wait<'a>> {
        let quotas = self.quotas.iter().filter(|quota| applies(quota));
        let (reset, quota) = quotas
            .filter_map(|quota| Some((quota.reset?, quota)))
            .max_by_key(|(reset, _)| *reset)?;
        let source = match (quota.reset_is_absolute, quota.reset_field) {
            (true, _) => HintSource::RateLimitResetAt,
            (false, Some(_)) => HintSource::RateLimitReset,
            (false, None) => HintSource::Profile,
        };
        let (field, raw) = quota.reset_field.unwrap_or(("window", ""));
        Some(Wait { duration: reset, source, field: Cow::Borrowed(field), raw: Cow::Borrowed(raw) })
    }

    fn by_rule(&self, rule: &WaitRule) -> Option<Wait<'a>> {
        let documented = |duration, raw: String| Wait {
            duration,
            source: HintSource::Profile,
            field: Cow::Borrowed(&*self.profile.name),
            raw: Cow::Owned(raw),
        };
        let number = |words: &str| self.body.and_then(|body| body.number_after(words));
        match rule {
            WaitRule::Fixed(wait) => Some(documented(*wait, String::new())),
            WaitRule::Reset => self.reset_wait(|_| true),
            WaitRule::Unknown => None,
            WaitRule::After { words, unit } => {
                let (number, raw) = number(words)?;
                let wait = match unit {
                    Some(unit) => number.in_unit(*unit),
                    None => self.clock.until(number.epoch()?),
                };
                Some(documented(wait, raw.to_owned()))
            }
            WaitRule::Bucket { need, available, rate } => {
                let as_f64 = |words| number(words).map(|(number, _)| number.as_f64());
                let missing = (as_f64(need)? - as_f64(available)?).max(0.0);
                let rate = as_f64(rate).filter(|rate| *rate > 0.0)?;
                let wait = Duration::try_from_secs_f64(missing / rate).unwrap_or(WAIT_MAX);
                Some(documented(wait, String::new()))
            }
        }
    }

    /// What the response's word covers, as it says itself.
    pub(super) fn scope(&self) -> Option<Cow<'a, str>> {
        let by_signature = self.signature.and_then(|signature| signature.scope.as_deref());
        let told = by_signature.or(self.fields.scope).map(Cow::Borrowed);
        told.or_else(|| self.is_global().then_some(Cow::Borrowed(GLOBAL))).or_else(|| {
            let quota = binding(self.quotas, |_| true)?;
            let name = Some(quota.name.clone()).filter(|name| !name.is_empty());
            name.or(self.fields.bucket.map(Cow::Borrowed))
        })
    }

    /// How far a wait reaches: as documented, or as the response says in so many words.
    pub(super) fn reach(&self) -> Reach {
        let documented = self.signature.and_then(|signature| signature.reach);
        let is_told = || {
            let told = self.fields.scope.is_some_and(|scope| scope.eq_ignore_ascii_case(GLOBAL));
            told || self.is_global()
        };
        documented.unwrap_or(if is_told() { Reach::Credential } else { Reach::Bucket })
    }

    /// `X-RateLimit-Global: true`, as Discord has it.
    fn is_global(&self) -> bool {
        let global = self.headers.get("x-ratelimit-global");
        global.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
    }
}

/// The word for a limit on everything that a caller asks.
const GLOBAL: &str = "global";

fn stated<'a>(by: StatedBy<'a>, source: HintSource) -> Wait<'a> {
    Wait {
        duration: by.stated.wait,
        source,
        field: Cow::Borrowed(by.field),
        raw: Cow::Borrowed(by.raw),
    }
}

/// A quota that stands in a body.
pub(super) fn body_quotas<'a>(
    status: u16,
    body: &Body<'_>,
    profile: &'a Profile,
    clock: &Clock<'_>,
) -> Vec<Quota<'a>> {
    if clock.is_cached() {
        return Vec::new();
    }
    let wanted = profile.body_quotas.iter().filter(|quota| quota.statuses.contains(status));
    let read = wanted.filter_map(|rule| {
        let count = |words: &str| {
            let (number, _) = body.number_after(words)?;
            u64::try_from(number.whole).ok()
        };
        let reset = rule.reset.as_deref().and_then(|words| body.number_after(words));
        Some(Quota {
            family: super::quota::PROFILE,
            name: Cow::Borrowed(&*rule.quota),
            limit: rule.limit.as_deref().and_then(count),
            remaining: Some(count(&rule.remaining)?),
            reset: reset.map(|(number, _): (Decimal, &str)| number.in_unit(Unit::Seconds)),
            window: None,
            reset_is_absolute: false,
            reset_field: reset.map(|_| ("body", "")),
            is_of_category: false,
        })
    });
    read.collect()
}
