//! Tables by our own ids.
//!
//! The standard hash protects tables whose keys an attacker may choose, and costs twenty
//! nanoseconds a look; an exchange makes dozens. Tickets, lanes, pools and routes are numbered here,
//! and a credential is a salted hash already, so for them one multiplication is enough. Names that
//! callers choose stay in standard tables.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A table by ids that nobody outside can choose.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A set of such ids.
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Mixes words by multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

/// 2^64 over the golden ratio, odd: neighbours end up far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(SPREAD);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    /// The low bits of a product hang on few bits of its factors, and a table reads the low ones.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn numbered_ids_spread_evenly_over_a_table() {
        let state = BuildHasherDefault::<IdHasher>::default();
        let places = 1 << 12;
        let most_in_one_place = |ids: &mut dyn Iterator<Item = u64>| {
            let mut counts = vec![0_u32; places];
            for hash in ids {
                counts[usize::try_from(hash).unwrap_or(0) % places] += 1;
            }
            counts.into_iter().max()
        };
        let one = |id: u32| state.hash_one(id);
        let pair = |id: u32| state.hash_one((id % 8, u64::from(id / 8)));
        let steps = |id: u32| state.hash_one(u64::from(id) << 12);
        assert!(most_in_one_place(&mut (0..4096).map(one)) <= Some(8));
        assert!(most_in_one_place(&mut (0..4096).map(pair)) <= Some(8));
        assert!(most_in_one_place(&mut (0..4096).map(steps)) <= Some(8));
    }
}
