//! What is wrong with a configuration, said so that it can be put right at once.
//!
//! All problems of a file are collected, each with its position, what was found, why that cannot
//! be, and the fix. A secret typed in the wrong place must not reach a terminal or a log, so what
//! stands at or near a credential is neither quoted nor shown.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// One thing that is wrong, or, as a warning, doubtful.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as it was named on the command line.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The path of the setting as it was typed; empty for a mistake of syntax.
    pub setting: String,
    /// What stands there, if it can be shown.
    pub found: Option<String>,
    /// Why that cannot be.
    pub why: String,
    /// What to write instead: whole sentences.
    pub fix: String,
    /// The line it stands on, unless a secret may be in it.
    #[serde(skip)]
    pub excerpt: Option<Excerpt>,
}

/// A line of the file, and how much of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Without control characters.
    pub line: String,
    /// Characters to underline, at least 1.
    pub width: usize,
}

/// Why a value cannot be, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Continues "found …, but": no capital letter, no full stop.
    pub why: String,
    /// Whole sentences.
    pub fix: String,
}

impl Fault {
    /// Takes both halves of the sentence.
    pub fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { why: why.into(), fix: fix.into() }
    }
}

/// Every problem of a file, in the order of their positions; never empty as an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.sentence())
    }
}

impl Problem {
    fn sentence(&self) -> String {
        let setting =
            if self.setting.is_empty() { String::new() } else { format!("{}: ", self.setting) };
        let found =
            self.found.as_ref().map(|found| format!("found {found}, but ")).unwrap_or_default();
        format!("{setting}{found}{}. {}", self.why, self.fix).trim_end().to_owned()
    }

    /// The problem with the line it stands on and a caret below, coloured for a terminal. Printed
    /// through `anstream`, which drops the colours where nobody sees them.
    pub fn render(&self, severity: Severity) -> String {
        let (strong, dim) = (Style::new().bold(), Style::new().dimmed());
        let mark = severity.style();
        let place = format!("{}:{}:{}:", self.file, self.line, self.column);
        let word = severity.word();
        let mut text =
            format!("{strong}{place}{strong:#} {mark}{word}{mark:#}{}\n", self.sentence());
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let indent = " ".repeat(self.column.saturating_sub(1));
            let carets = "^".repeat(excerpt.width);
            text.push_str(&format!("{dim}{number} |{dim:#} {}\n", excerpt.line));
            text.push_str(&format!("{dim}{margin} |{dim:#} {indent}{mark}{carets}{mark:#}\n"));
        }
        text
    }
}

/// Whether a configuration with this in it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can.
    Warning,
}

impl Severity {
    fn style(self) -> Style {
        let colour = match self {
            Self::Error => AnsiColor::Red,
            Self::Warning => AnsiColor::Yellow,
        };
        colour.on_default().bold()
    }

    fn word(self) -> &'static str {
        match self {
            Self::Error => "",
            Self::Warning => "warning: ",
        }
    }
}

/// A range of bytes in the text.
pub(super) type Span = Range<usize>;

