//! The forms in which servers write numbers, durations and moments.

use std::cell::OnceCell;
use std::time::Duration;

use http::HeaderMap;

use super::date;
use crate::policy::profile::Unit;
use crate::policy::time::WallTime;

/// An epoch in `Retry-After` is believed if it is this near.
const YEAR_MS: u64 = 366 * 24 * 3_600_000;

/// The server's idea of the present, for absolute values. Read when one turns up: most responses
/// have none, and dates are the dearest thing to read.
#[derive(Debug)]
pub(super) struct Clock<'a> {
    headers: &'a HeaderMap,
    received: WallTime,
    /// As the last answers have it.
    server: Option<WallTime>,
    cached: bool,
    /// What is taken for the present, and the `Date` that was read for it.
    read: OnceCell<(WallTime, Option<WallTime>)>,
}

impl<'a> Clock<'a> {
    pub(super) fn new(
        headers: &'a HeaderMap,
        received: WallTime,
        server: Option<WallTime>,
    ) -> Self {
        let mut ages = lines(headers, "age").filter_map(Decimal::parse);
        let cached = ages.any(|age| age.whole > 0);
        Self { headers, received, server, cached, read: OnceCell::new() }
    }

    /// Whether a cache answered: then neither `Date` nor the quota is the server's present one.
    pub(super) fn is_cached(&self) -> bool {
        self.cached
    }

    /// The moment of receipt by the server's clock, if that is told and differs by more than the
    /// network explains: as its last answers have it, or else this one alone.
    pub(super) fn now(&self) -> WallTime {
        self.read.get_or_init(|| self.look()).0
    }

    /// Its `Date`, if that was looked at.
    pub(super) fn date(&self) -> Option<WallTime> {
        self.read.get().and_then(|(_, date)| *date)
    }

    fn look(&self) -> (WallTime, Option<WallTime>) {
        const NETWORK_AND_ROUNDING_MS: u64 = 5_000;
        let read = |line| date::parse_http_date(line, self.received);
        let date = lines(self.headers, "date").find_map(read).filter(|_| !self.cached);
        let agrees = |date: &WallTime| {
            date.unix_ms.abs_diff(self.received.unix_ms) <= NETWORK_AND_ROUNDING_MS
        };
        // Two clocks that agree are right, whatever earlier answers said: our own may have been set.
        let told = if date.as_ref().is_some_and(agrees) { date } else { self.server.or(date) };
        (told.filter(|told| !agrees(told)).unwrap_or(self.received), date)
    }

    /// How long until `moment`; zero if it has passed.
    pub(super) fn until(&self, moment: WallTime) -> Duration {
        moment.since(self.now())
    }

    fn is_within_a_year(&self, moment: WallTime) -> bool {
        moment.unix_ms.abs_diff(self.now().unix_ms) <= YEAR_MS
    }
}

/// Lines of one name that are looked at.
const LINES_MAX: usize = 16;

/// The lines of a field that are text, trimmed.
fn lines<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    let all = headers.get_all(name).into_iter().take(LINES_MAX);
    all.filter_map(|line| line.to_str().ok()).map(str::trim)
}

/// A number as fields have them: digits, and perhaps a fraction. No sign, no exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    /// The whole part; saturates.
    pub(super) whole: u128,
    /// Billionths.
    pub(super) nano: u32,
}

