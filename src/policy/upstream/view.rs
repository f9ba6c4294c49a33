//! The state as plain data: to show, to measure and to compare.

use std::sync::Arc;
use std::time::Duration;

use super::{Context, Event, Forced, UpstreamPolicy, route_settings};
use crate::policy::breaker::Circuit;
use crate::policy::line::{Band, BucketId, CredentialId, RouteId};
use crate::policy::outcome::HintSource;
use crate::policy::scope::Scope;
use crate::policy::time::MonoTime;

/// One upstream at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamImage {
    /// The upstream's own breaker first, then those of routes.
    pub breakers: Vec<BreakerImage>,
    /// Pauses in force.
    pub cooldowns: Vec<CooldownImage>,
    /// Quotas as last described.
    pub quotas: Vec<QuotaImage>,
    /// Credentials that the upstream does not accept, and when one may try again.
    pub locks: Vec<(String, MonoTime)>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// The lowest limit found from refusals without a hint.
    pub adaptive_limit: Option<u32>,
    /// Exchanges in line.
    pub queued: usize,
    /// How many of them are in which band, from first to last, without those where nobody waits.
    pub queued_by_band: Vec<(Band, u32)>,
    /// Share of the retry budget that is left.
    pub budget_left: f64,
    /// Routes with their names and attempts in flight.
    pub routes: Vec<(Arc<str>, u32)>,
}

/// A breaker at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerImage {
    /// `None` for the upstream's own.
    pub route: Option<Arc<str>>,
    /// What it shows.
    pub circuit: Circuit,
    /// Share of failures in its window.
    pub failure_ratio: f64,
    /// Set by hand.
    pub forced: Option<Forced>,
}

/// A pause at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CooldownImage {
    /// `upstream`, `credential …`, `route search`.
    pub scope: String,
    /// When it ends.
    pub until: MonoTime,
    /// When the upstream said so.
    pub received: MonoTime,
    /// What it said.
    pub wait: Duration,
    /// In which field.
    pub source: Option<HintSource>,
    /// What stood there.
    pub raw: Option<Arc<str>>,
    /// Hours away.
    pub exhausted: bool,
}

/// A quota at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaImage {
    /// As in [`CooldownImage::scope`].
    pub scope: String,
    /// What tells it from others of the scope.
    pub name: Option<Arc<str>>,
    /// The bucket or route, from a closed set.
    pub bucket: Arc<str>,
    /// Whether answers told of it; else only the operator did.
    pub is_told: bool,
    /// Requests per window.
    pub limit: Option<u64>,
    /// What may still go.
    pub remaining: u64,
    /// When it is renewed.
    pub reset: Option<MonoTime>,
}

impl UpstreamPolicy {
    /// Everything there is to see.
    pub fn image(&self, cx: &Context<'_>) -> UpstreamImage {
        let retry = cx.cfg.routes.first().map(|route| &route.retry);
        UpstreamImage {
            breakers: self.breaker_images(cx),
            cooldowns: self.cooldown_images(cx.now),
            quotas: self.quota_images(cx.now),
            locks: self.lock_images(cx.now),
            in_flight: self.in_flight,
            adaptive_limit: self.scopes.values().filter_map(|scope| scope.adaptive.limit()).min(),
            queued: self.line.len(),
            queued_by_band: self.line.queued(),
            budget_left: retry.map_or(1.0, |retry| {
                let (ratio, floor) = (retry.budget_ratio, retry.budget_floor_per_minute);
                self.budget.remaining_ratio(ratio, floor, cx.now)
            }),
            routes: self.routes.iter().map(|route| (route.name.clone(), route.in_flight)).collect(),
        }
    }

    /// The pause that covers this scope, the widest first.
    pub fn cooldown_image(
        &self,
        now: MonoTime,
        key: (BucketId, CredentialId),
    ) -> Option<CooldownImage> {
        let wide = self.credentials.get(&key.1).map(|scope| (credential_name(key.1), scope));
        let narrow = self.scopes.get(&key).map(|scope| (self.scope_name(key), scope));
        std::iter::once(("upstream".to_owned(), &self.whole))
            .chain(wide)
            .chain(narrow)
            .find_map(|(name, scope)| cooldown(now, name, scope))
    }