/// Collects what is found wrong while a text is read.
pub(super) struct Notes<'a> {
    file: Arc<str>,
    source: &'a str,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(file: &str, source: &'a str) -> Self {
        Self { file: file.into(), source, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Something that makes the configuration unusable.
    pub(super) fn problem(
        &mut self,
        span: &Span,
        setting: &str,
        found: Option<String>,
        fault: Fault,
    ) {
        let problem = self.build(span, setting, found, fault);
        self.problems.push(problem);
    }

    /// Something that is probably not what was meant.
    pub(super) fn warning(
        &mut self,
        span: &Span,
        setting: &str,
        found: Option<String>,
        fault: Fault,
    ) {
        let warning = self.build(span, setting, found, fault);
        self.warnings.push(warning);
    }

    /// A mistake of syntax; the first of each line, as the others usually follow from it.
    pub(super) fn syntax(&mut self, span: &Span, message: &str) {
        let problem = self.build(span, "", None, in_words(message));
        if self.problems.iter().all(|other| other.line != problem.line) {
            self.problems.push(problem);
        }
    }

    /// Leaves out what was found on lines whose syntax is wrong, and below such a header: it follows
    /// from that.
    pub(super) fn forget_echoes_of_syntax(&mut self) {
        let is_header = |line: &str| line.trim_start().starts_with('[');
        let (mut broken, mut below) = (Vec::new(), Vec::new());
        for at in self.problems.iter().filter(|p| p.setting.is_empty()).map(|p| p.line) {
            broken.push(at);
            let mut from = self.source.lines().enumerate().skip(at.saturating_sub(1));
            if from.next().is_some_and(|(_, line)| is_header(line)) {
                let table = from.take_while(|(_, line)| !is_header(line));
                below.extend(table.map(|(before, _)| before + 1));
            }
        }
        self.problems.retain(|p| match p.setting.as_str() {
            "" => p.why != TWICE || !below.contains(&p.line),
            _ => !broken.contains(&p.line) && !below.contains(&p.line),
        });
    }

    /// Whether the text is no TOML.
    pub(super) fn syntax_is_broken(&self) -> bool {
        self.problems.iter().any(|problem| problem.setting.is_empty())
    }

    /// Whether anything was noted about a setting or what is in it.
    pub(super) fn has_problem_in(&self, setting: &str) -> bool {
        self.problems.iter().any(|problem| problem.setting.starts_with(setting))
    }

    /// `config.toml:12:3`.
    pub(super) fn place(&self, span: &Span) -> String {
        let (line, column) = self.position(span.start);
        format!("{}:{line}:{column}", self.file)
    }

    /// The warnings, or the problems, each sorted by position and said once.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Problems> {
        for list in [&mut self.problems, &mut self.warnings] {
            list.sort_by(|a, b| {
                (a.line, a.column, &a.setting).cmp(&(b.line, b.column, &b.setting))
            });
            // A value that several upstreams inherit is checked once for each of them.
            list.dedup();
        }
        if self.problems.is_empty() { Ok(self.warnings) } else { Err(Problems(self.problems)) }
    }

    fn build(&self, span: &Span, setting: &str, found: Option<String>, fault: Fault) -> Problem {
        let (line, column) = self.position(span.start);
        let Fault { why, fix } = fault;
        let excerpt = self.excerpt(span, line, setting);
        Problem {
            file: Arc::clone(&self.file),
            line,
            column,
            setting: setting.into(),
            found,
            why,
            fix,
            excerpt,
        }
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.before(at);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).map_or(0, |text| text.chars().count()) + 1;
        (before.matches('\n').count() + 1, column)
    }

    fn before(&self, at: usize) -> &'a str {
        (0..=at.min(self.source.len())).rev().find_map(|end| self.source.get(..end)).unwrap_or("")
    }

    fn excerpt(&self, span: &Span, line: usize, setting: &str) -> Option<Excerpt> {
        let text = self.source.lines().nth(line.checked_sub(1)?)?;
        let header =
            self.before(span.start).lines().rev().find(|line| line.trim_start().starts_with('['));
        let hidden = [setting, text, header.unwrap_or("")].into_iter().any(may_hold_a_secret);
        if hidden || text.chars().count() > EXCERPT_MAX {
            return None;
        }
        let (_, column) = self.position(span.start);
        let meant = self
            .source
            .get(span.clone())
            .unwrap_or("")
            .lines()
            .next()
            .unwrap_or("")
            .chars()
            .count();
        let room = (text.chars().count() + 1).saturating_sub(column);
        // Where syntax is broken nobody knows what a text is, so values are covered.
        let mut covered = false;
        let line = text.chars().map(|c| {
            covered |= setting.is_empty() && matches!(c, '=' | '"' | '\'');
            let shown = if c.is_control() { ' ' } else { c };
            if covered && c.is_alphanumeric() { '*' } else { shown }
        });
        let line = line.collect();
        Some(Excerpt { line, width: meant.min(room).max(1) })
    }
}

/// How the parser calls a word without quotes, after the letters that it begins with.
const NO_VALUE: [&str; 3] = ["string values must be quoted", "invalid float", "invalid boolean"];

/// A table that is there twice has most of its settings twice, too.
const TWICE: &str = "that name is here for the second time";

/// What the parser says, with a fix where its message is known.
fn in_words(message: &str) -> Fault {
    match message {
        "duplicate key" => {
            Fault::new(TWICE, "Keep one of the two, or give the other another name.")
        }
        _ if NO_VALUE.iter().any(|start| message.starts_with(start)) => Fault::new(
            "that is neither a text in quotes nor a number, true or false",
            "Put a text between double quotes, and nothing behind a value but a # and a comment.",
        ),
        _ => Fault::new(message, "See https://toml.io for the notation."),
    }
}

/// Longer lines are not shown: nobody would find the caret.
const EXCERPT_MAX: usize = 160;

/// Whether a path or a line of the file is about a secret, so that it must not be repeated. An
/// address with `@` or `?` in it may hold a password or a key.
pub(super) fn may_hold_a_secret(text: &str) -> bool {
    const WORDS: [&str; 11] = [
        "token",
        "credential",
        "secret",
        "passw",
        "authorization",
        "bearer",
        "shared",
        "api_key",
        "apikey",
        "@",
        "?",
    ];
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}
