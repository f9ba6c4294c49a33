//! An exchange as a person reads it: what happened when, and how long it took.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::status::{Cell, aligned, header};
use crate::policy::outcome::WaitKind;
use crate::store::view::{AttemptView, ExchangeView, QuotaToldView};

/// A wait or a transfer that is shorter is not worth a line.
const WORTH_A_LINE_MS: f64 = 1.0;

/// For machines, indented for people.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// One exchange, moment by moment.
pub(super) fn timeline(view: &ExchangeView) -> String {
    let bold = Style::new().bold();
    let dim = Style::new().dimmed();
    let good = colour(view.outcome == "ok");
    let answer = match view.status {
        Some(status) => format!("{status} {}", view.outcome),
        None => view.outcome.clone(),
    };
    let (method, path, took) = (plain(&view.method), plain(&view.path), span(view.took_ms));
    let mut text = format!(
        "{bold}{method} {path}{bold:#} → {good}{answer}{good:#} after {bold}{took}{bold:#} ({})\n",
        view.decision
    );
    let mut about = vec![format!("id {}", view.id), format!("began {}", view.started)];
    about.extend(view.upstream.as_ref().map(|name| format!("upstream {name}")));
    about.extend(view.route.as_ref().map(|name| format!("route {name}")));
    about.extend(view.credential.as_ref().map(|digits| format!("credential {digits}")));
    about.extend((!view.keys.is_empty()).then(|| format!("key {}", view.keys.join(", "))));
    about.extend(view.run.as_ref().map(|name| format!("run {name}")));
    about.extend(view.flow.as_ref().map(|name| format!("flow {name}")));
    let _ = writeln!(text, "{dim}{}{dim:#}\n", plain(&about.join(" · ")));

    let mut rows = Rows { at_ms: 0.0, rows: Vec::new() };
    let mut told: Option<&AttemptView> = None;
    for attempt in &view.attempts {
        rows.waits(view, &attempt.waited_ms, told);
        rows.attempt(attempt);
        told = Some(attempt);
    }
    rows.waits(view, &rest_of(view), told);
    if view.streamed_ms >= WORTH_A_LINE_MS {
        let what = format!("the answer to the client, {}", bytes(view.bytes_down));
        rows.line(view.streamed_ms, what, Style::new());
    }
    let dimmed = |text: String| Cell { text, style: dim };
    let own = format!("{:>8}", span(view.own_ms));
    let what = "in forbear itself, in between".to_owned();
    rows.rows.push(vec![Cell::plain(" ".repeat(9)), dimmed(own), dimmed(what)]);
    text.push_str(&aligned(&rows.rows));
    if let Some(shadow) = &view.shadow {
        let _ = writeln!(text, "\nOnly recorded: it would have been held ({shadow}).");
    }
    if let Some(reason) = &view.reason {
        let _ = writeln!(text, "\n{}", plain(reason));
    }
    if let Some(at) = &view.retry_at {
        let _ = writeln!(text, "\nAnother request would be let through at {at}.");
    }
    if view.weight > 1 {
        let others = view.weight - 1;
        let _ = writeln!(text, "\nIt stands for {others} more that succeeded at once.");
    }
    text
}

/// Many exchanges, a line each.
pub(super) fn table(views: &[ExchangeView]) -> String {
    if views.is_empty() {
        return "No exchange in the ledger is like that.\n".to_owned();
    }
    let mut rows = vec![header(&[
        "BEGAN", "ID", "UPSTREAM", "REQUEST", "STATUS", "OUTCOME", "DECISION", "ATTEMPTS",
        "WAITED", "TOOK",
    ])];
    rows.extend(views.iter().map(|view| {
        let waited: f64 = view.waited_ms.values().sum();
        vec![
            Cell::plain(view.started.to_string()),
            Cell::plain(view.id.clone()),
            Cell::plain(view.upstream.clone().unwrap_or_else(|| "-".to_owned())),
            Cell::plain(format!("{} {}", view.method, view.path)),
            Cell::plain(view.status.map_or_else(|| "-".to_owned(), |status| status.to_string())),
            Cell { text: view.outcome.clone(), style: colour(view.outcome == "ok") },
            Cell::plain(view.decision.clone()),
            Cell::plain(view.attempts.len().to_string()),
            Cell::plain(if waited >= WORTH_A_LINE_MS { span(waited) } else { "-".to_owned() }),
            Cell::plain(span(view.took_ms)),
        ]
    }));
    aligned(&rows)
}

