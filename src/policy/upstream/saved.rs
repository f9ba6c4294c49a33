//! What of an upstream is worth keeping over a restart, as plain data, and how to go on from it.
//!
//! Times are those of this process: whoever stores them converts, and sees to it that a clock that
//! jumped makes no pause longer than it was. What cannot be found again in the configuration is
//! left out.

use std::sync::Arc;
use std::time::Duration;

use super::{Context, Forced, Lock, UpstreamPolicy};
use crate::policy::breaker::{Circuit, SavedCircuit};
use crate::policy::line::{BucketId, CredentialId, RouteId};
use crate::policy::outcome::QuotaReading;
use crate::policy::scope::{Cooldown, Learned, Scope, SpentQuota};
use crate::policy::time::MonoTime;

/// Everything that is kept of one upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedUpstream {
    /// Those that are not just closed.
    pub breakers: Vec<SavedBreaker>,
    /// Pauses in force.
    pub cooldowns: Vec<(SavedScope, Cooldown)>,
    /// Quotas as last described, with what may still go.
    pub quotas: Vec<SavedQuota>,
    /// What went of limits that the operator set.
    pub spent: Vec<(SavedScope, SpentQuota)>,
    /// What refusals taught of limits that nobody tells.
    pub learned: Vec<(SavedScope, Learned)>,
    /// Credentials that the upstream does not accept.
    pub locks: Vec<(CredentialId, Lock)>,
}

/// A breaker that is not just closed.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedBreaker {
    /// `None` for the upstream's own.
    pub route: Option<Arc<str>>,
    /// Its state.
    pub circuit: SavedCircuit,
    /// What a person gave as the reason for overriding it.
    pub reason: Option<Arc<str>>,
}

/// Whom a word of the upstream covers, by names that mean the same in the next process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SavedScope {
    /// Everybody.
    Whole,
    /// One credential.
    Credential(CredentialId),
    /// One credential on one route.
    Route(Arc<str>, CredentialId),
    /// One credential in one of the API's own buckets.
    Bucket(Arc<str>, CredentialId),
}

/// A quota as last described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedQuota {
    /// Whom it covers.
    pub scope: SavedScope,
    /// What tells it from others there.
    pub name: Option<Arc<str>>,
    /// Requests per window.
    pub limit: Option<u64>,
    /// What may still go.
    pub remaining: u64,
    /// When it is renewed.
    pub reset: Option<MonoTime>,
}

impl UpstreamPolicy {
    /// What is worth keeping now.
    pub fn saved(&self, now: MonoTime) -> SavedUpstream {
        let own = self.breaker.saved(now).map(|circuit| SavedBreaker {
            route: None,
            circuit,
            reason: reason(self.forced.as_ref(), now),
        });
        let routes = self.routes.iter().filter_map(|route| {
            Some(SavedBreaker {
                route: Some(route.name.clone()),
                circuit: route.breaker.as_ref()?.saved(now)?,
                reason: reason(route.forced.as_ref(), now),
            })
        });
        let saved_scope = |(bucket, credential): (BucketId, CredentialId)| {
            let name = self.bucket_label(bucket)?;
            Some(match bucket {
                BucketId::Route(_) => SavedScope::Route(name, credential),
                BucketId::Named(_) => SavedScope::Bucket(name, credential),
            })
        };
        let whole = std::iter::once((Some(SavedScope::Whole), &self.whole));
        let wide = self
            .credentials
            .iter()
            .map(|(credential, scope)| (Some(SavedScope::Credential(*credential)), scope));
        let narrow = self.scopes.iter().map(|(key, scope)| (saved_scope(*key), scope));
        let scopes = whole.chain(wide).chain(narrow);
        let scopes: Vec<(SavedScope, &Scope)> =
            scopes.filter_map(|(key, scope)| Some((key?, scope))).collect();
        let cooldowns = scopes
            .iter()
            .filter_map(|(key, scope)| Some((key.clone(), scope.cooldown(now)?.clone())));
        let quotas = self.scopes.iter().flat_map(|(key, scope)| {
            let told = scope.quotas(now).filter(|quota| quota.is_told);
            told.filter_map(|quota| {
                Some(SavedQuota {
                    scope: saved_scope(*key)?,
                    name: quota.name,
                    limit: quota.limit,
                    remaining: quota.left,
                    reset: quota.reset,
                })
            })
        });
        let spent = scopes
            .iter()
            .flat_map(|(key, scope)| scope.spent(now).map(move |spent| (key.clone(), spent)));
        let learned = scopes
            .iter()
            .flat_map(|(key, scope)| scope.learned(now).map(move |learned| (key.clone(), learned)));
        SavedUpstream {
            spent: spent.collect(),
            learned: learned.collect(),
            breakers: own.into_iter().chain(routes).collect(),
            cooldowns: cooldowns.collect(),
            quotas: quotas.collect(),
            locks: self.locks.all().collect(),
        }
    }

