//! The store against real files: what was told comes back, bounds hold, and whatever is wrong with
//! the file, telling goes on.

mod files;
mod questions;
mod sampling;
mod state;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Store;
use super::ledger::{Ledger, RECORDS_MAX};
use super::read::{Answer, Filter, Question};
use super::view::ExchangeView;
use crate::config::settings::StateSettings;
use crate::gateway::clock::Clock;
use crate::policy::line::CredentialId;
use crate::policy::outcome::{Class, Hint, HintSource, QuotaReading, Sent, WaitKind, Waits};
use crate::policy::time::WallTime;
use crate::telemetry::store::StoreMetrics;
use crate::telemetry::story::{AttemptStory, Decision, Ending, Notes, RequestId, Story, Told};

/// Longest wait for the writer's thread.
const DEADLINE: Duration = Duration::from_secs(20);
/// 2026-01-15T10:00:00Z, which the clock of these tests shows at the start.
const BEGIN: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn settings(path: &Path) -> StateSettings {
    StateSettings {
        path: path.to_str().unwrap().to_owned(),
        ledger_keep: Duration::from_secs(7 * 86_400),
        ledger_rows_max: 200_000,
        ledger_successes_per_second: 10,
    }
}

fn open(settings: &StateSettings) -> (Store, StoreMetrics) {
    let metrics = StoreMetrics::unregistered();
    (Store::open(settings, Clock::pinned(BEGIN), metrics.clone()).unwrap(), metrics)
}

fn waits(kinds: &[(WaitKind, u64)]) -> Waits {
    let mut waits = Waits::default();
    for (kind, span) in kinds {
        waits.charge(*kind, ms(*span));
    }
    waits
}

fn attempt(n: u8, status: u16, class: Class, took: u64) -> AttemptStory {
    AttemptStory {
        n,
        status: Some(status),
        class,
        sent: Sent::Answered,
        error: None,
        sent_after: Duration::ZERO,
        took: ms(took),
        hint: None,
        told: Default::default(),
        waited: Waits::default(),
    }
}

/// A GET that was answered 200 at once, `at` milliseconds after the beginning.
pub(super) fn plain(at: u64, upstream: &str) -> Story {
    let started = BEGIN + ms(at);
    Story {
        id: RequestId::new(started, u128::from(at)),
        started,
        upstream: Some(upstream.into()),
        route: Some("default".into()),
        method: http::Method::GET,
        path: "/items".to_owned(),
        keys: Vec::new(),
        flow: None,
        run: None,
        trace: None,
        attempts: vec![attempt(1, 200, Class::Ok, 40)],
        waited: Waits::default(),
        shadow: None,
        decision: Decision::Pass,
        status: 200,
        ending: Ending::Ok,
        bytes_up: 0,
        bytes_down: 12,
        took: ms(45),
        streamed: ms(4),
        notes: Notes::default(),
    }
}

/// What an answer says of two quotas; the second is nearer to its end.
fn told() -> Told {
    let quota = |name: &str, limit, remaining, reset| QuotaReading {
        name: Some(name.into()),
        limit: Some(limit),
        remaining,
        reset: Some(ms(reset)),
        window: None,
    };
    let quotas = vec![quota("day", 5_000, 4_000, 3_600_000), quota("minute", 100, 12, 8_000)];
    Told { bucket: Some("search".into()), quotas }
}

/// Queued for a key, refused once with a time, and then answered well.
fn recovered(at: u64, upstream: &str) -> Story {
    let before = waits(&[(WaitKind::Queue, 3_200)]);
    let between = waits(&[(WaitKind::Cooldown, 30_400)]);
    let mut waited = before;
    waited.add(&between);
    let refused = AttemptStory {
        hint: Some(Hint {
            wait: ms(30_000),
            source: HintSource::RetryAfterDelta,
            raw: Some("retry-after: 30".into()),
        }),
        waited: before,
        ..attempt(1, 429, Class::Throttled, 12)
    };
    Story {
        keys: vec!["ingestion".into()],
        run: Some("nightly-7".into()),
        attempts: vec![
            refused,
            AttemptStory { waited: between, told: told(), ..attempt(2, 200, Class::Ok, 212) },
        ],
        waited,
        decision: Decision::Retried,
        took: ms(33_830),
        notes: Notes {
            behind: Some(41),
            credential: CredentialId(0x2f3a_9c01_2345_6789),
            ..Notes::default()
        },
        ..plain(at, upstream)
    }
}

