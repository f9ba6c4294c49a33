//! What the data path sees of the store: a finished story is taken, and nothing ever waits.
//!
//! Of the exchanges that succeeded at once, as most do, a few each second are kept; of the others
//! one stands for all of its upstream and run (see `sampler`). Whatever is kept is moved, not
//! copied, into a bounded backlog that the writer takes whole. When that is full, the story is
//! dropped and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::read::{Answer, Question};
use super::sampler::Sampler;
use super::state::Snapshot;
use crate::config::settings::StateSettings;
use crate::telemetry::store::StoreMetrics;
use crate::telemetry::story::{Decision, Ending, Story};
use crate::telemetry::view::EventView;

/// Stories that wait for the writer at most: eight seconds of a thousand a second, about 8 MB.
pub const RECORDS_MAX: usize = 8192;
/// As many make the writer begin before its second is over.
pub(super) const BATCH_RECORDS: usize = 2048;
/// Events that wait at most.
const EVENTS_MAX: usize = 2048;
/// Questions that wait at most; people and dashboards ask, not jobs.
const QUESTIONS_MAX: usize = 16;
/// Bytes of a path that are kept; a caller could fill the memory with them otherwise.
const PATH_BYTES_MAX: usize = 1024;
/// What an upstream said is waited for so long until it is on disk; a disk that is slower than that
/// does not stop traffic.
const KEPT_WITHIN: Duration = Duration::from_millis(250);
/// A wait shorter than this is scheduling, not waiting.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The data path's handle; cheap to clone.
#[derive(Clone)]
pub struct Ledger(pub(super) Arc<Shared>);

pub(super) struct Shared {
    backlog: Mutex<Backlog>,
    /// Told when there is something to do.
    pub(super) more: Condvar,
    /// Told when everything was written, and at the end.
    pub(super) idle: Condvar,
    pub(super) sampler: Sampler,
    /// Nobody writes: nothing is kept.
    is_off: AtomicBool,
    /// Urgent events that were told, and how many of them have been written since.
    urgent_told: AtomicU64,
    pub(super) urgent_written: watch::Sender<u64>,
    pub(super) keep_ms: AtomicU64,
    pub(super) rows_max: AtomicU64,
    pub(super) metrics: StoreMetrics,
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Backlog {
    pub(super) records: Vec<Record>,
    pub(super) events: Vec<EventView>,
    pub(super) questions: VecDeque<Asked>,
    /// A new one for the writer to ask.
    pub(super) snapshot: Option<Snapshot>,
    /// State changed in a way that must be on disk soon.
    pub(super) urgent: bool,
    /// Somebody waits for everything to be written.
    pub(super) flushing: bool,
    /// The writer holds something that is not written yet.
    pub(super) writing: bool,
    /// The writer shall end, or has ended.
    pub(super) closing: bool,
    pub(super) closed: bool,
}

/// A story and how many exchanges it stands for, itself and those before it.
pub(super) struct Record {
    pub(super) story: Box<Story>,
    pub(super) weight: u64,
}

/// A question and where its answer goes.
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Too many ask at once, or the store is ending.
    #[error("the ledger is busy; ask again in a second")]
    Busy,
}

impl Ledger {
    /// A ledger that keeps nothing, for what runs without a store.
    pub fn off() -> Self {
        let ledger = Self::new(None, StoreMetrics::unregistered());
        ledger.0.is_off.store(true, Ordering::Relaxed);
        ledger
    }

    pub(super) fn new(settings: Option<&StateSettings>, metrics: StoreMetrics) -> Self {
        let ledger = Self(Arc::new(Shared {
            backlog: Mutex::default(),
            more: Condvar::new(),
            idle: Condvar::new(),
            sampler: Sampler::default(),
            is_off: AtomicBool::new(false),
            urgent_told: AtomicU64::new(0),
            urgent_written: watch::Sender::new(0),
            keep_ms: AtomicU64::new(u64::MAX),
            rows_max: AtomicU64::new(u64::MAX),
            metrics,
        }));
        if let Some(settings) = settings {
            ledger.configure(settings);
        }
        ledger
    }

