//! The thread that owns the database: takes what was told, writes it in one transaction a second,
//! keeps the bounds, and answers questions.
//!
//! Whatever goes wrong with the file happens here and stays here: a lock is waited out, a full disk
//! costs stories, a broken file is moved aside, and a file that cannot be had at all is looked at
//! again later. Each change for the worse or the better is one line in the log and a metric.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::file::{self, Opened, Trouble};
use super::ledger::{Asked, BATCH_RECORDS, Backlog, Record, Shared};
use super::read::{self, Answer};
use super::rows::{self, Counts};
use super::state::{self, Snapshot, StateRows};
use crate::gateway::Common;
use crate::gateway::clock::{self, Clock};
use crate::policy::time::{MonoTime, TimeAnchor, WallTime};
use crate::telemetry::view::EventView;

/// Nothing that was told is longer on its way to the file.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How long until a file that could not be had is looked at again: the forbear that has it may be
/// on its way out, and a disk may have room again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Rows kept in memory at most, about 4 MB: a sidecar's memory is paid for in each pod.
pub(super) const MEMORY_ROWS_MAX: u64 = 10_000;
/// The write-ahead log grows for as long as somebody reads from one and the same moment, such as a
/// shell that was left in a transaction. Beyond this, only state is written.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// The wall clock is slewed and steered all the time; whoever moves it by more has set it.
const CLOCK_SET_MIN: Duration = Duration::from_secs(5);
/// A disk that is nearly full takes a little now and then; it is well when nothing failed for so long.
const WELL_AFTER: Duration = Duration::from_secs(5);
/// Room for records that is kept from one batch to the next.
const RECORDS_KEPT: usize = 256;

/// Everything the thread has.
pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: Clock,
    /// `None` for memory, and where a broken file cannot be moved.
    path: Option<PathBuf>,
    wants_file: bool,
    /// `None` only between two files.
    db: Option<Opened>,
    counts: Counts,
    saved: StateRows,
    /// `None` until a database was opened.
    salt: Option<u128>,
    snapshot: Option<Snapshot>,
    pending: Vec<Record>,
    events: Vec<EventView>,
    look_again: MonoTime,
    is_failing: bool,
    /// When something could not be written last.
    failed_at: MonoTime,
    /// Both clocks as they were a moment ago.
    clocks: TimeAnchor,
    /// By how much the wall clock was set ahead since the start.
    ahead_ms: i64,
}

impl Writer {
    /// Opens the database, in memory if the file cannot be used. Says what state was in it.
    ///
    /// # Errors
    /// When there is not even memory for it.
    pub(super) fn open(
        shared: Arc<Shared>,
        clock: Clock,
        path: Option<PathBuf>,
    ) -> rusqlite::Result<(Self, StateRows)> {
        let mut writer = Self {
            shared,
            clock,
            wants_file: path.is_some(),
            path,
            db: None,
            counts: Counts::default(),
            saved: StateRows::new(),
            salt: None,
            snapshot: None,
            pending: Vec::new(),
            events: Vec::new(),
            look_again: MonoTime::ZERO,
            is_failing: false,
            failed_at: MonoTime::ZERO,
            clocks: clock.anchor(),
            ahead_ms: 0,
        };
        writer.reopen()?;
        let saved = writer.saved.clone();
        Ok((writer, saved))
    }

    /// The salt under which this process hashes credentials.
    pub(super) fn salt(&mut self) -> u128 {
        *self.salt.get_or_insert_with(Common::new_salt)
    }

