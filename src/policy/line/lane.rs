//! Tickets that need the same things, and the place where their lane is parked.
//!
//! What is in the way at a place is in the way of every lane there, so the obstacle, its alarm and
//! the account of the time it cost belong to the place: however many lanes wait there, a moment
//! that moves is written down once.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::FlowKey;
use super::order::{Order, Seat};
use super::{Needs, Obstacle, Place, TicketId};
use crate::policy::outcome::{WaitKind, Waits};
use crate::policy::time::MonoTime;

/// Exchanges with equal needs.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) needs: Needs,
    /// Whose turns it takes.
    pub(super) key: FlowKey,
    /// When it was made or had its last turn.
    pub(super) since: MonoTime,
    /// Where it is listed, in its place or among those that are ready.
    pub(super) seat: Option<Seat>,
    /// It was called because its band waited for too long: it is looked at before all others.
    pub(super) is_early: bool,
    /// With the lane's account at the moment when the ticket came, and when it gives up.
    pub(super) tickets: BTreeMap<TicketId, (Waits, MonoTime)>,
    /// The same tickets by the time at which they give up.
    pub(super) patience: BTreeSet<(MonoTime, TicketId)>,
    /// Where it is parked, with the account of that place up to which it was charged; `None` while
    /// it is ready.
    pub(super) parked: Option<(Place, Waits)>,
    /// What its head met last.
    pub(super) obstacle: Option<Obstacle>,
    /// The place that called it, until its head has been looked at.
    pub(super) called_from: Option<Place>,
    /// Who was told to mind which moment.
    pub(super) told: Option<(TicketId, MonoTime)>,
    pub(super) account: Account,
}

impl Lane {
    pub(super) fn new(needs: Needs, key: FlowKey, now: MonoTime) -> Self {
        Self {
            needs,
            key,
            since: now,
            seat: None,
            is_early: false,
            tickets: BTreeMap::new(),
            patience: BTreeSet::new(),
            parked: None,
            obstacle: None,
            called_from: None,
            told: None,
            account: Account::new(WaitKind::Queue, now),
        }
    }

    pub(super) fn head(&self) -> Option<TicketId> {
        self.tickets.keys().next().copied()
    }

    /// Where it stands among those that wait at `place`: in the order of their turns, unless a key
    /// prescribes another one.
    pub(super) fn seat_at(&self, place: Place) -> Option<Seat> {
        let number = match place {
            Place::Pool(pool) => self.needs.number_in(pool),
            Place::Breaker(..)
            | Place::Whole
            | Place::Lock(_)
            | Place::Credential(_)
            | Place::Scope(..)
            | Place::Reserve(..)
            | Place::House
            | Place::Route(_) => None,
        };
        let ordered = number.map(|number| (FlowKey::ORDERED, TicketId(number)));
        ordered.or_else(|| Some((self.key, self.head()?)))
    }

    /// When the first of its tickets gives up.
    pub(super) fn earliest(&self) -> MonoTime {
        self.patience.first().map_or(MonoTime::MAX, |(at, _)| *at)
    }

    /// Tickets that give up before `until`.
    pub(super) fn impatient(&self, until: MonoTime) -> impl Iterator<Item = TicketId> {
        self.patience.range(..(until, TicketId(0))).map(|(_, id)| *id)
    }

    /// Takes over what the place charged since the last time.
    pub(super) fn catch_up(&mut self, place: &Parked) {
        if let Some((_, seen)) = &mut self.parked {
            self.account.waits.add(&place.account.waits.since(seen));
            *seen = place.account.waits;
            self.account.kind = place.account.kind;
            self.account.until = place.account.until;
        }
    }
}

/// Lanes that met the same obstacle.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) obstacle: Obstacle,
    pub(super) lanes: Order,
    /// The one lane whose head minds the clock.
    pub(super) minder: Option<u32>,
    /// By the time at which the first of each gives up.
    pub(super) patience: BTreeSet<(MonoTime, u32)>,
    pub(super) account: Account,
}

impl Parked {
    pub(super) fn new(obstacle: Obstacle, now: MonoTime) -> Self {
        Self {
            obstacle,
            lanes: Order::default(),
            minder: None,
            patience: BTreeSet::new(),
            account: Account::new(obstacle.kind, now),
        }
    }
}

/// Time, charged to whatever was in the way.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) waits: Waits,
    pub(super) kind: WaitKind,
    pub(super) until: MonoTime,
}

impl Account {
    fn new(kind: WaitKind, now: MonoTime) -> Self {
        Self { waits: Waits::default(), kind, until: now }
    }

    pub(super) fn charge(&mut self, now: MonoTime) {
        self.waits.charge(self.kind, now.since(self.until));
        self.until = self.until.max(now);
    }
}
