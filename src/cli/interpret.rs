//! `forbear interpret`: how a captured response is understood.
//!
//! It reads what `curl -i` prints: a status line, fields, an empty line, the beginning of a body.
//! Whatever else comes is said, and never a failure: a person who asks has an odd response.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{EXIT_USAGE, complain};
use crate::gateway::clock::Clock;
use crate::policy::hints::{self, BODY_PREFIX, Interpretation, Quota, Response};
use crate::policy::profile::{Answer, Profile, Unit};
use crate::policy::time::WallTime;
use crate::profiles;

/// Bytes of input that are looked at: more fields than any server sends, and the body's prefix.
const INPUT_MAX: u64 = 256 * 1024 + BODY_PREFIX as u64;

/// `forbear interpret`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct InterpretArgs {
    /// The API that answered: a name of `forbear profile list`, or a file that ends in .toml
    #[arg(long, value_name = "NAME", default_value = "generic")]
    pub profile: String,
    /// When the response was received; the present if not given
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    pub now: Option<WallTime>,
    /// Unit of plain numbers in Retry-After: ms or s
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub retry_after_unit: Option<Unit>,
    /// Unit of plain numbers in fields that name a reset: ms or s
    #[arg(long, value_name = "UNIT", value_parser = unit)]
    pub reset_unit: Option<Unit>,
    /// For machines: one object
    #[arg(long)]
    pub json: bool,
}

fn moment(text: &str) -> Result<WallTime, String> {
    hints::moment(text).ok_or_else(|| "write a moment such as 2026-01-15T10:00:00Z".to_owned())
}

fn unit(text: &str) -> Result<Unit, String> {
    match text {
        "ms" => Ok(Unit::Millis),
        "s" => Ok(Unit::Seconds),
        _ => Err("write ms or s".to_owned()),
    }
}

