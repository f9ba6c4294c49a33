//! What a reload changes, said in sentences, and what it cannot change.
//!
//! Both configurations are laid out as paths and values, and the layouts are compared.

use std::collections::BTreeSet;

use super::layout::{Layout, NOT_SET, Shown};
use super::settings::Settings;

/// The difference between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// One sentence per change: `upstreams.github.in_flight_max: 16 → 8`.
    pub lines: Vec<String>,
    /// Those of them that only a restart can apply.
    pub restart_needed: Vec<String>,
}

/// Compares two configurations. Equal ones give nothing.
pub fn diff(old: &Settings, new: &Settings) -> Changes {
    let (old, new) = (Layout::of(old), Layout::of(new));
    let mut changes = Changes::default();
    for table in old.tables.symmetric_difference(&new.tables) {
        let verb = if new.tables.contains(table) { "added" } else { "removed" };
        changes.lines.push(format!("{table}: {verb}"));
    }
    let paths: BTreeSet<&String> = old.values.keys().chain(new.values.keys()).collect();
    for path in paths {
        let (before, after) = (old.values.get(path), new.values.get(path));
        // An upstream, route or key that comes or goes takes its settings along.
        let tables = [before, after].into_iter().flatten().map(|value| &value.table);
        let lasting = |table: &String| old.has_table(table) && new.has_table(table);
        if before == after || !tables.into_iter().all(lasting) {
            continue;
        }
        let text = |value: Option<&Shown>| value.map_or(NOT_SET.into(), |value| value.text.clone());
        let secret = [before, after].into_iter().flatten().any(|value| value.secret.is_some());
        let line = if secret {
            format!("{path}: changed")
        } else {
            format!("{path}: {} → {}", text(before), text(after))
        };
        if needs_restart(path) {
            changes.restart_needed.push(line.clone());
        }
        changes.lines.push(line);
    }
    changes.lines.sort();
    changes
}

/// Listeners are bound, threads started, the log set up and the store opened once.
fn needs_restart(path: &str) -> bool {
    const ONCE: [&str; 5] =
        ["proxy.workers", "proxy.connections_max", "state.path", "log.format", "log.level"];
    ONCE.contains(&path) || path.ends_with(".listen")
}
