//! Which quota of the upstream a request spends, as far as that is known before it is sent.
//!
//! Most APIs have one quota for a credential; some have several, for parts of the API. Where the
//! profile names these, requests are told apart before they are sent; where answers name them, by
//! what earlier requests of the same shape were told. All else goes by the configured route, and
//! two routes are taken for one bucket once their answers can only be explained so.

use std::sync::Arc;
use std::time::Duration;

use super::{Context, UpstreamPolicy};
use crate::policy::hash::IdMap;
use crate::policy::line::{BucketId, CredentialId};
use crate::policy::outcome::Reading;
use crate::policy::scope::OnlyQuota;
use crate::policy::settings::{QuotaSettings, UpstreamSettings};
use crate::policy::time::MonoTime;

/// Named buckets of one upstream; an API that names more names something else.
const BUCKETS_MAX: usize = 256;
/// Shapes of requests whose bucket is remembered, at 32 bytes each.
const SHAPES_MAX: usize = 4096;
/// Two answers that name one reset differ by so much at most: whole seconds, and their journey.
const SAME_RESET: Duration = Duration::from_secs(2);

/// The buckets of one upstream.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    names: Vec<Arc<str>>,
    by_shape: IdMap<u64, BucketId>,
    /// Buckets that turned out to be another one.
    same: IdMap<BucketId, BucketId>,
}

impl Buckets {
    /// The bucket of that name; a new one if there is room.
    pub(super) fn named(&mut self, name: &str) -> Option<BucketId> {
        let at = self.names.iter().position(|known| **known == *name);
        let at = at.or_else(|| {
            (self.names.len() < BUCKETS_MAX).then(|| {
                self.names.push(name.into());
                self.names.len() - 1
            })
        });
        at.and_then(|at| u16::try_from(at).ok()).map(BucketId::Named)
    }

    /// Its name, if it has one of its own.
    pub(super) fn name(&self, id: BucketId) -> Option<&Arc<str>> {
        match id {
            BucketId::Named(at) => self.names.get(usize::from(at)),
            BucketId::Route(_) => None,
        }
    }

    /// What `id` is known to be.
    pub(super) fn root(&self, id: BucketId) -> BucketId {
        if self.same.is_empty() { id } else { self.same.get(&id).copied().unwrap_or(id) }
    }

    /// Whether some turned out to be others.
    pub(super) fn are_merged(&self) -> bool {
        !self.same.is_empty()
    }

    /// The bucket of requests of that shape, if answers named it.
    pub(super) fn of_shape(&self, shape: u64) -> Option<BucketId> {
        if self.by_shape.is_empty() { None } else { self.by_shape.get(&shape).copied() }
    }

    fn learn_shape(&mut self, shape: u64, bucket: BucketId) {
        if self.by_shape.len() < SHAPES_MAX || self.by_shape.contains_key(&shape) {
            self.by_shape.insert(shape, bucket);
        }
    }

    /// `one` is `other`, and so is whatever was known to be `one`.
    fn join(&mut self, one: BucketId, other: BucketId) {
        let other = self.root(other);
        if one == other {
            return;
        }
        for root in self.same.values_mut().filter(|root| **root == one) {
            *root = other;
        }
        self.same.insert(one, other);
    }

    /// Nothing is the same any more.
    fn part(&mut self, id: BucketId) {
        self.same.retain(|one, other| *one != id && *other != id);
    }
}

impl UpstreamPolicy {
    /// Under which id the bucket of that name is known; `None` when there are too many.
    pub fn bucket_named(&mut self, name: &str) -> Option<BucketId> {
        self.buckets.named(name)
    }

