//! How long a number of requests would take in one scope, from the same state that decides about
//! each of them.

use std::sync::Arc;
use std::time::Duration;

use super::Scope;
use super::cycle::Phase;
use crate::policy::time::MonoTime;

/// What a number of requests waits for most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Nothing but their own duration and how many may be in flight.
    Concurrency,
    /// A quota, by its name if it has one.
    Quota(Option<Arc<str>>),
    /// What was learned from refusals.
    Refusals,
    /// "Nothing before this time."
    Cooldown,
    /// The breaker.
    Breaker,
    /// A credential that is not accepted.
    Credential,
}

impl Bound {
    /// The quota's name, if it is one that has a name.
    pub fn quota(&self) -> Option<&str> {
        match self {
            Self::Quota(name) => name.as_deref(),
            Self::Concurrency
            | Self::Refusals
            | Self::Cooldown
            | Self::Breaker
            | Self::Credential => None,
        }
    }

    /// The word in JSON and for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Quota(_) => "quota",
            Self::Refusals => "refusals",
            Self::Cooldown => "cooldown",
            Self::Breaker => "breaker",
            Self::Credential => "credential",
        }
    }
}

impl Scope {
    /// How long `units` take, and what they wait for most. `fill` says how long requests take of
    /// which none has to wait.
    pub fn forecast(
        &self,
        now: MonoTime,
        units: u64,
        fill: impl Fn(u64) -> Duration,
    ) -> (Duration, Bound) {
        let opens = self.cooldown(now).map_or(now, |cooldown| cooldown.until);
        let pause = opens.since(now);
        let quotas = self
            .quotas
            .forecasts(now, units, self.spent, &fill)
            .map(|(name, took)| (took, Bound::Quota(name)));
        let refusals = self.learned.filter(|_| !matches!(self.phase, Phase::Free)).map(|learned| {
            // So many were served from one opening to the next.
            let cycles = (units as f64 / f64::from(learned.served.max(1))).max(0.0);
            (learned.length.mul_f64(cycles.min(1e9)), Bound::Refusals)
        });
        let free = fill(units);
        let least = if pause.is_zero() {
            (free, Bound::Concurrency)
        } else {
            (pause + free, Bound::Cooldown)
        };
        // A pause and a quota end together; what is longer holds.
        quotas
            .chain(refusals)
            .fold(least, |most, other| if other.0 > most.0 { other } else { most })
    }

    /// When it was last served.
    pub fn last_success(&self) -> MonoTime {
        self.last_success
    }
}
