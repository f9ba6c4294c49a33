//! Who waits, and for what.
//!
//! Exchanges that need the same things (route, credential, keys, safety) wait in one lane: if its
//! head cannot go, nobody behind it can. A lane is either *ready*, to be looked at in the order of
//! arrival, or *parked* at the one place where its head met an obstacle. All lanes at a place wait
//! for the same thing, so it is enough to look at the first of them, and at the next one if that
//! one went on: one throttled route never stands in the way of another, and every operation but
//! [`Line::raise`] and [`Line::unpark_all`] is logarithmic in the number of lanes.
//!
//! Time is accounted per place and lane: a ticket's waits are the account now less the account
//! when it came.

use std::collections::BTreeSet;

use self::lane::{Lane, Parked};
use super::hash::IdMap;
use super::outcome::Waits;
use super::time::MonoTime;

mod lane;

mod place;

pub use self::place::{BucketId, CredentialId, Needs, Obstacle, Place, RouteId, TicketId, Why};

/// The lanes of one upstream.
#[derive(Debug, Default)]
pub struct Line {
    lanes: IdMap<u32, Lane>,
    by_needs: IdMap<Needs, u32>,
    tickets: IdMap<TicketId, u32>,
    ready: BTreeSet<(TicketId, u32)>,
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
        let lane_id = self.by_needs.get(needs).copied().unwrap_or_else(|| {
            let lane_id = self.next_lane;
            self.next_lane = self.next_lane.wrapping_add(1);
            self.by_needs.insert(needs.clone(), lane_id);
            self.lanes.insert(lane_id, Lane::new(needs.clone(), now));
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
        if is_head {
            self.ready.insert((id, lane_id));
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
        let waits = lane.account.waits.since(&joined);
        if is_head {
            let has_alarm = lane.obstacle.is_some_and(|obstacle| obstacle.until.is_some());
            let hand_on = lane.called_from.take().filter(|place| place.is_barrier() || has_alarm);
            if let Some(next) = lane.head() {
                self.ready.insert((next, lane_id));
            } else if let Some(lane) = self.lanes.remove(&lane_id) {
                self.by_needs.remove(&lane.needs);
            }
            if let Some(place) = hand_on {
                self.unpark_first(place);
            }
        } else {
            self.patience_changed(lane_id, earliest);
        }
        self.check();
        Some(waits)
    }

    /// The lane that is to be looked at next: the one whose head came first.
    pub fn next_ready(&mut self) -> Option<(TicketId, Needs)> {
        let (head, lane_id) = *self.ready.first()?;
        Some((head, self.lanes.get(&lane_id)?.needs.clone()))
    }

    /// The head of this ready lane met an obstacle. Says who has to hear of it: the first who waits
    /// at that place, which minds the clock, if its moment moved; and whoever cannot wait that
    /// long.
    ///
    /// A lane that was called because something became free, and now waits for something else,
    /// hands the call on to the next one that waited there.
    pub fn park(&mut self, now: MonoTime, head: TicketId, obstacle: Obstacle) -> Vec<TicketId> {
        let Some(lane_id) = self.tickets.get(&head).copied() else { return Vec::new() };
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return Vec::new() };
        self.ready.remove(&(head, lane_id));
        lane.account.charge(now);
        lane.obstacle = Some(obstacle);
        let called_from = lane.called_from.take();

        let place = obstacle.place;
        let at = self.parked.entry(place).or_insert_with(|| Parked::new(obstacle, now));
        at.account.charge(now);
        at.account.kind = obstacle.kind;
        let before = std::mem::replace(&mut at.obstacle, obstacle);
        if let Some(until) = before.until.filter(|until| Some(*until) != obstacle.until) {
            self.alarms.remove(&(until, place));
        }
        self.alarms.extend(obstacle.until.map(|until| (until, place)));
        at.lanes.insert((head, lane_id));
        at.patience.insert((lane.earliest(), lane_id));
        lane.parked = Some((place, at.account.waits));

        let affected = self.told(lane_id, place, before != obstacle);
        if let Some(before) = called_from.filter(|before| *before != place) {
            self.unpark_first(before);
        }
        self.check();
        affected
    }

    /// Who has to hear of what `lane_id`, just parked, has met.
    fn told(&mut self, lane_id: u32, place: Place, has_changed: bool) -> Vec<TicketId> {
        let mut affected = Vec::new();
        let Some(at) = self.parked.get(&place) else { return affected };
        // Only the first minds the clock; whoever minded it before need not.
        let mut lanes = at.lanes.iter();
        let first = lanes.next().copied();
        let others = [lanes.next().map(|(_, lane)| *lane), Some(lane_id)];
        for other in others.into_iter().flatten().filter(|id| first.map(|it| it.1) != Some(*id)) {
            if let Some(lane) = self.lanes.get_mut(&other) {
                lane.told = None;
            }
        }
        if let Some((head, first)) = first
            && let Some(lane) = self.lanes.get_mut(&first)
        {
            let told = at.obstacle.until.map(|until| (head, until));
            if told.is_some() && lane.told != told {
                affected.push(head);
            }
            lane.told = told;
        }
        if let Some(until) = at.obstacle.known_end() {
            let all = at.patience.range(..(until, 0)).map(|(_, lane)| *lane);
            let lanes = all.filter(|lane| has_changed || *lane == lane_id);
            for lane in lanes.filter_map(|lane| self.lanes.get(&lane)) {
                let minder = affected.first().copied();
                affected.extend(lane.impatient(until).filter(|id| Some(*id) != minder));
            }
        }
        affected
    }

    /// Makes the first lane parked at `place` ready; false if none is.
    pub fn unpark_first(&mut self, place: Place) -> bool {
        let first = self.parked.get(&place).and_then(|at| at.lanes.first().copied());
        first.is_some_and(|(_, lane_id)| {
            self.unpark_lane(lane_id);
            true
        })
    }

    /// As [`Self::unpark_first`], unless a lane that came before it is ready already.
    pub fn unpark_older(&mut self, place: Place) -> bool {
        let ready = self.ready.first().map(|(head, _)| *head);
        ready.is_none_or(|ready| self.waits_before(ready, place)) && self.unpark_first(place)
    }

    /// Whether somebody waits at `place` that came before `id`.
    pub fn waits_before(&self, id: TicketId, place: Place) -> bool {
        let first = self.parked.get(&place).and_then(|at| at.lanes.first());
        first.is_some_and(|(head, _)| *head < id)
    }

    /// Makes every lane parked at `place` ready.
    pub fn unpark_place(&mut self, place: Place) {
        while self.unpark_first(place) {}
    }

    /// Calls the first of each place whose moment has come.
    pub fn unpark_due(&mut self, now: MonoTime) {
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
        let lanes = passed.flat_map(|(_, at)| &at.lanes).map(|(_, lane_id)| *lane_id);
        let is_covered =
            |id: &u32| self.lanes.get(id).is_some_and(|lane| place.covers(&lane.needs));
        let covered: Vec<u32> = lanes.filter(is_covered).collect();
        for lane_id in covered {
            self.unpark_lane(lane_id);
        }
        self.unpark_first(place);
    }

    /// Makes every lane ready: the rules changed, and what each head meets has to be seen anew.
    pub fn unpark_all(&mut self) {
        let lanes = self.parked.values().flat_map(|at| &at.lanes);
        let parked: Vec<u32> = lanes.map(|(_, lane_id)| *lane_id).collect();
        for lane_id in parked {
            self.unpark_lane(lane_id);
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
        Some((at.obstacle, at.lanes.first() == Some(&(id, lane_id))))
    }

    /// Everybody, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = TicketId> + '_ {
        self.tickets.keys().copied()
    }

    fn unpark_lane(&mut self, lane_id: u32) {
        self.lift(lane_id);
        if let Some(head) = self.lanes.get(&lane_id).and_then(Lane::head) {
            self.ready.insert((head, lane_id));
        }
    }

    /// Takes a lane from wherever it is.
    fn lift(&mut self, lane_id: u32) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else { return };
        let Some(head) = lane.head() else { return };
        let Some((place, _)) = lane.parked else {
            self.ready.remove(&(head, lane_id));
            return;
        };
        if let Some(at) = self.parked.get_mut(&place) {
            lane.catch_up(at);
            lane.obstacle = Some(at.obstacle);
            at.lanes.remove(&(head, lane_id));
            at.patience.remove(&(lane.earliest(), lane_id));
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
            self.ready.len() + self.parked.values().map(|at| at.lanes.len()).sum::<usize>(),
            "a lane is ready or parked, and not both"
        );
        debug_assert_eq!(self.lanes.len(), self.by_needs.len());
    }
}

#[cfg(test)]
mod tests;
