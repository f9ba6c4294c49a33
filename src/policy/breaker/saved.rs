//! What of a breaker is worth keeping over a restart: that it is open, by itself or by hand.
//!
//! A closed breaker is not kept. Its counts say something about minutes that have passed by the
//! time that somebody reads them, and would open the next one on stale evidence.

use super::{Breaker, Circuit, State};
use crate::policy::time::MonoTime;

/// A breaker that is not just closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedCircuit {
    /// Never [`Circuit::Closed`].
    pub circuit: Circuit,
    /// How often it opened without being well in between: the next open time follows from it.
    pub openings: u32,
    /// Failures that opened it.
    pub failures: u32,
}

impl Breaker {
    /// `None` if it is closed.
    pub fn saved(&self, now: MonoTime) -> Option<SavedCircuit> {
        let circuit = self.circuit(now);
        let (openings, failures) = (self.openings, self.failures);
        (circuit != Circuit::Closed).then_some(SavedCircuit { circuit, openings, failures })
    }

    /// Goes on where another process stopped. An open time that has passed, or a half-open breaker
    /// whose probes are gone, gets one probe; an override that has passed is over.
    pub fn restore(&mut self, now: MonoTime, saved: &SavedCircuit) {
        self.state = match saved.circuit {
            Circuit::Open { until } => State::Open { until },
            Circuit::HalfOpen => State::Open { until: now },
            Circuit::ForcedOpen { until } if now < until => State::ForcedOpen { until },
            Circuit::ForcedClosed { until } if now < until => State::ForcedClosed { until },
            Circuit::Closed | Circuit::ForcedOpen { .. } | Circuit::ForcedClosed { .. } => return,
        };
        self.generation = self.generation.wrapping_add(1);
        self.openings = saved.openings;
        self.failures = saved.failures;
    }
}
