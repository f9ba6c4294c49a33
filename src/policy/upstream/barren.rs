//! Requests that are refused whatever the others do.
//!
//! A refusal without a time says "too many at once" or "too fast", and the whole scope slows down.
//! But where one kind of request is refused every time while others are served, it says something
//! about that kind only: nobody else has to step back for it.

use super::UpstreamPolicy;
use crate::policy::outcome::{Class, Outcome};

/// Refusals in a row, without a success between them, that make a shape barren.
const BARREN_AFTER: u32 = 3;
/// Shapes that are counted at once; they come and go with their refusals.
const SHAPES_MAX: usize = 256;

impl UpstreamPolicy {
    /// Hears how an attempt with a request of this shape ended. Says whether it was refused without
    /// a time as all of its kind were, while `others_are_served`.
    pub(super) fn is_barren(
        &mut self,
        shape: u64,
        outcome: &Outcome,
        others_are_served: bool,
    ) -> bool {
        match outcome.class {
            Class::Ok | Class::Permanent => {
                if !self.barren.is_empty() {
                    self.barren.remove(&shape);
                }
                false
            }
            Class::Throttled if outcome.reading.hint.is_none() && shape != 0 => {
                if self.barren.len() >= SHAPES_MAX && !self.barren.contains_key(&shape) {
                    self.barren.clear();
                }
                let refusals = self.barren.entry(shape).or_default();
                *refusals = refusals.saturating_add(1);
                *refusals > BARREN_AFTER && others_are_served
            }
            Class::Throttled
            | Class::Credential
            | Class::Exhausted
            | Class::Transient
            | Class::Misdirected
            | Class::Unhealthy
            | Class::Overloaded
            | Class::TimedOut
            | Class::Stale
            | Class::Client => false,
        }
    }
}
