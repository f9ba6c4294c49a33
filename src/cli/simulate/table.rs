//! The figures of one or two configurations, side by side.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::simulate::figures::Figures;
use crate::simulate::past::Real;

const LABEL_WIDTH: usize = 34;
const CELL_WIDTH: usize = 20;
/// Changes of a breaker that are shown; `--json` has more.
const CHANGES_SHOWN: usize = 12;

/// One configuration.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) figures: Figures,
}

struct Table<'a> {
    text: String,
    real: Option<&'a Real>,
    columns: &'a [Column],
}

/// Everything for people, with ANSI styles.
pub(super) fn render(
    title: &str,
    notes: &[String],
    real: Option<&Real>,
    columns: &[Column],
) -> String {
    let bold = Style::new().bold();
    let mut text = format!("{bold}{title}{bold:#}\n");
    for note in notes {
        let _ = writeln!(text, "  {note}");
    }
    text.push('\n');
    let mut table = Table { text, real, columns };
    table.rows();
    let mut text = table.text;
    for column in columns {
        changes(&mut text, column);
    }
    text
}

impl Table<'_> {
    fn rows(&mut self) {
        let names: Vec<String> =
            self.columns.iter().map(|column| shortened(&column.name)).collect();
        let recorded = self.real.map(|_| "recorded".to_owned());
        self.line(Style::new().bold(), "", recorded.as_deref(), &names);
        let real = self.real.copied();
        let of = |value: fn(&Real) -> String| real.as_ref().map(value);
        self.row("time", of(|it| time(it.seconds)), |it| time(it.seconds));
        self.row("requests", of(|it| it.requests.to_string()), |it| it.requests.to_string());
        self.count("  ok", true, |it| it.ok);
        self.count("  the API's failures, handed on", false, |it| it.failed);
        self.count("  the API's 429, handed on", false, |it| it.throttled);
        let refusals = |it: &Figures| it.rejected.values().sum::<u64>();
        self.row("  refused by forbear", of(|it| it.rejected.to_string()), move |it| {
            refusals(it).to_string()
        });
        let mut codes: Vec<&str> =
            self.columns.iter().flat_map(|it| it.figures.rejected.keys().copied()).collect();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            self.row(&format!("    {code}"), None, |it| {
                it.rejected.get(code).copied().unwrap_or(0).to_string()
            });
        }
        self.count("attempts", true, |it| it.attempts);
        self.row("429 that the API sends", of(|it| it.api_429.to_string()), |it| {
            it.api_429.to_string()
        });
        self.count("other failures of the API", false, |it| it.api_failures);
        for (kind, label) in [
            ("queue", "waits: queue"),
            ("pacing", "       pacing"),
            ("cooldown", "       cooldown"),
            ("backoff", "       backoff"),
            ("breaker", "       breaker"),
        ] {
            let of = |it: &Figures| it.waits.get(kind).copied().unwrap_or(0.0);
            if kind == "queue" || self.columns.iter().any(|column| of(&column.figures) > 0.0) {
                self.row(label, None, |it| time(of(it)));
            }
        }
        self.row("half of the requests within", None, |it| time(it.p50));
        self.row("99 of 100 within", None, |it| time(it.p99));
        self.row("all within", None, |it| time(it.longest));
    }

    fn count(&mut self, label: &str, always: bool, of: fn(&Figures) -> u64) {
        if always || self.columns.iter().any(|column| of(&column.figures) > 0) {
            self.row(label, None, |it| of(it).to_string());
        }
    }

    fn row(&mut self, label: &str, real: Option<String>, of: impl Fn(&Figures) -> String) {
        let cells: Vec<String> = self.columns.iter().map(|column| of(&column.figures)).collect();
        let real = self.real.map(|_| real.unwrap_or_default());
        self.line(Style::new(), label, real.as_deref(), &cells);
    }

    fn line(&mut self, style: Style, label: &str, real: Option<&str>, cells: &[String]) {
        let mut line = format!("{label:<LABEL_WIDTH$}");
        for cell in real.into_iter().chain(cells.iter().map(String::as_str)) {
            let _ = write!(line, "{cell:>CELL_WIDTH$}");
        }
        let _ = writeln!(self.text, "{style}{}{style:#}", line.trim_end());
    }
}

/// When breakers changed.
fn changes(text: &mut String, column: &Column) {
    let changes = &column.figures.breaker;
    if changes.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nbreaker, {}", column.name);
    for change in changes.iter().take(CHANGES_SHOWN) {
        let style = match change.to {
            "closed" => AnsiColor::Green.on_default(),
            "half_open" => AnsiColor::Yellow.on_default(),
            _ => AnsiColor::Red.on_default(),
        };
        let route =
            change.route.as_ref().map(|route| format!(", route {route}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {:>12}  {style}{}{style:#}  {}{route}",
            time(change.at),
            change.to,
            change.upstream
        );
    }
    let shown = changes.len().min(CHANGES_SHOWN);
    let more = (changes.len() - shown) as u64 + column.figures.breaker_changes_left_out;
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

/// The end of a name that is too long says most.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length < CELL_WIDTH {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - (CELL_WIDTH - 3)).collect();
    format!("…{end}")
}

/// `0.123 s`, `12.3 s`, `4 min 5 s`, `2 h 3 min`.
fn time(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        _ if seconds < 10.0 => format!("{seconds:.3} s"),
        _ if seconds < 120.0 => format!("{seconds:.1} s"),
        0..7200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}
