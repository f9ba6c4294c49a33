//! Notices that nobody has needed forbear for a while: `proxy.idle_exit`.
//!
//! For jobs that cannot say when they are done. Looking once a second costs nothing that a request
//! would feel, and makes the end a second late, never early.

use super::Control;
use crate::admin::backend::Backend;
use crate::policy::time::MonoTime;
use crate::telemetry::view::UpstreamView;

/// Since when nobody has needed this forbear.
#[derive(Debug)]
pub struct Idle {
    since: MonoTime,
    /// Exchanges begun until then.
    begun: u64,
}

impl Idle {
    /// Begins now: a job may come late, but not for ever.
    pub fn begin(control: &Control) -> Self {
        Self { since: control.gateway().common.clock.now(), begun: control.exchanges_begun() }
    }

    /// Whether it has lasted as long as the configuration in force allows. To be called about once a
    /// second, since what goes on is only seen when it is looked at.
    pub fn is_over(&mut self, control: &Control) -> bool {
        let gateway = control.gateway();
        let Some(idle_exit) = gateway.settings.proxy.idle_exit else {
            *self = Self::begin(control);
            return false;
        };
        let now = gateway.common.clock.now();
        let begun = control.exchanges_begun();
        if begun != self.begun || is_busy(control) {
            *self = Self { since: now, begun };
        }
        now >= self.since + idle_exit
    }
}

/// Whether an exchange waits, is in flight, or goes on as another protocol.
fn is_busy(control: &Control) -> bool {
    let at_work = |upstream: UpstreamView| upstream.in_flight + upstream.queued > 0;
    control.load.exchanges() > 0 || control.upstreams().into_iter().any(at_work)
}
