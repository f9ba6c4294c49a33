//! Bytes from a server that errs, or means harm, with every profile; and what fuzzing begins with.

use std::path::Path;
use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;

use super::super::{known, parse};
use crate::cli::interpret::check_any;
use crate::gateway::clock::Clock;
use crate::policy::hints::{BODY_PREFIX, Response, interpret};
use crate::policy::time::WallTime;

/// Reads every file of a corpus.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let files = std::fs::read_dir(folder).unwrap();
    let inputs: Vec<_> = files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() >= 4, "{name}");
    inputs
}

#[test]
fn the_corpora_of_the_fuzz_targets_are_harmless() {
    corpus("response").iter().for_each(|input| check_any(input));
    for input in corpus("profile_file") {
        if let Ok(profile) = parse(&String::from_utf8(input).unwrap(), "fuzzed.toml") {
            let _ = profile.test();
        }
    }
}

#[test]
fn every_captured_response_cut_anywhere_is_harmless() {
    for input in corpus("response") {
        (0..input.len()).step_by(3).for_each(|end| check_any(&input[..end]));
    }
}

/// Names and texts near to what is understood, so that every branch is reached.
fn line() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "retry-after",
        "retry-after-ms",
        "date",
        "age",
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-reset",
        "x-ratelimit-remaining",
        "x-ratelimit-limit-tokens",
        "x-ratelimit",
        "x-sentry-rate-limits",
        "x-app-usage",
        "x-app-rate-limit",
        "x-app-rate-limit-count",
        "sforce-limit-info",
        "zendesk-ratelimit-x",
        "x-amzn-ratelimit-limit",
        "content-type",
        "x-shopify-shop-api-call-limit",
        "x-ratelimit-usage",
        "x-hubspot-ratelimit-interval-milliseconds",
    ];
    const WORDS: &[&str] = &[
        "0",
        "1",
        "60",
        "429",
        "9999999999999999999999",
        "1768471230",
        "-",
        ".",
        ":",
        ";",
        ",",
        "/",
        "=",
        "\"",
        "\\",
        "(",
        "é",
        "Thu, ",
        "15 Jan 2026 ",
        "10:00:30 ",
        "GMT",
        "T",
        "Z",
        "r=",
        "t=",
        "q=",
        "w=",
        "limit=",
        "remaining=",
        "reset=",
        "ms",
        "m",
        "h",
        "s",
        " ",
        "{",
        "}",
        "\"limit\":",
        "call_count",
        "retry_after",
        "Please try again in ",
        "seconds",
        "retry",
        "rate limit",
        "quota",
        "exceed",
        "<Code>",
        "\"code\":",
        "µs",
        "until",
        "true",
        "null",
        "1e9",
        "inf",
        "NaN",
    ];
    let word = prop::sample::select(WORDS);
    (prop::option::weighted(0.8, prop::sample::select(NAMES)), prop::collection::vec(word, 0..10))
        .prop_map(|(name, words)| match name {
            Some(name) => format!("{name}: {}\n", words.concat()),
            None => format!("\n{}", words.concat()),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_response_causes_a_panic_or_a_wait_beyond_a_month_whatever_the_profile(
        status in prop_oneof![Just(200_u16), Just(400), Just(403), Just(429), Just(503), 0..1000_u16],
        lines in prop::collection::vec(line(), 0..16),
    ) {
        check_any(format!("HTTP/1.1 {status} x\n{}", lines.concat()).as_bytes());
    }

    #[test]
    fn no_bytes_at_all_cause_a_panic(input in prop::collection::vec(any::<u8>(), 0..400)) {
        check_any(&input);
    }
}

#[test]
fn the_worst_bodies_are_read_in_bounded_time() {
    let headers = HeaderMap::new();
    let patterns = [
        "r",
        "retry ",
        "retry_after",
        "wait in ",
        "rate limit ",
        "rate limit \"",
        "quota ",
        "\"code\":",
        "<Code>",
        "throttl://",
        "exceeded your ",
        "try again in 1 minute and ",
        "\\\"retry_after\\\":",
        "\u{1F600}",
        "limit exceeded",
        "in after for ",
    ];
    for pattern in patterns {
        let body = pattern.repeat(10 * BODY_PREFIX / pattern.len());
        let clock = Clock::start();
        let began = clock.now();
        for status in [200, 403, 429] {
            for profile in known().filter(|one| ["github", "google"].contains(&&*one.name)) {
                let response = Response {
                    status,
                    headers: &headers,
                    body: Some(body.as_bytes()),
                    received: WallTime { unix_ms: 0 },
                    server: None,
                };
                let _ = interpret(response, &profile.dialect);
            }
        }
        // Six readings of 16 KiB without optimisation; a search that explodes takes minutes.
        let took = clock.now().since(began);
        assert!(took < Duration::from_secs(20), "{pattern}: {took:?}");
    }
}
