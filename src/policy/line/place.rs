//! What an exchange needs, and what can be in its way.

use std::sync::Arc;

use super::flow::{Band, FlowId};
use crate::policy::limits::PoolId;
use crate::policy::outcome::{Safety, WaitKind};
use crate::policy::time::MonoTime;

/// A ticket's number in the order of arrival; a repeated attempt keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub u64);

/// A route of one upstream; stays the same across reloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

/// What shares a quota of the upstream, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BucketId {
    /// A configured route.
    Route(RouteId),
    /// One that the API's documentation or its answers name.
    Named(u16),
}

impl Default for BucketId {
    fn default() -> Self {
        Self::Route(RouteId::default())
    }
}

/// Salted hash of whatever identifies the caller to the upstream; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId(pub u64);

impl CredentialId {
    /// Stands for those whose scope found no room of its own.
    pub const STRANGERS: Self = Self(u64::MAX);
}

/// What an exchange needs; equal needs share a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Needs {
    /// The route it goes by.
    pub route: RouteId,
    /// Which quota it spends.
    pub bucket: BucketId,
    /// Whose quota it spends.
    pub credential: CredentialId,
    /// Which probes it may serve as.
    pub safety: Safety,
    /// Concurrency keys, sorted.
    pub pools: Arc<[PoolId]>,
    /// Its number in each of these whose order is strict; `None` if none is.
    pub numbers: Option<Arc<[(PoolId, u64)]>>,
    /// Whose fair share it uses.
    pub flow: FlowId,
    /// How urgent it is.
    pub band: Band,
    /// Units of quota that it spends, and what its turn costs its flow; at least 1.
    pub cost: u32,
}

impl Needs {
    /// Its number in this pool, if the order there is strict.
    pub fn number_in(&self, pool: PoolId) -> Option<u64> {
        let numbers = self.numbers.as_deref().unwrap_or_default();
        numbers.iter().find(|(of, _)| *of == pool).map(|(_, number)| *number)
    }
}

/// Where a lane is parked, in the order in which a head meets these. What it meets there is the same
/// for every lane that gets as far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The breaker that governs the route.
    Breaker(RouteId, Safety),
    /// What the upstream said to everybody.
    Whole,
    /// A credential that it does not accept.
    Lock(CredentialId),
    /// What it said to a credential, whatever is asked.
    Credential(CredentialId),
    /// What it said to (bucket, credential).
    Scope(BucketId, CredentialId),
    /// What a band leaves there for those that are more urgent.
    Reserve(BucketId, CredentialId, Band),
    /// The upstream's own limit.
    House,
    /// A route's limit.
    Route(RouteId),
    /// A key, or the process.
    Pool(PoolId),
}

impl Place {
    /// Whether time or the upstream's word opens it, for all or for some of those who wait there:
    /// whoever went is followed by the next, until one is held.
    pub(super) fn is_barrier(self) -> bool {
        match self {
            Self::Breaker(..)
            | Self::Whole
            | Self::Lock(_)
            | Self::Credential(_)
            | Self::Scope(..)
            | Self::Reserve(..) => true,
            Self::House | Self::Route(_) | Self::Pool(_) => false,
        }
    }

    /// Whether whoever waits here has passed `other`.
    pub(super) fn is_behind(self, other: Self) -> bool {
        std::mem::discriminant(&self) != std::mem::discriminant(&other) && self > other
    }

    /// Whether this stands in the way of an exchange with these needs. Strangers share a scope, so
    /// theirs may stand in the way of anybody who spends of that bucket.
    pub(super) fn covers(self, needs: &Needs) -> bool {
        match self {
            Self::Breaker(route, safety) => needs.route == route && needs.safety == safety,
            Self::Whole | Self::House => true,
            Self::Lock(credential) | Self::Credential(credential) => needs.credential == credential,
            Self::Scope(bucket, credential) => {
                let is_shared = credential == CredentialId::STRANGERS;
                needs.bucket == bucket && (is_shared || needs.credential == credential)
            }
            Self::Reserve(bucket, credential, band) => {
                needs.bucket == bucket && needs.credential == credential && needs.band == band
            }
            Self::Route(route) => needs.route == route,
            Self::Pool(pool) => needs.pools.contains(&pool),
        }
    }
}

/// What the head of a lane met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Where to park.
    pub place: Place,
    /// When to look again at the latest.
    pub until: Option<MonoTime>,
    /// To what the wait is charged.
    pub kind: WaitKind,
    /// For the refusal, should it come to that.
    pub why: Why,
}

impl Obstacle {
    /// The moment before which it is certainly in the way.
    pub fn known_end(&self) -> Option<MonoTime> {
        match self.why {
            // A wrong secret is not healed by waiting.
            Why::Locked => Some(MonoTime::MAX),
            Why::Breaker | Why::Cooldown | Why::Exhausted | Why::Pacing => self.until,
            Why::Probe | Why::Capacity | Why::Pool(_) => None,
        }
    }
}

/// Why nobody can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Everything that may be in flight is.
    Capacity,
    /// A key or the process is at its limit.
    Pool(PoolId),
    /// The breaker is open.
    Breaker,
    /// The breaker is half-open, and the place of its probe is not free. It is over when the probe
    /// is, most often long before its time.
    Probe,
    /// The upstream does not accept the credential.
    Locked,
    /// The upstream named a time.
    Cooldown,
    /// … and it is hours away.
    Exhausted,
    /// No place in the quota.
    Pacing,
}