/// Answered 500 four times.
fn failed(at: u64, upstream: &str) -> Story {
    let pause = waits(&[(WaitKind::Backoff, 500)]);
    let again = |n| AttemptStory { waited: pause, ..attempt(n, 500, Class::Unhealthy, 20) };
    let first = attempt(1, 500, Class::Unhealthy, 20);
    Story {
        run: Some("nightly-7".into()),
        attempts: vec![first, again(2), again(3), again(4)],
        waited: waits(&[(WaitKind::Backoff, 1_500)]),
        decision: Decision::AttemptsSpent,
        status: 500,
        ending: Ending::ServerError,
        took: ms(1_590),
        ..plain(at, upstream)
    }
}

/// Refused by forbear before anything was sent.
fn refused(at: u64, upstream: &str) -> Story {
    Story {
        run: Some("hourly-3".into()),
        attempts: Vec::new(),
        decision: Decision::Rejected("breaker_open"),
        status: 503,
        ending: Ending::Rejected("breaker_open"),
        took: ms(1),
        streamed: ms(0),
        notes: Notes {
            retry_at: Some(BEGIN + ms(60_000)),
            reason: Some("The breaker is open.".into()),
            ..Notes::default()
        },
        ..plain(at, upstream)
    }
}

fn ask(ledger: &Ledger, question: Question) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(ledger.ask(question)).unwrap()
}

fn one(ledger: &Ledger, story: &Story) -> ExchangeView {
    let id = story.id.to_string();
    match ask(ledger, Question::One(id)) {
        Answer::Found(mut found) => found.pop().unwrap(),
        Answer::Unknown { .. } | Answer::Failed(_) => panic!("it was told"),
    }
}

/// The same, once it was told.
fn one_after(store: &Store, story: &Story) -> ExchangeView {
    store.ledger().tell(&mut story.clone());
    one(store.ledger(), story)
}

fn last(ledger: &Ledger) -> Vec<ExchangeView> {
    match ask(ledger, Question::Last(Filter { last: 1000, ..Filter::default() })) {
        Answer::Found(found) => found,
        Answer::Unknown { .. } | Answer::Failed(_) => panic!("it was told"),
    }
}

fn count(path: &Path, table: &str) -> i64 {
    let connection = super::file::open_to_read(path).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Everything that takes time, of an exchange.
fn intervals(view: &ExchangeView) -> f64 {
    let waited: f64 = view.waited_ms.values().sum();
    let sending: f64 = view.attempts.iter().map(|attempt| attempt.ms).sum();
    waited + sending + view.streamed_ms + view.own_ms
}

#[test]
fn what_was_told_comes_back_with_attempts_waits_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&settings(&folder.path().join("a.db")));
    let told = recovered(0, "github");

    store.ledger().tell(&mut told.clone());

    let view = one(store.ledger(), &told);
    assert_eq!(view.started.0, BEGIN);
    assert_eq!((view.status, view.outcome.as_str()), (Some(200), "ok"));
    assert_eq!(view.keys, ["ingestion"]);
    assert_eq!((view.behind, view.run.as_deref()), (Some(41), Some("nightly-7")));
    assert_eq!(view.waited_ms["cooldown"], 30_400.0);
    let [first, second] = view.attempts.as_slice() else { panic!("{view:?}") };
    let hint = first.hint.as_ref().unwrap();
    assert_eq!(
        (hint.source.as_str(), hint.raw.as_deref()),
        ("retry-after", Some("retry-after: 30"))
    );
    assert_eq!((first.status, first.waited_ms["queue"]), (Some(429), 3_200.0));
    assert_eq!((second.n, second.ms, &second.hint), (2, 212.0, &None));
    assert_eq!(view.own_ms, 2.0);
    // Digits by which scopes are called, too, and never more of it.
    assert_eq!(view.credential.as_deref(), Some("2f3a9c"));
    assert_eq!((&first.bucket, &first.quota), (&None, &None));
    assert_eq!(second.bucket.as_deref(), Some("search"));
    let quota = second.quota.as_ref().unwrap();
    assert_eq!(
        (quota.name.as_deref(), quota.limit, quota.remaining),
        (Some("minute"), Some(100), 12)
    );
    assert_eq!((quota.reset_ms, quota.window_ms), (Some(8_000.0), None));
    assert_eq!(one_after(&store, &plain(9, "github")).credential, None);
}

