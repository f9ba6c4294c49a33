//! What an exchange holds in its hand: a place in line, the right to send, a place in flight; and
//! what it is told.

use std::sync::Arc;
use std::time::Duration;

use super::UpstreamSettings;
use crate::policy::breaker::{Admission, Transition};
use crate::policy::limits::{Limits, PoolId};
use crate::policy::line::{BucketId, CredentialId, Needs, Obstacle, RouteId, TicketId, Why};
use crate::policy::outcome::{WaitKind, Waits};
use crate::policy::scope::QuotaState;
use crate::policy::time::MonoTime;

use super::view::CooldownImage;

/// What every call needs besides the state: the rules, the shared limits and the time.
#[derive(Debug)]
pub struct Context<'a> {
    /// The upstream's settings now in force.
    pub cfg: &'a UpstreamSettings,
    /// Limits that span upstreams.
    pub limits: &'a mut Limits,
    /// Read once, by the caller.
    pub now: MonoTime,
}

/// What an exchange wants of an upstream.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Route, bucket, credential, safety and keys.
    pub needs: Needs,
    /// Hash of the request's shape: its method and its path without ids. Where answers name
    /// buckets, requests of one shape belong to one.
    pub shape: u64,
    /// Longest it may be held in all its waits together.
    pub wait_max: Duration,
    /// No wait ends later; [`MonoTime::MAX`] for none.
    pub deadline: MonoTime,
}

/// A place in line. Neither `Clone` nor `Copy`: it is given up with [`super::UpstreamPolicy::quit`].
#[derive(Debug)]
#[must_use = "a ticket that is not given up stands in line for ever"]
pub struct Ticket {
    pub(super) id: TicketId,
    pub(super) needs: Needs,
    pub(super) shape: u64,
    pub(super) wait_left: Duration,
    pub(super) deadline: MonoTime,
    /// Since when the present wait lasts, and until when it may.
    pub(super) waiting_since: MonoTime,
    pub(super) resting: Option<Rest>,
    pub(super) granted: Option<Grant>,
    /// Waits since the last attempt.
    pub(super) waited: Waits,
    pub(super) attempts: u8,
    pub(super) counted: u8,
    pub(super) used_once: bool,
    pub(super) last_backoff: Duration,
}

impl Ticket {
    /// Its number, to be woken by.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// Attempts granted so far.
    pub fn attempts(&self) -> u8 {
        self.attempts
    }

    /// What it waited since its last attempt, as far as it is known: asking brings it up to date.
    pub fn waited(&self) -> &Waits {
        &self.waited
    }

    pub(super) fn give_up_at(&self) -> MonoTime {
        (self.waiting_since + self.wait_left).min(self.deadline)
    }
}

/// A pause of one exchange's own, between two attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    pub(super) since: MonoTime,
    pub(super) until: MonoTime,
}

/// The right to send one attempt now, and a place in flight until it is released.
#[derive(Debug)]
#[must_use = "settle or abandon it, and release its permit"]
pub struct Grant {
    pub(super) admission: Option<Admission>,
    pub(super) permit: Permit,
    pub(super) sent_at: MonoTime,
    pub(super) in_flight: u32,
    pub(super) number: u64,
    pub(super) own_breaker: bool,
    pub(super) tightened: u64,
    /// Waits before this attempt.
    pub waited: Waits,
    /// In shadow mode: what would have been in the way.
    pub shadow: Option<WaitKind>,
}

impl Grant {
    /// When it was given.
    pub fn sent_at(&self) -> MonoTime {
        self.sent_at
    }

    /// Takes it apart: the admission is settled with the outcome, the permit lives on.
    pub fn split(self) -> (Sent, Permit) {
        let sent = Sent {
            admission: self.admission,
            at: self.sent_at,
            in_flight: self.in_flight,
            number: self.number,
            own_breaker: self.own_breaker,
        };
        (sent, self.permit)
    }
}

/// An attempt on its way.
#[derive(Debug)]
#[must_use = "settle or abandon it, or the breaker never hears how the attempt ended"]
pub struct Sent {
    pub(super) admission: Option<Admission>,
    pub(super) at: MonoTime,
    pub(super) in_flight: u32,
    /// Its number within its scope.
    pub(super) number: u64,
    /// Whether the route's own breaker admitted it: a reload may have given it one, or taken it.
    pub(super) own_breaker: bool,
}

