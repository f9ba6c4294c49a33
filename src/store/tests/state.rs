//! State rows: what is saved is loaded, and a clock that was set is seen through.

use std::sync::Mutex;

use serde_json::json;

use super::super::schema;
use super::super::state::{self, StateKey, StateRows, StateValue};
use super::*;
use crate::gateway::clock::BootTime;
use crate::telemetry::tests::logged;

fn key(scope: &str) -> StateKey {
    let (upstream, kind) = ("github".to_owned(), "cooldown".to_owned());
    StateKey { upstream, kind, scope: scope.to_owned() }
}

fn value(until_ms: i64) -> StateValue {
    StateValue {
        origin: "https://api.example".to_owned(),
        since: Some(BEGIN),
        until: Some(WallTime { unix_ms: BEGIN.unix_ms + until_ms }),
        data: json!({ "source": "retry-after" }),
    }
}

fn rows(scopes: &[(&str, i64)]) -> StateRows {
    scopes.iter().map(|(scope, until)| (key(scope), value(*until))).collect()
}

#[test]
fn the_state_of_the_end_is_the_state_of_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("a.db"));
    let (store, _) = open(&settings);
    assert_eq!(store.saved(), &StateRows::new());
    let now = Arc::new(Mutex::new(rows(&[("upstream", 1_000), ("route search", 2_000)])));
    let source = Arc::clone(&now);
    store.watch(Box::new(move |_| source.lock().unwrap().clone()));
    assert!(store.flush(DEADLINE));
    *now.lock().unwrap() = rows(&[("route search", 5_000), ("route default", 3_000)]);
    assert!(store.close(DEADLINE));

    let (store, _) = open(&settings);

    assert_eq!(store.saved(), &rows(&[("route search", 5_000), ("route default", 3_000)]));
}

#[test]
fn an_urgent_event_takes_the_state_to_disk_at_once() {
    use crate::telemetry::view::{EventKind, EventView, Moment};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = open(&settings(&path));
    store.watch(Box::new(|_| rows(&[("upstream", 1_000)])));
    let detail = "nothing before then".to_owned();
    let (time, kind) = (Moment(BEGIN), EventKind::Cooldown);
    store.ledger().event(&EventView { time, kind, upstream: None, scope: None, detail }, true);
    // Each look takes a while; a second would be thousands of them.
    for _ in 0..100_000 {
        if count(&path, "state") == 1 {
            // State goes first, and by itself.
            assert!(store.flush(DEADLINE));
            assert_eq!(count(&path, "event"), 1);
            return;
        }
    }
    panic!("it is not on disk");
}

#[test]
fn a_clock_that_was_set_is_seen_through_while_the_machine_runs() {
    let day = 86_400_000;
    let boot = |since_ms| BootTime { id: "this start".to_owned(), since_ms };
    let mut connection = rusqlite::Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection).unwrap();
    let batch = connection.transaction().unwrap();
    let now = rows(&[("upstream", 60_000)]);
    state::save(&batch, &StateRows::new(), &now, BEGIN, Some(&boot(5_000_000))).unwrap();
    batch.commit().unwrap();

    for set_by in [-day, 0, 365 * day] {
        // Ten seconds later by the machine, whatever the wall shows.
        let wall = WallTime { unix_ms: BEGIN.unix_ms + 10_000 + set_by };
        let loaded = state::load(&connection, wall, Some(&boot(5_010_000))).unwrap();
        let until = loaded[&key("upstream")].until.unwrap();
        assert_eq!(until.unix_ms - wall.unix_ms, 50_000, "set by {set_by} ms");
    }
    // After another start, the wall is all there is; and so where the time since it went back.
    let other = BootTime { id: "another start".to_owned(), since_ms: 7 };
    for start in [other, boot(7)] {
        let wall = WallTime { unix_ms: BEGIN.unix_ms + 10_000 + 365 * day };
        let loaded = state::load(&connection, wall, Some(&start)).unwrap();
        assert_eq!(loaded[&key("upstream")], value(60_000));
    }
}

#[test]
fn a_row_that_cannot_be_understood_is_left_out() {
    let mut connection = rusqlite::Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection).unwrap();
    connection
        .execute_batch(
            "INSERT INTO state (upstream, kind, scope, origin, data, saved_ms) VALUES
             ('a', 'breaker', 'upstream', 'x', 'no json', 0), ('b', 'breaker', 'upstream', 'x', '{}', 0),
             ('c', 'breaker', 'upstream', x'ff', '{}', 0), ('d', 'breaker', 'upstream', 'x', '{}', 'now')",
        )
        .unwrap();

    let (loaded, said) = logged(|| state::load(&connection, BEGIN, None).unwrap());

    assert_eq!(loaded.keys().map(|key| &key.upstream).collect::<Vec<_>>(), ["b"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    for (line, upstream) in said.lines().zip(["a", "c", "d"]) {
        let names = format!("upstream=\"{upstream}\" kind=\"breaker\" scope=\"upstream\"");
        assert!(line.contains(" WARN ") && line.contains(&names), "{line}");
    }
}
