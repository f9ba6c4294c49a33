//! What outlives an exchange and the process: one embedded `SQLite` file.
//!
//! It holds the *ledger* (one row per exchange, attempt and event) and the *state* (one row per
//! scope: breakers, cooldowns, quotas). The data path only ever moves a finished story into a
//! bounded backlog ([`ledger::Ledger::tell`]); one thread owns the database and writes a batch a
//! second. People read the same file with `forbear explain`, `forbear query` or plain `sqlite3`,
//! while forbear runs: the tables are in `schema_1.sql` and later steps, the views in `views.sql`.
//!
//! A file that is missing, full, locked, read-only, broken or somebody else's never stops traffic:
//! see [`file::Trouble`], and `writer` for what happens then.

use std::io;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

pub mod file;

pub mod ledger;

pub mod read;

pub mod state;

pub mod view;

mod rows;

mod sampler;

mod schema;

mod writer;

use self::ledger::Ledger;
use self::state::{Snapshot, StateRows};
use self::writer::Writer;
use crate::config::settings::StateSettings;
use crate::gateway::clock::Clock;
use crate::telemetry::store::StoreMetrics;

/// The owner of the database and its thread; both end when it is dropped.
pub struct Store {
    ledger: Ledger,
    saved: StateRows,
    salt: u128,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the database that the settings name and starts its thread. Trouble with the file is
    /// logged and counted, and the store then lives in memory.
    ///
    /// # Errors
    /// When the system has no memory or no thread left.
    pub fn open(settings: &StateSettings, clock: Clock, metrics: StoreMetrics) -> io::Result<Self> {
        let ledger = Ledger::new(Some(settings), metrics);
        let path = (settings.path != file::IN_MEMORY).then(|| PathBuf::from(&settings.path));
        let (mut writer, saved) =
            Writer::open(ledger.0.clone(), clock, path).map_err(io::Error::other)?;
        let salt = writer.salt();
        let thread =
            std::thread::Builder::new().name("store".into()).spawn(move || writer.run())?;
        Ok(Self { ledger, saved, salt, thread: Some(thread) })
    }

    /// The handle for whoever tells or asks.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The state that was in the file when it was opened.
    pub fn saved(&self) -> &StateRows {
        &self.saved
    }

    /// Under which credentials are hashed in that state; a new one where there is no file.
    pub fn salt(&self) -> u128 {
        self.salt
    }

    /// From now on the state is what `snapshot` says, asked once a second and whenever it changed.
    pub fn watch(&self, snapshot: Snapshot) {
        self.ledger.0.lock().snapshot = Some(snapshot);
    }

    /// Waits until everything told so far was written, at most `limit`. True if it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let shared = &self.ledger.0;
        let mut backlog = shared.lock();
        backlog.flushing = true;
        shared.more.notify_one();
        let waited = shared.idle.wait_timeout_while(backlog, limit, |backlog| {
            !backlog.closed && (backlog.flushing || backlog.writing)
        });
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Writes the rest and closes the file, within `limit`. True if it was done.
    pub fn close(mut self, limit: Duration) -> bool {
        let shared = self.ledger.0.clone();
        let mut backlog = shared.lock();
        backlog.closing = true;
        shared.more.notify_one();
        let waited = shared.idle.wait_timeout_while(backlog, limit, |backlog| !backlog.closed);
        let is_done = !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        if let Some(thread) = self.thread.take().filter(|_| is_done) {
            // All that is left is to close the file. A panic was told when it happened.
            let _ = thread.join();
        }
        is_done
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.ledger.0.lock().closing = true;
        self.ledger.0.more.notify_one();
    }
}

#[cfg(test)]
mod tests;
