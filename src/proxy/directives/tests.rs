//! What a client may ask for, in which form, and what it is told otherwise.

use proptest::prelude::*;

use super::*;

/// 2026-01-15T10:00:00Z.
const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn parse(headers: &HeaderMap) -> Result<Directives, Rejection> {
    Directives::parse(headers, Survey::of(headers), NOW)
}

fn read(fields: &[(&str, &str)]) -> Directives {
    parse(&headers(fields)).unwrap()
}

fn refusal(fields: &[(&str, &str)]) -> String {
    let refused = parse(&headers(fields)).unwrap_err();
    assert_eq!(refused.status, 400);
    refused.detail
}

#[test]
fn every_field_is_read_in_its_documented_form() {
    let all = read(&[
        ("Forbear-Key", "ingestion"),
        ("Forbear-Key", "tenant:acme, ingestion"),
        ("Forbear-Flow", "run-7"),
        ("Forbear-Priority", "backfill"),
        ("Forbear-Deadline", "120s"),
        ("Forbear-Wait", " 30s "),
        ("Forbear-Retry", "idempotent"),
        ("Forbear-Cost", "3"),
        ("Forbear-Run", "b7f1"),
        ("accept", "*/*"),
    ]);
    assert_eq!(
        all,
        Directives {
            keys: vec!["ingestion".into(), "tenant:acme".into()],
            flow: Some("run-7".into()),
            priority: Some(Band::Backfill),
            deadline: Some(Duration::from_secs(108)),
            wait: Some(Duration::from_secs(30)),
            retry: Some(RetryWish::Idempotent),
            cost: Some(3),
            run: Some("b7f1".into()),
            tool_run: None,
        }
    );
    assert_eq!(read(&[]), Directives::default());
    assert_eq!(read(&[("forbear-wait", "none")]).wait, Some(Duration::ZERO));
}

#[test]
fn times_carry_a_unit_or_are_seconds() {
    for (text, expected_ms) in [
        ("120s", Some(120_000)),
        ("1500ms", Some(1500)),
        ("7", Some(7000)),
        ("0", Some(0)),
        ("1.5", Some(1500)),
        ("2m", Some(120_000)),
        ("1h", Some(3_600_000)),
        ("720h", Some(2_592_000_000)),
        ("721h", None),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("+1", None),
        ("1e3", None),
        (".5", None),
        ("1.", None),
        ("1 s", None),
        ("1S", None),
        ("inf", None),
        ("NaN", None),
        ("1d", None),
        ("99999999999999999999999999999999999999", None),
    ] {
        assert_eq!(span(text), expected_ms.map(Duration::from_millis), "{text:?}");
    }
}

#[test]
fn a_malformed_field_is_refused_by_name_with_what_would_be_right() {
    let long = "k".repeat(ID_BYTES_MAX + 1);
    for (field, value, right) in [
        ("forbear-priority", "urgent", "one of critical, high, default, low, backfill"),
        ("forbear-priority", "", "one of critical"),
        ("forbear-deadline", "soon", "`120s`"),
        ("forbear-wait", "forever", "`none`"),
        ("forbear-retry", "on", "one of off, safe, idempotent"),
        ("forbear-cost", "0", "1 to 1000000"),
        ("forbear-cost", "+3", "1 to 1000000"),
        ("forbear-cost", "1000001", "1 to 1000000"),
        ("forbear-key", "", "1 to 128"),
        ("forbear-key", "a,,b", "1 to 128"),
        ("forbear-key", "a,b,c,d,e", "at most 4 keys"),
        ("forbear-key", &long, "1 to 128"),
        ("forbear-flow", "a b", "1 to 128"),
        ("forbear-run", "\u{e4}", "1 to 128"),
    ] {
        let detail = refusal(&[(field, value)]);
        assert!(detail.starts_with(field) && detail.contains(right), "{detail}");
        assert!(detail.len() < 250 && detail.is_ascii(), "{detail}");
    }
    assert!(refusal(&[("forbear-run", "a"), ("forbear-run", "a")]).contains("twice"));
}

#[test]
fn an_unknown_field_is_refused_with_the_one_that_was_probably_meant() {
    for (name, hint) in [
        ("forbear-keys", "did you mean forbear-key?"),
        ("forbear-dedline", "did you mean forbear-deadline?"),
        ("forbear-retries", "did you mean forbear-retry?"),
        ("forbear-colour", "known are forbear-key, "),
    ] {
        let detail = refusal(&[(name, "x")]);
        assert!(detail.contains(hint), "{detail}");
    }
}

