//! Who waits, and for what.
//!
//! Exchanges that need the same things (route, credential, keys, safety) wait in one lane: if its
//! head cannot go, nobody behind it can. A lane is either *ready*, to be looked at in the order of
//! arrival, or *parked* at the one obstacle that its head met. Freeing something looks only at the
//! lanes parked there, first come first served, so that one throttled route never stands in the
//! way of another, and every operation is logarithmic in the number of lanes.
//!
//! Time is accounted per lane: all its tickets wait for the same reason, so a ticket's waits are
//! the lane's account now less the account when it came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::hash::IdMap;
use super::limits::PoolId;
use super::outcome::{Safety, WaitKind, Waits};
use super::time::MonoTime;

/// A ticket's number in the order of arrival; a repeated attempt keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub u64);

/// A route of one upstream; stays the same across reloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub u16);

/// Salted hash of whatever identifies the caller to the upstream; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialId(pub u64);

/// What an exchange needs; equal needs share a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Needs {
    /// The route it goes by.
    pub route: RouteId,
    /// Whose quota it spends.
    pub credential: CredentialId,
    /// Which probes it may serve as.
    pub safety: Safety,
    /// Concurrency keys, sorted.
    pub pools: Arc<[PoolId]>,
}

/// Where a lane is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The upstream's own limit.
    House,
    /// A route's limit.
    Route(RouteId),
    /// What the upstream said to (route, credential): looked at again when it says more, when an
    /// attempt of that scope ends, and at the moment that it named.
    Scope(RouteId, CredentialId),
    /// A key, or the process.
    Pool(PoolId),
    /// A barrier of more than one scope: looked at again at its moment, or when barriers change.
    Clock,
}

/// What the head of a lane met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Where to park.
    pub place: Place,
    /// When to look again at the latest; always set at [`Place::Clock`].
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
    /// The upstream named a time.
    Cooldown,
    /// … and it is hours away.
    Exhausted,
    /// No place in the quota.
    Pacing,
}

/// The lanes of one upstream.
#[derive(Debug, Default)]
pub struct Line {
    lanes: IdMap<u32, Lane>,
    by_needs: IdMap<Needs, u32>,
    tickets: IdMap<TicketId, u32>,
    ready: BTreeSet<(TicketId, u32)>,
    parked: IdMap<Place, BTreeSet<(TicketId, u32)>>,
    alarms: BTreeSet<(MonoTime, u32)>,
    next_lane: u32,
}

#[derive(Debug)]
struct Lane {
    needs: Needs,
    /// With the lane's account at the moment when the ticket came.
    tickets: BTreeMap<TicketId, (Waits, MonoTime)>,
    /// The same tickets by the time at which they give up.
    patience: BTreeSet<(MonoTime, TicketId)>,
    obstacle: Option<Obstacle>,
    account: Waits,
    charged_to: WaitKind,
    charged_until: MonoTime,
}

/// A ticket that left.
#[derive(Debug)]
pub struct Left {
    /// What its time in the line is charged to.
    pub waits: Waits,
    /// The new head of its lane, which has to mind the clock from now on.
    pub new_head: Option<TicketId>,
}

impl Line {
    /// Tickets in all lanes.
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Whether somebody with the same needs waits already.
    pub fn has_lane(&self, needs: &Needs) -> bool {
        !self.by_needs.is_empty() && self.by_needs.contains_key(needs)
    }

    /// Puts a ticket in line; its lane is looked at again if it became the head.
    pub fn enter(&mut self, now: MonoTime, needs: &Needs, id: TicketId, give_up_at: MonoTime) {
        let lane_id = if let Some(lane_id) = self.by_needs.get(needs) {
            *lane_id
        } else {
            let lane_id = self.next_lane;
            self.next_lane = self.next_lane.wrapping_add(1);
            self.by_needs.insert(needs.clone(), lane_id);
            self.lanes.insert(lane_id, Lane::new(needs.clone(), now));
            lane_id
        };
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        lane.charge(now);
        let old_head = lane.head();
        lane.tickets.insert(id, (lane.account, give_up_at));
        lane.patience.insert((give_up_at, id));
        let is_head = lane.head() == Some(id);
        self.tickets.insert(id, lane_id);
        if is_head {
            self.lift(lane_id, old_head);
            self.ready.insert((id, lane_id));
        }
        self.check();
    }

