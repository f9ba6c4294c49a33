//! The classification table, row by row.

use http::{HeaderName, HeaderValue};

use super::*;

const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Outcome {
    let fields = fields
        .iter()
        .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let headers: HeaderMap = fields.collect();
    classify(Observed::Response { status, headers: &headers }, NOW, SECOND, MINUTE)
}

fn failure(failure: Failure, nothing_sent: bool, took: Duration, timeout: Duration) -> Outcome {
    classify(Observed::Failed { failure, nothing_sent }, NOW, took, timeout)
}

#[test]
fn a_status_without_fields_means_what_the_table_says() {
    use {Class as C, Health as H, Repeat as R};
    let check = |statuses: &[u16], class, health, repeat| {
        for &status in statuses {
            let (sent, reading) = (Sent::Answered, Reading::default());
            let expected = Outcome { class, health, sent, repeat, reading };
            assert_eq!(response(status, &[]), expected, "{status}");
        }
    };
    check(&[101, 200, 204, 206, 226, 301, 304, 399], C::Ok, H::Success, R::Never);
    check(&[400, 402, 404, 405, 406, 409, 410, 411], C::Permanent, H::Success, R::Never);
    check(&[413, 414, 415, 416, 418, 422, 451, 499], C::Permanent, H::Success, R::Never);
    check(&[401, 403, 407], C::Credential, H::Alive, R::Never);
    check(&[420, 429], C::Throttled, H::Alive, R::Refused);
    check(&[408], C::Transient, H::Neutral, R::BySafety);
    check(&[425], C::Transient, H::Neutral, R::Once);
    check(&[421], C::Misdirected, H::Neutral, R::Once);
    check(&[500, 502, 503, 504, 520, 524, 530], C::Unhealthy, H::Failure, R::BySafety);
    check(&[529], C::Overloaded, H::HalfFailure, R::BySafety);
    check(&[501, 505], C::Permanent, H::Neutral, R::Never);
    check(&[600, 999], C::Unhealthy, H::Failure, R::BySafety);
}

#[test]
fn fields_about_limits_move_a_response_to_another_row() {
    use {Class as C, Repeat as R};
    let check = |status, fields: &[_], class, repeat, wait_s: Option<u64>| {
        let outcome = response(status, fields);
        let wait = outcome.reading.hint.map(|hint| hint.wait.as_secs());
        let given = (outcome.class, outcome.repeat, wait);
        assert_eq!(given, (class, repeat, wait_s), "{status} {fields:?}");
    };
    let spent = ("x-ratelimit-remaining", "0");
    let left = ("x-ratelimit-remaining", "7");
    let reset = ("x-ratelimit-reset", "90");
    check(429, &[("retry-after", "3600")], C::Throttled, R::Refused, Some(3600));
    check(420, &[("retry-after", "60")], C::Throttled, R::Refused, Some(60));
    check(429, &[("x-should-retry", "false")], C::Throttled, R::Never, None);
    check(429, &[("retry-after", "3601")], C::Exhausted, R::Never, Some(3601));
    check(403, &[("retry-after", "5")], C::Throttled, R::Refused, Some(5));
    check(403, &[("retry-after", "soon")], C::Credential, R::Never, None);
    check(403, &[spent, reset], C::Throttled, R::Refused, Some(90));
    check(403, &[spent], C::Throttled, R::Refused, None);
    check(403, &[("retry-after", "86400")], C::Exhausted, R::Never, Some(86_400));
    check(403, &[left, reset], C::Credential, R::Never, None);
    check(403, &[reset], C::Credential, R::Never, None);
    check(401, &[spent, reset], C::Credential, R::Never, None);
    check(503, &[("retry-after", "5")], C::Unhealthy, R::BySafetyOrUnsafe503, Some(5));
    check(503, &[spent, reset], C::Throttled, R::Refused, Some(90));
    check(503, &[("retry-after", "7200")], C::Unhealthy, R::BySafetyOrUnsafe503, Some(7200));
    check(529, &[("retry-after-ms", "2000")], C::Overloaded, R::BySafety, Some(2));
    check(404, &[("retry-after", "0")], C::Permanent, R::Never, None);
    check(501, &[("retry-after", "9")], C::Permanent, R::Never, None);
    check(200, &[("retry-after", "9")], C::Ok, R::Never, None);
}

#[test]
fn a_failure_means_what_the_table_says_and_tells_how_much_was_sent() {
    use {Class as C, Failure as F, Health as H, Repeat as R, Sent as S};
    // What was sent: first if bytes were written, then if none were.
    let check = |kind, class, health, repeat, sent: [Sent; 2]| {
        for (nothing_sent, sent) in [false, true].into_iter().zip(sent) {
            let outcome = failure(kind, nothing_sent, MINUTE, MINUTE);
            let expected = Outcome { class, health, sent, repeat, reading: Reading::default() };
            assert_eq!(outcome, expected, "{kind:?}");
        }
    };
    let told = [S::Partly, S::Nothing];
    let nothing = [S::Nothing; 2];
    check(F::Dns, C::Unhealthy, H::Failure, R::BySafety, nothing);
    check(F::Connect, C::Unhealthy, H::Failure, R::BySafety, nothing);
    check(F::ConnectTimeout, C::Unhealthy, H::Failure, R::BySafety, nothing);
    check(F::TlsProtocol, C::Unhealthy, H::Failure, R::BySafety, nothing);
    check(F::TlsCertificate, C::Unhealthy, H::Failure, R::Never, nothing);
    check(F::Refused, C::Unhealthy, H::Failure, R::BySafety, nothing);
    check(F::Stale, C::Stale, H::Neutral, R::BySafety, told);
    check(F::Reset, C::Unhealthy, H::Failure, R::BySafety, told);
    check(F::BadResponse, C::Unhealthy, H::Failure, R::BySafety, told);
    check(F::HeadTimeout, C::TimedOut, H::Failure, R::BySafety, told);
    check(F::Client, C::Client, H::Neutral, R::Never, told);
}

#[test]
fn a_time_out_says_something_about_the_upstream_only_after_a_fair_chance() {
    let check = |took_ms, timeout_ms, health| {
        let took = Duration::from_millis(took_ms);
        let outcome = failure(Failure::HeadTimeout, false, took, Duration::from_millis(timeout_ms));
        assert_eq!(outcome.health, health, "{took_ms} of {timeout_ms}");
    };
    check(500, 60_000, Health::Neutral);
    check(9_999, 60_000, Health::Neutral);
    check(10_000, 60_000, Health::Failure);
    check(1_999, 2_000, Health::Neutral);
    check(2_000, 2_000, Health::Failure);
}

#[test]
fn a_retry_has_one_reason_of_a_closed_set() {
    let by_status = |status| RetryReason::of(Some(status), &response(status, &[])).name();
    let by_failure = |kind, nothing_sent| {
        RetryReason::of(None, &failure(kind, nothing_sent, MINUTE, MINUTE)).name()
    };
    assert_eq!(by_status(429), "status_429");
    assert_eq!(by_status(503), "status_503");
    assert_eq!(by_status(500), "status_5xx");
    assert_eq!(by_status(529), "status_5xx");
    assert_eq!(by_status(425), "other");
    assert_eq!(by_failure(Failure::Dns, true), "connect");
    assert_eq!(by_failure(Failure::Reset, false), "reset");
    assert_eq!(by_failure(Failure::Stale, true), "reset");
    assert_eq!(by_failure(Failure::HeadTimeout, false), "timeout");
    assert_eq!(by_failure(Failure::Client, false), "other");
    let mut names = RetryReason::ALL.map(RetryReason::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RetryReason::ALL.len());
}
