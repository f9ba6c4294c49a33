//! The lanes of one place, in the order of their turns.
//!
//! A place counts the turns of each band in virtual time: a band's next turn ends its price after the
//! last one, and the earliest end goes first. The price is that of the moment, by the bands that are
//! there then, so that neither who comes nor who leaves makes what was counted wrong.
//!
//! A turn moves the tag of one flow, which may have a lane in every place. So a place lists its
//! flows under the tags that it last saw, and since tags only grow, it is enough to look again at
//! the one that stands first: if it has moved on, it is listed anew.

use std::collections::BTreeSet;
use std::time::Duration;

use super::TicketId;
use super::flow::{Band, Bands, FlowKey, Flows};
use crate::policy::hash::IdMap;
use crate::policy::time::MonoTime;

/// A band that had no turn for this long where it waits counts one band higher, and so on.
const AGE_STEP: Duration = Duration::from_secs(30);

/// Who goes first: the band whose turn ends first, the higher one, its flow of the lowest tag, the older
/// ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) turn: u64,
    pub(super) band: Band,
    pub(super) tag: u64,
    pub(super) id: TicketId,
}

impl Rank {
    /// Nobody goes before.
    pub(super) const FIRST: Self = Self { turn: 0, band: Band::Critical, tag: 0, id: TicketId(0) };
}

/// What a place remembers of the turns it gave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    /// The virtual time to which they have come.
    floor: u64,
    bands: [BandTurns; Band::ALL.len()],
}

/// … to one band.
#[derive(Clone, Copy, Debug, Default)]
struct BandTurns {
    /// When its last one ended, in virtual time.
    end: u64,
    /// The virtual time to which its flows have come.
    flows: u64,
    /// When it had its last one, or began to wait.
    served: MonoTime,
}

impl Turns {
    /// The virtual time to which the flows of this band have come here.
    pub(super) fn floor(&self, band: Band) -> u64 {
        self.of(band).flows
    }

    /// A band wants turns here again: for those that it did not want meanwhile it gets none.
    pub(super) fn begin(&mut self, band: Band, at: MonoTime) {
        let floor = self.floor;
        if let Some(own) = self.bands.get_mut(band as usize) {
            own.end = own.end.max(floor);
            own.served = at.max(own.served);
        }
    }

    /// When the next turn of `band` ends where these want one, and whether it comes early: because
    /// the band had none for so long that it counts as high as the highest.
    pub(super) fn next(&self, band: Band, bands: Bands, now: MonoTime) -> (u64, bool) {
        let own = self.of(band);
        let end = own.end.saturating_add(bands.price(band));
        if bands.are_led_by(band) {
            return (end, false);
        }
        let steps = now.since(own.served).as_secs() / AGE_STEP.as_secs();
        let is_aged = bands.are_led_by(band.raised(steps));
        if is_aged { (end.min(self.floor), true) } else { (end, false) }
    }

    /// A flow of `band`, whose own turn ends at `tag`, has one of so many units. An early one does not
    /// put the next one off for longer.
    pub(super) fn serve(
        &mut self,
        (band, cost, is_early): (Band, u32, bool),
        bands: Bands,
        tag: u64,
        now: MonoTime,
    ) {
        let (floor, price) = (self.floor, bands.price(band));
        let Some(own) = self.bands.get_mut(band as usize) else { return };
        let from = if is_early { own.end.min(floor) } else { own.end };
        self.floor = floor.max(from.saturating_add(if is_early { 0 } else { price }));
        own.end = own.end.max(from.saturating_add(price.saturating_mul(u64::from(cost))));
        own.flows = own.flows.max(tag);
        own.served = now.max(own.served);
    }

    fn of(&self, band: Band) -> BandTurns {
        self.bands.get(band as usize).copied().unwrap_or_default()
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
type Listed = (Band, u64, TicketId);

/// Lanes of one place.
#[derive(Debug, Default)]
pub(super) struct Order {
    lanes: BTreeSet<(FlowKey, TicketId, u32)>,
    /// The flows of these lanes.
    flows: BTreeSet<(Listed, FlowKey)>,
    listed: IdMap<FlowKey, Listed>,
    /// How many flows each band has here, and which have any.
    counts: [u32; Band::ALL.len()],
    bands: Bands,
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

    /// The only one of them.
    pub(super) fn only(&self) -> Option<u32> {
        let first = self.lanes.first().filter(|_| self.lanes.len() == 1)?;
        Some(first.2)
    }

    pub(super) fn has(&self, band: Band) -> bool {
        self.bands.have(band)
    }

    /// The bands of these lanes.
    pub(super) fn bands(&self) -> Bands {
        self.bands
    }

    pub(super) fn insert(&mut self, (key, id): Seat, lane: u32, flows: &Flows) {
        self.lanes.insert((key, id, lane));
        self.list(key, flows);
    }

    pub(super) fn remove(&mut self, (key, id): Seat, lane: u32, flows: &Flows) {
        self.lanes.remove(&(key, id, lane));
        self.list(key, flows);
    }

    /// Who goes first, where `bands`, of which these lanes are, want turns that were given as `turns`
    /// tells.
    pub(super) fn first(
        &mut self,
        flows: &Flows,
        turns: &Turns,
        bands: Bands,
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
            let (turn, is_aged) = turns.next(band, bands, now);
            let rank = Rank { turn, band, tag, id };
            if best.is_none_or(|(best, ..)| rank < best) {
                best = Some((rank, key, is_aged));
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
            let others = self.bands.without(key.band);
            self.bands = if *count > 0 { others.with(key.band) } else { others };
        }
        if before != now {
            if let Some(before) = before {
                self.flows.remove(&(before, key));
            }
            self.flows.extend(now.map(|now| (now, key)));
        }
    }
}
