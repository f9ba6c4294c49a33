//! State that is to outlive the process: one row for each scope, with wall-clock times.
//!
//! The rows are a last value per scope, so there is no queue that could overflow: once a second, or
//! at once when a breaker or a cooldown changed, the writer asks for all of them and writes those
//! that differ from what is on disk.

use std::collections::BTreeMap;

use rusqlite::{Connection, Transaction, params};
use serde_json::Value;

use crate::policy::time::WallTime;

/// What a row is known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateKey {
    /// Name of the upstream.
    pub upstream: String,
    /// `breaker`, `cooldown` or `quota`.
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

/// Tells all state there is; called by the writer's thread.
pub type Snapshot = Box<dyn Fn() -> StateRows + Send>;

/// Everything that is on disk. Rows that cannot be understood are left out.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<StateRows> {
    let sql = "SELECT upstream, kind, scope, origin, since_ms, until_ms, data FROM state";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let moment = |unix_ms| WallTime { unix_ms };
        let key = StateKey { upstream: row.get(0)?, kind: row.get(1)?, scope: row.get(2)? };
        let data: String = row.get(6)?;
        let data = serde_json::from_str(&data).ok();
        let (since, until) = (row.get::<_, Option<i64>>(4)?, row.get::<_, Option<i64>>(5)?);
        let (since, until) = (since.map(moment), until.map(moment));
        let origin = row.get(3)?;
        Ok(data.map(|data| (key, StateValue { origin, since, until, data })))
    })?;
    Ok(rows.filter_map(|row| row.ok().flatten()).collect())
}

/// Writes what differs from `saved`, and deletes what is no more.
pub(super) fn save(
    batch: &Transaction<'_>,
    saved: &StateRows,
    now: &StateRows,
    at: WallTime,
) -> rusqlite::Result<()> {
    let mut upsert = batch.prepare(
        "INSERT OR REPLACE INTO state \
         (upstream, kind, scope, origin, since_ms, until_ms, data, saved_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for (key, value) in now.iter().filter(|(key, value)| saved.get(key) != Some(value)) {
        let StateKey { upstream, kind, scope } = key;
        let StateValue { origin, since, until, data } = value;
        let (since, until) = (since.map(|at| at.unix_ms), until.map(|at| at.unix_ms));
        let data = data.to_string();
        upsert.execute(params![upstream, kind, scope, origin, since, until, data, at.unix_ms])?;
    }
    let mut delete =
        batch.prepare("DELETE FROM state WHERE upstream = ?1 AND kind = ?2 AND scope = ?3")?;
    for StateKey { upstream, kind, scope } in saved.keys().filter(|key| !now.contains_key(key)) {
        delete.execute([upstream, kind, scope])?;
    }
    Ok(())
}
