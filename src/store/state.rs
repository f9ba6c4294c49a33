//! State that is to outlive the process: one row for each scope, with wall-clock times.
//!
//! The rows are a last value per scope, so there is no queue that could overflow: once a second, or
//! at once when a breaker or a cooldown changed, the writer asks for all of them and writes those
//! that differ from what is on disk.

use std::collections::BTreeMap;

use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Row, Transaction, params};
use serde_json::Value;

use super::file::is_unreadable;
use crate::gateway::Common;
use crate::gateway::clock::BootTime;
use crate::policy::time::WallTime;

/// Clocks drift, and the time since the start is told in hundredths of a second.
const SET_MIN_MS: i64 = 1000;

/// What a row is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateKey {
    /// Name of the upstream.
    pub upstream: String,
    /// `breaker`, `cooldown`, `quota`, `spent`, `lock`, `cycle` or `limit`.
    pub kind: String,
    /// `upstream`, `route search`, `credential 1f` …
    pub scope: String,
}

/// What is known of one scope.
#[derive(Clone, Debug, PartialEq)]
pub struct StateValue {
    /// State belongs to this origin of the upstream; another one starts fresh.
    pub origin: String,
    /// Since when it is so, where that is known.
    pub since: Option<WallTime>,
    /// Until when it is so, where that is known.
    pub until: Option<WallTime>,
    /// Whatever else its kind has.
    pub data: Value,
}

/// All state at one moment.
pub type StateRows = BTreeMap<StateKey, StateValue>;

/// Tells all state there is, given what is on disk; called by the writer's thread.
pub type Snapshot = Box<dyn FnMut(&StateRows) -> StateRows + Send>;

/// All state, and the [`salt`] that its credentials are hashed with: `None` where a new one cannot be
/// written just now.
///
/// # Errors
/// Either cannot be read.
pub(super) fn load_with_salt(
    connection: &Connection,
    own: Option<u128>,
    now: WallTime,
    boot: Option<&BootTime>,
) -> rusqlite::Result<(StateRows, Option<u128>)> {
    match salt(connection, own) {
        Err(error) if is_unreadable(&error) => Err(error),
        salt => Ok((load(connection, now, boot)?, salt.ok())),
    }
}

/// Everything that is on disk, by the clock as it goes now: where the machine has not been started
/// since, it is known by how much the clock was set meanwhile. A row that cannot be understood is
/// left out, and the log names it.
///
/// # Errors
/// The table cannot be read to its end.
pub(super) fn load(
    connection: &Connection,
    now: WallTime,
    boot: Option<&BootTime>,
) -> rusqlite::Result<StateRows> {
    let sql = "SELECT upstream, kind, scope, origin, since_ms, until_ms, data, saved_ms, boot, boot_ms \
               FROM state";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut loaded = StateRows::new();
    while let Some(row) = rows.next()? {
        match understood(row, now, boot) {
            Ok((key, value)) => drop(loaded.insert(key, value)),
            Err(why) => {
                let text = |column| match row.get_ref(column) {
                    Ok(ValueRef::Text(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
                    Ok(_) | Err(_) => "?".to_owned(),
                };
                let (upstream, kind, scope) = (text(0), text(1), text(2));
                tracing::warn!(
                    upstream, kind, scope, %why,
                    "a row of the kept state cannot be understood and is left out"
                );
            }
        }
    }
    Ok(loaded)
}

fn understood(
    row: &Row<'_>,
    now: WallTime,
    boot: Option<&BootTime>,
) -> rusqlite::Result<(StateKey, StateValue)> {
    let saved: i64 = row.get(7)?;
    let saved_in: Option<String> = row.get(8)?;
    let same = boot.filter(|boot| saved_in.as_ref() == Some(&boot.id));
    // Some containers are told their own time since their start, which begins anew with them.
    let age = same.zip(row.get::<_, Option<i64>>(9)?).filter(|(boot, at)| boot.since_ms >= *at);
    let set_by = age.map_or(0, |(boot, at)| {
        let passed = boot.since_ms.saturating_sub(at);
        let jump = now.unix_ms.saturating_sub(saved.saturating_add(passed));
        if jump.saturating_abs() > SET_MIN_MS { jump } else { 0 }
    });
    let moment = |unix_ms: i64| WallTime { unix_ms: unix_ms.saturating_add(set_by) };
    let key = StateKey { upstream: row.get(0)?, kind: row.get(1)?, scope: row.get(2)? };
    let data: String = row.get(6)?;
    let data = serde_json::from_str(&data)
        .map_err(|why| rusqlite::Error::FromSqlConversionFailure(6, Type::Text, why.into()))?;
    let (since, until) = (row.get::<_, Option<i64>>(4)?, row.get::<_, Option<i64>>(5)?);
    let (since, until) = (since.map(moment), until.map(moment));
    Ok((key, StateValue { origin: row.get(3)?, since, until, data }))
}

/// Writes what differs from `saved`, and deletes what is no more.
pub(super) fn save(
    batch: &Transaction<'_>,
    saved: &StateRows,
    now: &StateRows,
    at: WallTime,
    boot: Option<&BootTime>,
) -> rusqlite::Result<()> {
    let mut upsert = batch.prepare(
        "INSERT OR REPLACE INTO state \
         (upstream, kind, scope, origin, since_ms, until_ms, data, saved_ms, boot, boot_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let (boot_id, boot_ms) = (boot.map(|boot| &boot.id), boot.map(|boot| boot.since_ms));
    for (key, value) in now.iter().filter(|(key, value)| saved.get(key) != Some(value)) {
        let StateKey { upstream, kind, scope } = key;
        let StateValue { origin, since, until, data } = value;
        let (since, until) = (since.map(|at| at.unix_ms), until.map(|at| at.unix_ms));
        let data = data.to_string();
        upsert.execute(params![
            upstream, kind, scope, origin, since, until, data, at.unix_ms, boot_id, boot_ms,
        ])?;
    }
    let mut delete =
        batch.prepare("DELETE FROM state WHERE upstream = ?1 AND kind = ?2 AND scope = ?3")?;
    for StateKey { upstream, kind, scope } in saved.keys().filter(|key| !now.contains_key(key)) {
        delete.execute([upstream, kind, scope])?;
    }
    Ok(())
}

/// The salt of credentials' hashes: that of the process, if it has one already, since the state that
/// it writes is under it; else the one that is there, or a new one.
pub(super) fn salt(connection: &Connection, own: Option<u128>) -> rusqlite::Result<u128> {
    let (make, salt) = match own {
        Some(own) => ("INSERT OR REPLACE", own),
        None => ("INSERT OR IGNORE", Common::new_salt()),
    };
    let make = format!("{make} INTO meta (name, value) VALUES ('salt', ?1)");
    connection.execute(&make, [format!("{salt:032x}")])?;
    let read = "SELECT value FROM meta WHERE name = 'salt'";
    let digits: String = connection.query_row(read, [], |row| row.get(0))?;
    Ok(u128::from_str_radix(&digits, 16).unwrap_or_else(|_| Common::new_salt()))
}
