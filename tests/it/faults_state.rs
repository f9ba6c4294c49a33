//! The disk under the state file is full, read-only or breaks, and the wall clock is set: traffic
//! goes on, nothing that an API said is forgotten or stretched, and it is said once.

use std::path::Path;
use std::time::Duration;

use forbear::demo::api::FakeApi;
use forbear::demo::settings::ApiSettings;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::binary::{Binary, folder_with};
use crate::support::forbear::with_free_ports;
use crate::support::raw::{RawClient, RawResponse};
use crate::support::surroundings::{
    DISK, can_mount, can_set_the_clock, disk_of, fill, make_room, set_clock, spoil, start_on_disk,
    start_with_clock,
};
use crate::support::world::{answer, request, retry_after};

const UP: &str = "forbear_store_up{backend=\"sqlite\"}";
const FALLBACK: &str = "forbear_store_fallback_active{backend=\"sqlite\"}";
const LOST: &str = "forbear_ledger_records_total{record=\"exchange\",result=\"dropped\"}";
const MOVED: &str =
    "forbear_store_operations_total{backend=\"sqlite\",op=\"move_aside\",result=\"ok\"}";
const DAY_S: i64 = 86_400;
/// What the API says in these tests, and the most that is added to it.
const TOLD_S: u64 = 600;
const MARGIN_S: u64 = 2;
/// No test takes as long.
const TEST_S: u64 = 120;

async fn api() -> FakeApi {
    FakeApi::start(ApiSettings::default()).await.unwrap()
}

/// The configuration of two upstreams, of which `ill` opens its breaker at once; every exchange has
/// a row in this file.
fn configuration(api: &FakeApi, path: &str) -> String {
    format!(
        "[log]\naccess = \"off\"\n\
         [state]\npath = \"{path}\"\nledger_successes_per_second = 1000000\n\
         [defaults]\nretry.attempts_max = 1\n\
         [upstreams.api]\nurl = \"{0}\"\n[upstreams.ill]\nurl = \"{0}\"\n\
         breaker.consecutive_failures = 1\nbreaker.open_for = \"10m\"\n",
        api.url()
    )
}

/// A folder with it.
fn folder(api: &FakeApi, path: &str) -> TempDir {
    folder_with(&with_free_ports(&configuration(api, path))).0
}

async fn ask(binary: &Binary, path: &str, fields: &[&str]) -> RawResponse {
    let fields = [fields, &["Forbear-Wait: none"]].concat();
    let mut client = RawClient::connect(binary.proxy()).await;
    client.ask(request(&format!("GET {path}"), &fields, b"")).await
}

/// So many requests, all of which are answered.
async fn traffic(binary: &Binary, requests: u32) {
    for n in 0..requests {
        let answer = ask(binary, &format!("/api/items/{n}"), &[]).await;
        assert_eq!(answer.status, 200, "{}\n{:#?}", answer.head, binary.lines());
    }
}

/// The API refuses this credential, and names a time.
async fn refuse(binary: &Binary, api: &FakeApi, who: &str) {
    api.script("/items/x", [answer(429, &[("retry-after", "600")], "")]);
    let answer = ask(binary, "/api/items/x", &[&format!("Authorization: {who}")]).await;
    assert_eq!(answer.status, 429, "{}", answer.head);
}

/// That what the API said to this credential holds, and for no longer than it said.
async fn assert_held(binary: &Binary, who: &str) {
    let answer = ask(binary, "/api/items/x", &[&format!("Authorization: {who}")]).await;
    assert_eq!(
        answer.field("forbear-decision"),
        Some("cooldown"),
        "{who}: {} {:#?}",
        answer.head,
        binary.lines()
    );
    let left = retry_after(&answer);
    assert!((TOLD_S - TEST_S..=TOLD_S + MARGIN_S).contains(&left), "{who}: {}", answer.head);
}