    /// Takes a ticket out, wherever it stands.
    pub fn leave(&mut self, now: MonoTime, id: TicketId) -> Option<Left> {
        let lane_id = self.tickets.remove(&id)?;
        let head = self.lanes.get(&lane_id)?.head();
        let was_ready = head.is_some_and(|head| self.ready.contains(&(head, lane_id)));
        if head == Some(id) {
            self.lift(lane_id, head);
        }
        let lane = self.lanes.get_mut(&lane_id)?;
        lane.charge(now);
        let (joined, give_up_at) = lane.tickets.remove(&id)?;
        lane.patience.remove(&(give_up_at, id));
        let waits = lane.account.since(&joined);
        let mut new_head = None;
        if lane.tickets.is_empty() {
            if let Some(lane) = self.lanes.remove(&lane_id) {
                self.by_needs.remove(&lane.needs);
            }
        } else if head == Some(id) {
            new_head = lane.head();
            // The next one met nothing yet, unless the lane was only waiting to be looked at.
            match (lane.obstacle, new_head) {
                (Some(obstacle), Some(_)) if !was_ready => self.set(lane_id, obstacle),
                (_, Some(next)) => {
                    self.ready.insert((next, lane_id));
                }
                (_, None) => {}
            }
        }
        self.check();
        Some(Left { waits, new_head })
    }

    /// The lane that is to be looked at next: the one whose head came first.
    pub fn next_ready(&mut self) -> Option<(TicketId, Needs)> {
        let (head, lane_id) = *self.ready.first()?;
        Some((head, self.lanes.get(&lane_id)?.needs.clone()))
    }

    /// The head of this ready lane met an obstacle. Says who has to hear of it: the head, which
    /// minds the clock, if its moment moved; and whoever cannot wait that long.
    ///
    /// A lane that was called because something became free, and now waits for something else,
    /// hands the call on to the next one that waited there.
    pub fn park(&mut self, now: MonoTime, head: TicketId, obstacle: Obstacle) -> Vec<TicketId> {
        let mut affected = Vec::new();
        let Some(lane_id) = self.tickets.get(&head).copied() else {
            return affected;
        };
        self.ready.remove(&(head, lane_id));
        let mut before = None;
        if let Some(lane) = self.lanes.get_mut(&lane_id) {
            before = lane.obstacle.map(|before| before.place);
            lane.charge(now);
            lane.charged_to = obstacle.kind;
            let moved = lane.obstacle.and_then(|before| before.until) != obstacle.until;
            if moved && obstacle.until.is_some() {
                affected.push(head);
            }
            if let Some(until) = obstacle.known_end() {
                let impatient = lane.patience.range(..(until, TicketId(0)));
                affected.extend(impatient.map(|(_, id)| *id).filter(|id| *id != head));
            }
        }
        self.set(lane_id, obstacle);
        if let Some(place @ (Place::Route(_) | Place::Pool(_))) = before
            && place != obstacle.place
        {
            self.unpark_first(place);
        }
        self.check();
        affected
    }

    /// Makes the first lane parked at `place` ready; false if none is.
    pub fn unpark_first(&mut self, place: Place) -> bool {
        let first = self.parked.get(&place).and_then(|lanes| lanes.first().copied());
        let Some((head, lane_id)) = first else {
            return false;
        };
        self.lift(lane_id, Some(head));
        self.ready.insert((head, lane_id));
        true
    }

    /// As [`Self::unpark_first`], unless a lane that came before it is ready already.
    pub fn unpark_older(&mut self, place: Place) -> bool {
        let parked = self.parked.get(&place).and_then(BTreeSet::first);
        let is_older = match (parked, self.ready.first()) {
            (Some(parked), Some(ready)) => parked < ready,
            (Some(_), None) => true,
            (None, _) => false,
        };
        is_older && self.unpark_first(place)
    }

