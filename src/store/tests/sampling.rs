//! Successes that share a row: sums over the ledger are what was told, for each upstream and run.

use super::*;

#[test]
fn successes_beyond_so_many_a_second_are_only_counted_and_all_else_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, metrics) = open(&settings(&path));
    for at in 0..500 {
        store.ledger().tell(&mut plain(at, "a"));
        store.ledger().tell(&mut failed(at, "a"));
    }
    store.ledger().tell(&mut plain(1_000, "a"));
    assert!(store.close(DEADLINE));

    let connection = super::super::file::open_to_read(&path).unwrap();
    let sum = |what: &str| -> (i64, i64) {
        let sql = format!("SELECT count(*), sum(weight) FROM exchange WHERE outcome = '{what}'");
        connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    assert_eq!(sum("server_error"), (500, 500));
    let (rows, weight) = sum("ok");
    // Eleven, the first of the others, and one that stands for the rest each time the writer came by.
    assert!((13..100).contains(&rows), "{rows}");
    assert_eq!(weight, 501);
    assert_eq!(metrics.kept.get() + metrics.sampled.get(), 1_001);
}

#[test]
fn rows_of_runs_that_share_the_seconds_stand_for_as_many_as_each_of_them_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = open(&settings(&path));
    let runs = [("a", "r1", 300), ("a", "r2", 200), ("b", "r2", 100), ("b", "r4", 8)];
    for at in 0_u32..300 {
        for (upstream, run, count) in runs {
            if i64::from(at) < count {
                // The last of them end in a second of which nothing more is told.
                let mut story = plain(u64::from(at) * 10, upstream);
                story.run = Some(run.into());
                store.ledger().tell(&mut story);
            }
        }
    }
    assert!(store.close(DEADLINE));

    let connection = super::super::file::open_to_read(&path).unwrap();
    for (upstream, run, count) in runs {
        let sql = "SELECT sum(weight) FROM exchange WHERE upstream = ?1 AND run = ?2";
        let sum = connection.query_row(sql, [upstream, run], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(sum, count, "{upstream} {run}");
    }
}
