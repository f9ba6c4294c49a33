//! Whose turn it is: bands share a place by their weights, and the flows of a band share equally.
//!
//! Self-clocked fair queueing, twice. Each place counts the turns of its bands, as `order` tells. Within a
//! band every flow has a *tag*, the virtual time at which its next turn ends, and the lowest tag goes
//! first: a turn moves its flow's tag on by what it cost, and a flow that comes anew stands one turn
//! behind those that went. So a band gets its share however many flows are in it or come to it, within a
//! band each flow gets as much as any other, however many exchanges or lanes it has, and where only one
//! flow waits, tags are equal and arrival decides.

use std::collections::BTreeSet;

use super::{Needs, TicketId};
use crate::policy::hash::IdMap;

/// Flows known by themselves. Beyond that they share; at about 200 bytes each this is 100 KB.
const FLOWS_MAX: usize = 512;
/// What those share for which there was no room, in each band.
const FLOWS_SHARED: u64 = 64;
/// Every band but the highest that wants turns at a place keeps one in so many; the highest has the rest.
const TURNS_PER_LOW: u64 = 20;

/// Names a unit of fairness: a salted hash of its name; 0 for those who gave none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// How urgent an exchange is, from first to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Somebody is waiting for it.
    Critical,
    /// Before the usual.
    High,
    /// The usual.
    #[default]
    Default,
    /// After the usual.
    Low,
    /// Whenever nobody else wants the quota.
    Backfill,
}

impl Band {
    /// All of them, in their order.
    pub const ALL: [Self; 5] =
        [Self::Critical, Self::High, Self::Default, Self::Low, Self::Backfill];

    /// As it is written: `backfill`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Default => "default",
            Self::Low => "low",
            Self::Backfill => "backfill",
        }
    }

    /// The band of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|band| band.name() == name)
    }

    /// The band so many above it, or the first.
    pub(super) fn raised(self, steps: u64) -> Self {
        let place = (self as usize).saturating_sub(usize::try_from(steps).unwrap_or(usize::MAX));
        Self::ALL.get(place).copied().unwrap_or(self)
    }

    pub(super) fn next_lower(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

/// Bands that want turns at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bands(u8);

impl Bands {
    pub(super) fn with(self, band: Band) -> Self {
        Self(self.0 | 1 << band as u8)
    }

    pub(super) fn without(self, band: Band) -> Self {
        Self(self.0 & !(1 << band as u8))
    }

    pub(super) fn have(self, band: Band) -> bool {
        self.0 & (1 << band as u8) != 0
    }

    pub(super) fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether none of them goes before `band`.
    pub(super) fn are_led_by(self, band: Band) -> bool {
        self.0 & ((1 << band as u8) - 1) == 0
    }

    /// What a turn costs `band`, which is one of them: one over its weight, in whole numbers.
    pub(super) fn price(self, band: Band) -> u64 {
        let below = u64::from(self.0.count_ones()) - 1;
        if self.are_led_by(band) { 1 } else { TURNS_PER_LOW - below }
    }
}

/// A flow in one band.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FlowKey {
    pub(super) band: Band,
    pub(super) flow: FlowId,
}

impl FlowKey {
    /// No key comes before this one in its band.
    pub(super) fn first_of(band: Band) -> Self {
        Self { band, flow: FlowId(0) }
    }

    /// Of those whose order a key prescribes; they have numbers instead of tags.
    pub(super) const ORDERED: Self =
        Self { band: Band::Critical, flow: FlowId(u64::MAX - FLOWS_SHARED) };
}

/// What a flow had, and who of it waits.
#[derive(Debug, Default)]
struct Flow {
    /// When its next turn ends; 0 for a new one.
    tag: u64,
    tickets: BTreeSet<TicketId>,
}

/// The flows of one line.
#[derive(Debug, Default)]
pub(super) struct Flows {
    known: IdMap<FlowKey, Flow>,
    /// Those of which nobody waits, by their tags: the first has the least to answer for.
    idle: BTreeSet<(u64, FlowKey)>,
    /// Those of which somebody waits, by band and number.
    lengths: BTreeSet<(Band, usize, FlowKey)>,
    /// How many wait, of each band.
    queued: [u32; Band::ALL.len()],
}

