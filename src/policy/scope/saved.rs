//! What of a scope is worth keeping over a restart: until when it is closed.

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
