//! What a request may do if it is processed twice, and the idempotency key that forbear makes.
//!
//! A POST is repeated after a failure only if the upstream would notice the repeat. Where its API
//! does by a key, and the settings say so, a request that has none gets one: once per exchange, so
//! that every attempt carries the same.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::directives::{self, Directives};
use crate::config::settings::UpstreamConfig;
use crate::policy::outcome::Safety;

/// Where most APIs expect a key (draft-ietf-httpapi-idempotency-key-header).
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Tells the client which one was made.
const ECHO: HeaderName = HeaderName::from_static("forbear-idempotency-key");

/// The field with the key of one exchange.
pub(super) struct MadeKey(HeaderName, HeaderValue);

impl MadeKey {
    /// Onto an attempt.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(self.0.clone(), self.1.clone());
    }

    /// Onto the answer.
    pub(super) fn echo(self, headers: &mut HeaderMap) {
        headers.insert(ECHO, self.1);
    }
}

/// What a request may do if it is processed twice, and the key that makes it so. `number` differs
/// from that of every other exchange.
pub(super) fn of(
    parts: &Parts,
    directives: &Directives,
    config: &UpstreamConfig,
    number: u64,
) -> (Safety, Option<MadeKey>) {
    let own = config.idempotency_key.as_ref();
    let safety = directives::safety(&parts.method, &parts.headers, directives, own);
    if safety == Safety::Unsafe && config.makes_idempotency_key {
        let key = MadeKey(own.unwrap_or(&KEY).clone(), uuid(number));
        (Safety::Idempotent, Some(key))
    } else {
        (safety, None)
    }
}

/// A random UUID (RFC 9562 5.4): a keyed hash of a number that is used once is as good as chance,
/// and the key is the system's.
fn uuid(number: u64) -> HeaderValue {
    static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let half = |which: u8| u128::from(KEYED.hash_one((number, which)));
    let bits = (half(0) << 64) | half(1);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    HeaderValue::try_from(text).expect("digits and dashes are legal")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_key_is_a_random_uuid_and_no_two_are_the_same() {
        let keys: HashSet<_> = (0..10_000).map(uuid).collect();
        assert_eq!(keys.len(), 10_000);
        for key in keys {
            let text = key.to_str().unwrap();
            let groups: Vec<_> = text.split('-').map(str::len).collect();
            assert_eq!(groups, [8, 4, 4, 4, 12], "{text}");
            assert_eq!(&text[14..15], "4", "{text}");
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
    }
}
