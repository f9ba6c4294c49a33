//! Answers that a profile brings along, and whether they are read as it says.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::compile::{answer, span};
use super::file::Fixture;
use crate::policy::hints::{self, Response};
use crate::policy::profile::Profile as Dialect;
use crate::policy::time::WallTime;

/// A fixture that was read otherwise than it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name.
    pub fixture: String,
    /// What was expected.
    pub expected: String,
    /// What was read.
    pub read: String,
}

/// 2026-01-15T10:00:00Z, for fixtures that name no moment.
const SOME_TIME: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

impl Fixture {
    /// Reads it; what is wrong, if anything is.
    pub(super) fn check(&self, dialect: &Dialect) -> Option<Failure> {
        let failure = |expected: String, read: String| {
            Some(Failure { fixture: self.name.clone(), expected, read })
        };
        let expected_wait = match self.wait.as_deref().map(span).transpose() {
            Ok(wait) => wait,
            Err(problem) => return failure(problem, String::new()),
        };
        let received = match &self.now {
            None => SOME_TIME,
            Some(text) => match hints::moment(text) {
                Some(now) => now,
                None => {
                    return failure("a moment such as 2026-01-15T10:00:00Z".into(), text.clone());
                }
            },
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &self.fields {
            let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
            else {
                return failure("a field that HTTP allows".into(), format!("{name}: {value}"));
            };
            headers.append(name, value);
        }
        let body = Some(self.body.as_bytes()).filter(|body| !body.is_empty());
        let response =
            Response { status: self.status, headers: &headers, body, received, server: None };
        let said = hints::interpret(response, dialect);
        let means = answer(self.means);
        let limited = self.limited.unwrap_or(means == crate::policy::profile::Answer::RateLimited);
        let binding = said.binding();
        let limit = binding.and_then(|quota| quota.limit);
        let remaining = binding.and_then(|quota| quota.remaining);
        let wait = said.wait.as_ref().map(|wait| wait.duration);
        let expected = describe(
            means.name(),
            limited,
            expected_wait,
            self.limit.or(limit),
            self.remaining.or(remaining),
        );
        let read = describe(said.answer.name(), said.limited, wait, limit, remaining);
        if expected == read { None } else { failure(expected, read) }
    }
}

fn describe(
    means: &str,
    limited: bool,
    wait: Option<Duration>,
    limit: Option<u64>,
    remaining: Option<u64>,
) -> String {
    let limited = if limited { ", limited" } else { "" };
    let wait = wait.map_or("no wait".to_owned(), |wait| format!("wait {wait:?}"));
    let number = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
    format!("{means}{limited}, {wait}, {} of {} left", number(remaining), number(limit))
}
