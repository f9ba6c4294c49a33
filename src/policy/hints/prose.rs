//! Waits that stand in a body: under a key, or in a sentence.
//!
//! Bodies are full of numbers (limits, codes, addresses of pages), so a number counts only with
//! the words that make it a wait before it and its unit behind it.

use std::time::Duration;

use super::body::Body;
use super::value::{self, Clock, Decimal, Stated};
use crate::policy::profile::Unit;

/// A wait and the words that state it, as they stand in the body.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) stated: Stated,
    pub(super) raw: String,
}

/// Hits of one search that are looked at.
const HITS_MAX: usize = 64;

/// The wait that a body states, by key first and in a sentence else. Where a key rounds what the
/// sentence says exactly, the longer one is meant.
pub(super) fn wait(body: &Body<'_>, unit: Option<Unit>, clock: &Clock<'_>) -> Option<Said> {
    const ROUNDED: Duration = Duration::from_secs(1);
    let key = by_key(body, unit, clock);
    let sentence = by_sentence(body, clock);
    match (key, sentence) {
        (Some(key), Some(sentence)) => {
            let finer = sentence.stated.wait.checked_sub(key.stated.wait);
            Some(if finer.is_some_and(|finer| finer < ROUNDED) { sentence } else { key })
        }
        (key, sentence) => key.or(sentence),
    }
}

/// `"retry_after": 1.5`, `"retryDelay": "47s"`, `<RetryAfterSeconds>5<`, `retry_after_ms=250`.
fn by_key(body: &Body<'_>, unit: Option<Unit>, clock: &Clock<'_>) -> Option<Said> {
    let text = body.lower.as_str();
    text.match_indices("retry").take(HITS_MAX).find_map(|(at, _)| {
        let before = text.get(..at)?;
        if before.ends_with(|char: char| char.is_ascii_alphanumeric() || char == '_') {
            return None;
        }
        let rest = text.get(at..)?;
        let end = rest.find(|char: char| !(char.is_ascii_alphabetic() || "_-".contains(char)));
        let (name, rest) = rest.split_at_checked(end?)?;
        let name: String = name.chars().filter(char::is_ascii_alphabetic).take(32).collect();
        let unit = match name.as_str() {
            "retryafter" => unit.unwrap_or(Unit::Seconds),
            "retrydelay"
            | "retryin"
            | "retryafterseconds"
            | "retryaftersecs"
            | "retryaftersec"
            | "retryinseconds"
            | "retryafterinseconds"
            | "retrydelayseconds" => Unit::Seconds,
            "retryafterms"
            | "retryaftermilliseconds"
            | "retryaftermillis"
            | "retryinms"
            | "retrydelayms" => Unit::Millis,
            "retryafterminutes" | "retryinminutes" => Unit::Minutes,
            _ => return None,
        };
        let rest = rest.trim_start_matches(['\\', '"', '\'', ' ']);
        let value = rest.strip_prefix([':', '=', '>'])?;
        let value = value.trim_start_matches([' ', '\\', '"', '\'', '\t', '\r', '\n']);
        // A protobuf message as text: retryDelay { seconds: 47 }.
        let inner = value.strip_prefix('{').map(|inner| inner.trim_start_matches([' ', '"', '\n']));
        let inner = inner.and_then(|inner| inner.strip_prefix("seconds"));
        let value = inner.map_or(value, |inner| inner.trim_start_matches([' ', '"', ':']));
        let end = value.find(['"', '\'', ',', '}', ']', '\\', '<', '\n', ' ', '&']);
        let value = value.get(..end.unwrap_or(value.len()))?;
        // In lower case, a moment is still one.
        let stated = value::retry_after(value, unit, clock)?;
        Some(Said { stated, raw: value.to_owned() })
    })
}

/// Words after which a wait may follow, and whether they need a preposition.
const VERBS: [(&str, bool); 7] = [
    ("try again", true),
    ("retrying", true),
    ("retry", true),
    ("available", true),
    ("reconnect", true),
    ("wait", false),
    ("slow down for", false),
];