    /// Takes over new bounds; the path is the writer's, and stays.
    pub fn configure(&self, settings: &StateSettings) {
        let keep = u64::try_from(settings.ledger_keep.as_millis()).unwrap_or(u64::MAX);
        self.0.keep_ms.store(keep, Ordering::Relaxed);
        self.0.rows_max.store(settings.ledger_rows_max, Ordering::Relaxed);
        self.0.sampler.per_second.store(settings.ledger_successes_per_second, Ordering::Relaxed);
    }

    /// Takes a finished story, unless it is one of many that succeeded at once. What was taken is
    /// gone from `story`; nobody may need it after this.
    pub fn tell(&self, story: &mut Story) {
        let shared = &*self.0;
        if shared.is_off.load(Ordering::Relaxed) {
            return;
        }
        shorten(&mut story.path);
        let ended = story.started.unix_ms + took_ms(story);
        if !is_plain(story) || shared.sampler.keeps(ended, story) {
            shared.keep(story);
        }
    }

    /// Takes an event.
    pub fn event(&self, event: &EventView, urgent: bool) {
        if self.0.is_off.load(Ordering::Relaxed) {
            return;
        }
        let mut backlog = self.0.lock();
        if backlog.events.len() < EVENTS_MAX {
            backlog.events.push(event.clone());
        } else {
            self.0.metrics.events_dropped.inc();
        }
        let wake = backlog.events.len() == 1 || (urgent && !backlog.urgent);
        self.0.urgent_told.fetch_add(u64::from(urgent), Ordering::Release);
        backlog.urgent |= urgent;
        drop(backlog);
        if wake {
            self.0.more.notify_one();
        }
    }

    /// Waits until what upstreams said so far is on disk, for a quarter of a second at most. Whoever
    /// acts on it where others can see waits for this first, so that no crash makes forbear forget
    /// what it already acted on. Usually there is nothing to wait for.
    pub async fn kept(&self) {
        let told = self.0.urgent_told.load(Ordering::Acquire);
        if *self.0.urgent_written.borrow() < told {
            // Boxed, so that exchanges that learned nothing do not carry what this needs.
            Box::pin(self.written(told)).await;
        }
    }

    async fn written(&self, told: u64) {
        let mut written = self.0.urgent_written.subscribe();
        let all = written.wait_for(|written| *written >= told);
        // Too slow, or the writer has ended: traffic goes on.
        let _ = tokio::time::timeout(KEPT_WITHIN, all).await;
    }

    /// Asks the writer, which first writes what was told before.
    ///
    /// # Errors
    /// When too many ask.
    pub async fn ask(&self, question: Question) -> Result<Answer, AskError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut backlog = self.0.lock();
            let is_full = backlog.questions.len() >= QUESTIONS_MAX;
            if backlog.closing || is_full || self.0.is_off.load(Ordering::Relaxed) {
                return Err(AskError::Busy);
            }
            backlog.questions.push_back(Asked { question, reply });
        }
        self.0.more.notify_one();
        answer.await.map_err(|_| AskError::Busy)
    }
}

impl Shared {
    /// Urgent events that were told so far; what is written after this has all of them.
    pub(super) fn urgent_told(&self) -> u64 {
        self.urgent_told.load(Ordering::Acquire)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, story: &mut Story) {
        let record = Record { story: Box::new(story.take()), weight: 1 };
        let mut backlog = self.lock();
        if backlog.records.len() >= RECORDS_MAX || backlog.closed {
            drop(backlog);
            self.metrics.dropped.inc();
            return;
        }
        backlog.records.push(record);
        let waiting = backlog.records.len();
        drop(backlog);
        // In between, the writer only collects, and need not be told.
        if waiting == 1 || waiting == BATCH_RECORDS {
            self.more.notify_one();
        }
    }
}

/// Cuts off what is too long of a path.
fn shorten(path: &mut String) {
    if path.len() > PATH_BYTES_MAX {
        let end = (0..=PATH_BYTES_MAX).rev().find(|at| path.is_char_boundary(*at));
        *path = format!("{}…", path.get(..end.unwrap_or(0)).unwrap_or_default());
    }
}

/// Whether nothing happened that somebody would ask about: sent once, at once, and answered well.
fn is_plain(story: &Story) -> bool {
    story.ending == Ending::Ok
        && story.decision == Decision::Pass
        && story.attempts.len() == 1
        && story.shadow.is_none()
        && story.waited.total() < AT_ONCE
}

fn took_ms(story: &Story) -> i64 {
    i64::try_from(story.took.as_millis()).unwrap_or(0)
}
