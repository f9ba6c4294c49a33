//! What people paste, and what they are told.

use super::*;
use crate::policy::profile::GENERIC;

/// 2026-01-15T10:00:00Z.
const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

fn json_of(input: &str) -> Value {
    let text = answer(&Captured::parse(input.as_bytes()), &GENERIC, NOW, true);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_refusal_is_told_with_the_field_that_decided() {
    let said = json_of(
        "HTTP/1.1 429 Too Many Requests\r\nx-ratelimit-limit: 100\r\nx-ratelimit-remaining: 0\r\n\
         x-ratelimit-reset: 1768471230\r\nRetry-After: soon\r\n\r\n{\"error\":\"slow down\"}",
    );
    let expected = json!({
        "limited": true, "class": "rate_limited", "wait_ms": 30_000, "limit": 100, "remaining": 0,
        "reset_ms": 30_000, "scope": null, "bucket": null, "source": "x-ratelimit-reset",
        "raw": "1768471230", "profile": "generic", "unread": ["retry-after: soon"],
        "quotas": [{
            "name": "", "limit": 100, "remaining": 0, "reset_ms": 30_000, "window_ms": null,
        }],
    });
    assert_eq!(said, expected);
}

#[test]
fn what_is_not_told_is_null() {
    let said = json_of("HTTP/2 200 \ncontent-type: text/html\n\n<html>");
    for key in ["wait_ms", "limit", "remaining", "reset_ms", "scope", "source"] {
        assert!(said[key].is_null(), "{key}: {said}");
    }
    assert_eq!((&said["class"], &said["quotas"]), (&json!("ok"), &json!([])));
}

#[test]
fn line_ends_versions_and_byte_order_marks_make_no_difference() {
    for input in [
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n",
        "HTTP/2 429\nretry-after: 7\n\nbody",
        "HTTP/3 429 \nretry-after:7",
        "\u{feff}HTTP/1.0 429 x\nretry-after:\t7\t\n\n",
        "\n\nHTTP/1.1 429\nRETRY-AFTER: 7\n",
        ":status: 429\nretry-after: 7\n",
        "429 Too Many Requests\nretry-after: 7\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 301 Moved\r\nlocation: /x\r\n\r\nHTTP/1.1 429 x\r\nretry-after: 7\r\n\r\n",
    ] {
        let said = json_of(input);
        assert_eq!(
            (&said["class"], &said["wait_ms"]),
            (&json!("rate_limited"), &json!(7_000)),
            "{input:?}"
        );
        assert_eq!(said["unread"], json!([]), "{input:?}");
    }
}

#[test]
fn odd_input_is_said_and_never_fails() {
    let unread = |input: &[u8]| {
        let text = answer(&Captured::parse(input), &GENERIC, NOW, true);
        let said: Value = serde_json::from_str(&text).unwrap();
        assert!(said["class"].is_string() && said["limited"].is_boolean());
        said["unread"].as_array().unwrap().len()
    };
    assert!(unread(b"") > 0);
    assert!(unread(b"\x00\xff\xfe") > 0);
    assert!(unread(b"HTTP/1.1 4290 x\n\n") > 0);
    assert!(unread(b"HTTP/1.1 429\nno colon here\nretry-after: 5\n\n") == 1);
    assert!(unread(b"HTTP/1.1 429\nbad name: 1\n\n") == 1);
    assert!(unread(b"HTTP/1.1 429\ncontent-encoding: gzip\n\n\x1f\x8b\xff") == 1);
    assert!(unread(&b"x".repeat(100_000)) > 0);
    assert!(unread(&b"a\n".repeat(50_000)) > 0);
}

#[test]
fn people_get_sentences() {
    let input = b"HTTP/1.1 429\nRateLimit: \"daily\";r=0;t=41\nRateLimit-Policy: \"daily\";q=1000;w=86400\n\n";
    let text = answer(&Captured::parse(input), &GENERIC, NOW, false);
    let expected = "\
status    429
class     rate_limited, refused by a limit
wait      41s, from ratelimit: \"daily\";r=0;t=41
quota     daily: 0 of 1000 left, renewed in 41s, window 86400s
scope     daily
profile   generic";
    assert_eq!(text, expected);
}

#[test]
fn a_server_cannot_drive_a_terminal() {
    let input = b"HTTP/1.1 429\nretry-after: \xc2\x9b31m\nx\x1b[2J\n\n";
    let text = answer(&Captured::parse(input), &GENERIC, NOW, false);
    assert!(!text.contains(|char: char| char.is_control() && char != '\n'), "{text:?}");
    assert!(text.contains("\\u{9b}31m") && text.contains("\\u{1b}[2J"), "{text}");
}
