//! Who has to hear of what a lane has met.

use super::{Line, Place, TicketId};

impl Line {
    /// Who has to hear of what `lane_id`, just parked, has met. One lane of a place minds the clock
    /// for all; which one is of no matter, since at the time the first is called, whoever woke.
    pub(super) fn told(&mut self, lane_id: u32, place: Place, has_changed: bool) -> Vec<TicketId> {
        let mut affected = Vec::new();
        let Some(at) = self.parked.get_mut(&place) else { return affected };
        let minder = *at.minder.get_or_insert(lane_id);
        if minder != lane_id
            && let Some(lane) = self.lanes.get_mut(&lane_id)
        {
            lane.told = None;
        }
        if let Some(lane) = self.lanes.get_mut(&minder)
            && let Some(head) = lane.head()
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
}
