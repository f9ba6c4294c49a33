//! `tests/corpus/responses.toml`: what real APIs answered, and how it must be read. Its head says
//! what is compared.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::super::find;
use crate::policy::hints::{Response, interpret, moment};
use crate::policy::profile::{GENERIC, Unit};

const RESPONSES: &str = include_str!("../../../tests/corpus/responses.toml");

#[derive(Deserialize)]
struct Corpus {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    now: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<String>,
    profile: Option<String>,
    #[serde(default)]
    config: Config,
    expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    reset_unit: Option<String>,
    retry_after_unit: Option<String>,
}

#[derive(Deserialize)]
struct Expect {
    limited: bool,
    class: String,
    wait_ms: Option<u64>,
    #[serde(default)]
    wait_ms_also: Vec<u64>,
    #[serde(default)]
    wait_optional: bool,
    remaining: Option<u64>,
    limit: Option<u64>,
    reset_ms: Option<u64>,
}

fn unit(text: &Option<String>) -> Option<Unit> {
    text.as_deref().map(|text| if text == "ms" { Unit::Millis } else { Unit::Seconds })
}

/// Everything that was read otherwise than it should.
fn misses(case: &Case) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &case.headers {
        let name = HeaderName::try_from(name.as_str()).unwrap();
        headers.append(name, HeaderValue::try_from(value.as_str()).unwrap());
    }
    let profile = match &case.profile {
        Some(name) => {
            let known = find(name).unwrap_or_else(|| panic!("{}: no profile {name}", case.id));
            (*known.dialect).clone()
        }
        None => GENERIC.clone(),
    };
    let profile =
        profile.with_units(unit(&case.config.retry_after_unit), unit(&case.config.reset_unit));
    let response = Response {
        status: case.status,
        headers: &headers,
        body: case.body.as_deref().map(str::as_bytes),
        received: moment(&case.now).unwrap(),
        server: None,
    };
    let said = interpret(response, &profile);
    let mut misses = Vec::new();
    let mut compare = |what: &str, good: bool, read: String, expected: String| {
        if !good {
            misses.push(format!("{}: {what} is {read}, not {expected}", case.id));
        }
    };
    let expect = &case.expect;
    compare(
        "limited",
        said.limited == expect.limited,
        said.limited.to_string(),
        expect.limited.to_string(),
    );
    let class = said.answer.name();
    compare("class", class == expect.class, class.to_owned(), expect.class.clone());
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap();
    let wait = said.wait.as_ref().map(|wait| ms(wait.duration));
    let all = expect.wait_ms.iter().chain(&expect.wait_ms_also);
    let near = |wait: u64| {
        all.clone().any(|&good| (good.saturating_sub(1)..=good + 1_500).contains(&wait))
    };
    let may_be_none = expect.wait_optional || matches!(expect.wait_ms, None | Some(0));
    let good = wait.map_or(may_be_none, near)
        || (wait.is_some() && expect.wait_ms.is_none() && expect.wait_optional);
    compare("wait", good, format!("{:?}", said.wait), format!("{:?}", expect.wait_ms));
    let binding = said.binding();
    for (what, read, expected) in [
        ("remaining", binding.and_then(|quota| quota.remaining), expect.remaining),
        ("limit", binding.and_then(|quota| quota.limit), expect.limit),
    ] {
        compare(
            what,
            expected.is_none() || read == expected,
            format!("{read:?}"),
            format!("{expected:?}"),
        );
    }
    let reset = binding.and_then(|quota| quota.reset).map(ms);
    let good =
        expect.reset_ms.is_none_or(|good| reset.is_some_and(|reset| reset.abs_diff(good) <= 1_000));
    compare("reset", good, format!("{reset:?}"), format!("{:?}", expect.reset_ms));
    misses
}

#[test]
fn what_real_apis_answered_is_read_as_it_was_meant() {
    let corpus: Corpus = toml::from_str(RESPONSES).unwrap();
    assert_eq!(corpus.case.len(), 151);
    let misses: Vec<String> = corpus.case.iter().flat_map(misses).collect();
    assert!(misses.is_empty(), "{} misses:\n{}", misses.len(), misses.join("\n"));
}
