//! `forbear status`: the admin API's answer as a table that a person understands at a glance.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::client::Client;
use super::control::Failure;
use super::quotas::{self, Bars};
use crate::telemetry::view::{BreakerState, BreakerView, KeyView, UpstreamView};

/// Between two pictures of `--watch`.
const REDRAW: Duration = Duration::from_secs(1);
/// Keys shown; the rest is a number. Pools of a pattern are as many as the clients like.
const KEYS_SHOWN_MAX: usize = 20;
/// Cooldowns or quotas shown of one upstream; each of its callers may have some of its own.
pub(super) const SCOPES_SHOWN_MAX: usize = 8;
/// Back to the top left corner, and nothing below.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Asks and draws, once or until interrupted.
///
/// # Errors
/// When the admin API does not answer, or nothing can be written.
pub async fn run(client: &Client, watch: bool, json: bool) -> Result<(), Failure> {
    loop {
        let upstreams = client.get("/api/v1/upstreams").await?;
        let keys = client.get("/api/v1/keys").await?;
        let picture = if json {
            format!("{}\n", json!({ "upstreams": upstreams, "keys": keys }))
        } else {
            let (upstreams, keys): (Vec<_>, Vec<_>) = (read(upstreams)?, read(keys)?);
            table(&upstreams, &keys, Bars::fitting(io::stdout().is_terminal()))
        };
        let mut out = anstream::stdout();
        if watch && !json && io::stdout().is_terminal() {
            write!(out, "{CLEAR}")?;
        }
        write!(out, "{picture}")?;
        out.flush()?;
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(REDRAW).await;
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::No(format!("the answer is not understood ({error}); is it another version?"))
    })
}

/// All tables, coloured; the stream takes the colours out where they do not belong.
pub(super) fn table(upstreams: &[UpstreamView], keys: &[KeyView], bars: Bars) -> String {
    let mut rows =
        vec![header(&["UPSTREAM", "BREAKER", "IN FLIGHT", "QUEUED", "COOLDOWN", "RETRY BUDGET"])];
    for upstream in upstreams {
        rows.extend(upstream_rows(upstream));
    }
    let mut text = aligned(&rows);
    if upstreams.is_empty() {
        text.push_str("No upstream is configured.\n");
    }
    let quotas = quotas::rows(upstreams, bars);
    if !quotas.is_empty() {
        text.push('\n');
        text.push_str(&aligned(&quotas));
    }
    if !keys.is_empty() {
        let mut rows = vec![header(&["KEY", "IN FLIGHT", "WAITING"])];
        for key in keys.iter().take(KEYS_SHOWN_MAX) {
            let full = key.in_flight >= key.in_flight_max;
            rows.push(vec![
                Cell::plain(key.key.clone()),
                Cell {
                    text: format!("{}/{}", key.in_flight, key.in_flight_max),
                    style: warn(full),
                },
                Cell { text: key.waiting.to_string(), style: warn(key.waiting > 0) },
            ]);
        }
        text.push('\n');
        text.push_str(&aligned(&rows));
        let more = keys.len().saturating_sub(KEYS_SHOWN_MAX);
        if more > 0 {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "and {more} more; see --json");
        }
    }
    text
}

/// One row for the upstream, and one more for each further breaker, cooldown or locked credential.
fn upstream_rows(upstream: &UpstreamView) -> Vec<Vec<Cell>> {
    let breakers: Vec<_> = upstream.breaker.iter().map(breaker).collect();
    let cooldowns = upstream.cooldowns.iter().map(|cooldown| Cell {
        text: format!("{} {} ({})", cooldown.scope, span(cooldown.remaining_ms), cooldown.source),
        style: warn(true),
    });
    let locks = upstream.locks.iter().map(|lock| Cell {
        text: format!("{} {} (locked)", lock.credential, span(lock.remaining_ms)),
        style: AnsiColor::Red.on_default(),
    });
    let cooldowns = shortened(locks.chain(cooldowns).collect());
    let limit = upstream.adaptive_limit.unwrap_or(upstream.in_flight_max);
    let learned = if upstream.adaptive_limit.is_some() { " (learned)" } else { "" };
    let budget = upstream.retry_budget_remaining_ratio;
    let height = breakers.len().max(cooldowns.len()).max(1);
    (0..height)
        .map(|line| {
            let nth = |cells: &[Cell], none: &str| match cells.get(line) {
                Some(cell) => cell.clone(),
                None if line == 0 => Cell::plain(none.to_owned()),
                None => Cell::default(),
            };
            let once = |text: String, style| {
                if line == 0 { Cell { text, style } } else { Cell::default() }
            };
            vec![
                once(upstream.name.clone(), Style::new().bold()),
                nth(&breakers, "-"),
                once(
                    format!("{}/{limit}{learned}", upstream.in_flight),
                    warn(upstream.in_flight >= limit),
                ),
                once(
                    format!("{}/{}", upstream.queued, upstream.queue_max),
                    warn(upstream.queued > 0),
                ),
                nth(&cooldowns, "-"),
                once(format!("{:.0} %", budget * 100.0), warn(budget < 0.2)),
            ]
        })
        .collect()
}

/// The first few cells, and how many more there are.
fn shortened(mut cells: Vec<Cell>) -> Vec<Cell> {
    let more = cells.len().saturating_sub(SCOPES_SHOWN_MAX);
    cells.truncate(SCOPES_SHOWN_MAX);
    if more > 0 {
        cells.push(Cell::plain(format!("and {more} more; see --json")));
    }
    cells
}

fn breaker(view: &BreakerView) -> Cell {
    let colour = match view.state {
        BreakerState::Closed => AnsiColor::Green,
        BreakerState::HalfOpen | BreakerState::Disabled => AnsiColor::Yellow,
        BreakerState::Open | BreakerState::ForcedOpen => AnsiColor::Red,
    };
    let mut text = view.state.name().to_owned();
    if let Some(ms) = view.open_remaining_ms {
        text = format!("{text} {}", span(ms));
    }
    if view.scope != crate::telemetry::names::BREAKER_UPSTREAM {
        text = format!("{}: {text}", view.scope);
    }
    if let Some(reason) = &view.forced_reason {
        text = format!("{text} ({reason})");
    }
    Cell { text, style: colour.on_default() }
}

/// Rounded up: "0s" would say that it is over.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

/// Yellow where somebody should look.
fn warn(look: bool) -> Style {
    if look { AnsiColor::Yellow.on_default() } else { Style::new() }
}

#[derive(Clone, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Cell {
    pub(super) fn plain(text: String) -> Self {
        Self { text, style: Style::new() }
    }
}

pub(super) fn header(names: &[&str]) -> Vec<Cell> {
    let style = Style::new().dimmed();
    names.iter().map(|name| Cell { text: (*name).to_owned(), style }).collect()
}

/// Columns two blanks apart, no blanks at the end of a line. Widths count characters; control
/// characters are shown and not obeyed, for some of the text is an upstream's.
pub(super) fn aligned(rows: &[Vec<Cell>]) -> String {
    let shown = |cell: &Cell| -> String {
        cell.text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    };
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.text.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut pending = 0;
        for (width, cell) in widths.iter().zip(row) {
            let length = cell.text.chars().count();
            if length > 0 {
                let style = cell.style;
                text.extend(std::iter::repeat_n(' ', pending));
                // Writing into a string cannot fail.
                let _ = write!(text, "{style}{}{style:#}", shown(cell));
                pending = 0;
            }
            pending += width - length + 2;
        }
        text.push('\n');
    }
    text
}
