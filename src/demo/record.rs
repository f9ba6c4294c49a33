//! What the fake API has seen: counters, a log of requests, and the side effects it carried out.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;

/// Requests that the log keeps; later ones are counted only. A test or demo makes far fewer.
const LOG_MAX: usize = 20_000;

/// Different bodies of which side effects are counted; later ones are not.
const EFFECTS_MAX: usize = 20_000;

/// How the requests so far went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Arrived, whatever became of them.
    pub requests: u32,
    /// Answered with 2xx.
    pub good: u32,
    /// Refused by the limiter with 429.
    pub refused: u32,
    /// Those of `refused` that came before a wait was over which an earlier refusal had named.
    pub refused_during_pause: u32,
    /// Answered with 5xx.
    pub failed: u32,
    /// Ended by cutting the connection.
    pub resets: u32,
    /// Side effects carried out, repeated ones included.
    pub effects: u32,
    /// Most requests at the same time.
    pub overlap_max: u32,
}

/// One request as it arrived, and what it was answered.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// When its head had arrived, counted from the first request.
    pub at: Duration,
    /// The method.
    pub method: String,
    /// Path and query, as they were sent.
    pub target: String,
    /// All fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// Length and [`fingerprint`] of the body, once it has been read to its end.
    pub body: Option<(usize, u64)>,
    /// The status it was answered with; none while it is open or when it was cut.
    pub status: Option<u16>,
}

impl RequestRecord {
    /// The value of the first field of this name (in lower case).
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The value of `Idempotency-Key`.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.field("idempotency-key")
    }
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) counters: Counters,
    pub(super) log: Vec<RequestRecord>,
    /// How often the side effect of each body was carried out, by its fingerprint.
    effects: HashMap<u64, u32>,
    overlap: u32,
    /// Until when the last refusal told clients to wait.
    told_until: Duration,
}

impl Record {
    /// A head has arrived. Returns the request's number, counted from 1.
    pub(super) fn arrived(&mut self, at: Duration, head: &Parts) -> u32 {
        self.counters.requests += 1;
        self.overlap += 1;
        self.counters.overlap_max = self.counters.overlap_max.max(self.overlap);
        if self.log.len() < LOG_MAX {
            self.log.push(RequestRecord {
                at,
                method: head.method.to_string(),
                target: head.uri.path_and_query().map_or("", |target| target.as_str()).to_owned(),
                fields: field_list(&head.headers),
                body: None,
                status: None,
            });
        }
        self.counters.requests
    }

    /// Its body has been read.
    pub(super) fn read(&mut self, number: u32, body: &[u8]) {
        if let Some(entry) = self.entry(number) {
            entry.body = Some((body.len(), fingerprint(body)));
        }
    }

    /// The limiter refused a request and named this wait.
    pub(super) fn refused(&mut self, now: Duration, wait: Duration) {
        self.counters.refused += 1;
        self.counters.refused_during_pause += u32::from(now < self.told_until);
        self.told_until = self.told_until.max(now + wait);
    }

    /// It is answered with this status, or with none.
    pub(super) fn answered(&mut self, number: u32, status: Option<u16>) {
        match status {
            Some(200..=299) => self.counters.good += 1,
            Some(500..=599) => self.counters.failed += 1,
            Some(_) => {}
            None => self.counters.resets += 1,
        }
        if let Some(entry) = self.entry(number) {
            entry.status = status;
        }
    }

    /// It is over, be it because the client has gone.
    pub(super) fn left(&mut self) {
        self.overlap -= 1;
    }

    /// The side effect that this body asks for is carried out.
    pub(super) fn carry_out(&mut self, body: &[u8]) {
        self.counters.effects += 1;
        let key = fingerprint(body);
        if self.effects.len() < EFFECTS_MAX || self.effects.contains_key(&key) {
            *self.effects.entry(key).or_default() += 1;
        }
    }

    /// How often the side effect of this body was carried out.
    pub(super) fn effects_of(&self, body: &[u8]) -> u32 {
        self.effects.get(&fingerprint(body)).copied().unwrap_or(0)
    }

    fn entry(&mut self, number: u32) -> Option<&mut RequestRecord> {
        self.log.get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
    }
}

/// All fields in order, names in lower case; a value that is no UTF-8 is shown with replacements.
pub(super) fn field_list(fields: &HeaderMap) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// FNV-1a, 64 bits: the same in every process and language, and enough to tell bodies apart.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_fnv_1a() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn only_a_refusal_within_a_told_wait_counts_as_during_the_pause() {
        let mut record = Record::default();
        for (at_ms, wait_ms) in [(0, 100), (50, 50), (99, 1), (100, 100), (300, 10)] {
            record.refused(Duration::from_millis(at_ms), Duration::from_millis(wait_ms));
        }
        assert_eq!(record.counters.refused, 5);
        assert_eq!(record.counters.refused_during_pause, 2);
    }
}
