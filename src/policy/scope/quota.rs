//! A quota that the upstream describes in the fields of its answers: nothing is sent that would be
//! refused.

use super::cycle::Phase;
use super::{Closed, MARGIN_MAX, Scope};
use crate::policy::outcome::{QuotaReading, WaitKind};
use crate::policy::time::MonoTime;

/// A quota as the upstream last described it.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Requests per window, where told.
    pub limit: Option<u64>,
    /// As the answer to that attempt had it.
    remaining: u64,
    /// When it is renewed.
    pub reset: Option<MonoTime>,
    /// Number of the attempt whose answer told it.
    described_by: u64,
}

impl Scope {
    /// What the fields of an answer say about the quota; `number` is that of the attempt. Answers
    /// to older attempts than the newest that told something are ignored.
    pub fn learn(&mut self, now: MonoTime, number: u64, reading: &QuotaReading, refused: bool) {
        if self.quota.is_some_and(|quota| number < quota.described_by) {
            return;
        }
        let reset = reading.reset.map(|wait| now + (wait + (wait / 100).min(MARGIN_MAX)));
        self.quota = Some(Quota {
            limit: reading.limit,
            remaining: reading.remaining,
            reset,
            described_by: number,
        });
        if refused {
            // Some other limit refused, of which these fields do not tell.
            self.quota_misleads = reading.remaining > 0;
        } else if self.cooldown.is_none()
            && reading.remaining > 0
            && !self.quota_misleads
            && !matches!(self.phase, Phase::Canary)
        {
            // Told what is left, there is no need to feel for it.
            self.phase = Phase::Free;
        }
    }

    /// An answer said nothing of a quota. A description without an end is then out of date.
    pub fn not_described(&mut self, refused: bool) {
        self.quota = self.quota.filter(|quota| quota.reset.is_some());
        self.quota_misleads |= refused;
    }

    /// The quota as last described.
    pub fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// What may still go. What was told was true when that attempt arrived: what was sent later is
    /// not counted in it, and what is still out may not be.
    pub fn left(&self, quota: &Quota) -> u64 {
        let later = self.sent.saturating_sub(quota.described_by) + self.granted;
        quota.remaining.saturating_sub(later.max(u64::from(self.unanswered)))
    }

    pub(super) fn check_quota(&mut self, now: MonoTime) -> Result<(), Closed> {
        let Some(mut quota) = self.quota else {
            return Ok(());
        };
        if quota.reset.is_some_and(|at| at <= now) {
            // A new window, not yet described: as many as it is known to hold, no more.
            quota.reset = None;
            quota.remaining = quota.limit.unwrap_or(1).max(1);
            quota.described_by = self.sent;
            self.quota = Some(quota);
        }
        if self.left(&quota) > 0 {
            return Ok(());
        }
        match quota.reset {
            Some(at) => Err(Closed { until: Some(at), kind: WaitKind::Pacing, exhausted: false }),
            // Nobody knows when it is renewed, so one after the other finds out.
            None if self.unanswered > 0 => {
                Err(Closed { until: None, kind: WaitKind::Pacing, exhausted: false })
            }
            None => Ok(()),
        }
    }
}
