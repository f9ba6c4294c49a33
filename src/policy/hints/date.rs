//! Dates as servers write them: the three forms of RFC 9110 5.6.7 and RFC 3339.
//!
//! Servers get weekdays wrong, write `UTC` for `GMT`, double their blanks and print what their
//! language prints by default. All of it has one reading, so all of it is read.

use crate::policy::time::WallTime;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Words that are looked at; the longest known form has seven.
const WORDS_MAX: usize = 10;

/// IMF-fixdate, RFC 850, asctime, and JavaScript's `Date.toString()`, which all have the same
/// words in different order. A weekday may be missing or wrong. `now` gives a year of two digits
/// its century: at most fifty years ahead.
pub(super) fn parse_http_date(text: &str, now: WallTime) -> Option<WallTime> {
    let (mut day, mut month, mut year) = (None, None, None);
    let (mut time, mut zone) = (None, None);
    let blank = |char: char| matches!(char, ' ' | '\t' | ',');
    for word in text.split(blank).filter(|word| !word.is_empty()).take(WORDS_MAX) {
        let mut parts = word.split('-');
        if word.starts_with('(') {
            break;
        } else if word.contains(':') {
            set(&mut time, time_of_day_ms(word)?)?;
        } else if let Some(found) = month_number(word) {
            set(&mut month, found)?;
        } else if let Some(number) = number(word) {
            // In every form the day stands before the year.
            if day.is_none() { day = Some(number) } else { set(&mut year, (number, word.len()))? }
        } else if let Some(found) = zone_ms(word) {
            set(&mut zone, found)?;
        } else if let (Some(d), Some(m), Some(y), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        {
            set(&mut day, number(d)?)?;
            set(&mut month, month_number(m)?)?;
            set(&mut year, (number(y)?, y.len()))?;
        } else if !is_weekday(word) {
            return None;
        }
    }
    let (day, month, (year, year_digits), time) = (day?, month?, year?, time?);
    let at = |year| {
        let days = days_from_civil(year, month, day)?;
        Some(WallTime { unix_ms: days * DAY_MS + time - zone.unwrap_or(0) })
    };
    match year_digits {
        4 => at(year),
        2 => {
            const FIFTY_YEARS_MS: i64 = 50 * 1461 * DAY_MS / 4;
            let this_century = at(2000 + year)?;
            let far = this_century.unix_ms.saturating_sub(now.unix_ms) > FIFTY_YEARS_MS;
            if far { at(1900 + year) } else { Some(this_century) }
        }
        _ => None,
    }
}

/// `2026-01-15T10:00:00.123Z`; seconds, fraction and zone may be missing, the zone is then UTC.
pub(super) fn parse_rfc3339(text: &str) -> Option<WallTime> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 || month.len() != 2 {
        return None;
    }
    let days = days_from_civil(number(year)?, number(month)?, number(day)?)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    // Go prints a time as `2026-01-15 10:00:00 +0000 UTC`, others with the name alone.
    let named = rest.strip_suffix(" UTC").or_else(|| rest.strip_suffix(" GMT"));
    let rest = named.unwrap_or(rest).trim_end();
    let end = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at_checked(end)?;
    let time = time.trim_end();
    let zone_ms = if zone.is_empty() { 0 } else { zone_ms(zone)? };
    Some(WallTime { unix_ms: days * DAY_MS + time_of_day_ms(time)? - zone_ms })
}

/// A thing that is said twice is not understood.
fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// `08:49`, `08:49:37` or `08:49:37.123456`; a leap second is accepted.
fn time_of_day_ms(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let (second, fraction) = match parts.next() {
        Some(second) => second.split_once('.').unwrap_or((second, "0")),
        None => ("0", "0"),
    };
    let second = number(second)?;
    if hour > 23 || minute > 59 || second > 60 || parts.next().is_some() {
        return None;
    }
    number(fraction.get(..fraction.len().min(9))?)?;
    let ms = fraction.bytes().chain(*b"00").take(3);
    let ms = ms.fold(0, |ms, digit| ms * 10 + i64::from(digit.wrapping_sub(b'0')));
    Some((hour * 60 + minute) * MINUTE_MS + second * 1_000 + ms)
}

/// `GMT`, `UTC`, `Z`, `GMT+0100`, `+01:00`.
fn zone_ms(text: &str) -> Option<i64> {
    let names = ["GMT", "UTC", "Z", "z"];
    let named = names.iter().find_map(|name| text.strip_prefix(name));
    let offset = named.unwrap_or(text);
    if offset.is_empty() {
        return Some(0);
    }
    let (sign, offset) = match (offset.strip_prefix('+'), offset.strip_prefix('-')) {
        (Some(offset), _) => (1, offset),
        (None, Some(offset)) => (-1, offset),
        (None, None) => return None,
    };
    let (hours, minutes) = offset.split_at_checked(2)?;
    let minutes = minutes.strip_prefix(':').unwrap_or(minutes);
    let minutes = if minutes.is_empty() { "0" } else { minutes };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * MINUTE_MS)
}

fn month_number(word: &str) -> Option<i64> {
    let place = MONTHS.iter().position(|month| word.eq_ignore_ascii_case(month))?;
    i64::try_from(place + 1).ok()
}

/// `Sun` or `Sunday`.
fn is_weekday(word: &str) -> bool {
    word.get(..3).is_some_and(|short| WEEKDAYS.iter().any(|day| day.eq_ignore_ascii_case(short)))
}

/// One to nine digits and nothing else.
fn number(text: &str) -> Option<i64> {
    let plain = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; `None` for a day that never was.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) {
        return None;
    }
    // The year is taken to begin in March, so that the leap day is its last day.
    let (year, month_from_march) =
        if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}
