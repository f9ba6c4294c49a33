//! Who waits for a pool, in the order of their turns.

use std::collections::BTreeMap;

use super::UpstreamId;
use crate::policy::hash::IdMap;

/// Each upstream once, the first in line first; every step is logarithmic.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: BTreeMap<u64, UpstreamId>,
    places: IdMap<UpstreamId, u64>,
    next: u64,
}

impl Turns {
    pub(super) fn first(&self) -> Option<UpstreamId> {
        self.order.first_key_value().map(|(_, upstream)| *upstream)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Stands at the end, unless it stands somewhere already.
    pub(super) fn enter(&mut self, upstream: UpstreamId) {
        let Self { order, places, next } = self;
        places.entry(upstream).or_insert_with(|| {
            *next += 1;
            order.insert(*next, upstream);
            *next
        });
    }

    /// False if it did not stand there.
    pub(super) fn leave(&mut self, upstream: UpstreamId) -> bool {
        let place = self.places.remove(&upstream);
        place.is_some_and(|place| self.order.remove(&place).is_some())
    }

    /// The first had its turn and stands at the end.
    pub(super) fn rotate(&mut self) {
        if let Some(first) = self.first()
            && self.leave(first)
        {
            self.enter(first);
        }
    }
}
