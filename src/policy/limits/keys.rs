//! Which declaration covers a key, found in a time that hardly depends on how many there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::policy::settings::KeySettings;

/// The declared keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Every declaration by the words it is written in, patterns included.
    exact: HashMap<Arc<str>, KeySettings>,
    /// Patterns by what stands before the `*`.
    stems: HashMap<Arc<str>, KeySettings>,
    /// Lengths of these in bytes; few, since they are written by people.
    lengths: BTreeSet<usize>,
}

impl Keys {
    pub(super) fn new(declared: &[KeySettings]) -> Self {
        let mut keys = Self::default();
        for key in declared {
            keys.exact.insert(key.pattern.clone(), key.clone());
            if let Some(stem) = key.pattern.strip_suffix('*') {
                keys.stems.insert(stem.into(), key.clone());
                keys.lengths.insert(stem.len());
            }
        }
        keys
    }

    /// The declaration that covers `name`: its own, else the pattern with the longest fixed part.
    pub(super) fn covering(&self, name: &str) -> Option<&KeySettings> {
        let longest_first = self.lengths.iter().rev();
        self.exact.get(name).or_else(|| {
            longest_first.filter_map(|length| name.get(..*length)).find_map(|it| self.stems.get(it))
        })
    }

    /// Whether `name` itself was declared, so that its pool stays.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.exact.contains_key(name)
    }
}