#[test]
fn intervals_add_up_to_the_time_of_the_exchange() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&settings(&folder.path().join("a.db")));
    let mut left = recovered(3, "github");
    // Its client left while the third attempt was on its way.
    left.took += ms(700);
    left.notes.sending = true;
    left.ending = Ending::ClientDisconnect;
    let stories = [plain(0, "a"), recovered(1, "a"), failed(2, "a"), left, refused(4, "a")];
    for story in &stories {
        store.ledger().tell(&mut story.clone());
        let view = one(store.ledger(), story);
        assert!((intervals(&view) - view.took_ms).abs() < 0.01, "{view:?}");
    }
    let view = one(store.ledger(), &stories[3]);
    let third = &view.attempts[2];
    assert_eq!((third.status, third.ms, view.own_ms), (None, 702.0, 0.0));
}

#[test]
fn rows_have_a_bound_and_the_oldest_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = open(&StateSettings { ledger_rows_max: 1_000, ..settings(&path) });
    for at in 0..3_000 {
        store.ledger().tell(&mut failed(at, "a"));
        if at % 500 == 0 {
            assert!(store.flush(DEADLINE));
        }
    }
    let newest = one(store.ledger(), &failed(2_999, "a"));
    assert_eq!(newest.attempts.len(), 4);
    assert!(store.close(DEADLINE));

    // Each has one row and four of attempts.
    assert_eq!((count(&path, "exchange"), count(&path, "attempt")), (200, 800));
}

#[test]
fn rows_have_an_age_that_a_reload_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (store, _) = open(&settings(&path));
    let mut old = refused(0, "a");
    old.started = WallTime { unix_ms: BEGIN.unix_ms - 3_600_000 };
    store.ledger().tell(&mut old);
    store.ledger().tell(&mut refused(1, "a"));
    assert_eq!(last(store.ledger()).len(), 2);

    let shorter = StateSettings { ledger_keep: ms(1_800_000), ..settings(&path) };
    store.ledger().configure(&shorter);
    store.ledger().tell(&mut refused(2, "a"));

    assert_eq!(last(store.ledger()).len(), 2);
}

#[test]
fn a_full_backlog_drops_and_counts_and_never_waits() {
    let metrics = StoreMetrics::unregistered();
    // Nobody writes what it is told.
    let ledger = Ledger::new(None, metrics.clone());
    for at in 0..RECORDS_MAX as u64 + 7 {
        ledger.tell(&mut failed(at, "a"));
    }
    assert_eq!(metrics.dropped.get(), 7);
}

#[test]
fn queries_and_long_paths_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&settings(&folder.path().join("a.db")));
    let mut secret = refused(0, "a");
    secret.path = format!("/{}?token=hunter2", "ä".repeat(3));
    let mut long = refused(1, "a");
    long.path = format!("/{}", "ä".repeat(50_000));
    store.ledger().tell(&mut secret);
    store.ledger().tell(&mut long);

    let kept = last(store.ledger());

    assert_eq!(kept[0].path, "/äää");
    assert!(kept[1].path.len() < 1_100 && kept[1].path.ends_with('…'), "{}", kept[1].path.len());
}

#[test]
fn an_id_that_is_not_there_says_where_the_ledger_begins() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&settings(&folder.path().join("a.db")));
    let asked = || ask(store.ledger(), Question::One(plain(5, "a").id.to_string()));
    assert!(matches!(asked(), Answer::Unknown { oldest: None }));
    store.ledger().tell(&mut refused(0, "a"));
    assert!(matches!(asked(), Answer::Unknown { oldest: Some(BEGIN) }));

    let said = |id: &str, oldest| super::read::unknown(id, oldest, None);
    assert!(said("01M7", None).contains("26 digits"));
    let id = plain(5, "a").id.to_string();
    assert!(said(&id, Some(BEGIN + ms(9))).contains("state.ledger_keep"));
    assert!(said(&id, Some(BEGIN)).contains("state.ledger_successes_per_second"));
}

#[test]
fn a_store_in_memory_answers_as_one_on_disk() {
    let settings = StateSettings { path: ":memory:".to_owned(), ..settings(Path::new("x")) };
    let (store, _) = open(&settings);
    let told = recovered(0, "github");
    store.ledger().tell(&mut told.clone());
    assert_eq!(one(store.ledger(), &told).attempts.len(), 2);
    assert!(!Path::new(":memory:").exists());
}
