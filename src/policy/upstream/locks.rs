//! Credentials that the upstream does not accept.
//!
//! A wrong secret is not healed by asking again, and some APIs answer those who try with a ban. A
//! credential that was refused five times with no success between is locked: nothing goes with it
//! for a minute, then for two, up to a quarter of an hour, and each time one request finds out. A
//! secret that changed unlocks it. Other credentials, and the upstream itself, are not concerned.

use std::time::Duration;

use super::{Context, Event, SCOPES_MAX, UpstreamPolicy};
use crate::policy::hash::IdMap;
use crate::policy::line::{CredentialId, Obstacle, Place, Why};
use crate::policy::outcome::{Class, Outcome, Repeat, WaitKind};
use crate::policy::time::MonoTime;

/// Refusals in a row that lock a credential.
const REFUSALS_MAX: u32 = 5;
/// The first lock.
const LOCKED_FOR: Duration = Duration::from_secs(60);
/// No lock is longer.
pub const LOCKED_FOR_MAX: Duration = Duration::from_secs(15 * 60);

/// Those that were refused and not accepted since.
#[derive(Debug, Default)]
pub(super) struct Locks(IdMap<CredentialId, Refused>);

#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    /// In a row.
    times: u32,
    locked: Option<Lock>,
}

/// Nothing goes with a credential until it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// When one may try.
    pub until: MonoTime,
    /// How often it was locked in a row, from 1.
    pub times: u32,
    /// Since when one tries.
    probing: Option<MonoTime>,
}

impl Lock {
    /// A lock that was kept over a restart.
    pub fn restored(until: MonoTime, times: u32) -> Self {
        Self { until, times: times.max(1), probing: None }
    }
}

/// A probe that tells nothing for so long is lost.
const PROBE_LEASE: Duration = Duration::from_secs(60);

impl Locks {
    fn get(&self, credential: CredentialId) -> Option<Lock> {
        if self.0.is_empty() { None } else { self.0.get(&credential)?.locked }
    }

    /// All that are locked.
    pub(super) fn all(&self) -> impl Iterator<Item = (CredentialId, Lock)> + '_ {
        self.0.iter().filter_map(|(credential, refused)| Some((*credential, refused.locked?)))
    }

    pub(super) fn restore(&mut self, credential: CredentialId, lock: Lock) {
        self.0.insert(credential, Refused { times: REFUSALS_MAX, locked: Some(lock) });
    }
}

impl UpstreamPolicy {
    /// Whether the credential is accepted, as far as is known.
    pub(super) fn check_lock(
        &self,
        now: MonoTime,
        credential: CredentialId,
    ) -> Result<(), Obstacle> {
        let Some(lock) = self.locks.get(credential) else { return Ok(()) };
        let obstacle = |until, kind, why| {
            Err(Obstacle { place: Place::Lock(credential), until: Some(until), kind, why })
        };
        if now < lock.until {
            return obstacle(lock.until, WaitKind::Cooldown, Why::Locked);
        }
        match lock.probing {
            Some(since) if now.since(since) < PROBE_LEASE => {
                obstacle(since + PROBE_LEASE, WaitKind::Queue, Why::Probe)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How long nothing will go with it; zero if it is accepted as far as is known.
    pub(super) fn locked_for(&self, now: MonoTime, credential: CredentialId) -> Duration {
        self.locks.get(credential).map_or(Duration::ZERO, |lock| lock.until.since(now))
    }

    /// Whoever goes with a locked credential finds out for all.
    pub(super) fn note_lock_probe(&mut self, now: MonoTime, credential: CredentialId) {
        if let Some(lock) = self.locks.0.get_mut(&credential).and_then(|it| it.locked.as_mut()) {
            lock.probing = Some(now);
        }
    }

    /// Hears how an attempt with it ended.
    pub(super) fn tell_lock(
        &mut self,
        cx: &Context<'_>,
        credential: CredentialId,
        outcome: &Outcome,
        sent_at: MonoTime,
    ) {
        // Whoever names no credential is told to, and that says nothing of any. What may be repeated
        // was sent with a secret that is one no more.
        let counts = !Self::is_anonymous(credential) && outcome.repeat == Repeat::Never;
        match outcome.class {
            Class::Ok => self.forget_lock(credential),
            Class::Credential if counts => {
                self.refuse_credential(cx, credential, sent_at);
            }
            Class::Permanent
            | Class::Credential
            | Class::Throttled
            | Class::Exhausted
            | Class::Transient
            | Class::Misdirected
            | Class::Unhealthy
            | Class::Overloaded
            | Class::TimedOut
            | Class::Stale
            | Class::Client => {
                // A probe that said nothing leaves its place to the next one.
                if let Some(lock) =
                    self.locks.0.get_mut(&credential).and_then(|it| it.locked.as_mut())
                    && lock.probing.is_some_and(|since| since <= sent_at)
                {
                    lock.probing = None;
                    self.line.unpark_place(Place::Lock(credential));
                }
            }
        }
    }

    fn refuse_credential(&mut self, cx: &Context<'_>, credential: CredentialId, sent_at: MonoTime) {
        let Locks(known) = &mut self.locks;
        if known.len() >= SCOPES_MAX && !known.contains_key(&credential) {
            known.retain(|_, refused| refused.locked.is_some_and(|lock| cx.now < lock.until));
            if known.len() >= SCOPES_MAX {
                return;
            }
        }
        let refused = known.entry(credential).or_default();
        refused.times = refused.times.saturating_add(1);
        let times = match refused.locked {
            // It was on its way when the lock came.
            Some(lock) if lock.probing.is_none_or(|since| sent_at < since) => return,
            Some(lock) => lock.times.saturating_add(1),
            None if refused.times >= REFUSALS_MAX => 1,
            None => return,
        };
        let doubled = LOCKED_FOR.saturating_mul(1 << (times - 1).min(8));
        let until = cx.now + doubled.min(LOCKED_FOR_MAX);
        refused.locked = Some(Lock { until, times, probing: None });
        self.tightened += 1;
        self.line.raise(Place::Lock(credential));
        self.events.push(Event::Locked { credential, until });
    }

    fn forget_lock(&mut self, credential: CredentialId) {
        if !self.locks.0.is_empty()
            && let Some(refused) = self.locks.0.remove(&credential)
            && refused.locked.is_some()
        {
            self.line.unpark_place(Place::Lock(credential));
            self.events.push(Event::Unlocked { credential });
        }
    }

    /// Its secret changed, or a person says that it is good.
    pub fn unlock(&mut self, cx: &mut Context<'_>, credential: CredentialId) {
        self.forget_lock(credential);
        self.pump(cx);
    }
}
