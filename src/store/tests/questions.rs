//! The questions of the README, each with its answer: the SQL is taken from there.

use serde_json::json;

use super::super::file::open_to_read;
use super::super::state::{StateKey, StateRows, StateValue};
use super::*;

const README: &str = include_str!("../../../README.md");

/// What they answer about the exchanges and the state below, in their order.
const ANSWERS: [&str; 11] = [
    "\
request_id|upstream|seconds|waited_seconds|attempts|decision
01KF0HJ26G00000000000001YG|github|33.83|33.6|2|retried
01KF0HJ35R00000000000002XR|jira|1.59|1.5|4|attempts_spent
01KF0HJ0800000000000000000|github|0.045|0.0|1|pass
01KF0HJ0810000000000000001|github|0.045|0.0|1|pass
01KF0HJ0820000000000000002|github|0.045|0.0|1|pass
01KF0HJ0830000000000000003|github|0.045|0.0|1|pass
01KF0HJ0840000000000000004|github|0.045|0.0|1|pass
01KF0HJ0850000000000000005|github|0.045|0.0|1|pass
01KF0HJ0860000000000000006|github|0.045|0.0|1|pass
01KF0HJ0870000000000000007|github|0.045|0.0|1|pass",
    "\
upstream|route|state|opened_at|retry_at|failures|last_error
jira||open|2026-01-15T10:00:01.000Z|2026-01-15T10:00:31.000Z|5|503 unhealthy",
    "\
upstream|scope|told_at|retry_at|source
github|route default|2026-01-15T10:00:03.212Z|2026-01-15T10:00:33.512Z|retry-after",
    "\
upstream|scope|bucket|name|limit|remaining|reset_at
github|route default|||5000|4321|2026-01-15T11:00:00.000Z",
    "\
upstream|credential|bucket|quota_name|limit|least_left
github|2f3a9c|search|minute|100|12",
    "\
request_id|upstream|attempts|backoff_seconds|retry_at
01KF0HJ26G00000000000001YG|github|2|30.4|
01KF0HJ35R00000000000002XR|jira|4|1.5|
01KF0HJ45000000000000003X0|jira|0|0.0|2026-01-15T10:01:00.000Z
01KF0HJ45100000000000003X1|jira|0|0.0|2026-01-15T10:01:00.000Z
01KF0HJ45200000000000003X2|jira|0|0.0|2026-01-15T10:01:00.000Z",
    "\
upstream|failure_count|avg_attempts|max_backoff
github|0|1.031|30.4
jira|4|1.0|1.5",
    "\
run|exchanges|not_ok|refusals|attempts|queue_seconds|cooldown_seconds|backoff_seconds
hourly-3|3|3|3|0|0.0|0.0|0.0
nightly-7|2|1|0|6|3.2|30.4|1.5",
    "\
upstream|sending|queue|pacing|cooldown|backoff|breaker
github|1.464|3.2|0.0|30.4|0.0|0.0
jira|0.08|0.0|0.0|0.0|1.5|0.0",
    "\
upstream|route|hint_source|hint_raw|times
github|default|retry-after|retry-after: 30|1",
    "\
upstream|decision|times|reason
jira|breaker_open|3|The breaker is open.",
];

fn questions() -> Vec<&'static str> {
    let chapter = README.split("### Eleven questions\n").nth(1).unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    chapter.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn state() -> StateRows {
    let at = |ms: i64| Some(WallTime { unix_ms: BEGIN.unix_ms + ms });
    let rows = [
        (
            ("jira", "breaker", "upstream"),
            (at(1_000), at(31_000)),
            json!({ "state": "open", "failures": 5, "last_error": "503 unhealthy", "openings": 1 }),
        ),
        (
            ("github", "breaker", "route search"),
            (at(2_000), None),
            json!({ "state": "half_open", "failures": 7, "last_error": "connect", "openings": 2 }),
        ),
        (
            ("github", "cooldown", "route default"),
            (at(3_212), at(33_512)),
            json!({ "source": "retry-after", "wait_ms": 30_000, "route": "default" }),
        ),
        (
            ("github", "quota", "route default"),
            (at(0), at(3_600_000)),
            json!({ "limit": 5_000, "remaining": 4_321, "route": "default" }),
        ),
    ];
    let rows = rows.map(|((upstream, kind, scope), (since, until), data)| {
        let key = StateKey {
            upstream: upstream.to_owned(),
            kind: kind.to_owned(),
            scope: scope.to_owned(),
        };
        (key, StateValue { origin: "https://api.example".to_owned(), since, until, data })
    });
    rows.into_iter().collect()
}

/// A file with a little of everything.
fn filled(path: &Path) {
    let (store, _) = open(&settings(path));
    store.watch(Box::new(|_| state()));
    for at in 0..30 {
        store.ledger().tell(&mut plain(at, "github"));
    }
    // Stands for twenty more.
    store.ledger().tell(&mut plain(1_000, "github"));
    store.ledger().tell(&mut recovered(2_000, "github"));
    store.ledger().tell(&mut failed(3_000, "jira"));
    for at in 0..3 {
        store.ledger().tell(&mut refused(4_000 + at, "jira"));
    }
    assert!(store.close(DEADLINE));
}

/// Rows as plain `sqlite3` prints them.
fn answer(connection: &rusqlite::Connection, sql: &str) -> String {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare(sql).unwrap();
    let mut lines = vec![statement.column_names().collect::<Vec<_>>().join("|")];
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let fields = (0..columns).map(|at| match row.get_ref(at).unwrap() {
            ValueRef::Null => String::new(),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => format!("{value:?}"),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(_) => panic!("nothing is a blob"),
        });
        lines.push(fields.collect::<Vec<_>>().join("|"));
    }
    lines.join("\n")
}

#[test]
fn the_questions_of_the_readme_have_these_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path);
    let connection = open_to_read(&path).unwrap();
    let questions = questions();
    assert_eq!(questions.len(), ANSWERS.len());
    for (question, expected) in questions.into_iter().zip(ANSWERS) {
        assert_eq!(answer(&connection, question), expected, "{question}");
    }
}

#[test]
fn a_breaker_that_is_tried_again_is_in_a_view_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path);
    let connection = open_to_read(&path).unwrap();
    let expected = "upstream|route|opened_at|failures|last_error\n\
                    github|search|2026-01-15T10:00:02.000Z|7|connect";
    assert_eq!(answer(&connection, "SELECT * FROM v_half_open"), expected);
}

#[test]
fn whoever_reads_cannot_change_anything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path);
    let connection = open_to_read(&path).unwrap();
    for sql in ["DELETE FROM exchange", "PRAGMA user_version = 7", "CREATE TABLE x (y)"] {
        assert!(connection.execute_batch(sql).is_err(), "{sql}");
    }
}
