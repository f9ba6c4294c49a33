//! What servers were seen to send; `hostile` has what nobody should.

mod forms;
mod hostile;

use http::{HeaderName, HeaderValue};

use super::*;

/// 2026-01-15T10:00:00Z, a Thursday.
const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for &(name, value) in fields {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    map
}

/// The wait of a 429 in milliseconds, and its source.
fn wait(fields: &[(&'static str, &str)]) -> Option<(u128, HintSource)> {
    read(429, &headers(fields), NOW).hint.map(|hint| (hint.wait.as_millis(), hint.source))
}

/// Limit, remaining and reset in milliseconds of the binding quota.
fn quota(fields: &[(&'static str, &str)]) -> Option<(Option<u64>, u64, Option<u128>)> {
    let headers = headers(fields);
    let response =
        Response { status: 200, headers: &headers, body: None, received: NOW, server: None };
    let said = interpret(response, &super::super::profile::GENERIC);
    let quota = said.binding().filter(|quota| quota.remaining.is_some())?;
    Some((quota.limit, quota.remaining?, quota.reset.map(|reset| reset.as_millis())))
}

#[test]
fn retry_after_is_read_in_every_form_that_has_one_meaning() {
    use HintSource::{RetryAfterDate as Date, RetryAfterDelta as Delta};
    const MONTH_MS: u128 = 31 * 86_400_000;
    for (text, expected) in [
        ("120", Some((120_000, Delta))),
        ("  120 ", Some((120_000, Delta))),
        ("0", Some((0, Delta))),
        ("2.0", Some((2_000, Delta))),
        ("1.5", Some((1_500, Delta))),
        ("0.001", Some((1, Delta))),
        ("86400", Some((86_400_000, Delta))),
        ("5000000", Some((MONTH_MS, Delta))),
        ("99999999999999999999999999999999999999999999", Some((MONTH_MS, Delta))),
        ("1m30s", Some((90_000, Delta))),
        ("Thu, 15 Jan 2026 10:00:30 GMT", Some((30_000, Date))),
        ("Thursday, 15-Jan-26 10:00:30 GMT", Some((30_000, Date))),
        ("Thu Jan 15 10:00:30 2026", Some((30_000, Date))),
        ("Thu Jan  5 10:00:30 2026", Some((0, Date))),
        ("Thu, 15 Jan 2026 10:00:30 UTC", Some((30_000, Date))),
        ("Mon,  15 Jan 2026  10:00:30 GMT", Some((30_000, Date))),
        ("Thu, 15 Jan 2026 09:00:00 GMT", Some((0, Date))),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some((0, Date))),
        ("Thu Jan 15 2026 11:00:30 GMT+0100 (CET)", Some((30_000, Date))),
        ("2026-01-15T10:00:30.250Z", Some((30_250, Date))),
        ("2026-01-15T11:00:30+01:00", Some((30_000, Date))),
        ("2026-01-15T10:01", Some((60_000, Date))),
        ("1768471230", Some((30_000, Date))),
        ("1768471230.5", Some((30_500, Date))),
        // An epoch, but of another age: read as a delay, which is the longer wait.
        ("1000000000", Some((MONTH_MS, Delta))),
        ("1768471230250", Some((30_250, Date))),
        ("120, 30", Some((120_000, Delta))),
        ("30, soon, 120", Some((120_000, Delta))),
        ("Thu, 15 Jan 2026 10:00:30 GMT, Thu, 15 Jan 2026 10:01:00 GMT", Some((60_000, Date))),
        ("", None),
        ("-1", None),
        ("+5", None),
        ("1e3", None),
        ("Infinity", None),
        ("NaN", None),
        ("soon", None),
        ("5 minutes", None),
        ("Thu, 32 Jan 2026 10:00:30 GMT", None),
        ("Sun, 29 Feb 2026 10:00:30 GMT", None),
        ("Thu, 15 Jan 2026 24:00:30 GMT", None),
        ("15 Jan 2026", None),
    ] {
        assert_eq!(wait(&[("retry-after", text)]), expected, "{text:?}");
    }
}

#[test]
fn the_first_source_that_states_a_wait_decides_and_within_it_the_longest() {
    use HintSource as S;
    let spent = ("x-ratelimit-remaining", "0");
    let reset = ("x-ratelimit-reset", "90");
    let check = |fields: &[_], expected| assert_eq!(wait(fields), expected, "{fields:?}");
    let ms = |ms| Some((ms, S::RetryAfterMs));
    let delta = |ms| Some((ms, S::RetryAfterDelta));
    let by_reset = |ms| Some((ms, S::RateLimitReset));
    check(&[("retry-after-ms", "1500"), ("retry-after", "2")], ms(1_500));
    check(&[("x-ms-retry-after-ms", "20.5")], ms(20));
    check(&[("x-amz-retry-after", "300")], ms(300));
    check(&[("retry-after-ms", "x"), ("retry-after", "2")], delta(2_000));
    check(&[("retry-after", "5"), ("retry-after", "7")], delta(7_000));
    check(&[("retry-after", "2"), spent, reset], delta(2_000));
    check(&[spent, reset], by_reset(90_000));
    let other = [("ratelimit-remaining", "0"), ("ratelimit-reset", "200")];
    check(&[spent, reset, other[0], other[1]], by_reset(200_000));
    // Some other limit refused, and this reset is not the answer.
    check(&[("x-ratelimit-remaining", "4"), reset], None);
    check(&[reset], by_reset(90_000));
    check(&[], None);
}

#[test]
fn a_hint_is_given_for_refusals_only_and_the_quota_always() {
    let fields = headers(&[("retry-after", "5"), ("ratelimit", "limit=9, remaining=0, reset=5")]);
    let check = |statuses: &[u16], hinted| {
        for &status in statuses {
            let reading = read(status, &fields, NOW);
            assert_eq!(reading.hint.is_some(), hinted, "{status}");
            assert!(reading.quotas.iter().any(|quota| quota.remaining == 0), "{status}");
        }
    };
    check(&[403, 408, 425, 429, 500, 502, 503, 504, 520, 529], true);
    check(&[200, 301, 401, 404, 501, 505], false);
}

#[test]
fn a_reset_is_told_apart_by_its_magnitude_and_form() {
    for (text, expected_ms) in [
        ("30", Some(30_000)),
        ("0.5", Some(500)),
        ("99999999", Some(31 * 86_400_000)),
        ("500000000", None),
        ("1768471230", Some(30_000)),
        ("1768471230.123", Some(30_123)),
        ("1768471230000", Some(30_000)),
        ("1768471230000000", Some(30_000)),
        ("1768471230000000000", Some(30_000)),
        ("1768471000", Some(0)),
        ("6m0s", Some(360_000)),
        ("120ms", Some(120)),
        ("2m59.56s", Some(179_560)),
        ("1h", Some(3_600_000)),
        ("2026-01-15T10:00:30Z", Some(30_000)),
        ("2026-01-15T10:00:30.1234567", Some(30_123)),
        ("Thu, 15 Jan 2026 10:00:30 GMT", Some(30_000)),
        ("-5", None),
        ("6m0", None),
        ("m", None),
        ("", None),
        ("later", None),
    ] {
        let quota = quota(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", text)]);
        assert_eq!(quota, Some((None, 0, expected_ms)), "{text:?}");
    }
}

/// Limit, remaining and reset with a prefix, as lines.
fn family<'a>(names: [&'static str; 3], values: [&'a str; 3]) -> Vec<(&'static str, &'a str)> {
    names.into_iter().zip(values).collect()
}

const IETF: [&str; 3] = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
const X: [&str; 3] = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
const X_RATE: [&str; 3] = ["x-rate-limit-limit", "x-rate-limit-remaining", "x-rate-limit-reset"];

#[test]
fn quotas_are_read_in_all_families() {
    let check = |fields: &[_], expected| assert_eq!(quota(fields), expected, "{fields:?}");
    let full = Some((Some(100), 50, Some(30_000)));
    check(&family(IETF, ["100, 100;w=60", "50", "30"]), full);
    check(&family(X, ["100", "50.9", "1768471230"]), full);
    check(&family(X_RATE, ["100;w=60", "50", "2026-01-15T10:00:30Z"]), full);
    // The relative reset is preferred.
    let mut both = family(X, ["100", "50", "1768471299"]);
    both.push(("x-ratelimit-reset-after", "30.0"));
    check(&both, full);
    check(&[("ratelimit", "limit=100, remaining=50, reset=30")], full);
    check(&[("ratelimit", "limit=100"), ("ratelimit", "remaining=50, reset=30")], full);
    let item = Some((None, 50, Some(30_000)));
    check(&[("ratelimit", r#""default";r=50;t=30"#)], item);
    check(&[("ratelimit", r#""a;r=0,\"b";r=50;t=30;pk=:YQ==:"#)], item);
    check(&[("ratelimit", r#""a";r=9;t=9, "b";r=0;t=30"#)], Some((None, 0, Some(30_000))));
    // Half of it in each family.
    check(&[(X[1], "50"), (IETF[0], "100"), (IETF[2], "30")], full);
}

#[test]
fn what_a_quota_does_not_say_is_not_made_up() {
    let check = |fields: &[_], expected| assert_eq!(quota(fields), expected, "{fields:?}");
    check(&[(X[0], "100")], None);
    check(&[(X[1], "-1"), (X[0], "9")], None);
    check(&[(X[1], "5"), (X[0], "-1")], None);
    check(&[(X[1], "-3")], Some((None, 0, None)));
    check(&[(X[1], "199,1999")], None);
    check(&[(X[1], "9"), (X[0], "20:1,100:120")], Some((None, 9, None)));
    check(&[(X[1], "7"), (X[1], "3")], Some((None, 3, None)));
    check(&[(X[1], "lots")], None);
    check(&[("ratelimit", "gibberish")], None);
    check(&[("ratelimit", r#""unclosed;r=1;t=2"#)], None);
}

#[test]
fn of_several_quotas_an_exhausted_one_binds_else_the_one_with_the_least_share_left() {
    let two = |first, second| quota(&[family(IETF, first), family(X, second)].concat());
    let of = |limit, remaining, reset_ms| Some((Some(limit), remaining, Some(reset_ms)));
    assert_eq!(two(["10", "5", "1"], ["1000", "400", "9"]), of(1000, 400, 9_000));
    assert_eq!(two(["10", "0", "5"], ["10", "0", "9"]), of(10, 0, 9_000));
    assert_eq!(two(["10", "0", "5"], ["1000", "1", "9"]), of(10, 0, 5_000));
}

#[test]
fn a_wrong_clock_on_either_side_does_not_change_an_absolute_wait() {
    let at = |date, retry_after| wait(&[("date", date), ("retry-after", retry_after)]);
    let wait_ms = |ms| Some((ms, HintSource::RetryAfterDate));
    // The server is an hour ahead.
    let (date, later) = ("Thu, 15 Jan 2026 11:00:00 GMT", "Thu, 15 Jan 2026 11:00:30 GMT");
    assert_eq!(at(date, later), wait_ms(30_000));
    assert_eq!(at(date, "1768474830"), wait_ms(30_000));
    // Five seconds are the network's; a date that cannot be read is none.
    assert_eq!(at("Thu, 15 Jan 2026 10:00:05 GMT", "1768471230"), wait_ms(30_000));
    assert_eq!(at("yesterday", "1768471230"), wait_ms(30_000));
    // A relative wait needs no clock.
    assert_eq!(at(date, "30"), Some((30_000, HintSource::RetryAfterDelta)));
}

#[test]
fn a_response_from_a_cache_tells_neither_the_time_nor_the_quota() {
    let old = [("date", "Thu, 15 Jan 2026 09:00:00 GMT"), ("age", "3600")];
    let spent = [old[0], old[1], (X[1], "0"), (X[2], "9")];
    assert_eq!(quota(&spent), None);
    assert_eq!(wait(&spent), None);
    let refused = [old[0], old[1], ("retry-after", "Thu, 15 Jan 2026 10:00:30 GMT")];
    assert_eq!(wait(&refused), Some((30_000, HintSource::RetryAfterDate)));
}

#[test]
fn a_category_that_is_used_up_says_nothing_of_requests_that_no_limit_refused() {
    use crate::policy::profile::{Field, Form, Profile};
    let mut sentry = Profile::new("sentry".into());
    sentry.fields.push(Field {
        name: "x-sentry-rate-limits".into(),
        quota: "".into(),
        form: Form::Categories,
    });
    let read = |status, limits| {
        let headers = headers(&[("x-sentry-rate-limits", limits)]);
        let response =
            Response { status, headers: &headers, body: None, received: NOW, server: None };
        let reading = interpret(response, &sentry).reading();
        let seconds = reading.hint.map(|hint| hint.wait.as_secs());
        (seconds, reading.quotas.first().map(|quota| quota.remaining))
    };
    const ONE: &str = "60:error;transaction:organization";
    const ALL: &str = "60::organization";
    assert_eq!(read(200, ONE), (None, None));
    assert_eq!(read(200, ALL), (None, Some(0)));
    assert_eq!(read(429, ONE), (Some(60), Some(0)));
    for status in [403, 500, 503] {
        assert_eq!(read(status, ONE), (None, None), "{status}");
    }
    assert_eq!(read(503, ALL), (Some(60), Some(0)));
}

#[test]
fn what_is_quoted_of_a_server_is_short_and_printable() {
    let quoted = |field: &'static str, value: &[u8], body: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert(field, HeaderValue::from_bytes(value).unwrap());
        let response = Response {
            status: 429,
            headers: &headers,
            body: Some(body),
            received: NOW,
            server: None,
        };
        interpret(response, &super::super::profile::GENERIC).reading().hint.unwrap().raw.unwrap()
    };
    assert_eq!(&*quoted("retry-after", b" 30 ", b""), "retry-after: 30");
    let long = quoted("ratelimit", &[&b"\"a\";r=0;t=30"[..], &b";x=y".repeat(100)].concat(), b"");
    assert!(long.starts_with("ratelimit: \"a\";r=0;t=30;x=y") && long.ends_with("..."), "{long}");
    assert_eq!(long.len(), RAW_MAX);
    let odd = quoted("ratelimit", "\"é\";r=0;t=30".as_bytes(), b"");
    assert_eq!(&*odd, "ratelimit: \"?\";r=0;t=30");
}