    /// Writes until told to end.
    pub(super) fn run(mut self) {
        loop {
            let (questions, is_last) = self.collect();
            if self.db.as_ref().is_some_and(|db| self.is_due(db)) {
                // Only for want of memory does this fail, and then the next round fails as well.
                let _ = self.reopen();
            }
            self.write();
            for Asked { question, reply } in questions {
                let answer = match &self.db {
                    Some(db) => read::answer(&db.connection, &question),
                    None => Answer::Failed("there is no database".to_owned()),
                };
                let is_ok = !matches!(answer, Answer::Failed(_));
                self.shared.metrics.read(is_ok);
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            let mut backlog = self.shared.lock();
            backlog.writing = false;
            if is_last {
                backlog.closed = true;
            }
            drop(backlog);
            self.shared.idle.notify_all();
            if is_last {
                break;
            }
        }
        if let Some(Opened { connection, file: Some(_), .. }) = self.db.take() {
            // Whoever opens the file next finds all of it in one piece; closing does the same, but
            // does not say so if it fails.
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }

    /// Waits until there is a reason to write, at most a second, and takes what there is.
    fn collect(&mut self) -> (Vec<Asked>, bool) {
        let waits = |backlog: &mut Backlog| {
            backlog.questions.is_empty()
                && !backlog.urgent
                && !backlog.flushing
                && !backlog.closing
                && backlog.records.len() < BATCH_RECORDS
        };
        let woken = self.shared.more.wait_timeout_while(self.shared.lock(), WRITE_EVERY, waits);
        let mut backlog = woken.unwrap_or_else(PoisonError::into_inner).0;
        // What could not be written for somebody else's lock goes first; the rest stays where it
        // has a bound.
        if self.pending.is_empty() {
            let room = Vec::with_capacity(backlog.records.len().min(RECORDS_KEPT));
            self.pending = std::mem::replace(&mut backlog.records, room);
            self.events.append(&mut backlog.events);
            let all = backlog.flushing || backlog.closing;
            self.shared.sampler.take(&mut self.pending, self.clock.now(), all);
        }
        backlog.urgent = false;
        backlog.flushing = false;
        backlog.writing = true;
        self.snapshot = backlog.snapshot.take().or(self.snapshot.take());
        (backlog.questions.drain(..).collect(), backlog.closing)
    }

    /// Whether the file should be opened anew.
    fn is_due(&self, db: &Opened) -> bool {
        match &db.file {
            Some(file) => file.is_gone(),
            None => self.path.is_some() && self.clock.now() >= self.look_again,
        }
    }

    fn reopen(&mut self) -> rusqlite::Result<()> {
        let had_file = self.db.as_ref().is_some_and(|db| db.file.is_some());
        if had_file {
            tracing::error!(
                path = self.shown(),
                "the state file or its lock was removed, or it is broken"
            );
        }
        let (own, now, boot) = (self.salt, self.clock.wall(), clock::boot_time());
        let load = |db: &Connection| state::load_with_salt(db, own, now, boot.as_ref());
        let opened = match &self.path {
            Some(path) => {
                // The lock of the old one would keep us out.
                if had_file {
                    self.db = None;
                }
                file::open_and(path, load).map_err(Some)
            }
            None => Err(None),
        };
        let (opened, (saved, salt)) = match opened {
            Ok(opened) => opened,
            Err(trouble) => {
                self.look_again = self.clock.now() + LOOK_AGAIN;
                self.complain(trouble.as_ref());
                let memory = self.db.take().map_or_else(file::in_memory, Ok)?;
                let loaded = load(&memory.connection)?;
                (memory, loaded)
            }
        };
        self.shared.metrics.opened(opened.file.is_some() || !self.wants_file);
        if let Some(aside) = &opened.moved_aside {
            let aside = aside.display().to_string();
            self.shared.metrics.moved_aside.inc();
            tracing::error!(aside, "the state file was broken and is moved aside; begun anew");
        }
        if opened.file.is_some() && !had_file && self.is_failing {
            tracing::info!(path = self.shown(), "the state file can be used again");
            self.is_failing = false;
        }
        self.counts = Counts::of(&opened.connection).unwrap_or_default();
        (self.saved, self.salt) = (saved, salt.or(own));
        self.db = Some(opened);
        Ok(())
    }

    /// The path for the log.
    fn shown(&self) -> String {
        self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    /// Once for each time that it gets worse.
    fn complain(&mut self, trouble: Option<&Trouble>) {
        if let Some(trouble) = trouble
            && !std::mem::replace(&mut self.is_failing, true)
        {
            tracing::error!("{trouble}");
        }
    }

    /// Writes everything that waits, or says why not. State goes first and by itself: what an upstream
    /// said should be on disk within moments, however many stories wait behind it.
    fn write(&mut self) {
        let told = self.shared.urgent_told();
        self.mind_clock();
        self.write_state();
        // Also if that failed: nobody waits for a disk that is full.
        self.shared.urgent_written.send_replace(told);
        self.mind_readers();
        self.write_rows();
    }

    fn write_state(&mut self) {
        let saved = &self.saved;
        let state = self.snapshot.as_mut().map(|snapshot| snapshot(saved));
        let Some(state) = state.filter(|state| *state != self.saved) else { return };
        let (now, boot) = (self.clock.wall(), clock::boot_time());
        let Some(db) = &mut self.db else { return };
        let written = db.connection.transaction().and_then(|batch| {
            state::save(&batch, &self.saved, &state, now, boot.as_ref())?;
            batch.commit()
        });
        match written {
            Ok(()) => {
                self.saved = state;
                self.written();
            }
            Err(error) => self.failed(&error),
        }
    }

    fn write_rows(&mut self) {
        if self.pending.is_empty() && self.events.is_empty() {
            return;
        }
        let oldest = self.oldest(self.clock.wall());
        let began = self.clock.now();
        let Some(db) = &mut self.db else { return };
        let rows_max = self.shared.rows_max.load(Ordering::Relaxed);
        let rows_max = if db.file.is_some() { rows_max } else { rows_max.min(MEMORY_ROWS_MAX) };
        let Self { pending, events, counts, .. } = self;
        let written = db.connection.transaction().and_then(|batch| {
            let left = rows::insert(&batch, pending, events, *counts)?;
            let left = rows::trim(&batch, left, rows_max, oldest)?;
            batch.commit()?;
            Ok(left)
        });
        self.shared.metrics.wrote(written.is_ok(), self.clock.now().since(began));
        match written {
            Ok(left) => {
                self.counts = left;
                let stood_for: u64 = self.pending.iter().map(|record| record.weight).sum();
                let kept = self.pending.len() as u64;
                self.shared.metrics.kept.inc_by(kept);
                self.shared.metrics.sampled.inc_by(stood_for.saturating_sub(kept));
                self.forget_pending();
                self.written();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Says that the wall clock was set, which shows in all times that are told. Spans do not depend
    /// on it, and no story becomes old by it.
    fn mind_clock(&mut self) {
        let now = self.clock.anchor();
        let expected = self.clocks.wall(now.mono);
        self.clocks = now;
        let by_ms = now.wall.unix_ms.saturating_sub(expected.unix_ms);
        if Duration::from_millis(by_ms.unsigned_abs()) >= CLOCK_SET_MIN {
            self.ahead_ms = self.ahead_ms.saturating_add(by_ms);
            let by_s = by_ms / 1000;
            tracing::warn!(by_s, "the wall clock was set, or the machine slept; no wait changes");
        }
    }

    /// Gives up stories where the write-ahead log cannot be taken over into the file.
    fn mind_readers(&mut self) {
        let is_long =
            |db: &Opened| db.file.as_ref().is_some_and(|file| file.wal_bytes() > WAL_BYTES_MAX);
        let Some(db) = self.db.as_ref().filter(|db| is_long(db)) else { return };
        // It is as long as it was if somebody still reads, whatever this says.
        let _ = db.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        if !is_long(db) {
            return;
        }
        if !std::mem::replace(&mut self.is_failing, true) {
            self.shared.metrics.opened(false);
            tracing::error!(
                path = self.shown(),
                "somebody reads the state file and does not end: stories are not kept meanwhile"
            );
        }
        self.drop_pending();
    }

    fn written(&mut self) {
        let db = self.db.as_ref();
        let Some(file) = db.and_then(|db| db.file.as_ref()) else { return };
        self.shared.metrics.set_size(file.bytes());
        let is_calm = self.clock.now().since(self.failed_at) >= WELL_AFTER;
        let is_well = is_calm && file.wal_bytes() <= WAL_BYTES_MAX;
        if is_well && std::mem::replace(&mut self.is_failing, false) {
            tracing::info!(path = self.shown(), "the state file can be written again");
            self.shared.metrics.opened(true);
        }
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        if file::is_broken(error) {
            self.drop_pending();
            // Opening it finds it broken only if the start of it is: what is known to be is moved.
            if let Some(path) = &self.path {
                self.db = None;
                match file::move_aside(path) {
                    Ok(aside) => {
                        let aside = aside.display().to_string();
                        self.shared.metrics.moved_aside.inc();
                        tracing::error!(%error, aside, "the state file is broken and moved aside");
                    }
                    Err(why) => {
                        tracing::error!(%error, %why, "the state file is broken and stays where it is");
                        self.path = None;
                    }
                }
            }
            // As in `run`.
            let _ = self.reopen();
            return;
        }
        self.failed_at = self.clock.now();
        if !std::mem::replace(&mut self.is_failing, true) {
            self.shared.metrics.opened(false);
            tracing::error!(
                %error, path = self.shown(),
                "the state file cannot be written; traffic goes on, and what cannot be kept is counted"
            );
        }
        // Somebody else's lock ends; what waits for it has a bound. Nothing else gets better soon.
        if !file::is_busy(error) {
            self.drop_pending();
        }
    }

    fn drop_pending(&mut self) {
        self.shared.metrics.dropped.inc_by(self.pending.len() as u64);
        self.shared.metrics.events_dropped.inc_by(self.events.len() as u64);
        self.forget_pending();
    }

    fn forget_pending(&mut self) {
        self.pending.clear();
        self.pending.shrink_to(RECORDS_KEPT);
        self.events.clear();
    }

    fn oldest(&self, now: WallTime) -> WallTime {
        let keep = self.shared.keep_ms.load(Ordering::Relaxed);
        let as_it_was = now.unix_ms.saturating_sub(self.ahead_ms.max(0));
        WallTime { unix_ms: as_it_was.saturating_sub_unsigned(keep) }
    }
}
