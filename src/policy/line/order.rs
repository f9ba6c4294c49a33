//! The lanes of one place, in the order of their turns.
//!
//! A turn moves the tag of one flow, which may have a lane in every place. So a place lists its
//! flows under the tags that it last saw, and since tags only grow, it is enough to look again at
//! the one that stands first: if it has moved on, it is listed anew.

use std::collections::BTreeSet;
use std::time::Duration;

use super::TicketId;
use super::flow::{Band, FlowKey, Flows};
use crate::policy::hash::IdMap;
use crate::policy::time::MonoTime;

/// A band that had no turn for this long where it waits counts one band higher, and so on.
const AGE_STEP: Duration = Duration::from_secs(30);

/// Who goes first: the lowest tag, the higher band, the older ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) tag: u128,
    pub(super) band: Band,
    pub(super) id: TicketId,
}

impl Rank {
    /// Nobody goes before.
    pub(super) const FIRST: Self = Self { tag: 0, band: Band::Critical, id: TicketId(0) };
}

/// What a place remembers of the turns it gave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    /// The virtual time to which they have come.
    pub(super) floor: u128,
    /// When each band had its last one, or began to wait.
    pub(super) served: [MonoTime; Band::ALL.len()],
}

impl Turns {
    pub(super) fn serve(&mut self, band: Band, end: u128, now: MonoTime) {
        self.floor = self.floor.max(end);
        self.begin(band, now);
    }

    pub(super) fn begin(&mut self, band: Band, at: MonoTime) {
        if let Some(served) = self.served.get_mut(band as usize) {
            *served = at.max(*served);
        }
    }

    /// By how many bands this one counts higher.
    fn aged(&self, band: Band, now: MonoTime) -> u32 {
        let served = self.served.get(band as usize).copied().unwrap_or(now);
        let steps = now.since(served).as_nanos() / AGE_STEP.as_nanos();
        u32::try_from(steps).unwrap_or(u32::MAX)
    }
}

/// The lane that goes first in a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) rank: Rank,
    pub(super) key: FlowKey,
    pub(super) lane: u32,
    /// Whether its band waited for so long that it counts higher.
    pub(super) is_aged: bool,
}

/// Where a lane is listed: under its flow and head, or under its number in a prescribed order.
pub(super) type Seat = (FlowKey, TicketId);

/// Band, tag when last looked at, first head; by band first, since bands differ in age.
type Listed = (Band, u128, TicketId);

/// Lanes of one place.
#[derive(Debug, Default)]
pub(super) struct Order {
    lanes: BTreeSet<(FlowKey, TicketId, u32)>,
    /// The flows of these lanes.
    flows: BTreeSet<(Listed, FlowKey)>,
    listed: IdMap<FlowKey, Listed>,
    /// How many flows each band has here.
    counts: [u32; Band::ALL.len()],
}

impl Order {
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = u32> + '_ {
        self.lanes.iter().map(|(_, _, lane)| *lane)
    }

    pub(super) fn has(&self, band: Band) -> bool {
        self.count(band) > 0
    }

    /// Flows that compete with this one in its band, itself included.
    pub(super) fn rivals(&self, key: FlowKey) -> u32 {
        self.count(key.band) + u32::from(!self.listed.contains_key(&key))
    }

    fn count(&self, band: Band) -> u32 {
        self.counts.get(band as usize).copied().unwrap_or(0)
    }

    pub(super) fn insert(&mut self, (key, id): Seat, lane: u32, flows: &Flows) {
        self.lanes.insert((key, id, lane));
        self.list(key, flows);
    }

    pub(super) fn remove(&mut self, (key, id): Seat, lane: u32, flows: &Flows) {
        self.lanes.remove(&(key, id, lane));
        self.list(key, flows);
    }

    /// Who goes first, where turns were given as `turns` tells; without it bands have no age.
    pub(super) fn first(
        &mut self,
        flows: &Flows,
        turns: Option<&Turns>,
        now: MonoTime,
    ) -> Option<First> {
        let mut best: Option<(Rank, FlowKey, bool)> = None;
        let mut top = self.flows.first().copied();
        while let Some(((band, tag, id), key)) = top {
            if tag != flows.tag(key) {
                self.list(key, flows);
                top = self.top_of(band);
                continue;
            }
            let aged = turns.map_or(0, |turns| turns.aged(band, now));
            let tag = if aged == 0 { tag } else { flows.aged_tag(key, aged) };
            let rank = Rank { tag, band, id };
            if best.is_none_or(|(best, ..)| rank < best) {
                best = Some((rank, key, aged > 0));
            }
            top = band.next_lower().and_then(|lower| self.top_from(lower));
        }
        let (rank, key, is_aged) = best?;
        let (.., lane) = *self.lanes.range((key, rank.id, 0)..).next()?;
        Some(First { rank, key, lane, is_aged })
    }

    fn top_from(&self, band: Band) -> Option<(Listed, FlowKey)> {
        self.flows
            .range(((band, 0, TicketId(0)), FlowKey::first_of(Band::Critical))..)
            .next()
            .copied()
    }

    fn top_of(&self, band: Band) -> Option<(Listed, FlowKey)> {
        self.top_from(band).filter(|((of, ..), _)| *of == band)
    }

    /// Lists a flow under its tag and first head as they are now.
    fn list(&mut self, key: FlowKey, flows: &Flows) {
        let head = self.lanes.range((key, TicketId(0), 0)..).next();
        let head = head.filter(|(of, ..)| *of == key).map(|(_, id, _)| *id);
        let now = head.map(|id| (key.band, flows.tag(key), id));
        let before = match now {
            Some(now) => self.listed.insert(key, now),
            None => self.listed.remove(&key),
        };
        if let Some(count) = self.counts.get_mut(key.band as usize) {
            *count = *count + u32::from(now.is_some()) - u32::from(before.is_some());
        }
        if before != now {
            if let Some(before) = before {
                self.flows.remove(&(before, key));
            }
            self.flows.extend(now.map(|now| (now, key)));
        }
    }
}
