//! Manual override: a person knows better, for a while, and says why.

use std::sync::Arc;

use super::{Context, Event, UpstreamPolicy, credential_name};
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

    /// Ends pauses and locks by hand: all of them, or those of one scope as it is shown; `route
    /// search` and plain `search` mean that of every credential. Says how many there were.
    pub fn clear_cooldowns(&mut self, cx: &mut Context<'_>, scope: Option<&str>) -> usize {
        let now = cx.now;
        let is = |shown: &str| scope.is_none_or(|scope| scope == shown);
        let is_meant = |key: &(BucketId, CredentialId)| {
            let everybodys = self.scope_name((key.0, CredentialId::default()));
            let plain = everybodys.split_once(' ').map_or("", |(_, name)| name);
            is(plain) || is(&everybodys) || is(&self.scope_name(*key))
        };
        let meant: Vec<_> = self.scopes.keys().filter(|key| is_meant(key)).copied().collect();
        let mut cleared = 0;
        for key in &meant {
            let Some(scope) = self.scopes.get_mut(key) else { continue };
            if scope.cooldown(now).is_some() || scope.quotas(now).any(|quota| quota.left == 0) {
                scope.clear(now);
                cleared += 1;
            }
        }
        let wide = self.credentials.iter_mut().filter(|(id, _)| is(&credential_name(**id)));
        let whole = is("upstream").then_some(&mut self.whole);
        for scope in wide.map(|(_, scope)| scope).chain(whole) {
            if scope.cooldown(now).is_some() {
                scope.clear(now);
                cleared += 1;
            }
        }
        let locked: Vec<_> =
            self.locks.all().map(|(id, _)| id).filter(|id| is(&credential_name(*id))).collect();
        for credential in locked {
            self.unlock(cx, credential);
            cleared += 1;
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
