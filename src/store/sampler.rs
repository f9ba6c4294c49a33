//! Which successes get a row of their own, and who stands for the others.
//!
//! The first few of each second are kept. Of the others, the last one of each upstream and run is
//! held until the writer comes by, once a second, and takes it with the number of those for which it
//! stands. So sums over the ledger are right for each upstream and each run, also at the end and
//! where several of them share the seconds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ledger::Record;
use crate::policy::time::MonoTime;
use crate::telemetry::story::Story;

/// Upstreams and runs that are told apart at once: more than are at work beside one sidecar, at a
/// story of about 1 KB and a row a second each. Those beyond share one row.
const KEYS_MAX: usize = 256;
/// What is held is taken so often at most, however often the writer comes by.
const TAKE_EVERY: Duration = Duration::from_secs(1);

/// Lets the first few of each second through, and holds what stands for the others.
#[derive(Default)]
pub(super) struct Sampler {
    pub(super) per_second: AtomicU32,
    second: AtomicU64,
    taken: AtomicU32,
    held: Mutex<Held>,
}

/// Who stands for those that were not let through.
#[derive(Default)]
struct Held {
    /// By upstream and run.
    by_key: HashMap<Key, Group>,
    /// Of those beyond [`KEYS_MAX`].
    others: Group,
    taken_at: MonoTime,
}

type Key = (Option<Arc<str>>, Option<Arc<str>>);

/// The last of some stories, and how many they are.
#[derive(Default)]
struct Group {
    last: Option<Box<Story>>,
    count: u64,
}

impl Sampler {
    /// Whether a success gets a row of its own. If not, it was taken from `story`, unless none are
    /// wanted at all. Races between threads at the turn of a second let a few more through.
    pub(super) fn keeps(&self, unix_ms: i64, story: &mut Story) -> bool {
        let second = unix_ms.unsigned_abs() / 1000;
        if self.second.load(Ordering::Relaxed) != second
            && self.second.swap(second, Ordering::Relaxed) != second
        {
            self.taken.store(0, Ordering::Relaxed);
        }
        let limit = self.per_second.load(Ordering::Relaxed);
        // Looked at before it is added to, so that it cannot wrap.
        let has_room = self.taken.load(Ordering::Relaxed) < limit
            && self.taken.fetch_add(1, Ordering::Relaxed) < limit;
        has_room || (limit > 0 && self.lock().is_first(story))
    }

    /// Moves what is held to `records`, if a second has passed since the last time or `all` is wanted.
    pub(super) fn take(&self, records: &mut Vec<Record>, now: MonoTime, all: bool) {
        let mut held = self.lock();
        if !all && now.since(held.taken_at) < TAKE_EVERY {
            return;
        }
        held.taken_at = now;
        // Whoever was quiet since the last time is forgotten, so that its next one is a first one.
        held.by_key.retain(|_, group| group.count > 0);
        let Held { by_key, others, .. } = &mut *held;
        for group in by_key.values_mut().chain([others]) {
            let weight = std::mem::take(&mut group.count);
            records.extend(group.last.take().map(|story| Record { story, weight }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Whether nothing was held lately of the upstream and run of this story; holds it if not.
    fn is_first(&mut self, story: &mut Story) -> bool {
        let is_full = self.by_key.len() >= KEYS_MAX;
        let group = match self.by_key.entry((story.upstream.clone(), story.run.clone())) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(_) if is_full => &mut self.others,
            Entry::Vacant(new) => {
                new.insert(Group::default());
                return true;
            }
        };
        group.count += 1;
        match &mut group.last {
            Some(last) => **last = story.take(),
            none => *none = Some(Box::new(story.take())),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::time::WallTime;
    use crate::store::tests::plain;

    const BEGIN_MS: i64 = 1_768_471_200_000;

    fn sampler(per_second: u32) -> Sampler {
        let sampler = Sampler::default();
        sampler.per_second.store(per_second, Ordering::Relaxed);
        sampler
    }

    /// Whether a success of this run, so many milliseconds after the beginning, gets its own row.
    fn keeps(sampler: &Sampler, ms: i64, run: &str) -> bool {
        let mut story = plain(0, "a");
        story.started = WallTime { unix_ms: BEGIN_MS + ms };
        story.run = Some(run.into());
        sampler.keeps(BEGIN_MS + ms, &mut story)
    }

    /// What is taken so many seconds after the start: run and weight, in order.
    fn taken(sampler: &Sampler, after: u64, all: bool) -> Vec<(String, u64)> {
        let mut records = Vec::new();
        sampler.take(&mut records, MonoTime::ZERO + Duration::from_secs(after), all);
        let run = |record: &Record| record.story.run.as_deref().unwrap_or_default().to_owned();
        let mut taken: Vec<_> = records.iter().map(|it| (run(it), it.weight)).collect();
        taken.sort();
        taken
    }

    #[test]
    fn a_sample_keeps_the_first_of_each_second_and_one_stands_for_the_others() {
        let sampler = sampler(3);
        let kept = (0..4000).filter(|ms| keeps(&sampler, *ms, "r")).count();
        assert_eq!(kept, 13, "three each second, and the first of the others");
        assert_eq!(taken(&sampler, 4, false), [("r".to_owned(), 3987)]);
        assert_eq!(taken(&sampler, 5, false), []);
    }

    #[test]
    fn a_run_that_was_not_seen_lately_has_a_row_however_full_the_second_is() {
        let sampler = sampler(1);
        for ms in 0..100 {
            keeps(&sampler, ms, "busy");
        }
        assert!(keeps(&sampler, 100, "new"));
        assert!(!keeps(&sampler, 101, "new"));
        assert_eq!(taken(&sampler, 0, false), [], "less than a second has passed");
        assert_eq!(taken(&sampler, 1, false), [("busy".to_owned(), 98), ("new".to_owned(), 1)]);
        // Seen in the last second, and then in none.
        assert!(!keeps(&sampler, 900, "new"));
        assert_eq!(taken(&sampler, 2, false), [("new".to_owned(), 1)]);
        assert_eq!(taken(&sampler, 3, false), []);
        assert!(keeps(&sampler, 901, "new"));
    }

    #[test]
    fn more_runs_than_are_told_apart_share_a_row_and_lose_no_count() {
        let sampler = sampler(1);
        let runs = KEYS_MAX + 10;
        let all = (0..runs).chain(0..runs);
        let kept = all.filter(|run| keeps(&sampler, 0, &run.to_string())).count();
        let taken = taken(&sampler, 0, true);
        assert!(taken.len() <= KEYS_MAX + 1);
        let stood_for: u64 = taken.iter().map(|it| it.1).sum();
        assert_eq!(kept as u64 + stood_for, 2 * runs as u64);
    }

    #[test]
    fn a_sample_of_none_keeps_none() {
        let sampler = sampler(0);
        assert!((0..10).all(|second| !keeps(&sampler, second * 1000, "r")));
        assert_eq!(taken(&sampler, 1, true), []);
    }
}
