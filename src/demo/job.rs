//! The job that the demo runs: fetch N items with C workers, and count which were got.
//!
//! A worker is what pipelines have: a session with one connection, and one of two habits when a
//! request fails. The job itself is the same in every run; only habit and base URL differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::{Client, ClientError};
use super::clock::Stopwatch;

/// Longest wait for one answer, so that no defect can make the demo hang. Well above the longest
/// that forbear holds an exchange in the demo.
const ANSWER_MAX: Duration = Duration::from_secs(45);

/// What a worker does when a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// One attempt; a failure loses the item.
    OneAttempt,
    /// Up to `attempts_max` attempts with the same wait before each further one, whatever the
    /// failure was: tenacity's `wait_fixed`.
    FixedWait {
        /// Between two attempts.
        wait: Duration,
        /// The first one included.
        attempts_max: u32,
    },
}

/// What is to be fetched, and how.
#[derive(Clone, Debug)]
pub struct Job {
    /// `/items/{n}` is appended to it.
    pub base_url: String,
    /// Items to fetch, one request each.
    pub items: u32,
    /// Workers at the same time.
    pub workers: u32,
    /// What they do when a request fails.
    pub habit: Habit,
}

/// How far a running job is.
#[derive(Debug, Default)]
pub struct Progress {
    next: AtomicU32,
    good: AtomicU32,
    lost: AtomicU32,
}

impl Progress {
    /// Items got and items lost so far.
    pub fn so_far(&self) -> (u32, u32) {
        (self.good.load(Relaxed), self.lost.load(Relaxed))
    }
}

/// How a job went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// From the first request to the last answer.
    pub took: Duration,
    /// Items got.
    pub good: u32,
    /// Items that were given up.
    pub lost: u32,
}

impl Job {
    /// Runs it to its end; `progress` can be read meanwhile. Dropping the future ends it.
    ///
    /// # Errors
    /// The base URL is none. Whatever happens to a request loses an item and is no error.
    pub async fn run(&self, progress: Arc<Progress>) -> Result<Report, ClientError> {
        let stopwatch = Stopwatch::start();
        let mut workers = JoinSet::new();
        for _ in 0..self.workers.max(1) {
            let client = Client::new(&self.base_url)?;
            workers.spawn(work(client, self.habit, self.items, Arc::clone(&progress)));
        }
        workers.join_all().await;
        let (good, lost) = progress.so_far();
        Ok(Report { took: stopwatch.elapsed(), good, lost })
    }
}

/// Takes one item after the other until there is none.
async fn work(mut client: Client, habit: Habit, items: u32, progress: Arc<Progress>) {
    loop {
        let item = progress.next.fetch_add(1, Relaxed);
        if item >= items {
            return;
        }
        let counter =
            if fetch(&mut client, habit, item).await { &progress.good } else { &progress.lost };
        counter.fetch_add(1, Relaxed);
    }
}

/// Whether the item was got in the end.
async fn fetch(client: &mut Client, habit: Habit, item: u32) -> bool {
    let path = format!("/items/{item}");
    let (wait, attempts_max) = match habit {
        Habit::OneAttempt => (Duration::ZERO, 1),
        Habit::FixedWait { wait, attempts_max } => (wait, attempts_max),
    };
    for attempt in 1..=attempts_max {
        if attempt > 1 {
            sleep(wait).await;
        }
        let answer = timeout(ANSWER_MAX, client.send(Method::GET, &path, Bytes::new())).await;
        if matches!(answer, Ok(Ok(response)) if response.status().is_success()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::api::FakeApi;
    use crate::demo::script::Step;
    use crate::demo::settings::ApiSettings;

    /// Five items, of which the second fails twice: once by status, once by a reset.
    async fn run(habit: Habit) -> (Report, FakeApi) {
        let api = FakeApi::start(ApiSettings::default()).await.expect("a loopback port is free");
        api.script("/items/1", [Step::Status(429, Vec::new(), Bytes::new()), Step::Reset]);
        let job = Job { base_url: api.url(), items: 5, workers: 2, habit };
        (job.run(Arc::default()).await.unwrap(), api)
    }

    #[tokio::test]
    async fn one_attempt_loses_what_fails() {
        let (report, api) = run(Habit::OneAttempt).await;
        assert_eq!((report.good, report.lost), (4, 1));
        assert_eq!(api.counters().requests, 5);
    }

    #[tokio::test]
    async fn a_fixed_wait_repeats_until_its_attempts_are_used_up() {
        let wait = Duration::from_millis(1);
        for (attempts_max, lost, requests) in [(2, 1, 6), (3, 0, 7), (9, 0, 7)] {
            let (report, api) = run(Habit::FixedWait { wait, attempts_max }).await;
            assert_eq!((report.lost, api.counters().requests), (lost, requests));
        }
    }

    #[tokio::test]
    async fn an_answer_is_an_items_only_if_it_is_complete() {
        let api = FakeApi::start(ApiSettings::default()).await.expect("a loopback port is free");
        api.script("/items/0", [Step::Truncate]);
        let job = Job { base_url: api.url(), items: 1, workers: 1, habit: Habit::OneAttempt };
        let report = job.run(Arc::default()).await.unwrap();
        assert_eq!((report.good, report.lost), (0, 1));
    }
}
