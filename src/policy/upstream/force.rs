//! Manual override: a person knows better, for a while, and says why.

use std::sync::Arc;

use super::{Context, Event, UpstreamPolicy};
use crate::policy::breaker::Force;
use crate::policy::line::{BucketId, CredentialId};
use crate::policy::time::MonoTime;

/// A breaker that was set by hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Forced {
    /// Given with the order.
    pub reason: Arc<str>,
    /// When the breaker decides again by itself.
    pub until: MonoTime,
}

impl UpstreamPolicy {
    /// Opens, closes or frees a breaker; `route` names one that has its own. False if it has not.
    pub fn force(
        &mut self,
        cx: &mut Context<'_>,
        route: Option<&str>,
        to: Force,
        until: MonoTime,
        reason: &str,
    ) -> bool {
        let forced = match to {
            Force::Auto => None,
            Force::Open | Force::Closed => Some(Forced { reason: reason.into(), until }),
        };
        let (name, transition) = match route {
            None => {
                self.forced = forced;
                (None, self.breaker.force(cx.now, to, until))
            }
            Some(name) => {
                let own = self.routes.iter_mut().find(|route| *route.name == *name);
                let Some((route, breaker)) = own.and_then(|route| {
                    let breaker = route.breaker.as_mut()?;
                    route.forced = forced;
                    Some((route.name.clone(), breaker))
                }) else {
                    return false;
                };
                (Some(route), breaker.force(cx.now, to, until))
            }
        };
        self.events.extend(transition.map(|transition| Event::Breaker(name, transition)));
        self.tightened += 1;
        self.line.unpark_all();
        self.pump(cx);
        true
    }

    /// Ends pauses by hand: all of them, or those of one route or bucket. Says how many there were.
    pub fn clear_cooldowns(&mut self, cx: &mut Context<'_>, route: Option<&str>) -> usize {
        let now = cx.now;
        let (routes, buckets) = (&self.routes, &self.buckets);
        let is_meant = |bucket: BucketId| {
            route.is_none_or(|name| match bucket {
                BucketId::Route(id) => {
                    routes.get(usize::from(id.0)).is_some_and(|route| *route.name == *name)
                }
                BucketId::Named(_) => buckets.name(bucket).is_some_and(|it| **it == *name),
            })
        };
        let mut cleared = 0;
        let narrow = self.scopes.iter_mut().filter(|((id, _), _)| is_meant(*id));
        for scope in narrow.map(|(_, scope)| scope) {
            if scope.cooldown(now).is_some() || scope.quotas(now).any(|quota| quota.left == 0) {
                scope.clear(now);
                cleared += 1;
            }
        }
        if route.is_none() {
            let wide = self.credentials.values_mut().chain(std::iter::once(&mut self.whole));
            for scope in wide.filter(|scope| scope.cooldown(now).is_some()) {
                scope.clear(now);
                cleared += 1;
            }
        }
        self.line.unpark_all();
        self.pump(cx);
        cleared
    }

    /// Whose quota a header belongs to is known; the secret itself is not.
    pub fn is_anonymous(credential: CredentialId) -> bool {
        credential == CredentialId::default()
    }
}