impl Decimal {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, rest) = Self::prefix(text)?;
        rest.is_empty().then_some(number)
    }

    /// The number with which `text` begins, and what follows it.
    pub(super) fn prefix(text: &str) -> Option<(Self, &str)> {
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

    /// The next whole number.
    pub(super) fn ceil(self) -> u64 {
        let whole = u64::try_from(self.whole).unwrap_or(u64::MAX);
        whole.saturating_add(u64::from(self.nano > 0))
    }

    /// As near as a float comes.
    pub(super) fn as_f64(self) -> f64 {
        self.whole as f64 + f64::from(self.nano) / 1e9
    }

    /// As a span; saturates.
    pub(super) fn in_unit(self, unit: Unit) -> Duration {
        match unit {
            Unit::Millis => self.millis(),
            Unit::Seconds => self.seconds(),
            Unit::Minutes => self.seconds().saturating_mul(60),
        }
    }

    /// As an epoch; magnitude is all that tells seconds from finer units.
    pub(super) fn epoch(self) -> Option<WallTime> {
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

/// A wait as a field states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) wait: Duration,
    /// Whether a moment was named and not a span.
    pub(super) absolute: bool,
}

impl Stated {
    pub(super) fn span(wait: Duration) -> Self {
        Self { wait, absolute: false }
    }

    pub(super) fn moment(moment: WallTime, clock: &Clock<'_>) -> Self {
        Self { wait: clock.until(moment), absolute: true }
    }
}

/// A member of `Retry-After` (RFC 9110 10.2.3), read as widely as servers write it.
pub(super) fn retry_after(text: &str, unit: Unit, clock: &Clock<'_>) -> Option<Stated> {
    if let Some(number) = Decimal::parse(text) {
        // What is told about the unit beats what the magnitude of an epoch in seconds suggests.
        let told = unit != Unit::Seconds && number.whole < 100_000_000_000;
        return Some(match number.epoch().filter(|_| !told) {
            Some(moment) if clock.is_within_a_year(moment) => Stated::moment(moment, clock),
            // Too large to be meant, but it certainly means "not now".
            Some(_) | None => Stated::span(number.in_unit(unit)),
        });
    }
    go_duration(text)
        .map(Stated::span)
        .or_else(|| Some(Stated::moment(moment(text, clock)?, clock)))
}

/// The value of a reset: a number from now, an epoch, a duration or a date.
pub(super) fn reset(text: &str, unit: Option<Unit>, clock: &Clock<'_>) -> Option<Stated> {
    /// More than three years cannot be a delay; it is too early for an epoch, too.
    const DELTA_END: u128 = 100_000_000;
    let text = text.trim().trim_matches('"');
    let told_end = match unit {
        None | Some(Unit::Seconds) => DELTA_END,
        Some(Unit::Millis) => DELTA_END * 1_000,
        Some(Unit::Minutes) => DELTA_END / 60,
    };
    match Decimal::parse(text) {
        Some(number) if number.whole < told_end => {
            Some(Stated::span(number.in_unit(unit.unwrap_or(Unit::Seconds))))
        }
        Some(number) => number.epoch().map(|moment| Stated::moment(moment, clock)),
        None => go_duration(text)
            .map(Stated::span)
            .or_else(|| Some(Stated::moment(moment(text, clock)?, clock))),
    }
}

/// A span whatever its magnitude: the field's name says that it is none other.
pub(super) fn span(text: &str, unit: Unit) -> Option<Stated> {
    let text = text.trim();
    let span = Decimal::parse(text).map(|number| number.in_unit(unit));
    span.or_else(|| go_duration(text)).map(Stated::span)
}

/// An HTTP-date or RFC 3339.
pub(super) fn moment(text: &str, clock: &Clock<'_>) -> Option<WallTime> {
    date::parse_rfc3339(text).or_else(|| date::parse_http_date(text, clock.now()))
}

/// `6m0s`, `120ms`, `2m59.56s`: Go's `time.Duration`.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    /// Every unit once is five parts.
    const PARTS_MAX: usize = 5;
    /// Longest names first: `ms` begins with `m`.
    const UNITS_NS: [(&str, u64); 8] = [
        ("ms", 1_000_000),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
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
        rest = tail.trim_start();
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

/// The window with which a count is decorated: `100;w=21600`.
pub(super) fn window(text: &str) -> Option<Duration> {
    if !text.as_bytes().contains(&b';') {
        return None;
    }
    let (_, rest) = text.split_once(";w=").or_else(|| text.split_once("; w="))?;
    Decimal::prefix(rest.trim_start()).map(|(number, _)| number.seconds())
}
