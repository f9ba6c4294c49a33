//! Quotas as they are put together from fields, and which of them binds.

use std::borrow::Cow;
use std::time::Duration;

use super::Quota;
use super::value::Stated;

/// Quotas that one response can tell of; more are not kept.
const QUOTAS_MAX: usize = 32;

/// Family of quotas in a `RateLimit` field.
pub(super) const IETF: &str = "ratelimit field";
/// Family of quotas that a profile describes.
pub(super) const PROFILE: &str = "profile";

/// Where a reset came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) stated: Stated,
    pub(super) field: &'a str,
    pub(super) raw: &'a str,
}

/// One quota under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft<'a> {
    family: &'a str,
    name: Cow<'a, str>,
    limit: Option<u64>,
    remaining: Option<u64>,
    used: Option<u64>,
    window: Option<Duration>,
    /// A span: needs no clock, so it is preferred.
    relative: Option<Told<'a>>,
    absolute: Option<Told<'a>>,
    next: Option<Told<'a>>,
    /// A member says "not known".
    void: bool,
    is_of_category: bool,
}

impl<'a> Draft<'a> {
    /// Lines that disagree are taken at their worst.
    pub(super) fn limit(&mut self, limit: u64) {
        self.limit = Some(self.limit.map_or(limit, |old| old.min(limit)));
    }

    pub(super) fn remaining(&mut self, remaining: u64) {
        self.remaining = Some(self.remaining.map_or(remaining, |old| old.min(remaining)));
    }

    pub(super) fn used(&mut self, used: u64) {
        self.used = Some(self.used.map_or(used, |old| old.max(used)));
    }

    pub(super) fn window(&mut self, window: Duration) {
        self.window = Some(window);
    }

    pub(super) fn void(&mut self) {
        self.void = true;
    }

    pub(super) fn of_category(&mut self) {
        self.is_of_category = true;
    }

    pub(super) fn reset(&mut self, told: Told<'a>) {
        let place = if told.stated.absolute { &mut self.absolute } else { &mut self.relative };
        keep_latest(place, told);
    }

    pub(super) fn next(&mut self, told: Told<'a>) {
        keep_latest(&mut self.next, told);
    }

    fn finish(self, window_is_wait: bool) -> Option<Quota<'a>> {
        let told = self.relative.or(self.absolute).or(self.next);
        let remaining = self.remaining.or_else(|| Some(self.limit?.saturating_sub(self.used?)));
        let may_be_spent = remaining.is_none_or(|remaining| remaining == 0);
        let by_window = self.window.filter(|_| window_is_wait && may_be_spent);
        let reset = told.map(|told| told.stated.wait).or(by_window);
        let told_anything = self.limit.is_some() || remaining.is_some() || reset.is_some();
        if self.void || !told_anything {
            return None;
        }
        Some(Quota {
            family: self.family,
            name: self.name,
            limit: self.limit,
            remaining,
            reset,
            window: self.window,
            reset_is_absolute: told.is_some_and(|told| told.stated.absolute),
            reset_field: told.map(|told| (told.field, told.raw)),
            is_of_category: self.is_of_category,
        })
    }
}

fn keep_latest<'a>(place: &mut Option<Told<'a>>, told: Told<'a>) {
    if place.is_none_or(|old| old.stated.wait < told.stated.wait) {
        *place = Some(told);
    }
}

/// All quotas under construction.
#[derive(Debug, Default)]
pub(super) struct Drafts<'a>(Vec<Draft<'a>>);

impl<'a> Drafts<'a> {
    /// Changes the quota of that family and name; a new one if there is none and still room.
    pub(super) fn at(
        &mut self,
        family: &'a str,
        name: Cow<'a, str>,
        change: impl FnOnce(&mut Draft<'a>),
    ) {
        let Self(drafts) = self;
        let known = drafts.iter_mut().find(|draft| draft.family == family && draft.name == name);
        if let Some(draft) = known {
            change(draft);
        } else if drafts.len() < QUOTAS_MAX {
            let mut draft = Draft { family, name, ..Draft::default() };
            change(&mut draft);
            drafts.push(draft);
        }
    }

    /// The limit and window of a policy, for the quota of its name.
    pub(super) fn policy(&mut self, name: &str, limit: Option<u64>, window: Option<Duration>) {
        let Self(drafts) = self;
        if let Some(draft) =
            drafts.iter_mut().find(|draft| draft.family == IETF && draft.name == name)
        {
            draft.limit = draft.limit.or(limit);
            draft.window = draft.window.or(window);
        }
    }

    pub(super) fn finish(self, window_is_wait: bool) -> Vec<Quota<'a>> {
        let Self(drafts) = self;
        let finished = drafts.into_iter().filter_map(|draft| draft.finish(window_is_wait));
        let mut quotas: Vec<_> = finished.collect();
        complete(&mut quotas);
        quotas
    }
}

/// Half a quota may stand in one family and the other half in another; a whole one in both.
fn complete(quotas: &mut Vec<Quota<'_>>) {
    if quotas.len() < 2 {
        return;
    }
    let told = quotas.clone();
    for quota in quotas.iter_mut() {
        let sibling = |other: &&Quota<'_>| {
            let one_is_unnamed = quota.name.is_empty() || other.name.is_empty();
            let one_is_ietf = quota.family == IETF || other.family == IETF;
            other.family != quota.family
                && (other.name == quota.name || (one_is_unnamed && one_is_ietf))
                && agree(other.remaining, quota.remaining)
        };
        let limit = told.iter().filter(sibling).find_map(|other| other.limit);
        let reset = told.iter().filter(sibling).find(|other| other.reset.is_some());
        if quota.remaining.is_some() {
            quota.limit = quota.limit.or(limit);
            if let (None, Some(other)) = (quota.reset, reset) {
                quota.reset = other.reset;
                quota.reset_is_absolute = other.reset_is_absolute;
                quota.reset_field = other.reset_field;
            }
        }
    }
    // What only completed another says nothing by itself any more.
    if quotas.iter().any(|quota| quota.remaining.is_some()) {
        let whole: Vec<_> = quotas
            .iter()
            .filter(|quota| quota.remaining.is_some())
            .map(|quota| (quota.family, quota.name.clone()))
            .collect();
        quotas.retain(|quota| {
            quota.remaining.is_some()
                || !whole
                    .iter()
                    .any(|(family, name)| *family != quota.family && *name == quota.name)
        });
    }
}

fn agree(one: Option<u64>, other: Option<u64>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// The quota that binds: an exhausted one with the latest reset, else the one with the smallest
/// share left, else whatever is told; among those that `applies` to.
pub(super) fn binding<'q, 'a>(
    quotas: &'q [Quota<'a>],
    applies: impl Fn(&Quota<'a>) -> bool,
) -> Option<&'q Quota<'a>> {
    let share_left = |quota: &Quota<'_>| match (quota.remaining, quota.limit) {
        (Some(0), _) => 0.0,
        (Some(remaining), Some(limit)) => remaining as f64 / limit.max(1) as f64,
        (Some(_), None) => f64::MAX,
        (None, _) => f64::INFINITY,
    };
    quotas.iter().filter(|quota| applies(quota)).min_by(|a, b| {
        share_left(a)
            .total_cmp(&share_left(b))
            .then_with(|| b.reset.cmp(&a.reset))
            .then_with(|| b.limit.is_some().cmp(&a.limit.is_some()))
    })
}
