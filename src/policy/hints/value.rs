//! The forms in which servers write numbers, durations and moments.

use std::time::Duration;

use super::date;
use crate::policy::outcome::HintSource;
use crate::policy::time::WallTime;

/// An epoch in `Retry-After` is believed if it is this near.
const YEAR_MS: u64 = 366 * 24 * 3_600_000;

/// The server's idea of the present, for absolute values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The moment of receipt by the server's clock.
    pub(super) now: WallTime,
}

impl Clock {
    /// How long until `moment`; zero if it has passed.
    fn until(self, moment: WallTime) -> Duration {
        moment.since(self.now)
    }

    fn is_within_a_year(self, moment: WallTime) -> bool {
        moment.unix_ms.abs_diff(self.now.unix_ms) <= YEAR_MS
    }
}

/// A number as fields have them: digits, and perhaps a fraction. No sign, no exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    /// The whole part; saturates.
    pub(super) whole: u128,
    /// Billionths.
    nano: u32,
}

impl Decimal {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, rest) = Self::prefix(text)?;
        rest.is_empty().then_some(number)
    }

    /// The number with which `text` begins, and what follows it.
    fn prefix(text: &str) -> Option<(Self, &str)> {
        let (digits, rest) = digits(text)?;
        let whole = digits.parse().unwrap_or(u128::MAX);
        let Some((fraction, rest)) = rest.strip_prefix('.').and_then(self::digits) else {
            return Some((Self { whole, nano: 0 }, rest));
        };
        let nano = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nano = nano.fold(0, |nano, digit| nano * 10 + u32::from(digit - b'0'));
        Some((Self { whole, nano }, rest))
    }

    /// As seconds; saturates.
    pub(super) fn seconds(self) -> Duration {
        Duration::new(u64::try_from(self.whole).unwrap_or(u64::MAX), self.nano)
    }

    /// As milliseconds; saturates.
    pub(super) fn millis(self) -> Duration {
        let whole = Duration::from_millis(u64::try_from(self.whole).unwrap_or(u64::MAX));
        whole + Duration::from_nanos(u64::from(self.nano) / 1_000)
    }

    /// As an epoch; magnitude is all that tells seconds from finer units.
    fn epoch(self) -> Option<WallTime> {
        const E9: u128 = 1_000_000_000;
        let unix_ms = match self.whole {
            0..E9 => return None,
            E9..100_000_000_000 => self.whole * 1_000 + u128::from(self.nano / 1_000_000),
            100_000_000_000..100_000_000_000_000 => self.whole,
            100_000_000_000_000..100_000_000_000_000_000 => self.whole / 1_000,
            100_000_000_000_000_000..100_000_000_000_000_000_000 => self.whole / 1_000_000,
            _ => return None,
        };
        Some(WallTime { unix_ms: i64::try_from(unix_ms).ok()? })
    }
}

fn digits(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

/// A member of `Retry-After` (RFC 9110 10.2.3), read as widely as servers write it.
pub(super) fn retry_after(text: &str, clock: Clock) -> Option<(Duration, HintSource)> {
    if let Some(number) = Decimal::parse(text) {
        return Some(match number.epoch() {
            Some(moment) if clock.is_within_a_year(moment) => {
                (clock.until(moment), HintSource::RetryAfterDate)
            }
            // Too large to be meant, but it certainly means "not now".
            Some(_) | None => (number.seconds(), HintSource::RetryAfterDelta),
        });
    }
    if let Some(wait) = go_duration(text) {
        return Some((wait, HintSource::RetryAfterDelta));
    }
    let moment = moment(text, clock)?;
    Some((clock.until(moment), HintSource::RetryAfterDate))
}

/// The value of a reset: seconds from now, an epoch, a duration or a date.
pub(super) fn reset(text: &str, clock: Clock) -> Option<Duration> {
    /// More than three years cannot be a delay; it is too early for an epoch, too.
    const DELTA_END: u128 = 100_000_000;
    let text = text.trim();
    match Decimal::parse(text) {
        Some(number) if number.whole < DELTA_END => Some(number.seconds()),
        Some(number) => number.epoch().map(|moment| clock.until(moment)),
        None => go_duration(text).or_else(|| Some(clock.until(moment(text, clock)?))),
    }
}

fn moment(text: &str, clock: Clock) -> Option<WallTime> {
    date::parse_http_date(text, clock.now).or_else(|| date::parse_rfc3339(text))
}

/// `6m0s`, `120ms`, `2m59.56s`: Go's `time.Duration`.
fn go_duration(text: &str) -> Option<Duration> {
    /// Every unit once is five parts.
    const PARTS_MAX: usize = 5;
    /// Longest names first: `ms` begins with `m`.
    const UNITS_NS: [(&str, u64); 6] = [
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ];
    let (mut rest, mut total_ns) = (text, 0_u64);
    for _ in 0..PARTS_MAX {
        let (number, tail) = Decimal::prefix(rest)?;
        let (tail, unit_ns) =
            UNITS_NS.iter().find_map(|&(name, ns)| Some((tail.strip_prefix(name)?, ns)))?;
        let whole = u64::try_from(number.whole).unwrap_or(u64::MAX).saturating_mul(unit_ns);
        let fraction = u128::from(number.nano) * u128::from(unit_ns) / 1_000_000_000;
        let fraction = u64::try_from(fraction).unwrap_or(u64::MAX);
        total_ns = total_ns.saturating_add(whole).saturating_add(fraction);
        rest = tail;
        if rest.is_empty() {
            return Some(Duration::from_nanos(total_ns));
        }
    }
    None
}

/// A limit, or what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// So many; fractions are dropped, below zero is zero.
    Known(u64),
    /// -1 stands for "not known" or "no limit": the whole quota says nothing.
    Unknown,
    /// Nothing that can be read without knowing the vendor.
    Unreadable,
}

impl Count {
    pub(super) fn known(self) -> Option<u64> {
        match self {
            Self::Known(count) => Some(count),
            Self::Unknown | Self::Unreadable => None,
        }
    }
}

/// The number with which a count begins. What follows may be parameters, or list members with
/// parameters (`100, 100;w=60` in early drafts); a list of bare numbers is several quotas.
pub(super) fn count(text: &str) -> Count {
    let text = text.trim();
    let (text, negative) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
    let Some((number, rest)) = Decimal::prefix(text) else {
        return Count::Unreadable;
    };
    let mut members = rest.trim().split(',');
    let own = members.next().unwrap_or_default();
    if !(own.is_empty() || own.starts_with(';')) || !members.all(|member| member.contains(';')) {
        return Count::Unreadable;
    }
    match (negative, number.whole) {
        (true, 1) => Count::Unknown,
        (true, _) => Count::Known(0),
        (false, whole) => Count::Known(u64::try_from(whole).unwrap_or(u64::MAX)),
    }
}