/// A place in flight. Given back with [`super::UpstreamPolicy::release`].
#[derive(Debug)]
#[must_use = "a permit that is not released is lost until the process ends"]
pub struct Permit {
    pub(super) route: RouteId,
    pub(super) credential: CredentialId,
    /// Where the scope is kept: strangers share one when the table is full.
    pub(super) scope: (BucketId, CredentialId),
    pub(super) cost: u32,
    /// When it was given.
    pub(super) since: MonoTime,
    pub(super) pools: Arc<[PoolId]>,
    pub(super) in_pools: bool,
}

/// May it send now?
#[derive(Debug)]
pub enum Answer {
    /// Yes; send at once.
    Go(Grant),
    /// Not yet: ask again then, or when woken.
    Wait {
        /// At the latest.
        until: MonoTime,
    },
    /// No, and it would be wrong to wait.
    Refuse(Refusal),
}

/// Why an exchange is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Open for longer than the exchange may be held.
    BreakerOpen {
        /// When a probe may go.
        until: MonoTime,
    },
    /// The upstream's own wait is longer than that.
    Cooldown {
        /// When it ends.
        until: MonoTime,
    },
    /// Hours until the reset.
    Exhausted {
        /// When it ends.
        until: MonoTime,
    },
    /// The next place in the quota is later than that.
    Paced {
        /// When there is one.
        until: MonoTime,
    },
    /// As many wait as may, here or in the whole process.
    QueueFull,
    /// The upstream refused the credential again and again.
    Locked {
        /// When one may try again.
        until: MonoTime,
    },
    /// No permit in time; the key that was full, if it was one.
    QueueTimeout {
        /// The pool in the way.
        pool: Option<PoolId>,
    },
    /// Shutting down.
    Draining,
}

/// What the adapter must do once the lock is released.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This ticket should ask again.
    Wake(TicketId),
    /// A breaker changed; `None` is the upstream's own.
    Breaker(Option<Arc<str>>, Transition),
    /// A pause began or grew.
    Cooldown(CooldownImage),
    /// A quota was told of for the first time, or has another limit than before.
    Quota {
        /// As in [`CooldownImage::scope`].
        scope: String,
        /// What is known of it.
        quota: QuotaState,
    },
    /// The upstream refused a credential again and again; nothing goes with it until then.
    Locked {
        /// Whose.
        credential: CredentialId,
        /// When one may try.
        until: MonoTime,
    },
    /// It is accepted again, or its secret changed.
    Unlocked {
        /// Whose.
        credential: CredentialId,
    },
}

/// Charges what a ticket waited, and the moment until its grant was collected.
pub(super) fn collect(now: MonoTime, ticket: &mut Ticket, grant: &Grant) {
    ticket.waited.add(&grant.waited);
    ticket.waited.charge(WaitKind::Queue, now.since(grant.sent_at));
}

/// A refusal, if the obstacle stands for longer than the exchange may be held.
pub(super) fn too_late(obstacle: &Obstacle, give_up_at: MonoTime) -> Option<Refusal> {
    obstacle.known_end().filter(|until| *until > give_up_at)?;
    named(obstacle.why, obstacle.until?)
}

/// The refusal of an exchange whose time is over.
pub(super) fn timed_out(obstacle: &Obstacle, now: MonoTime) -> Refusal {
    obstacle.until.and_then(|until| named(obstacle.why, until.max(now))).unwrap_or(
        Refusal::QueueTimeout {
            pool: match obstacle.why {
                Why::Pool(pool) => Some(pool),
                Why::Capacity
                | Why::Breaker
                | Why::Probe
                | Why::Locked
                | Why::Cooldown
                | Why::Exhausted
                | Why::Pacing => None,
            },
        },
    )
}

fn named(why: Why, until: MonoTime) -> Option<Refusal> {
    match why {
        Why::Breaker | Why::Probe => Some(Refusal::BreakerOpen { until }),
        Why::Locked => Some(Refusal::Locked { until }),
        Why::Cooldown => Some(Refusal::Cooldown { until }),
        Why::Exhausted => Some(Refusal::Exhausted { until }),
        Why::Pacing => Some(Refusal::Paced { until }),
        Why::Capacity | Why::Pool(_) => None,
    }
}

impl Refusal {
    /// When it would work, if that is known.
    pub fn until(&self) -> Option<MonoTime> {
        match self {
            Self::BreakerOpen { until }
            | Self::Locked { until }
            | Self::Cooldown { until }
            | Self::Exhausted { until }
            | Self::Paced { until } => Some(*until),
            Self::QueueFull | Self::QueueTimeout { .. } | Self::Draining => None,
        }
    }
}
