//! Durations and sizes as people write them: `"250ms"`, `"1m30s"`, `"64KiB"`.
//!
//! A bare number is refused, because nobody can tell later whether it meant seconds or
//! milliseconds. Numbers are read digit by digit and never pass through a float, so that whatever
//! is printed reads back as exactly the same value.

use std::time::Duration;

use super::problem::Fault;

/// Longest duration that can be configured: ten years. Longer ones are typing mistakes, and sums
/// of shorter ones cannot overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(3_650 * 86_400);

/// Largest size that can be configured: 1 TiB.
pub const SIZE_MAX: u64 = 1 << 40;

/// A regular expression for durations, for the JSON Schema.
pub const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$";

/// A regular expression for sizes, for the JSON Schema.
pub const SIZE_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?(B|[kKMG]B|[KMG]iB)$";

/// What to write where a duration belongs.
pub(super) const DURATION_FIX: &str =
    r#"Write a number and a unit, such as "250ms", "30s", "5m", "1h" or "7d"."#;

/// Units of time in nanoseconds, largest first.
const TIME_UNITS: [(&str, u128); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// Units of size in bytes, in the order in which printing tries them.
const SIZE_UNITS: [(&str, u128); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `250ms`, `1.5s`, `2m`, `1h`, `7d` or a sum of them, largest unit first: `1m30s`.
///
/// # Errors
/// Says what is wrong with the text, and what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, Fault> {
    let fault = |why: &str| Fault::new(why, DURATION_FIX);
    if text.is_empty() {
        return Err(fault("it is empty"));
    }
    if text.starts_with('-') {
        return Err(fault("no time is shorter than none"));
    }
    if text.parse::<f64>().is_ok_and(|number| number >= 0.0) {
        return Err(Fault::new(
            "a duration needs its unit",
            format!(r#"Write "{text}s" if you mean seconds."#),
        ));
    }
    let (mut rest, mut nanos, mut previous) = (text, 0_u128, u128::MAX);
    while !rest.is_empty() {
        let part = Part::take(rest).ok_or_else(|| fault("that is no duration"))?;
        let scale = scale_of(part.unit, &TIME_UNITS)
            .ok_or_else(|| fault("its unit is not ms, s, m, h or d"))?;
        if scale >= previous {
            return Err(fault("units of a sum go from the largest to the smallest"));
        }
        let value = part
            .times(scale)
            .ok_or_else(|| fault("it is finer than a nanosecond, or far too long"))?;
        (rest, nanos, previous) = (part.rest, nanos.saturating_add(value), scale);
    }
    match u64::try_from(nanos).map(Duration::from_nanos) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        Ok(_) | Err(_) => Err(fault("it is longer than ten years")),
    }
}

/// Prints a duration so that [`parse_duration`] reads the same value: seconds up to two minutes,
/// and days, hours, minutes and seconds beyond.
pub fn print_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".into();
    }
    let mut nanos = duration.as_nanos();
    let mut text = String::new();
    for (unit, scale) in TIME_UNITS {
        let large = matches!(unit, "d" | "h" | "m");
        if large && duration >= Duration::from_secs(120) && nanos >= scale {
            text.push_str(&format!("{}{unit}", nanos / scale));
            nanos %= scale;
        } else if !large && nanos > 0 && (nanos >= scale || unit == "ms") {
            // The last part carries whatever is left as decimals.
            let digits = if unit == "s" { 9 } else { 6 };
            let fraction = format!("{:0digits$}", nanos % scale);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            text.push_str(&format!("{}{point}{fraction}{unit}", nanos / scale));
            nanos = 0;
        }
    }
    text
}

