//! Files that are missing, taken, foreign, newer, broken, locked or removed.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use rusqlite::Connection;

use super::super::file::{self, Trouble};
use super::*;

/// Whether this store keeps what it is told, wherever that is.
fn works(store: &Store) -> bool {
    let told = refused(77, "works");
    store.ledger().tell(&mut told.clone());
    one(store.ledger(), &told).id == told.id.as_str()
}

fn trouble(path: &Path) -> Trouble {
    match file::open(path) {
        Err(trouble) => trouble,
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

#[test]
fn only_its_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&settings(&folder.path().join("a.db")));
    assert!(works(&store));
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn what_was_told_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("a.db"));
    let told = recovered(0, "github");
    let (store, _) = open(&settings);
    store.ledger().tell(&mut told.clone());
    let salt = store.salt();
    assert!(store.close(DEADLINE));

    let (store, _) = open(&settings);

    assert_eq!(one(store.ledger(), &told).attempts.len(), 2);
    assert_eq!(store.salt(), salt);
}

#[test]
fn the_second_process_on_a_file_says_so_and_runs_without() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("a.db"));
    let (first, _) = open(&settings);
    let said = trouble(&folder.path().join("a.db")).to_string();
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");

    let (second, _) = open(&settings);
    assert!(works(&second));
    assert!(works(&first));
    drop(second);
    assert!(first.close(DEADLINE));

    assert_eq!(count(&folder.path().join("a.db"), "exchange"), 1);
}

#[test]
fn the_second_process_is_noticed_by_whatever_name_it_calls_the_file() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let (path, name) = (real.join("a.db"), real.join("b.db"));
    // Nothing is there yet when it is opened by this name.
    symlink("a.db", &name).unwrap();
    let (first, _) = open(&settings(&name));
    assert!(works(&first));

    for same in [&path, &name, &link.join("a.db"), &link.join("b.db")] {
        let said = trouble(same);
        assert!(matches!(said, Trouble::Taken { .. }), "{}: {said}", same.display());
    }
    assert!(first.close(DEADLINE));
    assert_eq!(count(&path, "exchange"), 1);
}

#[test]
fn a_lock_that_was_removed_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, metrics) = open(&settings(&path));
    assert!(works(&store));
    fs::remove_file(file::beside(&path, "-lock")).unwrap();
    assert!(store.flush(DEADLINE));

    assert!(matches!(trouble(&path), Trouble::Taken { .. }));
    assert!(works(&store));
    assert_eq!(metrics.moved_aside.get(), 0);
    assert!(store.close(DEADLINE));
    assert_eq!(count(&path, "exchange"), 2);
}

#[test]
fn a_file_that_is_not_forbears_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE precious (x)").unwrap();
    let text = folder.path().join("config.toml");
    fs::write(&text, "[upstreams.a]\nurl = \"https://a.example\"\n").unwrap();
    for path in [&other, &text] {
        let before = fs::read(path).unwrap();
        assert!(matches!(trouble(path), Trouble::Foreign { .. }));

        let (store, _) = open(&settings(path));
        assert!(works(&store));
        assert!(store.close(DEADLINE));

        assert_eq!(fs::read(path).unwrap(), before);
    }
}

#[test]
fn a_newer_forbears_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    assert!(open(&settings(&path)).0.close(DEADLINE));
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();

    let said = trouble(&path).to_string();
    assert!(said.contains("version 99"), "{said}");
    assert!(works(&open(&settings(&path)).0));
    let version: u32 = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

/// A file as version 1 left it, with an exchange and its attempt.
fn of_version_1(path: &Path) {
    let old = Connection::open(path).unwrap();
    old.execute_batch(&format!("PRAGMA application_id = {}", file::APPLICATION_ID)).unwrap();
    old.execute_batch(include_str!("../schema_1.sql")).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1;
         INSERT INTO meta VALUES ('salt', '0000000000000000000000000000002a');
         INSERT INTO state VALUES ('api', 'cooldown', 'upstream', 'https://a.example', 1, 2, '{}', 1, NULL, NULL);
         INSERT INTO event VALUES (1, 1768471200000, 'breaker', 'api', NULL, 'opened');
         INSERT INTO exchange VALUES (7, '01KF0HJ0800000000000000000', 1768471200000, 52.5, 'api', 'default', 'GET',
             '/items', NULL, NULL, 'nightly-7', 200, 'ok', 'pass', NULL, 1, 0, 0, 0, 0, 0, 50, 2, 0.5, NULL, NULL,
             NULL, 0, 12, 1);
         INSERT INTO attempt VALUES (7, 1, 200, 'ok', NULL, 'answered', 50, NULL, NULL, NULL, 0, 0, 0, 0, 0);",
    )
    .unwrap();
}