/// `Please try again in 3.89s`, `Expected available in 5 seconds`, `retry after '372' seconds`,
/// `Retry after 2026-01-15T10:00:00Z`.
fn by_sentence(body: &Body<'_>, clock: &Clock<'_>) -> Option<Said> {
    let text = body.lower.as_str();
    let waits = VERBS.iter().flat_map(|&(verb, needs_preposition)| {
        text.match_indices(verb).take(HITS_MAX).filter_map(move |(at, _)| {
            let before = text.get(..at)?;
            if before.ends_with(|char: char| char.is_ascii_alphanumeric() || char == '_') {
                return None;
            }
            span_after(text.get(at + verb.len()..)?, needs_preposition, clock)
        })
    });
    // One sentence says it exactly and another in round numbers: the longest is never too early.
    waits.max_by_key(|said| said.stated.wait)
}

/// The span at the beginning of `rest`, behind a few words that say nothing.
fn span_after(rest: &str, needs_preposition: bool, clock: &Clock<'_>) -> Option<Said> {
    const WORDS_MAX: usize = 6;
    let mut rest = rest;
    let mut may_follow = !needs_preposition;
    if rest.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_') {
        return None;
    }
    for _ in 0..WORDS_MAX {
        rest = rest.trim_start_matches([' ', ':', '\t', '\n', '~', '\'', '"', '\\', '`', '*']);
        if rest.starts_with(|char: char| char.is_ascii_digit()) {
            return if may_follow { span(rest, clock) } else { None };
        }
        let end = rest.find(|char: char| !char.is_ascii_alphabetic())?;
        let (word, tail) = rest.split_at_checked(end)?;
        match word {
            "in" | "after" | "for" => may_follow = true,
            "again" | "about" | "approximately" | "another" | "at" | "least" | "the" | "next"
            | "please" | "request" | "requests" | "your" | "this" | "until" | "later"
            | "roughly" | "around" | "then" => {}
            _ => return None,
        }
        rest = tail;
    }
    None
}

/// `25s`, `3 minutes`, `1 minute and 30 seconds`, `6m0s`, `2026-01-15T10:00:00Z`.
fn span(text: &str, clock: &Clock<'_>) -> Option<Said> {
    const PARTS_MAX: usize = 4;
    let word = text.split([' ', '"', ',', ')', '\\', '\'', '<', '\n']).next().unwrap_or_default();
    let word = word.trim_end_matches(['.', ';', '!']);
    if word.len() >= 16 && word.contains('-') {
        let moment = super::date::parse_rfc3339(word)?;
        return Some(Said { stated: Stated::moment(moment, clock), raw: word.to_owned() });
    }
    if let Some(wait) = value::go_duration(word) {
        return Some(Said { stated: Stated::span(wait), raw: word.to_owned() });
    }
    let (mut total, rest) = number_with_unit(text)?;
    let mut end = rest;
    for _ in 1..PARTS_MAX {
        let next = end.trim_start_matches([' ', ',']);
        let next = next.strip_prefix("and ").unwrap_or(next);
        let Some((part, tail)) = number_with_unit(next) else { break };
        total = total.saturating_add(part);
        end = tail;
    }
    let raw = text.get(..text.len() - end.len())?.trim().to_owned();
    Some(Said { stated: Stated::span(total), raw })
}

fn number_with_unit(text: &str) -> Option<(Duration, &str)> {
    let (number, tail) = Decimal::prefix(text)?;
    let tail = tail.trim_start_matches([' ', '\'', '"', '\\', '-', '`', '*']);
    let end = tail.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(tail.len());
    let (unit, rest) = tail.split_at_checked(end)?;
    let span = match unit {
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" | "millis" => number.millis(),
        "s" | "sec" | "secs" | "second" | "seconds" => number.seconds(),
        "m" | "min" | "mins" | "minute" | "minutes" => number.seconds().saturating_mul(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => number.seconds().saturating_mul(3_600),
        "d" | "day" | "days" => number.seconds().saturating_mul(86_400),
        _ => return None,
    };
    Some((span, rest))
}
