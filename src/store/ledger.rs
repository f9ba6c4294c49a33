//! What the data path sees of the store: a finished story is taken, and nothing ever waits.
//!
//! An exchange that succeeded at once, as most do, costs one atomic addition; a few of them each
//! second are kept, and the next one that is kept says how many it stands for. Whatever is kept is
//! moved, not copied, into a bounded backlog that the writer takes whole. When that is full, the
//! story is dropped and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::read::{Answer, Question};
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
    sampler: Sampler,
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

/// A story and how many exchanges it stands for.
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
        let weight = if is_plain(story) {
            match shared.sampler.weight(story.started.unix_ms + took_ms(story)) {
                Some(weight) => weight,
                None => return,
            }
        } else {
            1
        };
        if !shared.is_off.load(Ordering::Relaxed) {
            shared.keep(story, weight);
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

    /// Successes that were only counted since the last one that was kept.
    pub fn uncounted(&self) -> u64 {
        self.0.sampler.skipped.load(Ordering::Relaxed)
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

    fn keep(&self, story: &mut Story, weight: u64) {
        if story.path.len() > PATH_BYTES_MAX {
            let end = (0..=PATH_BYTES_MAX).rev().find(|at| story.path.is_char_boundary(*at));
            story.path = format!("{}…", story.path.get(..end.unwrap_or(0)).unwrap_or_default());
        }
        let record = Record { story: Box::new(story.take()), weight };
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

/// Lets the first few of each second through. What it holds back is counted, and the next one that
/// goes through stands for it, so that sums over the ledger stay right.
#[derive(Default)]
struct Sampler {
    per_second: AtomicU32,
    second: AtomicU64,
    taken: AtomicU32,
    skipped: AtomicU64,
}

impl Sampler {
    /// `None` to hold it back; otherwise how many exchanges it stands for. Races between threads
    /// at the turn of a second let a few more through, and lose no count.
    fn weight(&self, unix_ms: i64) -> Option<u64> {
        let second = unix_ms.unsigned_abs() / 1000;
        if self.second.load(Ordering::Relaxed) != second
            && self.second.swap(second, Ordering::Relaxed) != second
        {
            self.taken.store(0, Ordering::Relaxed);
        }
        let limit = self.per_second.load(Ordering::Relaxed);
        // Looked at before it is added to, so that it cannot wrap.
        if self.taken.load(Ordering::Relaxed) >= limit
            || self.taken.fetch_add(1, Ordering::Relaxed) >= limit
        {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(1 + self.skipped.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_keeps_the_first_of_each_second_and_counts_the_others() {
        let sampler = Sampler::default();
        sampler.per_second.store(3, Ordering::Relaxed);
        let mut stood_for = 0;
        let mut kept = 0;
        for ms in 0..4000 {
            if let Some(weight) = sampler.weight(1_768_471_200_000 + ms) {
                kept += 1;
                stood_for += weight;
            }
        }
        assert_eq!(kept, 12);
        assert_eq!(stood_for + sampler.skipped.load(Ordering::Relaxed), 4000);
    }

    #[test]
    fn a_sample_of_none_keeps_none() {
        let sampler = Sampler::default();
        assert!((0..10).all(|second| sampler.weight(second * 1000).is_none()));
    }
}