#[test]
fn a_file_of_version_1_is_migrated_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    of_version_1(&path);
    let said = file::open_to_read(&path).unwrap_err();
    assert!(said.contains("version 1") && said.contains("start this one on it once"), "{said}");

    let (store, metrics) = open(&settings(&path));
    assert_eq!(store.salt(), 42);
    assert_eq!(store.saved().len(), 1);
    let kept = last(store.ledger()).pop().unwrap();
    assert_eq!((kept.path.as_str(), kept.took_ms, kept.credential), ("/items", 52.5, None));
    assert_eq!((kept.attempts[0].ms, &kept.attempts[0].quota), (50.0, &None));
    let new = one_after(&store, &recovered(1, "github"));
    assert_eq!(new.attempts[1].quota.as_ref().unwrap().remaining, 12);
    assert!(store.close(DEADLINE));

    assert_eq!(
        (count(&path, "exchange"), count(&path, "attempt"), count(&path, "event")),
        (2, 3, 1)
    );
    assert_eq!(metrics.moved_aside.get(), 0);
}

#[test]
fn a_broken_file_is_moved_aside_and_a_new_one_begun() {
    for (from, until) in [(0, 100), (100, 16_384)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let (store, _) = open(&settings(&path));
        store.ledger().tell(&mut recovered(0, "github"));
        assert!(store.close(DEADLINE));
        let mut bytes = fs::read(&path).unwrap();
        bytes[from..until].fill(if from == 0 { 0 } else { 0xa5 });
        fs::write(&path, &bytes).unwrap();

        let (store, metrics) = open(&settings(&path));

        assert!(works(&store));
        assert_eq!(metrics.moved_aside.get(), 1, "bytes {from} to {until}");
        assert_eq!(fs::read(folder.path().join("a.db.corrupt")).unwrap(), bytes);
        assert!(store.close(DEADLINE));
        assert_eq!(count(&path, "exchange"), 1);
    }
}

#[test]
fn a_file_whose_state_cannot_be_read_is_moved_aside_at_the_start() {
    let broken: [fn(&Path); 2] = [
        |path| {
            let connection = Connection::open(path).unwrap();
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'state'";
            let page: u32 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
            connection.close().unwrap();
            let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.seek(SeekFrom::Start(u64::from(page - 1) * 8_192)).unwrap();
            file.write_all(&[0xa5; 8_192]).unwrap();
        },
        |path| {
            let connection = Connection::open(path).unwrap();
            connection.execute_batch("ALTER TABLE state RENAME COLUMN data TO it").unwrap();
        },
    ];
    for damage in broken {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let (store, _) = open(&settings(&path));
        assert!(store.close(DEADLINE));
        damage(&path);

        let (store, metrics) = open(&settings(&path));

        assert_eq!(metrics.moved_aside.get(), 1);
        assert!(folder.path().join("a.db.corrupt").exists());
        assert!(works(&store));
        assert!(store.close(DEADLINE));
        assert_eq!(count(&path, "exchange"), 1);
    }
}

#[test]
fn pages_that_break_while_it_runs_cost_stories_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = open(&settings(&path));
    for at in 0..2_000 {
        store.ledger().tell(&mut failed(at, "a"));
    }
    assert!(store.close(DEADLINE));
    // What is read at the start is as it should be; where stories go is not.
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    let half = length / 2;
    file.seek(SeekFrom::Start(half)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length - half).unwrap()]).unwrap();
    drop(file);

    let (store, metrics) = open(&settings(&path));
    assert_eq!(metrics.moved_aside.get(), 0);
    store.ledger().tell(&mut failed(1, "a"));
    assert!(store.flush(DEADLINE));

    assert!(works(&store));
    assert_eq!(metrics.moved_aside.get(), 1);
    assert!(folder.path().join("a.db.corrupt").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_said_and_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("a.db");
    let said = trouble(&path).to_string();
    assert!(said.contains("state.path") && said.contains("No such file"), "{said}");
    assert!(works(&open(&settings(&path)).0));
}

#[test]
fn somebody_elses_lock_is_waited_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, metrics) = open(&settings(&path));
    assert!(works(&store));
    let mut shell = Connection::open(&path).unwrap();
    let lock = shell.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let told = recovered(0, "github");
    store.ledger().tell(&mut told.clone());
    assert!(store.flush(DEADLINE), "it gives up, for now");
    assert_eq!(last(store.ledger()).len(), 1);

    drop(lock);

    assert!(store.close(DEADLINE));
    assert_eq!(count(&path, "exchange"), 2);
    assert_eq!(metrics.dropped.get(), 0);
}

#[test]
fn a_file_that_is_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = open(&settings(&path));
    assert!(works(&store));
    let salt = store.salt();
    fs::remove_file(&path).unwrap();

    assert!(works(&store));
    assert!(store.close(DEADLINE));

    assert_eq!(count(&path, "exchange"), 1);
    assert_eq!(open(&settings(&path)).0.salt(), salt, "the state in it is under this one");
}
