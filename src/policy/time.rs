//! Time and chance as plain values.
//!
//! `std::time::Instant` can be neither made up nor stored, and upstreams speak wall time. So the
//! policy has two small types of its own, and adapters convert at the edge: durations and
//! deadlines are [`MonoTime`], which never goes back; header dates and stored rows are
//! [`WallTime`], which may jump either way.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since this process started; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The start of the process.
    pub const ZERO: Self = Self(0);
    /// Later than anything that will ever be waited for (584 years).
    pub const MAX: Self = Self(u64::MAX);

    /// The time `nanos` nanoseconds after the start of the process.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start of the process.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for MonoTime {
    type Output = Self;

    /// Saturates: a hostile hint becomes "never", not an overflow.
    fn add(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for MonoTime {
    type Output = Self;

    /// Saturates at the start of the process.
    fn sub(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

/// Milliseconds since the Unix epoch; may jump either way. Only headers, stores and people use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime {
    /// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
    pub unix_ms: i64,
}

impl WallTime {
    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        let ms = self.unix_ms.saturating_sub(earlier.unix_ms);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

impl Add<Duration> for WallTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self { unix_ms: self.unix_ms.saturating_add(ms) }
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-01-15T10:00:00.000Z`.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.unix_ms.div_euclid(86_400_000);
        let ms_of_day = self.unix_ms.rem_euclid(86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (secs, ms) = (ms_of_day / 1000, ms_of_day % 1000);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// Year, month and day of a day number counted from 1970-01-01 in the proleptic Gregorian
/// calendar. The year is taken to begin in March, so that the leap day is its last day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097; // 400 years
    let shifted = days + 719_468; // days from 0000-03-01
    let era = shifted.div_euclid(DAYS_PER_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// One moment on both clocks, to convert between them.
#[derive(Clone, Copy, Debug)]
pub struct TimeAnchor {
    /// The moment on the monotonic clock.
    pub mono: MonoTime,
    /// The same moment on the wall clock.
    pub wall: WallTime,
}

impl TimeAnchor {
    /// What the wall clock shows, or will show, at `at`.
    pub fn wall(&self, at: MonoTime) -> WallTime {
        if at >= self.mono {
            return self.wall + at.since(self.mono);
        }
        let back = i64::try_from(self.mono.since(at).as_millis()).unwrap_or(i64::MAX);
        WallTime { unix_ms: self.wall.unix_ms.saturating_sub(back) }
    }

    /// When, on the monotonic clock, the wall clock shows `at`; never before the process began.
    pub fn mono(&self, at: WallTime) -> MonoTime {
        if at >= self.wall {
            self.mono + at.since(self.wall)
        } else {
            self.mono - self.wall.since(at)
        }
    }
}

/// A uniform draw in [0, 1), made by the caller so that a delay can be replayed.
#[derive(Clone, Copy, Debug)]
pub struct Draw(pub u32);

impl Draw {
    /// The draw as a fraction in [0, 1).
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / (f64::from(u32::MAX) + 1.0)
    }

    /// A duration drawn evenly from [`low`, `high`).
    pub fn between(self, low: Duration, high: Duration) -> Duration {
        low + high.saturating_sub(low).mul_f64(self.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_time_prints_as_rfc_3339() {
        for (unix_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_768_471_200_123, "2026-01-15T10:00:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(WallTime { unix_ms }.to_string(), expected);
        }
    }

    #[test]
    fn an_anchor_converts_in_both_directions() {
        let anchor = TimeAnchor {
            mono: MonoTime::from_nanos(5_000_000_000),
            wall: WallTime { unix_ms: 1_000_000 },
        };
        for offset_ms in [-5_000_i64, -1, 0, 1, 90_000] {
            let wall = WallTime { unix_ms: 1_000_000 + offset_ms };
            assert_eq!(anchor.wall(anchor.mono(wall)), wall);
        }
    }

    #[test]
    fn a_hostile_span_saturates() {
        assert_eq!(MonoTime::from_nanos(7) + Duration::MAX, MonoTime::MAX);
    }
}
