//! The tables, by numbered steps in the binary, and the views upon them.
//!
//! A file says in `PRAGMA user_version` how many steps it has taken. Steps are never changed once
//! they were released, only added; views hold nothing and are made anew each time.

use rusqlite::{Connection, TransactionBehavior};

/// One step each; the first makes everything.
const STEPS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];
const VIEWS: &str = include_str!("views.sql");

/// What this program writes and reads.
pub(super) const VERSION: u32 = 2;
const _: () = assert!(STEPS.len() == VERSION as usize, "one step for each version");

/// Steps that the database has taken.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Takes the steps that are missing, all or none.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    migrate_to(connection, VERSION)
}

fn migrate_to(connection: &mut Connection, version_wanted: u32) -> rusqlite::Result<()> {
    let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let taken = version(&step)?;
    for (number, sql) in (1..=version_wanted).zip(STEPS) {
        if number > taken {
            step.execute_batch(sql)?;
        }
    }
    step.execute_batch(VIEWS)?;
    step.execute_batch(&format!("PRAGMA user_version = {}", version_wanted.max(taken)))?;
    step.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a database consists of, in one text.
    fn shape(connection: &Connection) -> Vec<String> {
        let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn every_earlier_version_becomes_the_present_one_and_keeps_its_rows() {
        let mut newest = Connection::open_in_memory().unwrap();
        migrate(&mut newest).unwrap();
        for earlier in 0..=VERSION {
            let mut connection = Connection::open_in_memory().unwrap();
            if earlier > 0 {
                migrate_to(&mut connection, earlier).unwrap();
                connection
                    .execute_batch("INSERT INTO meta (name, value) VALUES ('kept', 'yes')")
                    .unwrap();
            }

            migrate(&mut connection).unwrap();
            migrate(&mut connection).unwrap();

            assert_eq!(version(&connection).unwrap(), VERSION);
            assert_eq!(shape(&connection), shape(&newest), "from version {earlier}");
            let kept: u32 = connection
                .query_row("SELECT count(*) FROM meta WHERE name = 'kept'", [], |row| row.get(0))
                .unwrap();
            assert_eq!(kept, u32::from(earlier > 0));
        }
    }

    #[test]
    fn every_view_can_be_read_while_nothing_is_known() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        let views = VIEWS.lines().filter_map(|line| line.strip_prefix("CREATE VIEW "));
        let mut read = 0;
        for name in views.filter_map(|rest| rest.split(' ').next()) {
            let sql = format!("SELECT count(*) FROM {name}");
            let rows: u32 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 0, "{name}");
            read += 1;
        }
        assert_eq!(read, 9);
    }

    #[test]
    fn views_are_made_anew_in_words_that_an_old_sqlite_reads() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        // The arrow needs SQLite 3.38, and one such view makes the whole file unreadable before.
        let arrow = "DROP VIEW v_locks; \
                     CREATE VIEW v_locks AS SELECT data ->> '$.times' AS times FROM state";
        connection.execute_batch(arrow).unwrap();

        migrate(&mut connection).unwrap();

        let arrows: Vec<_> =
            shape(&connection).into_iter().filter(|sql| sql.contains("->")).collect();
        assert_eq!(arrows, [""; 0]);
        connection
            .execute_batch(
                r#"INSERT INTO state (upstream, kind, scope, origin, data, saved_ms)
                   VALUES ('a', 'lock', 'credential 1f', 'x', '{"times": 3}', 0)"#,
            )
            .unwrap();
        let times: u32 =
            connection.query_row("SELECT times FROM v_locks", [], |row| row.get(0)).unwrap();
        assert_eq!(times, 3);
    }
}
