//! Members of a pool in the order in which they joined.

use std::collections::BTreeMap;

use super::UpstreamId;

/// Everybody with a number that has not left, and where it waits for a permit, if it does.
#[derive(Debug, Default)]
pub(super) struct Strict {
    members: BTreeMap<u64, Option<UpstreamId>>,
    last: u64,
}

impl Strict {
    /// A number for one more member.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.members.insert(self.last, None);
        self.last
    }

    pub(super) fn is_first(&self, number: u64) -> bool {
        self.members.first_key_value().is_none_or(|(first, _)| *first == number)
    }

    /// It has seen that it cannot go yet, and wants to be called.
    pub(super) fn wait(&mut self, number: u64, at: UpstreamId) {
        if let Some(place) = self.members.get_mut(&number) {
            *place = Some(at);
        }
    }

    /// Where the first waits. It is called once: should it meet something else on its way, it comes
    /// again by itself.
    pub(super) fn call(&mut self) -> Option<UpstreamId> {
        self.members.first_entry()?.get_mut().take()
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.members.remove(&number);
    }

    /// All places where somebody waits; nobody is called to them any more.
    pub(super) fn take_all_waiting(&mut self) -> impl Iterator<Item = UpstreamId> + '_ {
        self.members.values_mut().filter_map(Option::take)
    }
}