#[test]
fn a_deadline_is_taken_from_the_field_or_else_from_what_an_sdk_announces() {
    let field = ("forbear-deadline", "10s");
    let amz = ("amz-sdk-request", "attempt=1; max=3; ttl=20260115T100100Z");
    let stainless = ("x-stainless-read-timeout", "600.0");
    for (fields, expected_ms) in [
        (&[field, amz, stainless][..], Some(9_000)),
        (&[amz, stainless], Some(54_000)),
        (&[stainless], Some(540_000)),
        (&[("amz-sdk-request", "ttl=20260115T095959Z"), stainless], Some(540_000)),
        (&[("amz-sdk-request", "ttl=20260115T1001Z")], None),
        (&[("amz-sdk-request", "ttl=20261315T100100Z")], None),
        (&[("amz-sdk-request", "attempt=1; max=1")], None),
        (&[("x-stainless-read-timeout", "0")], None),
        (&[("x-stainless-read-timeout", "not given")], None),
        (&[("x-stainless-read-timeout", "1e400")], None),
    ] {
        let expected = expected_ms.map(Duration::from_millis);
        assert_eq!(read(fields).deadline, expected, "{fields:?}");
    }
}

#[test]
fn a_basic_iso_time_is_read_across_leap_days() {
    for (text, expected) in [
        ("19700101T000000Z", Some(0)),
        ("20000229T235959Z", Some(951_868_799)),
        ("20260115T100000Z", Some(1_768_471_200)),
        ("20240301T000000Z", Some(1_709_251_200)),
        ("2026-01-15T10:00:00Z", None),
        ("20260115T100000", None),
        ("20260115T240000Z", None),
        ("\u{e4}\u{e4}\u{e4}\u{e4}0115T1000Z", None),
    ] {
        assert_eq!(basic_utc(text).map(|at| at.unix_ms), expected.map(|s: i64| s * 1000), "{text}");
    }
}

#[test]
fn a_request_is_idempotent_by_method_by_key_or_by_the_callers_word() {
    let none = Directives::default();
    let sure = read(&[("forbear-retry", "idempotent")]);
    let key = headers(&[("idempotency-key", "k")]);
    let empty_key = headers(&[("idempotency-key", "")]);
    let bare = HeaderMap::new();
    for (method, headers, directives, expected) in [
        (Method::GET, &bare, &none, Safety::Safe),
        (Method::HEAD, &bare, &none, Safety::Safe),
        (Method::PUT, &bare, &none, Safety::Idempotent),
        (Method::DELETE, &bare, &none, Safety::Idempotent),
        (Method::POST, &bare, &none, Safety::Unsafe),
        (Method::PATCH, &bare, &none, Safety::Unsafe),
        (Method::POST, &key, &none, Safety::Idempotent),
        (Method::POST, &empty_key, &none, Safety::Unsafe),
        (Method::POST, &bare, &sure, Safety::Idempotent),
        (Method::POST, &bare, &read(&[("forbear-retry", "safe")]), Safety::Unsafe),
        (Method::from_bytes(b"BREW").unwrap(), &bare, &none, Safety::Unsafe),
    ] {
        assert_eq!(safety(&method, headers, directives, None), expected, "{method}");
    }
    let own = headers(&[("x-request-key", "k")]);
    let name = HeaderName::from_static("x-request-key");
    assert_eq!(safety(&Method::POST, &own, &none, None), Safety::Unsafe);
    assert_eq!(safety(&Method::POST, &own, &none, Some(&name)), Safety::Idempotent);
}

proptest! {
    #[test]
    fn no_value_breaks_the_reader_or_leaks_unprintable_bytes_into_the_refusal(
        field in prop::sample::select(KNOWN.to_vec()),
        value in prop::collection::vec(prop::num::u8::ANY, 0..200),
    ) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert(field, value);
        if let Err(refused) = parse(&headers) {
            prop_assert!(refused.detail.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
}

#[test]
fn a_run_that_a_tool_tells_its_api_is_heard_whatever_its_form() {
    for name in ["X-Dagster-Run-Id", "X-Airflow-Run-Id", "X-Airflow-Dag-Run-Id"] {
        let heard = read(&[(name, "scheduled__2026-11-21T00:00:00+00:00, \"b\"")]);
        assert_eq!(heard.tool_run.as_deref(), Some("scheduled__2026-11-21T00:00:00+00:00, \"b\""));
        assert_eq!(heard.run, None, "it is no word to forbear");
    }
    assert_eq!(read(&[("X-Request-Id", "a")]).tool_run, None);
}