/// Lines of the log with this text.
fn said(binary: &Binary, text: &str) -> usize {
    binary.lines().iter().filter(|line| line.contains(text)).count()
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_costs_stories_and_says_so_once_until_there_is_room() {
    if !can_mount().await {
        return;
    }
    let api = api().await;
    let mut binary = start_on_disk(folder(&api, "disk/a.db"), 1 << 20, "true").await;
    refuse(&binary, &api, "before").await;
    let disk = disk_of(&binary);
    fill(&disk);
    for round in 0..200 {
        traffic(&binary, 20).await;
        if binary.metric(UP).await == 0.0 {
            break;
        }
        assert!(round < 199, "there is still room");
    }
    assert_eq!(binary.metric(FALLBACK).await, 1.0);
    binary.until_printed("why", |line| line.contains("cannot be written; traffic goes on")).await;
    // From now on, there is always room for a little, such as state, and never for much.
    let filler = std::fs::OpenOptions::new().write(true).open(disk.join("filler")).unwrap();
    for round in 0..4 {
        let length = filler.metadata().unwrap().len();
        filler.set_len(length - 8 * 4096).unwrap();
        traffic(&binary, 150).await;
        refuse(&binary, &api, &format!("round {round}")).await;
        assert_held(&binary, "before").await;
        // The next time that it is written, or tried.
        binary.admin_get("/api/v1/exchanges?last=1").await;
    }
    assert_eq!(said(&binary, "the state file can"), 1, "{:#?}", binary.lines());
    assert_eq!(binary.metric(UP).await, 0.0);
    assert!(binary.metric(LOST).await > 0.0);

    drop(filler);
    make_room(&disk);
    for round in 0..1_000 {
        traffic(&binary, 1).await;
        if binary.metric(UP).await == 1.0 {
            break;
        }
        assert!(round < 999, "{:#?}", binary.lines());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(said(&binary, "the state file can be written again"), 1);
    traffic(&binary, 5).await;
    assert_eq!(said(&binary, "the state file can"), 2, "{:#?}", binary.lines());

    // As a kill leaves it: nothing more is written from here on.
    binary.signal(Signal::STOP);
    let next = folder(&api, "disk/a.db");
    copy_all(&disk, &next.path().join(DISK));
    binary.signal(Signal::KILL);
    binary.ended().await;
    let next = Binary::start_in(next, &[]).await;
    for who in ["before", "round 0", "round 3"] {
        assert_held(&next, who).await;
    }
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_from_the_start_is_done_without() {
    if !can_mount().await {
        return;
    }
    let full = "{ head -c 300k /dev/zero > disk/filler 2>/dev/null; true; }";
    for (before, why) in [
        (full, "full"),
        ("mount -o remount,ro disk", "Read-only file system"),
        ("{ cp old/* disk/; mount -o remount,ro disk; }", "Read-only file system"),
    ] {
        let api = api().await;
        let folder = folder(&api, "disk/a.db");
        let earlier = Binary::start(&configuration(&api, "a.db")).await;
        traffic(&earlier, 1).await;
        copy_all(earlier.folder(), &folder.path().join("old"));

        let binary = start_on_disk(folder, 200 << 10, before).await;

        traffic(&binary, 5).await;
        refuse(&binary, &api, "one").await;
        assert_held(&binary, "one").await;
        assert_eq!(binary.metric(UP).await, 0.0, "{before}");
        assert_eq!(binary.metric(FALLBACK).await, 1.0, "{before}");
        let lines = binary.lines();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("state.path")).collect();
        assert_eq!(told.len(), 1, "{before}: {lines:#?}");
        assert!(told[0].contains(why) && told[0].contains("ERROR"), "{before}: {}", told[0]);
        // Kept in memory, and found there.
        let id = ask(&binary, "/api/items/9", &[]).await;
        let id = id.field("forbear-request-id").unwrap();
        let story = binary.admin_get(&format!("/api/v1/exchanges/{id}")).await;
        assert_eq!(story.status, 200, "{before}: {}", story.text());
    }
}

#[tokio::test]
async fn pages_that_break_under_it_cost_stories_and_nothing_else() {
    let api = api().await;
    let keep = |rows: u32| {
        let text = configuration(&api, "a.db");
        text.replace("path =", &format!("ledger_rows_max = {rows}\npath ="))
    };
    let mut binary = Binary::start(&keep(100_000)).await;
    refuse(&binary, &api, "before").await;
    // More than is held in memory, so that it has to be read again.
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let proxy = binary.proxy();
        clients.spawn(async move {
            let mut connection = RawClient::connect(proxy).await;
            for n in 0..300 {
                let path = format!("GET /api/{}/{client}/{n}", "items".repeat(180));
                let answer = connection.ask(request(&path, &[], b"")).await;
                assert_eq!(answer.status, 404, "{}", answer.head);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    // Asking the ledger writes what was told before.
    binary.admin_get("/api/v1/exchanges?last=1").await;
    spoil(&binary.folder().join("a.db"), 8_192);
    spoil(&binary.folder().join("a.db-wal"), 32);

    // The oldest shall go, and cannot be read.
    assert_eq!(binary.reload(&keep(1_000)).await.status, 200);
    traffic(&binary, 5).await;
    binary.until_metric(MOVED, 1.0).await;

    traffic(&binary, 5).await;
    assert_held(&binary, "before").await;
    refuse(&binary, &api, "after").await;
    binary.until_metric(UP, 1.0).await;
    assert_eq!(said(&binary, "the state file is broken"), 1, "{:#?}", binary.lines());
    assert!(binary.folder().join("a.db.corrupt").exists());
    binary.signal(Signal::KILL);
    binary.ended().await;
    let next = Binary::start_in(binary.into_folder(), &[]).await;
    assert_held(&next, "before").await;
    assert_held(&next, "after").await;
    assert_eq!(next.metric(UP).await, 1.0);
}

/// What was learned holds, and no longer than it was told.
async fn assert_all_held(binary: &Binary, when: &str) {
    traffic(binary, 3).await;
    assert_held(binary, "one").await;
    let ill = ask(binary, "/ill/items/1", &[]).await;
    assert_eq!(ill.field("forbear-decision"), Some("breaker_open"), "{when}: {}", ill.head);
    let left = binary.view("ill").await["breaker"][0]["open_remaining_ms"].as_u64().unwrap();
    assert!((300_000..=720_000).contains(&left), "{when}: {left}");
    assert_eq!(binary.metric(UP).await, 1.0, "{when}");
}

/// A forbear with a cooldown, an open breaker, and rows in its ledger.
async fn with_state(api: &FakeApi) -> Binary {
    let binary = start_with_clock(folder(api, "a.db"), 0).await;
    refuse(&binary, api, "one").await;
    api.script("/items/1", [answer(500, &[], "")]);
    assert_eq!(ask(&binary, "/ill/items/1", &[]).await.status, 500);
    assert_all_held(&binary, "at first").await;
    binary
}

#[tokio::test]
async fn a_clock_that_is_set_while_it_runs_changes_no_wait() {
    if !can_set_the_clock() {
        return;
    }
    let api = api().await;
    let binary = with_state(&api).await;
    for (n, ahead) in [-DAY_S, 365 * DAY_S, 0].into_iter().enumerate() {
        set_clock(&binary, ahead);
        let when = format!("the clock is {ahead} s ahead");
        // It looks each second.
        for _ in 0..500 {
            if said(&binary, "the wall clock was set") > n {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_all_held(&binary, &when).await;
        // What is told from now on is not stretched, either.
        let who = format!("clock {ahead}");
        refuse(&binary, &api, &who).await;
        assert_held(&binary, &who).await;
        assert_eq!(said(&binary, "the wall clock was set"), n + 1, "{:#?}", binary.lines());
    }
    // A week is what is kept; no story is older.
    let all = binary.admin_get("/api/v1/exchanges?last=1000&upstream=ill").await;
    assert!(all.text().contains("\"status\":500"), "{}", all.text());
}

#[tokio::test]
async fn a_clock_that_is_set_between_two_runs_changes_no_wait() {
    if !can_set_the_clock() {
        return;
    }
    let api = api().await;
    let mut binary = with_state(&api).await;
    for (ahead, signal) in
        [(-DAY_S, Signal::KILL), (365 * DAY_S, Signal::TERM), (-DAY_S, Signal::KILL)]
    {
        binary.signal(signal);
        binary.ended().await;
        binary = start_with_clock(binary.into_folder(), ahead).await;
        assert_all_held(&binary, &format!("{ahead} s ahead")).await;
    }
}
