//! Who waits, and for what.
//!
//! Exchanges that need the same things (route, credential, keys, safety) wait in one lane: if its
//! head cannot go, nobody behind it can. A lane is either *ready*, to be looked at in the order of
//! turns, or *parked* at the one place where its head met an obstacle. All lanes at a place wait
//! for the same thing, so it is enough to look at the first of them, and at the next one if that
//! one went on: one throttled route never stands in the way of another, and every operation but
//! [`Line::raise`] and [`Line::unpark_all`] is logarithmic in the number of lanes.
//!
//! Whose turn it is, `flow` says: flows take turns, and within a flow the first come is served
//! first.
//!
//! Time is accounted per place and lane: a ticket's waits are the account now less the account
//! when it came.

use std::collections::BTreeSet;

use self::flow::Flows;
use self::lane::{Lane, Parked};
use self::order::{Order, Turns};
use super::hash::IdMap;
use super::outcome::Waits;
use super::time::MonoTime;

mod flow;

mod lane;

mod order;

mod place;

mod told;

mod turn;

pub use self::flow::{Band, FlowId};
pub use self::place::{BucketId, CredentialId, Needs, Obstacle, Place, RouteId, TicketId, Why};

/// Places whose turns are remembered although nobody waits there. Forgetting one means that who was
/// held back elsewhere meanwhile may catch up there.
const TURNS_KEPT: usize = 256;