/// Reads `512B`, `64KiB`, `1.5MiB`, `1MB`.
///
/// # Errors
/// Says what is wrong with the text, and what to write instead.
pub fn parse_size(text: &str) -> Result<u64, Fault> {
    let fault = |why: &str| {
        Fault::new(why, r#"Write a number and a unit, such as "512B", "64KiB", "1MiB" or "1MB"."#)
    };
    if text.parse::<f64>().is_ok() {
        return Err(Fault::new(
            "a size needs its unit",
            format!(r#"Write "{text}B" if you mean bytes, or "64KiB"."#),
        ));
    }
    let part = Part::take(text)
        .filter(|part| part.rest.is_empty())
        .ok_or_else(|| fault("that is no size"))?;
    let scale = scale_of(part.unit, &SIZE_UNITS)
        .ok_or_else(|| fault("its unit is not B, kB, MB, GB, KiB, MiB or GiB"))?;
    let bytes = part.times(scale).ok_or_else(|| fault("it is not a whole number of bytes"))?;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes <= SIZE_MAX => Ok(bytes),
        Ok(_) | Err(_) => Err(fault("it is more than 1024GiB")),
    }
}

/// Prints a size in the largest unit that needs no decimals; [`parse_size`] reads the same value.
pub fn print_size(bytes: u64) -> String {
    let bytes = u128::from(bytes);
    let exact = SIZE_UNITS.into_iter().find(|(_, scale)| bytes != 0 && bytes % scale == 0);
    let (unit, scale) = exact.unwrap_or(("B", 1));
    format!("{}{unit}", bytes / scale)
}

fn scale_of(unit: &str, units: &[(&str, u128)]) -> Option<u128> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale)
}

/// `1.5s` at the beginning of a text: a decimal number and the letters after it.
struct Part<'a> {
    whole: &'a str,
    fraction: &'a str,
    unit: &'a str,
    rest: &'a str,
}

impl<'a> Part<'a> {
    fn take(text: &'a str) -> Option<Self> {
        let (whole, rest) = split_while(text, |c| c.is_ascii_digit());
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => split_while(rest, |c| c.is_ascii_digit()),
            None => ("0", rest),
        };
        let (unit, rest) = split_while(rest, |c| c.is_ascii_alphabetic());
        let complete = !whole.is_empty() && !fraction.is_empty() && !unit.is_empty();
        complete.then_some(Self { whole, fraction, unit, rest })
    }

    /// The number times `scale`; `None` if that is not whole, or too large to count.
    fn times(&self, scale: u128) -> Option<u128> {
        let fraction = self.fraction.trim_end_matches('0');
        let tens = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let digits: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let digits = digits.checked_mul(scale)?;
        if digits % tens != 0 {
            return None;
        }
        self.whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(digits / tens)
    }
}

fn split_while(text: &str, accept: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit_or_a_sum_of_them() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("1.5s", Some(1_500)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("1m30s", Some(90_000)),
            ("0s", Some(0)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1.s", None),
            ("30s1m", None),
            ("1s1s", None),
            ("1w", None),
            ("0.1ms0", None),
            ("3651d", None),
            ("99999999999999999999999999999999999999999d", None),
        ] {
            assert_eq!(parse_duration(text).ok(), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_size_is_a_number_with_a_unit() {
        for (text, bytes) in [
            ("512B", Some(512)),
            ("64KiB", Some(65_536)),
            ("1MiB", Some(1_048_576)),
            ("1MB", Some(1_000_000)),
            ("1.5KiB", Some(1_536)),
            ("0B", Some(0)),
            ("64", None),
            ("1.5B", None),
            ("1MiB1B", None),
            ("1TB", None),
            ("2000000GiB", None),
        ] {
            assert_eq!(parse_size(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn common_durations_print_as_they_are_written() {
        for text in ["0s", "250ms", "1.5s", "50s", "60s", "10m", "15m", "1h", "7d", "2m30s"] {
            let printed = parse_duration(text).map(print_duration);
            assert_eq!(printed.as_deref().ok(), Some(text));
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same_duration(nanos in 0..=315_360_000_000_000_000_u64, coarse in 0..10_u32) {
            let scale = 10_u64.pow(coarse);
            let duration = Duration::from_nanos(nanos / scale * scale);
            prop_assert_eq!(parse_duration(&print_duration(duration)).ok(), Some(duration));
        }

        #[test]
        fn what_is_printed_reads_back_as_the_same_size(bytes in 0..=SIZE_MAX, shift in 0..31_u32) {
            let bytes = bytes >> shift << shift;
            prop_assert_eq!(parse_size(&print_size(bytes)).ok(), Some(bytes));
        }
    }
}
