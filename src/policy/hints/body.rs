//! The beginning of a body: codes, phrases and numbers, found by search.
//!
//! Bodies are cut, nested, escaped or broken, so nothing is parsed: a key is a word in quotes or
//! in angle brackets, and its value is what follows. Every search is bounded by the prefix.

use std::borrow::Cow;

use super::value::Decimal;

/// Bytes of a body that are looked at: refusals say what they have to say early.
pub const BODY_PREFIX: usize = 16 * 1024;

/// The error codes that mean throttling in the services of one large vendor and in those that
/// speak its protocols; botocore has the same list.
const THROTTLE_CODES: [&str; 14] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "RequestThrottled",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
];

/// Phrases that make a 403 a refusal by a limit; underscores count as blanks.
const PHRASES: [&str; 15] = [
    "rate limit",
    "rate-limit",
    "ratelimited",
    "ratelimitexceeded",
    "too many requests",
    "toomanyrequests",
    "too many calls",
    "throttl",
    "abuse detection",
    "limit exceeded",
    "limitexceeded",
    "quotaexceeded",
    "request limit reached",
    "exceeded the rate",
    "exceeded its quota",
];

/// A body, in the spellings in which it is searched.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// As it came.
    pub(super) text: Cow<'a, str>,
    /// In lower case, byte for byte as long as `text`.
    pub(super) lower: String,
}

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let prefix = bytes.get(..BODY_PREFIX).unwrap_or(bytes);
        let text = String::from_utf8_lossy(prefix);
        let lower = text.to_ascii_lowercase();
        Self { text, lower }
    }

    /// Whether one of the keys has one of the values.
    pub(super) fn has_code(&self, key: &str, values: &[impl AsRef<str>]) -> bool {
        codes(&self.text, key).any(|code| values.iter().any(|value| value.as_ref() == code))
    }

    /// Whether a throttle code stands where codes stand.
    pub(super) fn is_throttle_code(&self) -> bool {
        ["__type", "code", "Code", "errorCode"]
            .iter()
            .any(|key| codes(&self.text, key).any(is_throttle_code))
    }

    /// Whether a phrase stands in what the body says to people; names of fields and addresses of
    /// pages do not count.
    pub(super) fn has_limit_phrase(&self) -> bool {
        // It says that no credential came, in words like those of a limit.
        if self.lower.contains("dailylimitexceededunreg") {
            return false;
        }
        let spaced = self.lower.replace('_', " ");
        let said = |phrase: &str| {
            spaced
                .match_indices(phrase)
                .any(|(at, _)| !is_in_address(&spaced, at) && !is_key(&spaced, at + phrase.len()))
        };
        PHRASES.iter().any(|phrase| said(phrase))
            || follows(&spaced, "quota", "exceed")
            || follows(&spaced, "exceeded your", "quota")
    }

    /// The number that follows `words`; blanks, quotes and signs between do not count.
    pub(super) fn number_after(&self, words: &str) -> Option<(Decimal, &str)> {
        let mut found = self.text.match_indices(words);
        found.find_map(|(at, _)| {
            let rest = self.text.get(at + words.len()..)?;
            let rest = rest.trim_start_matches([' ', '"', '\\', ':', '=', '\'', '\t']);
            let (number, tail) = Decimal::prefix(rest)?;
            Some((number, rest.get(..rest.len() - tail.len())?))
        })
    }
}

/// Whether it is a throttle code: a namespace before `#` and an address after `:` do not count.
pub(super) fn is_throttle_code(code: &str) -> bool {
    let code = code.rsplit('#').next().unwrap_or_default();
    let code = code.split(':').next().unwrap_or_default().trim();
    THROTTLE_CODES.contains(&code)
}

/// The values of a key: `"key": "value"`, `"key": 17`, `"key": ["value"`, `<key>value</key>`.
fn codes<'t, 'k>(text: &'t str, key: &'k str) -> impl Iterator<Item = &'t str> + use<'t, 'k> {
    text.match_indices(key).filter_map(move |(at, _)| {
        let (before, rest) = (text.get(..at)?, text.get(at + key.len()..)?);
        if before.ends_with('<') {
            return rest.strip_prefix('>')?.split('<').next().map(str::trim);
        }
        if !before.ends_with(['"', '\'']) {
            return None;
        }
        let rest = rest.trim_start_matches(['\\']).strip_prefix(['"', '\''])?.trim_start();
        let rest = rest.strip_prefix(':')?.trim_start_matches([' ', '\t', '\r', '\n', '[', '\\']);
        match rest.strip_prefix(['"', '\'']) {
            Some(quoted) => quoted.split(['"', '\\', '\'']).next(),
            None => rest.split([',', '}', ']', ' ', '\r', '\n']).next(),
        }
    })
}

/// Whether the word at this place is part of an address.
fn is_in_address(text: &str, at: usize) -> bool {
    /// Longer addresses are cut; what matters is that the search has an end.
    const ADDRESS_MAX: usize = 300;
    let before = text.as_bytes().get(at.saturating_sub(ADDRESS_MAX)..at).unwrap_or_default();
    let ends =
        |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'(');
    let start = before.iter().rposition(ends).map_or(0, |place| place + 1);
    before.get(start..).unwrap_or_default().windows(3).any(|three| three == b"://")
}

/// Whether the word that ends at this place ends a key.
fn is_key(text: &str, end: usize) -> bool {
    /// Names are short; a sentence goes on longer or has blanks.
    const NAME_MAX: usize = 40;
    let rest = text.as_bytes().get(end..).unwrap_or_default();
    let rest = rest.get(..NAME_MAX).unwrap_or(rest);
    let Some(quote) = rest.iter().position(|byte| *byte == b'"') else { return false };
    let after = rest.get(quote + 1..).unwrap_or_default();
    after.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Whether `second` stands not far behind `first`, in the same sentence.
fn follows(text: &str, first: &str, second: &str) -> bool {
    const NEAR: usize = 60;
    text.match_indices(first).any(|(at, _)| {
        let rest = text.as_bytes().get(at + first.len()..).unwrap_or_default();
        let near = rest.get(..NEAR + second.len()).unwrap_or(rest);
        near.windows(second.len()).any(|word| word == second.as_bytes()) && !is_in_address(text, at)
    })
}
