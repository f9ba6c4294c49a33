//! Reading stories back: one by its id, or the last few of a kind.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::view::{AttemptView, ExchangeView, HintView, QuotaToldView};
use crate::config::settings::StateSettings;
use crate::policy::outcome::WaitKind;
use crate::policy::time::WallTime;
use crate::telemetry::story::RequestId;
use crate::telemetry::view::Moment;

/// Exchanges that one question gives at most.
pub const LIST_MAX: u32 = 1000;

/// What can be asked of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The exchange of that id.
    One(String),
    /// The newest exchanges that fit.
    Last(Filter),
}

/// Which exchanges are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// That many at most, and never more than [`LIST_MAX`].
    pub last: u32,
    /// Only of this run.
    pub run: Option<String>,
    /// Only of this upstream.
    pub upstream: Option<String>,
    /// Only those that did not end well.
    pub failed: bool,
}

/// What the ledger says.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The newest last.
    Found(Vec<ExchangeView>),
    /// There is no such exchange: when the oldest one that is kept began, if there is one.
    Unknown {
        /// When the oldest one that is kept began.
        oldest: Option<WallTime>,
    },
    /// The database did not answer.
    Failed(String),
}

/// Answers from this database.
pub fn answer(connection: &Connection, question: &Question) -> Answer {
    let found = match question {
        Question::One(id) => one(connection, id),
        Question::Last(filter) => last(connection, filter).map(Answer::Found),
    };
    found.unwrap_or_else(|error| Answer::Failed(error.to_string()))
}

/// Says why there is no such exchange and what to do; `settings` where they are known.
pub fn unknown(id: &str, oldest: Option<WallTime>, settings: Option<&StateSettings>) -> String {
    let Some(began) = RequestId::time_of(id) else {
        return format!(
            "{id:?} is no request id: those have 26 digits and letters, as in the field \
             Forbear-Request-Id of an answer."
        );
    };
    if let Some(oldest) = oldest.filter(|oldest| began < *oldest) {
        return format!(
            "The exchange {id} began at {began}, and the oldest one that is kept at {oldest}. To look \
             further back, raise state.ledger_keep{} and state.ledger_rows_max{}.",
            settings
                .map_or_else(String::new, |it| format!(" ({} h)", it.ledger_keep.as_secs() / 3600)),
            settings.map_or_else(String::new, |it| format!(" ({})", it.ledger_rows_max)),
        );
    }
    format!(
        "The exchange {id} is not in the ledger{}. It has not ended, or it succeeded at once: of \
         those, only {} each second are kept; raise state.ledger_successes_per_second to keep more.",
        if oldest.is_none() { ", which is empty yet" } else { "" },
        settings.map_or("some".to_owned(), |it| it.ledger_successes_per_second.to_string()),
    )
}

fn one(connection: &Connection, id: &str) -> rusqlite::Result<Answer> {
    let sql = format!("SELECT {COLUMNS} FROM exchange WHERE id = ?1");
    let id = id.to_ascii_uppercase();
    if let Some((seq, view)) = connection.query_row(&sql, [id], exchange).optional()? {
        return Ok(Answer::Found(vec![with_attempts(connection, seq, view)?]));
    }
    let oldest =
        connection.query_row("SELECT started_ms FROM exchange ORDER BY seq LIMIT 1", [], |row| {
            row.get(0)
        });
    let oldest = oldest.optional()?.map(|unix_ms| WallTime { unix_ms });
    Ok(Answer::Unknown { oldest })
}

fn last(connection: &Connection, filter: &Filter) -> rusqlite::Result<Vec<ExchangeView>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM exchange \
         WHERE (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR upstream = ?2) \
         AND (?3 = 0 OR outcome <> 'ok') ORDER BY seq DESC LIMIT ?4"
    );
    let Filter { last, run, upstream, failed } = filter;
    let mut statement = connection.prepare(&sql)?;
    let rows =
        statement.query_map(params![run, upstream, failed, (*last).min(LIST_MAX)], exchange)?;
    let mut found = rows
        .map(|row| row.and_then(|(seq, view)| with_attempts(connection, seq, view)))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    found.reverse();
    Ok(found)
}

