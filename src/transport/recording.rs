//! What was read of a request body, kept so that it can be sent again.
//!
//! Two bounds hold: one per exchange, one for the process. Small pieces are copied together, so
//! that a client which sends single bytes does not cost thirty times its body in bookkeeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

/// Pieces of at least this size are kept as they are; smaller ones are copied together.
const PIECE_KEPT_WHOLE: usize = 4 * 1024;
/// Copied pieces are sealed at this size, which is what one read of a socket brings.
const SEGMENT_SIZE: usize = 16 * 1024;

/// Bytes of request bodies that the whole process may keep for repeats.
#[derive(Debug)]
pub struct ReplayMemory {
    used: AtomicU64,
    max: AtomicU64,
}

impl ReplayMemory {
    /// `max` in bytes; 0 switches replay off.
    pub fn new(max: u64) -> Self {
        Self { used: AtomicU64::new(0), max: AtomicU64::new(max) }
    }

    /// Bytes kept at present.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The bound, in bytes.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// A new bound, for a reload; what is kept already stays.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    fn take(&self, bytes: u64) -> bool {
        let max = self.max();
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= max)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A place in a recording. The first place is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    segment: usize,
    /// Within the unsealed tail; 0 for every other segment.
    offset: usize,
}

/// The bytes, in order. Gives its memory back when dropped.
#[derive(Debug)]
pub(super) struct Recording {
    sealed: Vec<Bytes>,
    tail: BytesMut,
    bytes: u64,
    /// Taken from the memory for bytes that have not come yet.
    reserved: u64,
    bytes_max: u64,
    memory: Arc<ReplayMemory>,
}

impl Recording {
    pub(super) fn new(bytes_max: u64, memory: Arc<ReplayMemory>) -> Self {
        Self { sealed: Vec::new(), tail: BytesMut::new(), bytes: 0, reserved: 0, bytes_max, memory }
    }

    /// Makes sure that `bytes` more will fit; false, and nothing taken, if they cannot.
    #[must_use]
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        let missing = bytes.saturating_sub(self.reserved);
        let fits = self.bytes.checked_add(bytes).is_some_and(|sum| sum <= self.bytes_max);
        if !fits || !self.memory.take(missing) {
            return false;
        }
        self.reserved += missing;
        true
    }

    /// Keeps one more piece; false, and nothing kept, if that passes a bound.
    #[must_use]
    pub(super) fn push(&mut self, piece: &Bytes) -> bool {
        let length = piece.len() as u64;
        let fits = self.bytes.checked_add(length).is_some_and(|sum| sum <= self.bytes_max);
        let missing = length.saturating_sub(self.reserved);
        if !fits || !self.memory.take(missing) {
            return false;
        }
        self.reserved -= length - missing;
        self.bytes += length;
        if piece.len() >= PIECE_KEPT_WHOLE {
            self.seal();
            self.sealed.push(piece.clone());
        } else {
            self.tail.extend_from_slice(piece);
            if self.tail.len() >= SEGMENT_SIZE {
                self.seal();
            }
        }
        true
    }

    /// What follows `place`, and the place behind it; `None` at the end.
    pub(super) fn read(&self, place: Place) -> Option<(Bytes, Place)> {
        if let Some(segment) = self.sealed.get(place.segment) {
            let next = Place { segment: place.segment + 1, offset: 0 };
            return Some((segment.clone(), next));
        }
        let rest = self.tail.get(place.offset..).filter(|rest| !rest.is_empty())?;
        Some((Bytes::copy_from_slice(rest), self.end()))
    }

    /// Behind the last piece.
    pub(super) fn end(&self) -> Place {
        Place { segment: self.sealed.len(), offset: self.tail.len() }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed.push(self.tail.split().freeze());
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes + self.reserved);
    }
}
