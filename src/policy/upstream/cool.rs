//! What one "not before" covers.

use std::time::Duration;

use super::{Context, Event, Permit, UpstreamPolicy};
use crate::policy::line::{BucketId, Place};
use crate::policy::outcome::{Hint, Reach};
use crate::policy::time::MonoTime;

/// Two route groups refused within this time speak for all of them.
const ESCALATION_WINDOW: Duration = Duration::from_secs(10);

/// Whom a hint covers once two route groups have heard the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wide {
    Credential,
    Upstream,
}

impl UpstreamPolicy {
    /// One hint parks what it covers: what the upstream says, or else the bucket, and all of them
    /// once two say the same. What a bucket's own name is given to is evidence of that one only.
    #[expect(clippy::too_many_arguments, reason = "each is a fact of its own about one answer")]
    pub(super) fn cool_down(
        &mut self,
        cx: &Context<'_>,
        permit: &Permit,
        bucket: BucketId,
        hint: &Hint,
        exhausted: bool,
        reach: Reach,
        wide: Wide,
    ) {
        let (now, own) = (cx.now, (bucket, permit.scope.1));
        let others_too = self.scopes.iter().any(|((other, credential), scope)| {
            let is_group = |bucket: &BucketId| matches!(bucket, BucketId::Route(_));
            *other != bucket
                && (wide == Wide::Upstream || (is_group(other) && is_group(&bucket)))
                && (wide == Wide::Upstream || *credential == permit.scope.1)
                && scope.last_refused() > MonoTime::ZERO
                && now.since(scope.last_refused()) <= ESCALATION_WINDOW
        });
        let (key, scope) = self.scope(cx, bucket, permit.scope.1);
        scope.cool_down(now, hint, exhausted);
        self.line.raise(Place::Scope(key.0, key.1));
        if self.buckets.are_merged() {
            // Lanes of the others wait for it, too, under names of their own.
            self.line.unpark_all();
        }
        let reach = match (reach, others_too, wide) {
            (Reach::Upstream, _, _) | (_, true, Wide::Upstream) => Reach::Upstream,
            (Reach::Credential, _, _) | (_, true, Wide::Credential) => Reach::Credential,
            (Reach::Bucket, false, _) => Reach::Bucket,
        };
        match reach {
            Reach::Bucket => {}
            Reach::Upstream => {
                self.whole.cool_down(now, hint, exhausted);
                self.line.raise(Place::Whole);
            }
            Reach::Credential => {
                self.make_wide_scope(now, cx.cfg, permit.credential);
                if let Some(scope) = self.credentials.get_mut(&permit.credential) {
                    scope.cool_down(now, hint, exhausted);
                    self.line.raise(Place::Credential(permit.credential));
                }
            }
        }
        self.tightened += 1;
        if let Some(image) = self.cooldown_image(now, own) {
            self.events.push(Event::Cooldown(image));
        }
    }
}
