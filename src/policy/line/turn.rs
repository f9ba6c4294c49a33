//! Turns: who has one, who had one, and who goes before whom.

use super::flow::{Band, FlowKey, There};
use super::order::{First, Rank};
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
        let end = self.charge_at(place, key, cost, is_early);
        if let Some(turns) = self.turns.get_mut(&place) {
            turns.serve(key.band, end, now);
        }
        self.leave(now, id)
    }

    /// One goes that never stood here; if others wait, its flow has had this turn.
    pub fn serve_passing(&mut self, needs: &Needs) {
        if !self.is_empty() {
            let key = self.flows.key_of(needs);
            self.charge_at(Place::House, key, needs.cost, false);
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
            let first = self.ready.first(&self.flows, None, self.now);
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
        let key = lane.map_or_else(|| self.flows.key_of(needs), |lane| lane.key);
        let tag = self.tag_at(key, place);
        self.goes_before(Rank { tag, band: key.band, id }, place)
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
        at.lanes.first(&self.flows, self.turns.get(&place), self.now)
    }

    fn charge_at(&mut self, place: Place, key: FlowKey, cost: u32, is_early: bool) -> u128 {
        self.flows.charge(key, cost, self.there(place, key), is_early)
    }

    fn tag_at(&self, key: FlowKey, place: Place) -> u128 {
        self.flows.tag_at(key, self.there(place, key))
    }

    fn there(&self, place: Place, key: FlowKey) -> There {
        There {
            floor: self.turns.get(&place).map_or(0, |turns| turns.floor),
            rivals: self.parked.get(&place).map_or(1, |at| at.lanes.rivals(key)),
        }
    }
}
