//! Finds the longest of many prefixes that holds a path.
//!
//! The prefixes lie in alphabetical order, so those that begin with what was read so far are
//! neighbours, the shortest first. Each byte of the path narrows them down by two binary searches
//! at most, and by none while all of them agree: what it costs is the length of the prefix, and a
//! little for each doubling of their number. A table by hash would be no simpler, since an escape
//! that nobody may interpret has to be recognised within every prefix that it could belong to.

use super::path::{Piece, Pieces, Stripped};

/// Prefixes and the indices of their upstreams.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// Without a final slash, in alphabetical order.
    sorted: Vec<(Box<[u8]>, usize)>,
}

impl Prefixes {
    /// Of equal prefixes the first is found. None may contain a backslash or an escape.
    pub(super) fn new<'a>(prefixes: impl Iterator<Item = &'a str>) -> Self {
        let trimmed = prefixes.map(|prefix| prefix.trim_end_matches('/').as_bytes().into());
        let mut sorted: Vec<_> = trimmed.zip(0..).collect();
        sorted.sort();
        sorted.dedup_by(|later, earlier| later.0 == earlier.0);
        Self { sorted }
    }

    /// The longest prefix under which `path` lies, or would lie for a reader that guesses; as
    /// [`super::path::strip`] sees it. The index means nothing where it is outside of all.
    pub(super) fn find<'a>(&self, path: &'a str) -> (usize, Stripped<'a>) {
        let mut found = (0, Stripped::Outside);
        let mut rest = self.sorted.as_slice();
        let mut pieces = Pieces::of(path);
        let mut guessed = false;
        for depth in 0.. {
            let follows = path.get(path.len() - pieces.len()..);
            let piece = pieces.next();
            if let Some(((prefix, index), longer)) = rest.split_first()
                && prefix.len() == depth
            {
                match (piece, follows) {
                    (None | Some(Piece::Raw(b'/')), Some(follows)) if !guessed => {
                        found = (*index, Stripped::Inside(follows));
                    }
                    (None | Some(Piece::Raw(b'/') | Piece::Escaped(b'/' | b'\\')), _)
                    | (Some(Piece::Broken), _) => found = (*index, Stripped::Ambiguous),
                    (Some(Piece::Raw(_) | Piece::Escaped(_)), _) => {}
                }
                rest = longer;
            }
            let Some((_, index)) = rest.first() else { break };
            let byte = match piece {
                None => break,
                Some(Piece::Broken) => return (*index, Stripped::Ambiguous),
                Some(Piece::Escaped(b'/' | b'\\')) => {
                    guessed = true;
                    b'/'
                }
                Some(Piece::Raw(byte) | Piece::Escaped(byte)) => byte,
            };
            rest = narrowed(rest, depth, byte);
        }
        found
    }
}

/// Those that go on with `byte`. All are longer than `depth`.
fn narrowed(all: &[(Box<[u8]>, usize)], depth: usize, byte: u8) -> &[(Box<[u8]>, usize)] {
    let at = |entry: &(Box<[u8]>, usize)| entry.0.get(depth).copied();
    let is_wanted = |entry: Option<&_>| entry.and_then(at) == Some(byte);
    if is_wanted(all.first()) && is_wanted(all.last()) {
        return all;
    }
    let from = all.partition_point(|entry| at(entry) < Some(byte));
    let all = all.get(from..).unwrap_or_default();
    let to = all.partition_point(|entry| at(entry) == Some(byte));
    all.get(..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gateway::path::strip;

    proptest! {
        #[test]
        fn the_longest_prefix_is_found_as_if_each_had_been_tried(
            prefixes in prop::collection::vec("(/[ab]{0,2}){1,3}", 1..12),
            path in "(/|a|b|%2f|%5C|%61|%zz|%|c){0,10}",
        ) {
            let mut by_length: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            by_length.sort_by_key(|prefix| std::cmp::Reverse(prefix.trim_end_matches('/').len()));
            let expected = by_length
                .iter()
                .map(|prefix| (*prefix, strip(&path, prefix)))
                .find(|(_, stripped)| *stripped != Stripped::Outside);

            let (index, stripped) = Prefixes::new(prefixes.iter().map(String::as_str)).find(&path);

            prop_assert_eq!(stripped, expected.map_or(Stripped::Outside, |(_, stripped)| stripped));
            if let (Stripped::Inside(_), Some((prefix, _))) = (stripped, expected) {
                let found = prefixes[index].trim_end_matches('/');
                prop_assert_eq!(found, prefix.trim_end_matches('/'));
            }
        }
    }
}
