//! What a band leaves of each quota for those that are more urgent.
//!
//! A backfill that uses up a window leaves an interactive run waiting for the next one, whatever the
//! order of the queue. So, while somebody more urgent was there within the last ten minutes, every
//! band but the first leaves a share of each window untouched. Where nobody is, all of it is used.

use std::time::Duration;

use super::{Context, UpstreamPolicy};
use crate::policy::line::{Band, Needs, Obstacle, Place, Why};
use crate::policy::time::MonoTime;

/// Who was there so lately is expected to come again.
const EXPECTED_FOR: Duration = Duration::from_secs(600);

/// When each band was last asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen([Option<MonoTime>; Band::ALL.len()]);

impl Seen {
    pub(super) fn note(&mut self, now: MonoTime, band: Band) {
        if let Some(seen) = self.0.get_mut(band as usize) {
            *seen = Some(now);
        }
    }

    /// Until when somebody more urgent than `band` is expected, if at all.
    fn expects_above(&self, now: MonoTime, band: Band) -> Option<MonoTime> {
        let above = self.0.iter().take(band as usize).copied().flatten();
        above.map(|seen| seen + EXPECTED_FOR).filter(|until| now < *until).max()
    }
}

/// The share of each window that a band leaves untouched, in percent.
fn share(band: Band) -> u64 {
    match band {
        Band::Critical => 0,
        Band::High => 5,
        Band::Default => 10,
        Band::Low => 30,
        Band::Backfill => 50,
    }
}

impl UpstreamPolicy {
    /// Whether these needs would spend what others are expected to want.
    pub(super) fn check_reserve(
        &mut self,
        cx: &Context<'_>,
        needs: &Needs,
    ) -> Result<(), Obstacle> {
        let now = cx.now;
        let Some(expected_until) = self.seen.expects_above(now, needs.band) else { return Ok(()) };
        let (key, _) = self.scope(cx, needs.bucket, needs.credential);
        let narrow = self.scopes.get_mut(&key);
        let wide = self.credentials.get_mut(&needs.credential);
        for scope in narrow.into_iter().chain(wide) {
            if let Err(closed) = scope.check_reserve(now, needs.cost, share(needs.band)) {
                return Err(Obstacle {
                    place: Place::Reserve(key.0, key.1, needs.band),
                    // Then nobody is expected any more; an answer may tell of more before.
                    until: Some(closed.until.map_or(expected_until, |at| at.min(expected_until))),
                    kind: closed.kind,
                    why: Why::Pacing,
                });
            }
        }
        Ok(())
    }
}