    /// Makes every lane parked at `place` ready.
    pub fn unpark_place(&mut self, place: Place) {
        while self.unpark_first(place) {}
    }

    /// Makes lanes ready whose moment has come.
    pub fn unpark_due(&mut self, now: MonoTime) {
        while let Some((until, lane_id)) = self.alarms.first().copied()
            && until <= now
        {
            self.unpark_lane(lane_id);
        }
    }

    /// Makes every lane ready: barriers changed, and what each head meets has to be seen anew.
    pub fn unpark_all(&mut self) {
        let parked: Vec<u32> =
            self.parked.values().flatten().map(|(_, lane_id)| *lane_id).collect();
        for lane_id in parked {
            self.unpark_lane(lane_id);
        }
    }

    /// Whether a lane is parked at `place`.
    pub fn is_parked_at(&self, place: Place) -> bool {
        self.parked.contains_key(&place)
    }

    /// Pools at which lanes are parked.
    pub fn parked_pools(&self) -> Vec<PoolId> {
        self.parked
            .keys()
            .filter_map(|place| match place {
                Place::Pool(pool) => Some(*pool),
                Place::House | Place::Route(_) | Place::Scope(..) | Place::Clock => None,
            })
            .collect()
    }

    /// The obstacle in the way of a ticket, and whether the ticket is the head of its lane.
    pub fn obstacle(&self, id: TicketId) -> Option<(Obstacle, bool)> {
        let lane = self.lanes.get(self.tickets.get(&id)?)?;
        Some((lane.obstacle?, lane.head() == Some(id)))
    }

    /// Everybody, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = TicketId> + '_ {
        self.tickets.keys().copied()
    }

    fn unpark_lane(&mut self, lane_id: u32) {
        let head = self.lanes.get(&lane_id).and_then(Lane::head);
        self.lift(lane_id, head);
        if let Some(head) = head {
            self.ready.insert((head, lane_id));
        }
    }

    /// Takes a lane, known under the head it had, from wherever it is.
    fn lift(&mut self, lane_id: u32, head: Option<TicketId>) {
        let Some(head) = head else { return };
        self.ready.remove(&(head, lane_id));
        let Some(obstacle) = self.lanes.get(&lane_id).and_then(|lane| lane.obstacle) else {
            return;
        };
        if let Some(lanes) = self.parked.get_mut(&obstacle.place) {
            lanes.remove(&(head, lane_id));
            if lanes.is_empty() {
                self.parked.remove(&obstacle.place);
            }
        }
        if let Some(until) = obstacle.until {
            self.alarms.remove(&(until, lane_id));
        }
    }

    fn set(&mut self, lane_id: u32, obstacle: Obstacle) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        lane.obstacle = Some(obstacle);
        let Some(head) = lane.head() else { return };
        self.parked.entry(obstacle.place).or_default().insert((head, lane_id));
        if let Some(until) = obstacle.until {
            self.alarms.insert((until, lane_id));
        }
    }

    /// Every lane is in exactly one place.
    fn check(&self) {
        debug_assert_eq!(
            self.lanes.len(),
            self.ready.len() + self.parked.values().map(BTreeSet::len).sum::<usize>(),
            "a lane is ready or parked, and not both"
        );
        debug_assert_eq!(self.lanes.len(), self.by_needs.len());
    }
}

impl Lane {
    fn new(needs: Needs, now: MonoTime) -> Self {
        Self {
            needs,
            tickets: BTreeMap::new(),
            patience: BTreeSet::new(),
            obstacle: None,
            account: Waits::default(),
            charged_to: WaitKind::Queue,
            charged_until: now,
        }
    }

    fn head(&self) -> Option<TicketId> {
        self.tickets.keys().next().copied()
    }

    fn charge(&mut self, now: MonoTime) {
        self.account.charge(self.charged_to, now.since(self.charged_until));
        self.charged_until = self.charged_until.max(now);
    }
}

#[cfg(test)]
mod tests;