const COLUMNS: &str = "\
seq, id, started_ms, took_ms, upstream, route, method, path, keys, flow, run, status, outcome, decision,
shadow, reason, retry_at_ms, behind, streamed_ms, own_ms, bytes_up, bytes_down, weight,
queue_ms, pacing_ms, cooldown_ms, backoff_ms, breaker_ms, credential";

fn exchange(row: &Row<'_>) -> rusqlite::Result<(i64, ExchangeView)> {
    let moment = |unix_ms| Moment(WallTime { unix_ms });
    let keys: Option<String> = row.get("keys")?;
    let count = |name| row.get(name).map(|count: i64| count.unsigned_abs());
    let view = ExchangeView {
        id: row.get("id")?,
        started: moment(row.get("started_ms")?),
        took_ms: row.get("took_ms")?,
        upstream: row.get("upstream")?,
        route: row.get("route")?,
        method: row.get("method")?,
        path: row.get("path")?,
        credential: row.get("credential")?,
        keys: keys.iter().flat_map(|keys| keys.split(' ')).map(str::to_owned).collect(),
        flow: row.get("flow")?,
        run: row.get("run")?,
        status: row.get("status")?,
        outcome: row.get("outcome")?,
        decision: row.get("decision")?,
        shadow: row.get("shadow")?,
        reason: row.get("reason")?,
        retry_at: row.get::<_, Option<i64>>("retry_at_ms")?.map(moment),
        behind: row.get("behind")?,
        waited_ms: waits(row)?,
        attempts: Vec::new(),
        streamed_ms: row.get("streamed_ms")?,
        own_ms: row.get("own_ms")?,
        bytes_up: count("bytes_up")?,
        bytes_down: count("bytes_down")?,
        weight: count("weight")?,
    };
    Ok((row.get("seq")?, view))
}

fn with_attempts(
    connection: &Connection,
    seq: i64,
    mut view: ExchangeView,
) -> rusqlite::Result<ExchangeView> {
    let mut statement = connection.prepare("SELECT * FROM attempt WHERE seq = ?1 ORDER BY n")?;
    let attempts = statement.query_map([seq], |row| {
        let wait_ms: Option<f64> = row.get("hint_ms")?;
        let source: Option<String> = row.get("hint_source")?;
        let raw = row.get("hint_raw")?;
        Ok(AttemptView {
            n: row.get("n")?,
            waited_ms: waits(row)?,
            status: row.get("status")?,
            class: row.get("class")?,
            error: row.get("error")?,
            sent: row.get("sent")?,
            ms: row.get("took_ms")?,
            hint: wait_ms.zip(source).map(|(wait_ms, source)| HintView { source, wait_ms, raw }),
            bucket: row.get("bucket")?,
            quota: quota(row)?,
        })
    })?;
    view.attempts = attempts.collect::<rusqlite::Result<_>>()?;
    Ok(view)
}

/// What the answer said of a quota.
fn quota(row: &Row<'_>) -> rusqlite::Result<Option<QuotaToldView>> {
    let Some(remaining) = row.get::<_, Option<i64>>("quota_remaining")? else { return Ok(None) };
    Ok(Some(QuotaToldView {
        name: row.get("quota_name")?,
        limit: row.get::<_, Option<i64>>("quota_limit")?.map(i64::unsigned_abs),
        remaining: remaining.unsigned_abs(),
        reset_ms: row.get("quota_reset_ms")?,
        window_ms: row.get("quota_window_ms")?,
    }))
}

/// Kinds that were waited for.
fn waits(row: &Row<'_>) -> rusqlite::Result<BTreeMap<String, f64>> {
    let mut waits = BTreeMap::new();
    for kind in WaitKind::ALL {
        let ms: f64 = row.get(format!("{}_ms", kind.name()).as_str())?;
        if ms > 0.0 {
            waits.insert(kind.name().to_owned(), ms);
        }
    }
    Ok(waits)
}
