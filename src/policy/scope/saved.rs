//! What of a scope is worth keeping over a restart: until when it is closed.

use std::sync::Arc;

use super::{Cooldown, Scope};
use crate::policy::time::MonoTime;

impl Scope {
    /// Goes on where another process stopped, or another scope that was this one all the time; a
    /// pause that is over is not begun, and none is made shorter. Afterwards one goes first, as
    /// after any pause.
    pub fn restore(&mut self, now: MonoTime, cooldown: Cooldown) {
        let own = self.cooldown.as_ref().map_or(now, |own| own.until);
        if now.max(own) < cooldown.until {
            self.last_refused = cooldown.received;
            self.cooldown = Some(cooldown);
        }
    }
}

/// What went of a limit that the operator set, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpentQuota {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// Units that are counted.
    pub units: u64,
    /// When the last of them is no longer.
    pub until: MonoTime,
}

impl Scope {
    /// What went of limits that the operator set.
    pub fn spent(&self, now: MonoTime) -> impl Iterator<Item = SpentQuota> + '_ {
        self.quotas.rolling().filter_map(move |(name, rolling)| {
            let (units, until) = rolling.spent(now)?;
            Some(SpentQuota { name: name.clone(), units, until })
        })
    }

    /// Counts what another process spent of a limit, if there still is one of that name.
    pub fn restore_spent(&mut self, now: MonoTime, spent: &SpentQuota) {
        let own = self.quotas.rolling_mut().find(|(name, _)| **name == spent.name);
        if let Some((_, rolling)) = own {
            rolling.restore(now, spent.units, spent.until);
        }
    }
}
