//! Turns: who has one, who had one, and who goes before whom.

use super::flow::{Band, Bands, FlowKey};
use super::order::{First, Order, Rank, Turns};
use super::{Line, Needs, Place, TicketId};
use crate::policy::outcome::Waits;
use crate::policy::time::MonoTime;

impl Line {
    /// As [`Self::leave`]; it goes, and its flow has had this turn.
    pub fn serve(&mut self, now: MonoTime, id: TicketId) -> Option<Waits> {
        let lane = self.lanes.get_mut(self.tickets.get(&id)?)?;
        lane.since = now;
        let (key, cost, is_early) = (lane.key, lane.needs.cost, lane.is_early);
        let place = lane.called_from.unwrap_or(Place::House);
        self.charge_at(now, place, key, (cost, is_early));
        self.leave(now, id)
    }

    /// One goes that never stood here; if others wait, its flow has had this turn.
    pub fn serve_passing(&mut self, now: MonoTime, needs: &Needs) {
        if !self.is_empty() {
            let key = self.flows.key_of(needs);
            self.begin_in_house(key.band, now);
            self.charge_at(now, Place::House, key, (needs.cost, false));
        }
    }

    /// Who should leave the full line for an exchange with these needs; `None` if nobody ranks
    /// behind it.
    pub fn gives_way_to(&self, needs: &Needs) -> Option<TicketId> {
        self.flows.gives_way_to(needs)
    }

    /// How many wait in which band, without those where nobody does.
    pub fn queued(&self) -> Vec<(Band, u32)> {
        let all = Band::ALL.into_iter().zip(self.flows.queued());
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// As [`Self::unpark_first`], unless a lane that goes before it is ready already.
    pub fn unpark_older(&mut self, place: Place) -> bool {
        if !self.parked.contains_key(&place) {
            return false;
        }
        let ready = if self.early.is_empty() {
            let first = self.first_ready();
            first.map(|first| Rank { tag: self.tag_at(first.key, place), ..first.rank })
        } else {
            Some(Rank::FIRST)
        };
        ready.is_none_or(|ready| self.goes_before(ready, place)) && self.unpark_first(place)
    }

    /// Whether somebody waits at `place` whose turn there comes before that of `id`, which has
    /// these needs.
    pub fn waits_before(&mut self, id: TicketId, needs: &Needs, place: Place) -> bool {
        if !self.parked.contains_key(&place) {
            return false;
        }
        let lane = self.tickets.get(&id).and_then(|lane_id| self.lanes.get(lane_id));
        if lane.is_some_and(|lane| lane.is_early) {
            return false;
        }
        let is_called = lane.is_some_and(|lane| lane.called_from == Some(place));
        let key = lane.map_or_else(|| self.flows.key_of(needs), |lane| lane.key);
        let (band, mut turns) = (key.band, self.turns.get(&place).copied().unwrap_or_default());
        if !is_called && !self.parked.get(&place).is_some_and(|at| at.lanes.has(band)) {
            turns.begin(band, self.now);
        }
        let (turn, _) = turns.next(band, self.bands_at(place).with(band), self.now);
        self.goes_before(Rank { turn, band, tag: self.tag_at(key, place), id }, place)
    }

    /// What the one whose turn comes first at `place` costs, if it comes before that of `id`: until it
    /// may go, nobody who costs less goes there in its stead. Zero if nobody does.
    pub fn cost_before(&mut self, id: TicketId, needs: &Needs, place: Place) -> u32 {
        if !self.waits_before(id, needs, place) {
            return 0;
        }
        let lane = self.first_at(place).and_then(|first| self.lanes.get(&first.lane));
        lane.map_or(0, |lane| lane.needs.cost)
    }

    fn goes_before(&mut self, rank: Rank, place: Place) -> bool {
        self.first_at(place).is_some_and(|first| first.rank < rank)
    }

    pub(super) fn first_at(&mut self, place: Place) -> Option<First> {
        let at = self.parked.get_mut(&place)?;
        let bands = at.lanes.bands().and(self.ready.bands());
        let none = Turns::default();
        let turns = self.turns.get(&place).unwrap_or(&none);
        at.lanes.first(&self.flows, turns, bands, self.now)
    }

    /// Of those that are ready; all of them want turns in the house.
    pub(super) fn first_ready(&mut self) -> Option<First> {
        if self.ready.is_empty() {
            return None;
        }
        let bands = self.bands_at(Place::House);
        let none = Turns::default();
        let turns = self.turns.get(&Place::House).unwrap_or(&none);
        self.ready.first(&self.flows, turns, bands, self.now)
    }

    /// A band wants turns in the house, and may not have wanted them before.
    pub(super) fn begin_in_house(&mut self, band: Band, at: MonoTime) {
        let has = |order: &Order| order.has(band);
        if !has(&self.ready) && !self.parked.get(&Place::House).is_some_and(|at| has(&at.lanes)) {
            self.turns.entry(Place::House).or_default().begin(band, at);
        }
    }

    /// A turn of so many units, early or not.
    pub(super) fn charge_at(
        &mut self,
        now: MonoTime,
        place: Place,
        key: FlowKey,
        (cost, is_early): (u32, bool),
    ) {
        let bands = self.bands_at(place).with(key.band);
        let turns = self.turns.entry(place).or_default();
        let tag = self.flows.charge(key, cost, turns.floor(key.band));
        turns.serve((key.band, cost, is_early), bands, tag, now);
    }

    fn tag_at(&self, key: FlowKey, place: Place) -> u64 {
        let turns = self.turns.get(&place);
        self.flows.tag_at(key, turns.map_or(0, |turns| turns.floor(key.band)))
    }

    /// Who wants turns at a place: whoever waits there, or was called and may have been.
    pub(super) fn bands_at(&self, place: Place) -> Bands {
        let ready = self.ready.bands();
        self.parked.get(&place).map_or(ready, |at| at.lanes.bands().and(ready))
    }
}