    /// Goes on where another process stopped. To be called before anybody joins.
    pub fn restore(&mut self, cx: &Context<'_>, saved: &SavedUpstream) {
        let now = cx.now;
        for SavedBreaker { route, circuit, reason } in &saved.breakers {
            let forced = match circuit.circuit {
                Circuit::ForcedOpen { until } | Circuit::ForcedClosed { until } if now < until => {
                    reason.clone().map(|reason| Forced { reason, until })
                }
                Circuit::Closed
                | Circuit::Open { .. }
                | Circuit::HalfOpen
                | Circuit::ForcedOpen { .. }
                | Circuit::ForcedClosed { .. } => None,
            };
            match route {
                None => {
                    self.breaker.restore(now, circuit);
                    self.forced = forced;
                }
                Some(name) => {
                    let route = self.routes.iter_mut().find(|route| route.name == *name);
                    if let Some(route) = route
                        && let Some(breaker) = &mut route.breaker
                    {
                        breaker.restore(now, circuit);
                        route.forced = forced;
                    }
                }
            }
        }
        for (key, cooldown) in &saved.cooldowns {
            if let Some(scope) = self.scope_of(cx, key) {
                scope.restore(now, cooldown.clone());
            }
        }
        for quota in &saved.quotas {
            // What has been renewed meanwhile says nothing any more.
            let Some(reset) = quota.reset.filter(|reset| now < *reset) else { continue };
            let Some((bucket, credential)) = self.found(&quota.scope) else { continue };
            // The margin was added when it was learned, and is added again; it is upwards only.
            let wait: Duration = reset.since(now);
            let reading = QuotaReading {
                name: quota.name.as_deref().map(Into::into),
                limit: quota.limit,
                remaining: quota.remaining,
                reset: Some(wait),
                window: None,
            };
            self.scope(cx, bucket, credential).1.learn(now, 0, &[reading], false);
        }
        for (key, spent) in saved.spent.iter().filter(|(_, spent)| now < spent.until) {
            let scope = match key {
                SavedScope::Credential(credential) => self.wide_scope(now, cx.cfg, *credential),
                SavedScope::Whole | SavedScope::Route(..) | SavedScope::Bucket(..) => {
                    let key = self.found(key);
                    key.map(|(bucket, owner)| self.scope(cx, bucket, owner).1)
                }
            };
            if let Some(scope) = scope {
                scope.restore_spent(now, spent);
            }
        }
        for (key, learned) in saved.learned.iter().filter(|(_, learned)| now < learned.until()) {
            if let Some(scope) = self.scope_of(cx, key) {
                scope.restore_learned(now, *learned);
            }
        }
        for (credential, lock) in saved.locks.iter().filter(|(_, lock)| now < lock.until) {
            self.locks.restore(*credential, *lock);
        }
    }

    /// The scope that is meant, made if there is none yet; `None` if its route is gone.
    fn scope_of(&mut self, cx: &Context<'_>, key: &SavedScope) -> Option<&mut Scope> {
        match key {
            SavedScope::Whole => Some(&mut self.whole),
            SavedScope::Credential(credential) => {
                Some(self.credentials.entry(*credential).or_default())
            }
            SavedScope::Route(..) | SavedScope::Bucket(..) => {
                let (bucket, credential) = self.found(key)?;
                Some(self.scope(cx, bucket, credential).1)
            }
        }
    }

    /// The scope of that name, if there is such a route, or room for such a bucket.
    fn found(&mut self, scope: &SavedScope) -> Option<(BucketId, CredentialId)> {
        match scope {
            SavedScope::Whole | SavedScope::Credential(_) => None,
            SavedScope::Route(name, credential) => {
                let at = self.routes.iter().position(|route| route.name == *name)?;
                Some((BucketId::Route(RouteId(u16::try_from(at).ok()?)), *credential))
            }
            SavedScope::Bucket(name, credential) => Some((self.buckets.named(name)?, *credential)),
        }
    }
}

fn reason(forced: Option<&Forced>, now: MonoTime) -> Option<Arc<str>> {
    forced.filter(|forced| now < forced.until).map(|forced| forced.reason.clone())
}
