//! How many retries an upstream gets: a share of the first attempts, and a few that are always
//! allowed.
//!
//! Retries help against single failures and harm in an outage, when every request fails and each
//! retry is one more. A budget tells the two apart without knowing why anything failed: over a
//! sliding minute, retries ≤ ratio × first attempts + floor. Nothing is saved up beyond the
//! minute, so a quiet night does not pay for a storm in the morning.

use std::time::Duration;

use super::time::MonoTime;
use super::window::Window;

/// Ten slots of six seconds.
const WINDOW: Duration = Duration::from_secs(60);

/// First attempts and retries of the last minute.
#[derive(Clone, Debug, Default)]
pub struct RetryBudget {
    window: Window<Spending>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spending {
    firsts: u32,
    retries: u32,
}

impl RetryBudget {
    /// Counts a first attempt. Call it when the attempt is sent.
    pub fn deposit(&mut self, now: MonoTime) {
        let spending = self.window.current(now, WINDOW);
        spending.firsts = spending.firsts.saturating_add(1);
    }

    /// Takes one retry out of the budget, if there is one left. Call it when the retry is sent.
    ///
    /// `ratio` is retries per first attempt, `floor` retries per minute that are always allowed.
    pub fn try_withdraw(&mut self, ratio: f64, floor: u32, now: MonoTime) -> bool {
        let Spending { firsts, retries } = self.recent(now);
        if retries >= allowed(firsts, ratio, floor) {
            return false;
        }
        let spending = self.window.current(now, WINDOW);
        spending.retries = spending.retries.saturating_add(1);
        true
    }

    /// What is left of the budget: 1.0 untouched, 0.0 empty.
    pub fn remaining_ratio(&self, ratio: f64, floor: u32, now: MonoTime) -> f64 {
        let Spending { firsts, retries } = self.recent(now);
        let allowed = allowed(firsts, ratio, floor);
        if allowed == 0 {
            return 0.0;
        }
        f64::from(allowed.saturating_sub(retries)) / f64::from(allowed)
    }

    fn recent(&self, now: MonoTime) -> Spending {
        self.window.recent(now, WINDOW).fold(Spending::default(), |sum, slot| Spending {
            firsts: sum.firsts.saturating_add(slot.firsts),
            retries: sum.retries.saturating_add(slot.retries),
        })
    }
}

fn allowed(firsts: u32, ratio: f64, floor: u32) -> u32 {
    // A cast from a float saturates and takes what is not a number as 0: both are safe here.
    let share = (f64::from(firsts) * ratio) as u32;
    share.saturating_add(floor)
}

#[cfg(test)]
mod tests;
