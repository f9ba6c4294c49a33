//! Further forms, as servers could write them: each follows from what is known of the form, and
//! none was copied from an answer.

use super::*;
use crate::policy::profile::{Answer, GENERIC, Unit};

fn said(status: u16, fields: &[(&'static str, &str)], body: &str) -> (Answer, bool, Option<u128>) {
    let headers = headers(fields);
    let body = Some(body.as_bytes()).filter(|body| !body.is_empty());
    let response = Response { status, headers: &headers, body, received: NOW, server: None };
    let said = interpret(response, &GENERIC);
    (said.answer, said.limited, said.wait.map(|wait| wait.duration.as_millis()))
}

/// The wait of a 429 with this body alone.
fn body_wait(body: &str) -> Option<u128> {
    said(429, &[], body).2
}

#[test]
fn a_wait_in_a_sentence_needs_its_words_and_its_unit() {
    for (body, expected) in [
        ("Please try again in 3.89s. Visit https://a.example/rate-limits", Some(3_890)),
        ("Please try again in 174ms.", Some(174)),
        ("please retry in 1m30s", Some(90_000)),
        ("Retry after 5 minutes.", Some(300_000)),
        ("retry after '372' seconds", Some(372_000)),
        ("retry after \\\"30\\\" seconds", Some(30_000)),
        ("Try again in 1 minute and 30 seconds", Some(90_000)),
        ("try again in 2 hours", Some(7_200_000)),
        ("Expected available in 1 second.", Some(1_000)),
        ("Expected available in 0 seconds.", Some(0)),
        ("Wait 20 seconds, then slow down!", Some(20_000)),
        ("please wait for at least 45 seconds", Some(45_000)),
        ("Please wait another 10 minutes before you try again", Some(600_000)),
        ("try again after approximately 7 secs", Some(7_000)),
        ("Retry after 2026-01-15T10:15:00.500Z", Some(900_500)),
        ("Retry after 2026-01-15T09:15:00Z", Some(0)),
        ("RETRY IN 9S", Some(9_000)),
        ("please retry after 25s, resets at Wed Oct 23 2024 23:13:13 GMT+0000", Some(25_000)),
        // Numbers that are none.
        ("Rate limit of 300 requests in 3600 seconds reached. Please try again later.", None),
        ("retry later; see error-code-429 or call 30 seconds of support", None),
        ("You can retry 5 times", None),
        ("retry after 30", None),
        ("await 30 seconds", None),
        ("Limit 30000, Used 18928, Requested 11159", None),
        ("{\"code\": 20429, \"more_info\": \"https://a.example/errors/20429\"}", None),
        ("try again in a few minutes", None),
        ("retry in -5 seconds", None),
        ("", None),
    ] {
        assert_eq!(body_wait(body), expected, "{body:?}");
    }
}

#[test]
fn a_wait_under_a_key_is_read_in_any_spelling_of_the_key() {
    for (body, expected) in [
        (r#"{"retry_after": 0.345}"#, Some(345)),
        (r#"{"retryAfter":30}"#, Some(30_000)),
        (r#"{"retry_after":"30"}"#, Some(30_000)),
        (r#"{"retry_after_seconds": 2}"#, Some(2_000)),
        (r#"{"retry_in_seconds":1.5}"#, Some(1_500)),
        (r#"{"retry_after_ms":250}"#, Some(250)),
        (r#"{"retryAfterMs": 250}"#, Some(250)),
        ("{\n  \"retry_after\" :\n  4\n}", Some(4_000)),
        (r#"{"message":"{\"retry_after\": 6}"}"#, Some(6_000)),
        (r#"{"retry-after":"2026-01-15T10:00:09Z"}"#, Some(9_000)),
        ("<Error><RetryAfterSeconds>5</RetryAfterSeconds></Error>", Some(5_000)),
        (r#"{"details":[{"retryDelay":"47s"}]}"#, Some(47_000)),
        (r#"{"retryDelay":"0.25s"}"#, Some(250)),
        (r#"{"retryDelay":{"seconds":47,"nanos":0}}"#, Some(47_000)),
        // The sentence says exactly what the key rounds.
        (r#"{"message":"Please retry in 47.43s.","d":[{"retryDelay":"47s"}]}"#, Some(47_430)),
        (r#"{"retry_after": null}"#, None),
        (r#"{"retry_after": false}"#, None),
        (r#"{"retry_after": -3}"#, None),
        (r#"{"max_retry_after": 99}"#, None),
        (r#"{"retries": 3, "retry": true, "retry_count": 7}"#, None),
        (r#"{"retry_after": 4"#, Some(4_000)),
    ] {
        assert_eq!(body_wait(body), expected, "{body:?}");
    }
}

#[test]
fn a_body_is_asked_only_where_a_refusal_is() {
    let body = r#"{"retry_after": 5, "code": "ThrottlingException"}"#;
    assert_eq!(said(200, &[], body), (Answer::Ok, false, None));
    assert_eq!(said(404, &[], body), (Answer::Permanent, false, None));
    assert_eq!(said(401, &[], body), (Answer::Auth, false, None));
    assert_eq!(said(400, &[], body), (Answer::RateLimited, true, Some(5_000)));
    assert_eq!(said(502, &[], body), (Answer::Transient, false, Some(5_000)));
    // A field is better than a body.
    let field = [("retry-after", "9")];
    assert_eq!(said(429, &field, body), (Answer::RateLimited, true, Some(9_000)));
}

#[test]
fn a_403_is_a_limit_only_if_something_says_so() {
    for (body, limited) in [
        (r#"{"message":"API rate limit exceeded for 203.0.113.7"}"#, true),
        (r#"{"message":"You have been rate-limited"}"#, true),
        (r#"{"error":{"errors":[{"reason":"userRateLimitExceeded"}]}}"#, true),
        (r#"{"error":{"errors":[{"reason":"quotaExceeded"}]}}"#, true),
        (r#"{"errorCode":"REQUEST_LIMIT_EXCEEDED"}"#, true),
        (r#"{"error":"too_many_requests"}"#, true),
        ("Too many calls", true),
        ("Your request was throttled", true),
        ("The quota for this key has been exceeded", true),
        ("You have exceeded your daily quota", true),
        ("<Code>SlowDown</Code>", true),
        (r#"{"__type":"com.amazonaws#ThrottlingException"}"#, true),
        (
            r#"{"message":"Resource not accessible","documentation_url":"https://a.example/rest#rate-limiting"}"#,
            false,
        ),
        (r#"{"message":"Forbidden","rate_limit":null}"#, false),
        (
            r#"{"error":{"errors":[{"reason":"dailyLimitExceededUnreg"}],"message":"Daily Limit for Unauthenticated Use Exceeded."}}"#,
            false,
        ),
        (r#"{"message":"Missing permission: repo"}"#, false),
        ("", false),
    ] {
        let expected = if limited { Answer::RateLimited } else { Answer::Auth };
        assert_eq!(said(403, &[], body), (expected, limited, None), "{body}");
    }
}

#[test]
fn a_400_is_a_limit_by_a_code_and_never_by_words() {
    let answer = |body| said(400, &[], body).0;
    assert_eq!(answer(r#"{"__type":"ThrottlingException"}"#), Answer::RateLimited);
    assert_eq!(answer(r#"{"__type" : "a.b#LimitExceededException"}"#), Answer::RateLimited);
    assert_eq!(answer("<Error><Code> RequestThrottled </Code></Error>"), Answer::RateLimited);
    let field = [("x-amzn-errortype", "TooManyRequestsException:http://a.example/")];
    assert_eq!(said(400, &field, "").0, Answer::RateLimited);
    assert_eq!(
        answer(r#"{"__type":"ValidationException","message":"Throttling"}"#),
        Answer::Permanent
    );
    assert_eq!(answer("rate limit exceeded, too many requests"), Answer::Permanent);
    assert_eq!(answer("<Message>ThrottlingException</Message>"), Answer::Permanent);
}

#[test]
fn what_will_never_heal_is_permanent_and_still_a_limit() {
    let billing =
        r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
    assert_eq!(said(429, &[], billing), (Answer::Permanent, true, None));
    assert_eq!(said(429, &[("x-should-retry", "false")], ""), (Answer::Permanent, true, None));
    assert_eq!(said(429, &[("x-should-retry", "true")], ""), (Answer::RateLimited, true, None));
    // The same words without the code are a limit like any other.
    let words = r#"{"error":{"message":"You exceeded your current quota","code":429}}"#;
    assert_eq!(said(429, &[], words), (Answer::RateLimited, true, None));
}

#[test]
fn a_served_answer_pauses_the_next_request_only_when_nothing_is_left() {
    let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "73")];
    assert_eq!(said(200, &spent, ""), (Answer::Ok, false, Some(73_000)));
    assert_eq!(said(302, &spent, ""), (Answer::Ok, false, Some(73_000)));
    let left = [("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", "73"), ("retry-after", "5")];
    assert_eq!(said(200, &left, ""), (Answer::Ok, false, None));
    assert_eq!(said(301, &[("retry-after", "0")], ""), (Answer::Ok, false, None));
}

#[test]
fn units_that_are_told_change_plain_numbers_only() {
    let profile = GENERIC.with_units(Some(Unit::Millis), Some(Unit::Millis));
    let wait = |fields: &[(&'static str, &str)]| {
        let headers = headers(fields);
        let response =
            Response { status: 429, headers: &headers, body: None, received: NOW, server: None };
        interpret(response, &profile).wait.map(|wait| wait.duration.as_millis())
    };
    assert_eq!(wait(&[("retry-after", "1500")]), Some(1_500));
    assert_eq!(wait(&[("retry-after", "Thu, 15 Jan 2026 10:00:30 GMT")]), Some(30_000));
    assert_eq!(wait(&[("retry-after-ms", "250")]), Some(250));
    let reset = |text| wait(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", text)]);
    assert_eq!(reset("600000"), Some(600_000));
    assert_eq!(reset("1768471230000"), Some(30_000));
    assert_eq!(reset("6m0s"), Some(360_000));
    assert_eq!(wait(&[("ratelimit", "\"a\";r=0;t=9")]), Some(9_000));
    assert_eq!(
        wait(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-resetseconds", "9")]),
        Some(9_000)
    );
}

#[test]
fn vendors_fields_of_every_spelling_are_waits_and_quotas() {
    assert_eq!(said(429, &[("x-foo-retry-after", "7")], "").2, Some(7_000));
    assert_eq!(said(429, &[("x-foo-retry-after-ms", "7")], "").2, Some(7));
    let two = [("x-a-ratelimit-b-retry-after", "7"), ("x-c-retryafter", "9")];
    assert_eq!(said(429, &two, "").2, Some(9_000));
    let quota = |fields: &[(&'static str, &str)]| quota(fields).unwrap();
    assert_eq!(
        quota(&[("acme-ratelimit-limit", "9"), ("acme-ratelimit-remaining", "3")]),
        (Some(9), 3, None)
    );
    // Of one quota, in both orders of the words.
    assert_eq!(
        quota(&[
            ("x-ratelimit-limit-minute", "60"),
            ("x-ratelimit-minute-remaining", "3"),
            ("x-ratelimit-reset-in-minute", "5"),
        ]),
        (Some(60), 3, Some(5_000))
    );
    // Of two resets, the one that needs no clock.
    assert_eq!(
        quota(&[
            ("x-ratelimit-remaining", "3"),
            ("x-ratelimit-reset", "1768471999"),
            ("x-ratelimit-resets-in", "5"),
        ]),
        (None, 3, Some(5_000))
    );
    assert_eq!(
        quota(&[("x-ratelimit", r#"{"limit":50,"remaining":49,"until":"2026-01-15T10:00:07Z"}"#)]),
        (Some(50), 49, Some(7_000))
    );
}

#[test]
fn dates_are_read_with_parts_missing_and_parts_too_many() {
    for (text, expected_ms) in [
        ("2026-01-15T10:00:30", Some(30_000)),
        ("2026-01-15T10:01Z", Some(60_000)),
        ("2026-01-15 10:00:30", Some(30_000)),
        ("2026-01-15 10:00:30 UTC", Some(30_000)),
        ("2026-01-15 10:00:30 +0000 UTC", Some(30_000)),
        ("2026-01-15T11:00:30+01", Some(30_000)),
        ("2026-01-15t10:00:30.123456789z", Some(30_123)),
        ("Thu Jan 15 2026 05:00:30 GMT-0500 (Eastern Standard Time)", Some(30_000)),
        ("Thu, 15 Jan 2026 10:00:30 +0000", Some(30_000)),
        ("2026-13-15T10:00:30Z", None),
        ("2026-01-15T25:00:30Z", None),
        ("2026-01-15", None),
    ] {
        let fields = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", text)];
        assert_eq!(said(429, &fields, "").2, expected_ms, "{text:?}");
    }
}

#[test]
fn the_field_that_decided_is_named_with_its_own_text() {
    let fields = headers(&[
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "soon"),
        ("ratelimit", "\"a\";r=0;t=9"),
        ("x-ratelimit-bucket", "abc"),
    ]);
    let response =
        Response { status: 429, headers: &fields, body: None, received: NOW, server: None };
    let said = interpret(response, &GENERIC);
    let wait = said.wait.unwrap();
    assert_eq!((&*wait.field, &*wait.raw), ("ratelimit", "\"a\";r=0;t=9"));
    assert_eq!(said.unread, [("x-ratelimit-reset", "soon".into())]);
    assert_eq!((said.scope.as_deref(), said.bucket), (Some("abc"), Some("abc")));
}

#[test]
fn of_two_dates_that_contradict_our_clock_the_one_of_the_last_answers_counts() {
    let hour = |hours: i64| WallTime { unix_ms: NOW.unix_ms + hours * 3_600_000 };
    // In an hour by our clock.
    let reset = (NOW.unix_ms / 1_000 + 3_600).to_string();
    let (ours, ahead) = ("Thu, 15 Jan 2026 10:00:00 GMT", "Thu, 15 Jan 2026 10:30:00 GMT");
    for (date, age, server, expected_min) in [
        (None, "0", None, 60),
        (Some(ours), "0", None, 60),
        (Some(ahead), "0", None, 30),
        (Some(ahead), "0", Some(hour(0)), 60),
        (Some(ahead), "0", Some(hour(-1)), 120),
        // Ours was set since.
        (Some(ours), "0", Some(hour(-1)), 60),
        (None, "0", Some(hour(-1)), 120),
        (Some(ahead), "9", None, 60),
    ] {
        let mut fields = vec![("retry-after", reset.as_str()), ("age", age)];
        fields.extend(date.map(|date| ("date", date)));
        let headers = fields.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        let headers = headers.collect();
        let response =
            Response { status: 429, headers: &headers, body: None, received: NOW, server };
        let wait = interpret(response, &GENERIC).wait.unwrap().duration;
        assert_eq!(wait.as_secs() / 60, expected_min, "{date:?}, {age}, {server:?}");
    }
}