/// Lines in the order of time, each with the moment at which it begins.
struct Rows {
    at_ms: f64,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    fn line(&mut self, took_ms: f64, what: String, style: Style) {
        let at = format!("{:>9}", format!("+{:.3} s", self.at_ms / 1000.0));
        self.rows.push(vec![
            Cell { text: at, style: Style::new().dimmed() },
            Cell { text: format!("{:>8}", span(took_ms)), style: Style::new().bold() },
            Cell { text: what, style },
        ]);
        self.at_ms += took_ms;
    }

    /// What was waited for, with its reason; `told` is the attempt before.
    fn waits(
        &mut self,
        view: &ExchangeView,
        waited: &BTreeMap<String, f64>,
        told: Option<&AttemptView>,
    ) {
        for kind in WaitKind::ALL {
            let Some(ms) = waited.get(kind.name()).filter(|ms| **ms >= WORTH_A_LINE_MS) else {
                continue;
            };
            let what = match kind {
                WaitKind::Queue => queued(view),
                WaitKind::Pacing => "paced: for the next place in the quota".to_owned(),
                WaitKind::Cooldown => match told.and_then(|attempt| attempt.hint.as_ref()) {
                    Some(hint) => format!("cooled down, as {} said", hint.source),
                    None => "cooled down, because an earlier answer said so".to_owned(),
                },
                WaitKind::Backoff => "backed off before the next attempt".to_owned(),
                WaitKind::Breaker => "held: the breaker was open".to_owned(),
            };
            self.line(*ms, what, AnsiColor::Yellow.on_default());
        }
    }

    fn attempt(&mut self, attempt: &AttemptView) {
        let AttemptView { n, status, class, error, sent, ms, hint, .. } = attempt;
        let mut what = format!("attempt {n}: ");
        match (status, error) {
            (Some(status), _) => what.push_str(&format!("{status} {class}")),
            (None, Some(error)) => what.push_str(&format!("no answer ({error}); {sent} was sent")),
            (None, None) => what.push_str("the client did not wait for its end"),
        }
        if let Some(hint) = hint {
            let said = match &hint.raw {
                Some(raw) => format!(", {}", plain(raw)),
                None => format!(", {}: {}", hint.source, span(hint.wait_ms)),
            };
            what.push_str(&said);
        }
        if let Some(quota) = &attempt.quota {
            what.push_str(&told(attempt.bucket.as_deref(), quota));
        }
        self.line(*ms, what, colour(class == "ok"));
    }
}

/// `; quota search said 12 of 100 left, renewed in 8.0 s`
fn told(bucket: Option<&str>, quota: &QuotaToldView) -> String {
    let mut said = "; quota".to_owned();
    for name in bucket.into_iter().chain(quota.name.as_deref()) {
        said.push_str(&format!(" {}", plain(name)));
    }
    said.push_str(&format!(" said {}", quota.remaining));
    if let Some(limit) = quota.limit {
        said.push_str(&format!(" of {limit}"));
    }
    said.push_str(" left");
    if let Some(reset) = quota.reset_ms {
        said.push_str(&format!(", renewed in {}", span(reset)));
    }
    said
}

fn queued(view: &ExchangeView) -> String {
    let key = match view.keys.as_slice() {
        [] => String::new(),
        keys => format!(" for key {}", keys.join(", ")),
    };
    match view.behind {
        Some(0) => format!("queued{key}, first in line"),
        Some(1) => format!("queued{key} behind 1 other"),
        Some(others) => format!("queued{key} behind {others} others"),
        None => format!("queued{key}"),
    }
}

/// Waits that no attempt followed.
fn rest_of(view: &ExchangeView) -> BTreeMap<String, f64> {
    let mut rest = view.waited_ms.clone();
    for (kind, ms) in view.attempts.iter().flat_map(|attempt| &attempt.waited_ms) {
        if let Some(left) = rest.get_mut(kind) {
            *left -= ms;
        }
    }
    rest
}

fn colour(is_good: bool) -> Style {
    if is_good { AnsiColor::Green.on_default() } else { AnsiColor::Red.on_default() }
}

/// `0.4 ms`, `212 ms`, `3.2 s`, `2 min 05 s`.
fn span(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else if ms < 120_000.0 {
        format!("{:.1} s", ms / 1000.0)
    } else {
        format!("{:.0} min {:02.0} s", (ms / 60_000.0).floor(), (ms / 1000.0) % 60.0)
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} bytes"),
        10_000..=9_999_999 => format!("{} kB", count / 1000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

/// Control characters are shown and not obeyed: some of the text is a caller's or an upstream's.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests;