    fn breaker_images(&self, cx: &Context<'_>) -> Vec<BreakerImage> {
        let own = BreakerImage {
            route: None,
            circuit: self.breaker.circuit(cx.now),
            failure_ratio: self.breaker.failure_ratio(&cx.cfg.breaker, cx.now),
            forced: self.forced.clone().filter(|forced| cx.now < forced.until),
        };
        let routes = self.routes.iter().enumerate().filter_map(|(at, route)| {
            let breaker = route.breaker.as_ref()?;
            let id = RouteId(u16::try_from(at).ok()?);
            let settings = route_settings(cx.cfg, &self.routes, id)?.breaker.as_ref()?;
            Some(BreakerImage {
                route: Some(route.name.clone()),
                circuit: breaker.circuit(cx.now),
                failure_ratio: breaker.failure_ratio(settings, cx.now),
                forced: route.forced.clone().filter(|forced| cx.now < forced.until),
            })
        });
        std::iter::once(own).chain(routes).collect()
    }

    /// Tells what a scope's limits are, now that one of them is news.
    pub(super) fn tell_limits(&mut self, now: MonoTime, key: (BucketId, CredentialId)) {
        let scope_name = self.scope_name(key);
        let Some(scope) = self.scopes.get(&key) else { return };
        let told = scope.quotas(now).filter(|quota| quota.is_told);
        let told = told.map(|quota| Event::Quota { scope: scope_name.clone(), quota });
        self.events.extend(told);
    }

    fn lock_images(&self, now: MonoTime) -> Vec<(String, MonoTime)> {
        let locked = self.locks.all().filter(|(_, lock)| now < lock.until);
        let mut images: Vec<_> =
            locked.map(|(credential, lock)| (credential_name(credential), lock.until)).collect();
        images.sort();
        images
    }

    fn cooldown_images(&self, now: MonoTime) -> Vec<CooldownImage> {
        let whole = std::iter::once(("upstream".to_owned(), &self.whole));
        let wide = self.credentials.iter().map(|(id, scope)| (credential_name(*id), scope));
        let narrow = self.scopes.iter().map(|(key, scope)| (self.scope_name(*key), scope));
        let mut images: Vec<_> = whole
            .chain(wide)
            .chain(narrow)
            .filter_map(|(name, scope)| cooldown(now, name, scope))
            .collect();
        images.sort_by(|a, b| a.scope.cmp(&b.scope));
        images
    }

    fn quota_images(&self, now: MonoTime) -> Vec<QuotaImage> {
        let wide = self.credentials.iter().map(|(id, scope)| {
            let bucket: Arc<str> = "credential".into();
            (credential_name(*id), bucket, scope)
        });
        let narrow = self.scopes.iter().map(|(key, scope)| {
            let bucket = self.bucket_label(key.0).unwrap_or_else(|| "default".into());
            (self.scope_name(*key), bucket, scope)
        });
        let mut images: Vec<_> = wide
            .chain(narrow)
            .flat_map(|(name, bucket, scope)| {
                scope.quotas(now).map(move |quota| QuotaImage {
                    scope: name.clone(),
                    name: quota.name,
                    bucket: bucket.clone(),
                    is_told: quota.is_told,
                    limit: quota.limit,
                    remaining: quota.left,
                    reset: quota.reset,
                })
            })
            .collect();
        images.sort_by(|a, b| (&a.scope, &a.name).cmp(&(&b.scope, &b.name)));
        images
    }

    pub(super) fn scope_name(&self, (bucket, credential): (BucketId, CredentialId)) -> String {
        let kind = match bucket {
            BucketId::Route(_) => "route",
            BucketId::Named(_) => "bucket",
        };
        let name = self.bucket_label(bucket);
        let name = name.as_deref().unwrap_or("default");
        if Self::is_anonymous(credential) {
            format!("{kind} {name}")
        } else {
            format!("{kind} {name}, {}", credential_name(credential))
        }
    }
}

fn cooldown(now: MonoTime, scope_name: String, scope: &Scope) -> Option<CooldownImage> {
    let cooldown = scope.cooldown(now)?;
    Some(CooldownImage {
        scope: scope_name,
        until: cooldown.until,
        received: cooldown.received,
        wait: cooldown.wait,
        source: cooldown.source,
        raw: cooldown.raw.clone(),
        exhausted: cooldown.exhausted,
    })
}

/// The name of the scope of a credential.
pub fn credential_name(credential: CredentialId) -> String {
    if UpstreamPolicy::is_anonymous(credential) {
        return "without a credential".to_owned();
    }
    format!("credential {}", credential_digits(credential))
}

/// A few digits of a salted hash: enough to tell two apart, useless to guess either.
pub fn credential_digits(credential: CredentialId) -> String {
    format!("{:06x}", credential.0 >> 40)
}