    /// What the operator says of the quotas of one bucket.
    pub(super) fn rules<'c>(
        &self,
        cfg: &'c UpstreamSettings,
        bucket: BucketId,
    ) -> Vec<&'c QuotaSettings> {
        let name = self.bucket_label(bucket);
        cfg.quotas.iter().filter(|rule| Some(&*rule.limits) == name.as_deref()).collect()
    }

    /// What the operator says of quotas of no bucket: of all that goes with a credential.
    pub(super) fn wide_rules(cfg: &UpstreamSettings) -> Vec<&QuotaSettings> {
        let is_narrow = |name: &str| {
            let mut routes = cfg.routes.iter().map(|route| &route.name);
            routes.any(|route| **route == *name) || cfg.buckets.iter().any(|it| **it == *name)
        };
        cfg.quotas.iter().filter(|rule| !is_narrow(&rule.limits)).collect()
    }

    /// What is left of a limit that was changed is judged anew; what went already still counts.
    pub(super) fn configure_quotas(&mut self, cfg: &UpstreamSettings) {
        let keys: Vec<_> = self.scopes.keys().copied().collect();
        for key in keys {
            let rules = self.rules(cfg, key.0);
            if let Some(scope) = self.scopes.get_mut(&key) {
                scope.configure(&rules, cfg.pacing);
            }
        }
        let rules = Self::wide_rules(cfg);
        for scope in self.credentials.values_mut() {
            scope.configure(&rules, cfg.pacing);
        }
        self.limits_credentials = !rules.is_empty();
    }

    /// The bare name of a bucket or of its route.
    pub(super) fn bucket_label(&self, bucket: BucketId) -> Option<Arc<str>> {
        match bucket {
            BucketId::Named(_) => self.buckets.name(bucket).cloned(),
            BucketId::Route(id) => {
                self.routes.get(usize::from(id.0)).map(|route| route.name.clone())
            }
        }
    }

    /// The bucket that an answer names, to which later requests of that shape belong.
    pub(super) fn hear_bucket(&mut self, shape: u64, reading: &Reading) -> Option<BucketId> {
        let bucket = self.buckets.named(reading.bucket.as_deref()?)?;
        self.buckets.learn_shape(shape, bucket);
        Some(bucket)
    }

    /// Finds out whether another bucket of the credential is the same one: the answers of both tell
    /// of one limit and one reset, and what is left fell by more than this one spent since `before`,
    /// its last description.
    pub(super) fn compare_quotas(
        &mut self,
        cx: &Context<'_>,
        key: (BucketId, CredentialId),
        before: Option<OnlyQuota>,
    ) {
        let Some(scope) = self.scopes.get(&key) else { return };
        let Some(told) = scope.only_quota() else { return };
        let is_near = |one: MonoTime, other: MonoTime| {
            one.since(other) <= SAME_RESET && other.since(one) <= SAME_RESET
        };
        if before.is_some_and(|before| !is_near(before.reset, told.reset)) {
            // Another window: there is nothing to compare with.
            return;
        }
        let (left, described_by) = before.map_or((told.limit, 0), |it| (it.left, it.described_by));
        let own = scope.newest().saturating_sub(described_by);
        if before.is_some_and(|before| before.limit != told.limit) || told.left > left + own {
            // Within one window what is left only falls, unless two quotas were taken for one.
            self.buckets.part(key.0);
        } else if told.left + own < left {
            let twin = self.scopes.iter().find_map(|((bucket, credential), scope)| {
                let other =
                    scope.only_quota().filter(|_| *bucket != key.0 && *credential == key.1)?;
                (other.limit == told.limit && is_near(other.reset, told.reset)).then_some(*bucket)
            });
            if let Some(twin) = twin {
                self.merge(cx, key.0, twin);
            }
        }
    }

    /// From now on `one` is `other`; what the upstream said of either holds for both.
    fn merge(&mut self, cx: &Context<'_>, one: BucketId, other: BucketId) {
        let closed: Vec<_> = self
            .scopes
            .iter()
            .filter(|((bucket, _), _)| *bucket == one)
            .filter_map(|(key, scope)| Some((key.1, scope.cooldown(cx.now)?.clone())))
            .collect();
        self.buckets.join(one, other);
        for (credential, cooldown) in closed {
            self.scope(cx, other, credential).1.restore(cx.now, cooldown);
        }
        self.tightened += 1;
        self.line.unpark_all();
    }
}
