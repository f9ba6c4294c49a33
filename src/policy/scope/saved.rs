//! What of a scope is worth keeping over a restart: until when it is closed.

use super::{Cooldown, Scope};
use crate::policy::time::MonoTime;

impl Scope {
    /// Goes on where another process stopped; a pause that is over is not begun. Afterwards one goes
    /// first, as after any pause.
    pub fn restore(&mut self, now: MonoTime, cooldown: Cooldown) {
        if now < cooldown.until {
            self.last_refused = cooldown.received;
            self.cooldown = Some(cooldown);
        }
    }
}
