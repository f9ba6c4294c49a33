//! What an API tells about its limit: the fields of an answer, from the limiter's verdict.
//!
//! Each dialect is a projection of the same truth. Whole seconds are rounded up, because an API
//! that rounds down invites the very request that it will refuse.

use std::time::{Duration, SystemTime};

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};

use super::limiter::Verdict;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// In which fields the API speaks of its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// In none: a 429 and nothing else.
    None,
    /// `Retry-After` of a 429 in whole seconds (RFC 9110, section 10.2.3), never early.
    RetryAfterSeconds,
    /// `retry-after-ms` of a 429, never early.
    RetryAfterMs,
    /// `Retry-After` of a 429 as a date, never early.
    RetryAfterDate,
    /// `RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now) on every answer, and
    /// `Retry-After` in seconds on a 429.
    RateLimitFields,
}

impl Hints {
    /// The fields for one answer. `limit` is the number that the API tells, `wall` is now.
    pub fn fields(
        self,
        verdict: Verdict,
        limit: Option<u32>,
        wall: SystemTime,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let wait = match verdict {
            Verdict::Admit { .. } => None,
            Verdict::Refuse { wait } => Some(wait),
        };
        match (self, wait) {
            (Self::None, _)
            | (Self::RetryAfterSeconds | Self::RetryAfterMs | Self::RetryAfterDate, None) => {
                Vec::new()
            }
            (Self::RetryAfterSeconds, Some(wait)) => vec![retry_after_seconds(wait)],
            (Self::RetryAfterMs, Some(wait)) => {
                let ms = wait.as_nanos().div_ceil(1_000_000);
                vec![(RETRY_AFTER_MS, number(u64::try_from(ms).unwrap_or(u64::MAX)))]
            }
            (Self::RetryAfterDate, Some(wait)) => {
                let date = httpdate::fmt_http_date(whole_second_from(wall + wait));
                let value = HeaderValue::try_from(date).expect("an HTTP date is visible ASCII");
                vec![(RETRY_AFTER, value)]
            }
            (Self::RateLimitFields, _) => {
                let (remaining, reset) = match verdict {
                    Verdict::Admit { remaining, reset } => (remaining, reset),
                    Verdict::Refuse { wait } => (0, wait),
                };
                let mut fields = Vec::new();
                if let Some(limit) = limit {
                    fields.push((RATELIMIT_LIMIT, number(limit.into())));
                    fields.push((RATELIMIT_REMAINING, number(remaining.into())));
                    fields.push((RATELIMIT_RESET, number(whole_seconds(reset))));
                }
                fields.extend(wait.map(retry_after_seconds));
                fields
            }
        }
    }
}

fn retry_after_seconds(wait: Duration) -> (HeaderName, HeaderValue) {
    (RETRY_AFTER, number(whole_seconds(wait)))
}

fn number(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}

fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// The first whole second that is not before `at`; dates have no fractions.
fn whole_second_from(at: SystemTime) -> SystemTime {
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(whole_seconds(since_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Verdict = Verdict::Refuse { wait: Duration::from_micros(1_200_400) };
    const ADMITTED: Verdict = Verdict::Admit { remaining: 7, reset: Duration::from_millis(900) };

    /// One line per field, as it is sent at 1994-11-06T08:49:37.500Z.
    fn check(hints: Hints, verdict: Verdict, expected: &[&str]) {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_500);
        let fields = hints.fields(verdict, Some(10), wall);
        let lines: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(lines, expected, "{hints:?} {verdict:?}");
    }

    #[test]
    fn a_refusal_names_a_wait_that_is_never_early() {
        check(Hints::None, REFUSED, &[]);
        check(Hints::RetryAfterSeconds, REFUSED, &["retry-after: 2"]);
        check(Hints::RetryAfterMs, REFUSED, &["retry-after-ms: 1201"]);
        check(Hints::RetryAfterDate, REFUSED, &["retry-after: Sun, 06 Nov 1994 08:49:39 GMT"]);
        check(
            Hints::RateLimitFields,
            REFUSED,
            &[
                "ratelimit-limit: 10",
                "ratelimit-remaining: 0",
                "ratelimit-reset: 2",
                "retry-after: 2",
            ],
        );
    }

    #[test]
    fn an_admission_tells_only_what_is_left() {
        for hints in
            [Hints::None, Hints::RetryAfterSeconds, Hints::RetryAfterMs, Hints::RetryAfterDate]
        {
            check(hints, ADMITTED, &[]);
        }
        check(
            Hints::RateLimitFields,
            ADMITTED,
            &["ratelimit-limit: 10", "ratelimit-remaining: 7", "ratelimit-reset: 1"],
        );
    }
}