/// The lanes of one upstream.
#[derive(Debug, Default)]
pub struct Line {
    lanes: IdMap<u32, Lane>,
    by_needs: IdMap<Needs, u32>,
    tickets: IdMap<TicketId, u32>,
    ready: Order,
    /// Ready, too, and looked at first: their bands waited for too long.
    early: BTreeSet<(TicketId, u32)>,
    flows: Flows,
    /// The turns that were given in each place, also while nobody waits there.
    turns: IdMap<Place, Turns>,
    /// The latest time that was told.
    now: MonoTime,
    parked: IdMap<Place, Parked>,
    alarms: BTreeSet<(MonoTime, Place)>,
    next_lane: u32,
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
        self.now = self.now.max(now);
        let lane_id = self.by_needs.get(needs).copied().unwrap_or_else(|| {
            let lane_id = self.next_lane;
            self.next_lane = self.next_lane.wrapping_add(1);
            self.by_needs.insert(needs.clone(), lane_id);
            let key = self.flows.key_of(needs);
            self.lanes.insert(lane_id, Lane::new(needs.clone(), key, now));
            lane_id
        });
        let is_head = self.lanes.get(&lane_id).and_then(Lane::head).is_none_or(|head| id < head);
        if is_head {
            self.lift(lane_id);
        }
        self.charge(now, lane_id);
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return };
        let earliest = lane.earliest();
        lane.tickets.insert(id, (lane.account.waits, give_up_at));
        lane.patience.insert((give_up_at, id));
        self.tickets.insert(id, lane_id);
        self.flows.enter(lane.key, id);
        if is_head {
            self.make_ready(lane_id);
        } else {
            self.patience_changed(lane_id, earliest);
        }
        self.check();
    }

    /// Takes a ticket out, wherever it stands; says what its time in the line is charged to. If it
    /// was the head of its lane, the next one is looked at anew.
    pub fn leave(&mut self, now: MonoTime, id: TicketId) -> Option<Waits> {
        let lane_id = self.tickets.remove(&id)?;
        let is_head = self.lanes.get(&lane_id)?.head() == Some(id);
        if is_head {
            self.lift(lane_id);
        }
        self.charge(now, lane_id);
        let lane = self.lanes.get_mut(&lane_id)?;
        let earliest = lane.earliest();
        let (joined, give_up_at) = lane.tickets.remove(&id)?;
        lane.patience.remove(&(give_up_at, id));
        self.flows.leave(lane.key, id);
        let waits = lane.account.waits.since(&joined);
        if is_head {
            let has_alarm = lane.obstacle.is_some_and(|obstacle| obstacle.until.is_some());
            let hand_on = lane.called_from.take().filter(|place| place.is_barrier() || has_alarm);
            lane.is_early = false;
            if lane.head().is_some() {
                self.make_ready(lane_id);
            } else if let Some(lane) = self.lanes.remove(&lane_id) {
                self.by_needs.remove(&lane.needs);
            }
            if let Some(place) = hand_on {
                self.unpark_first(place);
            }
        } else {
            self.patience_changed(lane_id, earliest);
        }
        if self.is_empty() {
            self.flows.clear();
            self.turns.clear();
        }
        self.check();
        Some(waits)
    }

    /// The lane that is to be looked at next: the one whose turn comes first.
    pub fn next_ready(&mut self) -> Option<(TicketId, Needs)> {
        let early = self.early.first().map(|(_, lane_id)| *lane_id);
        // With one there is nobody to compare it with.
        let first = early.or_else(|| self.ready.only());
        let first = first.or_else(|| Some(self.first_ready()?.lane))?;
        let lane = self.lanes.get(&first)?;
        Some((lane.head()?, lane.needs.clone()))
    }

    /// The head of this ready lane met an obstacle. Says who has to hear of it: the first who waits
    /// at that place, which minds the clock, if its moment moved; and whoever cannot wait that
    /// long.
    ///
    /// A lane that was called because something became free, and now waits for something else,
    /// hands the call on to the next one that waited there.
    pub fn park(&mut self, now: MonoTime, head: TicketId, obstacle: Obstacle) -> Vec<TicketId> {
        let Some(lane_id) = self.tickets.get(&head).copied() else { return Vec::new() };
        let Some(called_from) = self.lanes.get_mut(&lane_id).map(|lane| lane.called_from.take())
        else {
            return Vec::new();
        };
        self.lift(lane_id);
        let place = obstacle.place;
        let has_changed = self.put(now, lane_id, obstacle, called_from);
        let affected = self.told(lane_id, place, has_changed);
        if let Some(before) = called_from.filter(|before| *before != place) {
            self.unpark_first(before);
        }
        self.check();
        affected
    }

    /// Lists a lane at the place of `obstacle`; true if that is another one than before there.
    fn put(
        &mut self,
        now: MonoTime,
        lane_id: u32,
        obstacle: Obstacle,
        called_from: Option<Place>,
    ) -> bool {
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return false };
        let place = obstacle.place;
        lane.account.charge(now);
        lane.obstacle = Some(obstacle);
        lane.called_from = None;
        lane.is_early = false;
        let at = self.parked.entry(place).or_insert_with(|| Parked::new(obstacle, now));
        at.account.charge(now);
        at.account.kind = obstacle.kind;
        let before = std::mem::replace(&mut at.obstacle, obstacle);
        if let Some(until) = before.until.filter(|until| Some(*until) != obstacle.until) {
            self.alarms.remove(&(until, place));
        }
        self.alarms.extend(obstacle.until.map(|until| (until, place)));
        at.patience.insert((lane.earliest(), lane_id));
        lane.parked = Some((place, at.account.waits));
        lane.seat = lane.seat_at(place);

        let (key, cost, since) = (lane.key, lane.needs.cost, lane.since);
        let turns = self.turns.entry(place).or_default();
        if called_from != Some(place) && !at.lanes.has(key.band) {
            turns.begin(key.band, since);
        }
        if let Some(seat) = lane.seat {
            self.flows.settle(key, turns.floor(key.band));
            at.lanes.insert(seat, lane_id, &self.flows);
        }
        if let Some(passed) = called_from.filter(|before| place.is_behind(*before)) {
            // Getting further was its turn there, of the band if not of the flow, which has its own
            // when it goes.
            let bands = self.bands_at(passed).with(key.band);
            let tag = self.flows.tag(key);
            if let Some(turns) = self.turns.get_mut(&passed) {
                turns.serve((key.band, cost, false), bands, tag, now);
            }
        }
        if self.turns.len() > TURNS_KEPT + 2 * self.parked.len() {
            self.turns.retain(|place, _| self.parked.contains_key(place));
        }
        before != obstacle
    }

    /// Makes the first lane parked at `place` ready; false if none is.
    pub fn unpark_first(&mut self, place: Place) -> bool {
        if self.parked.is_empty() {
            return false;
        }
        let Some(first) = self.first_at(place) else { return false };
        // With one flow there is nobody whose turn it could take.
        self.unpark_lane(first.lane, first.is_aged && !self.flows.is_one());
        true
    }

    /// Makes every lane parked at `place` ready.
    pub fn unpark_place(&mut self, place: Place) {
        while self.unpark_first(place) {}
    }

    /// Calls the first of each place whose moment has come.
    pub fn unpark_due(&mut self, now: MonoTime) {
        self.now = self.now.max(now);
        while let Some((until, place)) = self.alarms.first().copied()
            && until <= now
        {
            self.alarms.pop_first();
            self.unpark_first(place);
        }
    }

    /// The upstream said more at `place`: the first there looks at it, for all of them, and so does
    /// everybody who had passed it and waits for something else.
    pub fn raise(&mut self, place: Place) {
        let passed = self.parked.iter().filter(|(at, _)| at.is_behind(place));
        let lanes = passed.flat_map(|(_, at)| at.lanes.lanes());
        let is_covered =
            |id: &u32| self.lanes.get(id).is_some_and(|lane| place.covers(&lane.needs));
        let covered: Vec<u32> = lanes.filter(is_covered).collect();
        for lane_id in covered {
            self.unpark_lane(lane_id, false);
        }
        self.unpark_first(place);
    }

    /// Makes every lane ready: the rules changed, and what each head meets has to be seen anew.
    pub fn unpark_all(&mut self) {
        let parked: Vec<u32> = self.parked.values().flat_map(|at| at.lanes.lanes()).collect();
        for lane_id in parked {
            self.unpark_lane(lane_id, false);
        }
    }

    /// Whether a lane is parked at `place`.
    pub fn is_parked_at(&self, place: Place) -> bool {
        self.parked.contains_key(&place)
    }

    /// Whether any lane is parked.
    pub fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// The obstacle in the way of a ticket, and whether it has to mind the obstacle's clock.
    pub fn obstacle(&self, id: TicketId) -> Option<(Obstacle, bool)> {
        let lane_id = *self.tickets.get(&id)?;
        let lane = self.lanes.get(&lane_id)?;
        let Some((place, _)) = lane.parked else {
            return Some((lane.obstacle?, lane.head() == Some(id)));
        };
        let at = self.parked.get(&place)?;
        Some((at.obstacle, at.minder == Some(lane_id) && lane.head() == Some(id)))
    }

    /// Everybody, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = TicketId> + '_ {
        self.tickets.keys().copied()
    }

    fn unpark_lane(&mut self, lane_id: u32, is_early: bool) {
        self.lift(lane_id);
        if let Some(lane) = self.lanes.get_mut(&lane_id) {
            lane.is_early = is_early;
            self.make_ready(lane_id);
        }
    }

    /// Lists a lane that is nowhere among those to be looked at.
    fn make_ready(&mut self, lane_id: u32) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return };
        let Some(head) = lane.head() else { return };
        let key = lane.key;
        lane.seat = Some((key, head));
        if lane.is_early {
            self.early.insert((head, lane_id));
            return;
        }
        if lane.called_from.is_none() {
            let since = lane.since;
            self.begin_in_house(key.band, since);
        }
        self.ready.insert((key, head), lane_id, &self.flows);
    }

    /// Takes a lane from wherever it is.
    fn lift(&mut self, lane_id: u32) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return };
        let Some(seat) = lane.seat.take() else { return };
        let Some((place, _)) = lane.parked else {
            if lane.is_early {
                self.early.remove(&(seat.1, lane_id));
            } else {
                self.ready.remove(seat, lane_id, &self.flows);
            }
            return;
        };
        if let Some(at) = self.parked.get_mut(&place) {
            lane.catch_up(at);
            lane.obstacle = Some(at.obstacle);
            at.lanes.remove(seat, lane_id, &self.flows);
            at.patience.remove(&(lane.earliest(), lane_id));
            at.minder = at.minder.filter(|minder| *minder != lane_id);
            if at.lanes.is_empty() {
                if let Some(until) = at.obstacle.until {
                    self.alarms.remove(&(until, place));
                }
                self.parked.remove(&place);
            }
        }
        lane.parked = None;
        lane.called_from = Some(place);
    }

    fn charge(&mut self, now: MonoTime, lane_id: u32) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return };
        match lane.parked.and_then(|(place, _)| self.parked.get_mut(&place)) {
            Some(at) => {
                at.account.charge(now);
                lane.catch_up(at);
            }
            None => lane.account.charge(now),
        }
    }

    /// The first ticket of a lane to give up may be another one than at `before`.
    fn patience_changed(&mut self, lane_id: u32, before: MonoTime) {
        let Some(lane) = self.lanes.get(&lane_id) else { return };
        if let Some(at) = lane.parked.and_then(|(place, _)| self.parked.get_mut(&place))
            && before != lane.earliest()
        {
            at.patience.remove(&(before, lane_id));
            at.patience.insert((lane.earliest(), lane_id));
        }
    }

    /// Every lane is in exactly one place.
    fn check(&self) {
        debug_assert_eq!(
            self.lanes.len(),
            self.ready.len()
                + self.early.len()
                + self.parked.values().map(|at| at.lanes.len()).sum::<usize>(),
            "a lane is ready or parked, and not both"
        );
        debug_assert_eq!(self.lanes.len(), self.by_needs.len());
    }
}

#[cfg(test)]
mod tests;