impl Flows {
    /// Under which key these needs are accounted for.
    pub(super) fn key_of(&self, needs: &Needs) -> FlowKey {
        let key = FlowKey { band: needs.band, flow: needs.flow };
        let has_room = self.known.len() < FLOWS_MAX || !self.idle.is_empty();
        if has_room || self.known.contains_key(&key) {
            return key;
        }
        FlowKey { flow: FlowId(u64::MAX - needs.flow.0 % FLOWS_SHARED), ..key }
    }

    pub(super) fn tag(&self, key: FlowKey) -> u64 {
        self.known.get(&key).map_or(0, |flow| flow.tag)
    }

    pub(super) fn enter(&mut self, key: FlowKey, id: TicketId) {
        let flow = self.flow(key);
        let (before, tag) = (flow.tickets.len(), flow.tag);
        flow.tickets.insert(id);
        if before == 0 {
            self.idle.remove(&(tag, key));
        }
        self.count(key, before, before + 1);
    }

    pub(super) fn leave(&mut self, key: FlowKey, id: TicketId) {
        let Some(flow) = self.known.get_mut(&key) else { return };
        let before = flow.tickets.len();
        flow.tickets.remove(&id);
        if flow.tickets.is_empty() {
            self.idle.insert((flow.tag, key));
        }
        self.count(key, before, before - 1);
    }

    /// Its tag in a place where its band has come to `floor`: what others had there meanwhile is no
    /// credit of one that was held back elsewhere.
    pub(super) fn tag_at(&self, key: FlowKey, floor: u64) -> u64 {
        let tag = self.tag(key);
        if tag == 0 || tag < floor { floor.saturating_add(1) } else { tag }
    }

    /// It waits in such a place.
    pub(super) fn settle(&mut self, key: FlowKey, floor: u64) {
        self.charge(key, 0, floor);
    }

    /// It has a turn in such a place; says when that ends.
    pub(super) fn charge(&mut self, key: FlowKey, cost: u32, floor: u64) -> u64 {
        let end = self.tag_at(key, floor);
        self.set(key, end.saturating_add(u64::from(cost)));
        end
    }

    /// How many wait in each band.
    pub(super) fn queued(&self) -> [u32; Band::ALL.len()] {
        self.queued
    }

    /// Whether only one flow waits.
    pub(super) fn is_one(&self) -> bool {
        self.lengths.len() == 1
    }

    /// Who gives way to an exchange with these needs: the newest of the longest flow in the lowest
    /// band; `None` if that would be the exchange itself.
    pub(super) fn gives_way_to(&self, needs: &Needs) -> Option<TicketId> {
        let (band, length, key) = *self.lengths.last()?;
        let own = self.known.get(&self.key_of(needs)).map_or(0, |flow| flow.tickets.len()) + 1;
        if (needs.band, own) >= (band, length) {
            return None;
        }
        self.known.get(&key)?.tickets.last().copied()
    }

    /// Nobody waits any more: nobody owes anything.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.idle.clear();
        debug_assert!(self.lengths.is_empty());
    }

    fn set(&mut self, key: FlowKey, tag: u64) {
        let flow = self.flow(key);
        let before = std::mem::replace(&mut flow.tag, tag);
        if flow.tickets.is_empty() {
            self.idle.remove(&(before, key));
            self.idle.insert((tag, key));
        }
    }

    /// A flow of which nobody waits makes room for a new one; a new one is listed as idle.
    fn flow(&mut self, key: FlowKey) -> &mut Flow {
        if self.known.len() >= FLOWS_MAX
            && !self.known.contains_key(&key)
            && let Some((_, forgotten)) = self.idle.pop_first()
        {
            self.known.remove(&forgotten);
        }
        self.known.entry(key).or_default()
    }

    fn count(&mut self, key: FlowKey, before: usize, after: usize) {
        self.lengths.remove(&(key.band, before, key));
        if after > 0 {
            self.lengths.insert((key.band, after, key));
        }
        if let Some(queued) = self.queued.get_mut(key.band as usize) {
            *queued = if after > before { *queued + 1 } else { *queued - 1 };
        }
    }
}