/// Reads a response from standard input and says what it means. The exit code is 0 for any input.
pub fn interpret(args: &InterpretArgs) -> ExitCode {
    let profile = match profiles::open(&args.profile) {
        Ok(profile) => profile.dialect.with_units(args.retry_after_unit, args.reset_unit),
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let mut input = Vec::new();
    let read = io::stdin().lock().take(INPUT_MAX).read_to_end(&mut input);
    let mut captured = Captured::parse(&input);
    if let Err(error) = read {
        captured.unread.push(format!("the end of the input: {error}"));
    }
    let now = args.now.unwrap_or_else(|| Clock::start().wall());
    let answer = answer(&captured, &profile, now, args.json);
    match writeln!(anstream::stdout(), "{answer}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reads anything with every profile and checks what must hold for all of it, for tests and
/// fuzzing.
///
/// # Panics
/// If a wait or a reset is longer than allowed, or two ways to ask give two answers.
pub fn check_any(input: &[u8]) {
    let captured = Captured::parse(input);
    let now = WallTime { unix_ms: 1_768_471_200_000 };
    for profile in profiles::known() {
        let text = answer(&captured, &profile.dialect, now, false);
        assert!(text.lines().count() >= 3, "{text}");
        let response = Response {
            status: captured.status.unwrap_or(0),
            headers: &captured.headers,
            body: Some(captured.body),
            received: now,
            server: None,
        };
        let said = hints::interpret(response, &profile.dialect);
        let resets = said.quotas.iter().filter_map(|quota| quota.reset);
        let waits = said.wait.iter().map(|wait| wait.duration);
        assert!(resets.chain(waits).all(|wait| wait <= hints::WAIT_MAX), "{said:?}");
        assert!(said.answer != Answer::RateLimited || said.limited, "{said:?}");
    }
}

/// What is printed for a captured response.
fn answer(captured: &Captured<'_>, profile: &Profile, now: WallTime, json: bool) -> String {
    let response = Response {
        status: captured.status.unwrap_or(0),
        headers: &captured.headers,
        body: Some(captured.body).filter(|body| !body.is_empty()),
        received: now,
        server: None,
    };
    let said = hints::interpret(response, profile);
    let mut unread = captured.unread.clone();
    unread.extend(said.unread.iter().map(|(name, raw)| format!("{name}: {raw}")));
    if json {
        as_json(&said, profile, &unread).to_string()
    } else {
        as_text(&said, profile, captured.status, &unread)
    }
}

/// A response as it was pasted.
#[derive(Debug, Default)]
struct Captured<'a> {
    status: Option<u16>,
    headers: HeaderMap,
    body: &'a [u8],
    /// Lines that mean nothing.
    unread: Vec<String>,
}

impl<'a> Captured<'a> {
    /// Takes whatever it can. Of several responses in a row (redirects, `100 Continue`, a proxy's
    /// answer to CONNECT) the last one counts, as it does for whoever sent the request.
    fn parse(input: &'a [u8]) -> Self {
        /// `curl -iL` prints one for each hop, and follows fifty.
        const RESPONSES_MAX: usize = 64;
        let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
        let mut captured = Self::head(input.trim_ascii_start());
        for _ in 1..RESPONSES_MAX {
            let body = captured.body.trim_ascii_start();
            let next = Self::head(if body.starts_with(b"HTTP/") { body } else { b"" });
            if next.status.is_none() {
                break;
            }
            captured = next;
        }
        let coding = captured.headers.get("content-encoding").map(HeaderValue::as_bytes);
        let coding = coding.filter(|coding| *coding != b"identity" && !captured.body.is_empty());
        if let Some(coding) = coding.filter(|_| std::str::from_utf8(captured.body).is_err()) {
            let coding = printable(&String::from_utf8_lossy(coding));
            captured.unread.push(format!("the body, which is compressed ({coding})"));
        }
        captured
    }

    fn head(input: &'a [u8]) -> Self {
        /// Lines that could not be read and are named.
        const UNREAD_MAX: usize = 16;
        let mut captured = Self::default();
        let mut rest = input;
        let mut is_first = true;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (line, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            rest = tail.get(1..).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            let understood =
                if is_first { captured.status_line(line) } else { captured.field(line) };
            if !understood && captured.unread.len() < UNREAD_MAX {
                let shown = line.get(..120).unwrap_or(line);
                captured.unread.push(printable(&String::from_utf8_lossy(shown)));
            }
            is_first = false;
        }
        captured.body = rest;
        if captured.status.is_none() {
            captured.unread.insert(0, "a status line such as HTTP/1.1 429 is missing".to_owned());
        }
        captured
    }

    /// `HTTP/1.1 429 Too Many Requests`, `429 Too Many Requests`, `:status: 429`; the first line
    /// may be a field, too.
    fn status_line(&mut self, line: &[u8]) -> bool {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_ascii_whitespace().take(2);
        let is_version =
            |word: &str| word == ":status:" || word.to_ascii_uppercase().starts_with("HTTP");
        let status = words.by_ref().find(|word| !is_version(word));
        let status = status.and_then(|word| word.parse::<u16>().ok());
        self.status = status.filter(|status| (100..=999).contains(status));
        self.status.is_some() || self.field(line)
    }

    fn field(&mut self, line: &[u8]) -> bool {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let name = HeaderName::from_bytes(name.trim_ascii());
        match (name, HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => self.headers.try_append(name, value).is_ok(),
            (Err(_), _) | (_, Err(_)) => false,
        }
    }
}

fn millis(duration: Option<Duration>) -> Option<u64> {
    duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn as_json(said: &Interpretation<'_>, profile: &Profile, unread: &[String]) -> Value {
    let binding = said.binding();
    let wait = said.wait.as_ref();
    let quota = |quota: &Quota<'_>| {
        json!({
            "name": quota.name,
            "limit": quota.limit,
            "remaining": quota.remaining,
            "reset_ms": millis(quota.reset),
            "window_ms": millis(quota.window),
        })
    };
    json!({
        "limited": said.limited,
        "class": said.answer.name(),
        "wait_ms": millis(wait.map(|wait| wait.duration)),
        "limit": binding.and_then(|quota| quota.limit),
        "remaining": binding.and_then(|quota| quota.remaining),
        "reset_ms": millis(binding.and_then(|quota| quota.reset)),
        "quotas": said.quotas.iter().map(quota).collect::<Vec<_>>(),
        "scope": said.scope,
        "bucket": said.bucket,
        "source": wait.map(|wait| &wait.field),
        "raw": wait.map(|wait| &wait.raw).filter(|raw| !raw.is_empty()),
        "profile": profile.name,
        "unread": unread,
    })
}

fn as_text(
    said: &Interpretation<'_>,
    profile: &Profile,
    status: Option<u16>,
    unread: &[String],
) -> String {
    let mut lines = Vec::new();
    let mut put = |label: &str, value: String| lines.push(format!("{label:<9} {value}"));
    put("status", status.map_or("not told".to_owned(), |status| status.to_string()));
    let limited = if said.limited { ", refused by a limit" } else { "" };
    put("class", format!("{}{limited}", said.answer.name()));
    match &said.wait {
        Some(wait) if wait.raw.is_empty() => {
            put("wait", format!("{:?}, from {}", wait.duration, wait.field));
        }
        Some(wait) => {
            let shown: String = printable(&wait.raw).chars().take(100).collect();
            put("wait", format!("{:?}, from {}: {shown}", wait.duration, wait.field));
        }
        None => put("wait", "none is stated".to_owned()),
    }
    for quota in &said.quotas {
        put("quota", quota_text(quota));
    }
    if let Some(scope) = &said.scope {
        put("scope", printable(scope));
    }
    if let Some(bucket) = said.bucket {
        put("bucket", printable(bucket));
    }
    put("profile", profile.name.to_string());
    for line in unread {
        put("unread", printable(line));
    }
    lines.join("\n")
}

/// A server's text as a terminal may have it.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() { shown.extend(char.escape_default()) } else { shown.push(char) }
    }
    shown
}

/// `tokens: 0 of 150000 left, renewed in 360s`.
fn quota_text(quota: &Quota<'_>) -> String {
    let name = if quota.name.is_empty() { String::new() } else { format!("{}: ", quota.name) };
    let left = match (quota.remaining, quota.limit) {
        (Some(remaining), Some(limit)) => format!("{remaining} of {limit} left"),
        (Some(remaining), None) => format!("{remaining} left"),
        (None, Some(limit)) => format!("{limit} in all"),
        (None, None) => "nothing is told of its size".to_owned(),
    };
    let reset = quota.reset.map(|reset| format!(", renewed in {reset:?}")).unwrap_or_default();
    let window = quota.window.map(|window| format!(", window {window:?}")).unwrap_or_default();
    format!("{}{left}{reset}{window}", printable(&name))
}

#[cfg(test)]
mod tests;
