//! How long a number of units takes of each quota.

use std::sync::Arc;
use std::time::Duration;

use super::{Pacing, Quota, Quotas};
use crate::policy::scope::spent::Spent;
use crate::policy::scope::told::QuotaState;
use crate::policy::time::MonoTime;

impl Quotas {
    /// How long `units` take of each of them.
    pub(in crate::policy::scope) fn forecasts(
        &self,
        now: MonoTime,
        units: u64,
        spent: Spent,
        fill: impl Fn(u64) -> Duration,
    ) -> impl Iterator<Item = (Option<Arc<str>>, Duration)> {
        let active = self.0.iter().filter(|quota| quota.pacing != Pacing::Off);
        active.filter_map(move |quota| {
            let took = quota.forecast(now, units, spent, &fill)?;
            Some((quota.name.clone(), took))
        })
    }
}

impl Quota {
    /// How long `units` take, if nothing else was in their way; `fill` says it where no quota is.
    fn forecast(
        &self,
        now: MonoTime,
        units: u64,
        spent: Spent,
        fill: impl Fn(u64) -> Duration,
    ) -> Option<Duration> {
        let QuotaState { limit, left, reset, .. } = self.state(now, spent)?;
        let rest = units.saturating_sub(left);
        if rest == 0 {
            return Some(fill(units));
        }
        if let Some(drops) = self.linear.time_of(rest) {
            return Some(drops + fill(1));
        }
        let limit = limit?.max(1);
        let window = self.set.as_ref().map_or(self.window, |set| set.per);
        let first = reset.map_or(window, |reset| reset.since(now));
        let windows = rest.div_ceil(limit) - 1;
        let whole = window.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX));
        let last = if self.pacing == Pacing::Smooth {
            window.mul_f64((rest - windows * limit) as f64 / limit as f64)
        } else {
            fill(rest - windows * limit)
        };
        Some(first.saturating_add(whole).saturating_add(last))
    }
}
