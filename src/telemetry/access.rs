//! One line per exchange, with each attempt and each wait in it, so that "why did this take nine
//! seconds" is answered by one line.
//!
//! A line is formatted where the exchange ends and written elsewhere ([`super::writer`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::log::TextValue;
use super::names;
use super::story::{AttemptStory, Ending, Story};
use super::writer::LogWriter;
use crate::config::settings::{AccessLog, LogFormat, LogSettings};
use crate::policy::outcome::{WaitKind, Waits};

/// Writes access lines as one configuration wants them; cheap to build anew after a reload.
#[derive(Clone)]
pub struct AccessLogger {
    which: AccessLog,
    format: LogFormat,
    writer: LogWriter,
}

impl AccessLogger {
    /// Lines go to `writer`, between the events of the log.
    pub fn new(settings: LogSettings, writer: LogWriter) -> Self {
        Self { which: settings.access, format: settings.format, writer }
    }

    /// Writes the line of a finished exchange, if it is to have one.
    pub fn exchange(&self, story: &Story) {
        let wanted = match self.which {
            AccessLog::All => true,
            AccessLog::Failures => story.ending != Ending::Ok || story.attempts.len() > 1,
            AccessLog::Off => false,
        };
        if wanted {
            self.writer.line(line(story, self.format).as_bytes());
        }
    }
}

/// The line of a story, its end included.
fn line(story: &Story, format: LogFormat) -> String {
    let fields = Line::of(story);
    let mut line = match format {
        LogFormat::Json => serde_json::to_string(&fields).unwrap_or_default(),
        LogFormat::Text => text(&serde_json::to_value(&fields).unwrap_or_default()),
    };
    line.push('\n');
    line
}

fn text(fields: &Value) -> String {
    let mut text = String::new();
    for name in TEXT_ORDER {
        if let Some(value) = fields.get(name) {
            let separator = if text.is_empty() { "" } else { " " };
            // Writing into a string cannot fail.
            let _ = match name {
                "time" => write!(text, "{} access", TextValue(value)),
                _ => write!(text, "{separator}{name}={}", TextValue(value)),
            };
        }
    }
    text
}

/// Most interesting first.
const TEXT_ORDER: [&str; 19] = [
    "time",
    "status",
    "outcome",
    "decision",
    "method",
    "path",
    "upstream",
    "route",
    "duration_ms",
    "waited_ms",
    "shadow",
    "attempts",
    "keys",
    "flow",
    "run",
    "trace_id",
    "bytes_up",
    "bytes_down",
    "id",
];

/// The fields of a line; the names are the product's contract.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    method: &'a str,
    path: &'a str,
    /// Absent when the client left before it got one.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: String,
    decision: &'static str,
    attempts: Vec<Attempt<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    waited_ms: BTreeMap<&'static str, u64>,
    /// What would have held it, where a route only records.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    /// By which it is found among the spans, its caller's among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    bytes_up: u64,
    bytes_down: u64,
    duration_ms: u64,
}

#[derive(Serialize)]
struct Attempt<'a> {
    n: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    class: &'static str,
    ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint_ms: Option<u64>,
    /// The field that said so, and what stood in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    waited_ms: BTreeMap<&'static str, u64>,
}

impl<'a> Line<'a> {
    fn of(story: &'a Story) -> Self {
        Self {
            time: story.started.to_string(),
            id: story.id.as_str(),
            upstream: story.upstream.as_deref(),
            route: story.route.as_deref(),
            method: story.method.as_str(),
            // The query may hold secrets; the story should not have one, but a line is for ever.
            path: story.path.split(['?', '#']).next().unwrap_or_default(),
            status: Some(story.status).filter(|status| *status != 0),
            outcome: names::outcome(story.ending).into_owned(),
            decision: story.decision.name(),
            attempts: story.attempts.iter().map(Attempt::of).collect(),
            waited_ms: waited(&story.waited),
            shadow: story.shadow.map(WaitKind::name),
            keys: story.keys.iter().map(AsRef::as_ref).collect(),
            flow: story.flow.as_deref(),
            run: story.run.as_deref(),
            trace_id: story.trace.map(|trace| trace.id.to_string()),
            bytes_up: story.bytes_up,
            bytes_down: story.bytes_down,
            duration_ms: ms(story.took),
        }
    }
}

impl<'a> Attempt<'a> {
    fn of(attempt: &'a AttemptStory) -> Self {
        Self {
            n: attempt.n,
            status: attempt.status,
            class: names::class(attempt.class),
            ms: ms(attempt.took),
            error: attempt.error,
            hint_ms: attempt.hint.as_ref().map(|hint| ms(hint.wait)),
            hint: attempt.hint.as_ref().and_then(|hint| hint.raw.as_deref()),
            waited_ms: waited(&attempt.waited),
        }
    }
}

/// Kinds that were waited for, without the others.
fn waited(waits: &Waits) -> BTreeMap<&'static str, u64> {
    let kinds = WaitKind::ALL.into_iter().filter(|kind| !waits.of(*kind).is_zero());
    kinds.map(|kind| (kind.name(), ms(waits.of(kind)))).collect()
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
