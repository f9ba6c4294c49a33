//! Reloading: all or nothing, with nothing learned lost and nobody the worse for it.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use http::{HeaderName, HeaderValue};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::binary::Binary;
use crate::support::forbear::with_free_ports;
use crate::support::raw::{RawClient, RawResponse};

const LAST_RELOAD: &str = "forbear_config_last_reload_successful";
const APPLIED: &str = "forbear_config_reloads_total{result=\"applied\"}";
const REFUSED: &str = "forbear_config_reloads_total{result=\"refused\"}";

pub(crate) async fn api() -> FakeApi {
    FakeApi::start(ApiSettings::default()).await.unwrap()
}

/// One upstream with these settings.
pub(crate) fn upstream(api: &FakeApi, settings: &str) -> String {
    format!("[upstreams.api]\nurl = \"{}\"\n{settings}\n", api.url())
}

/// `n` requests that the API keeps until they are released.
pub(crate) async fn hang(
    binary: &Binary,
    api: &FakeApi,
    n: u32,
) -> (Vec<RawClient>, Vec<Arc<Notify>>) {
    let releases: Vec<_> = (0..n).map(|_| Arc::new(Notify::new())).collect();
    api.script("/items/1", releases.iter().map(|release| Step::Hang(release.clone())));
    let clients = ask(binary, n, "/api/items/1").await;
    api.until("the requests at the API", |seen| seen.requests == n).await.unwrap();
    (clients, releases)
}

/// `n` clients that have sent a request each.
pub(crate) async fn ask(binary: &Binary, n: u32, path: &str) -> Vec<RawClient> {
    let mut clients = Vec::new();
    for _ in 0..n {
        let mut client = RawClient::connect(binary.proxy()).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        clients.push(client);
    }
    clients
}

pub(crate) async fn assert_all_answered(clients: Vec<RawClient>) {
    for mut client in clients {
        let response = client.response().await;
        assert_eq!(response.status, 200, "{}\n{}", response.head, response.text());
    }
}

pub(crate) fn assert_applied(response: &RawResponse, change: &str) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(response.text().contains(change), "{change} is missing: {}", response.text());
}

async fn until_limit(binary: &Binary, limit: u32) {
    let what = format!("a limit of {limit}");
    binary.until_view("api", &what, |view| view["in_flight_max"] == limit).await;
}

#[tokio::test]
async fn a_changed_file_is_applied_by_itself_by_a_signal_and_when_asked() {
    let api = api().await;
    let binary = Binary::start(&upstream(&api, "in_flight_max = 4")).await;
    binary.configure(&upstream(&api, "in_flight_max = 5"));
    until_limit(&binary, 5).await;

    binary.configure(&upstream(&api, "in_flight_max = 6"));
    binary.signal(Signal::HUP);
    until_limit(&binary, 6).await;

    let answer = binary.reload(&upstream(&api, "in_flight_max = 7")).await;
    assert_applied(&answer, "upstreams.api.in_flight_max: 6 → 7");
    until_limit(&binary, 7).await;
    binary
        .until_printed("a line that says what changed", |line| {
            line.contains("configuration applied") && line.contains("in_flight_max: 6 → 7")
        })
        .await;
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_applied() {
    let api = api().await;
    let folder = tempfile::tempdir().unwrap();
    for (name, limit) in [("one", 1), ("two", 2)] {
        let version = folder.path().join(name);
        std::fs::create_dir(&version).unwrap();
        let text = with_free_ports(&upstream(&api, &format!("in_flight_max = {limit}")));
        std::fs::write(version.join("config.toml"), text).unwrap();
    }
    symlink("one", folder.path().join("..data")).unwrap();
    symlink("..data/config.toml", folder.path().join("config.toml")).unwrap();
    let binary = Binary::start_in(folder, &[]).await;
    until_limit(&binary, 1).await;
    symlink("two", binary.folder().join("..new")).unwrap();
    std::fs::rename(binary.folder().join("..new"), binary.folder().join("..data")).unwrap();
    until_limit(&binary, 2).await;
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing_and_is_reported_with_its_place() {
    let api = api().await;
    let good = upstream(&api, "in_flight_max = 4");
    let binary = Binary::start(&good).await;
    let answer = binary.reload(&upstream(&api, "in_flight_max = 0")).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let problem = body["problems"][0].as_str().unwrap_or_default();
    assert!(problem.contains("config.toml:3:17"), "{body:#}");
    binary
        .until_printed("the problem in the log", |line| {
            line.contains("config.toml:3:17") && line.contains("the old one goes on")
        })
        .await;
    binary.until_metric(LAST_RELOAD, 0.0).await;
    until_limit(&binary, 4).await;
    assert_eq!(binary.get("/api/items/2").await.status, 200);

    // The file has been noticed, too.
    binary.until_metric(REFUSED, 2.0).await;
    // The file as it was is good news, too: an alert must end with its reason.
    binary.configure(&good);
    binary.until_metric(LAST_RELOAD, 1.0).await;
}

#[tokio::test]
async fn a_mistake_is_found_whoever_asks_for_the_reload() {
    let api = api().await;
    let binary = Binary::start(&upstream(&api, "in_flight_max = 4")).await;
    binary.configure("[upstreams.api]\n");
    binary.until_metric(LAST_RELOAD, 0.0).await;
    binary.configure(&upstream(&api, "in_flight_max = 5"));
    binary.until_metric(LAST_RELOAD, 1.0).await;
    binary.configure("[upstreams");
    binary.signal(Signal::HUP);
    binary.until_metric(LAST_RELOAD, 0.0).await;
    until_limit(&binary, 5).await;
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name_and_nothing_else_is_applied() {
    let api = api().await;
    let before = upstream(&api, "in_flight_max = 4");
    let binary = Binary::start(&before).await;
    let after = upstream(&api, "in_flight_max = 5");
    for (setting, change) in [
        ("proxy.workers", format!("[proxy]\nworkers = 3\n{after}")),
        ("proxy.connections_max", format!("[proxy]\nconnections_max = 7\n{after}")),
        ("log.level", format!("[log]\nlevel = \"debug\"\n{after}")),
        ("metrics.listen", format!("{after}[metrics]\nlisten = \"127.0.0.1:0\"\n")),
        ("upstreams.api.listen", format!("{after}listen = \"127.0.0.1:0\"\n")),
        (
            "upstreams.more.listen",
            format!(
                "{after}[upstreams.more]\nurl = \"http://localhost\"\nlisten = \"127.0.0.1:0\"\n"
            ),
        ),
    ] {
        let answer = binary.reload(&change).await;
        assert_eq!(answer.status, 422, "{setting}: {}", answer.text());
        assert!(answer.text().contains(setting), "{setting}: {}", answer.text());
        assert!(answer.text().contains("restart"), "{setting}: {}", answer.text());
        assert_eq!(binary.view("api").await["in_flight_max"], 4, "{setting}");
    }
}

#[tokio::test]
async fn a_secret_that_is_renewed_is_sent_from_then_on() {
    let api = api().await;
    let binary = Binary::start(&upstream(&api, "")).await;
    binary.write("secret", "first\n");
    let with_secret = upstream(
        &api,
        "credential = { header = \"authorization\", prefix = \"Bearer \", file = \"./secret\" }",
    );
    // A file that came with a reload is watched like one that was there from the start.
    assert_applied(&binary.reload(&with_secret).await, "upstreams.api.credential");
    binary.get("/api/items/2").await;
    binary.write("secret", "second!\n");
    binary.until_metric(APPLIED, 3.0).await;
    binary.get("/api/items/2").await;
    let sent: Vec<_> =
        api.log().iter().map(|it| it.field("authorization").unwrap_or("").to_owned()).collect();
    assert_eq!(sent, ["Bearer first", "Bearer second!"]);
    let printed = binary.lines().join("\n");
    assert!(!printed.contains("second!") && !printed.contains("first"), "{printed}");
}

#[tokio::test]
async fn those_in_line_go_on_waiting_and_go_by_a_raised_limit() {
    let api = api().await;
    let binary = Binary::start(&upstream(&api, "in_flight_max = 1")).await;
    let (sent, releases) = hang(&binary, &api, 1).await;
    let waiting = ask(&binary, 3, "/api/items/2").await;
    binary.until_view("api", "three in line", |view| view["queued"] == 3).await;
    assert_applied(&binary.reload(&upstream(&api, "in_flight_max = 2")).await, "1 → 2");
    // The first request still has its place: the others pass beside it, one at a time.
    assert_all_answered(waiting).await;
    assert_eq!(api.counters().overlap_max, 2);
    releases[0].notify_one();
    assert_all_answered(sent).await;
}

#[tokio::test]
async fn a_lowered_limit_admits_nobody_until_enough_have_left() {
    let api = api().await;
    let binary = Binary::start(&upstream(&api, "in_flight_max = 4")).await;
    let (mut sent, releases) = hang(&binary, &api, 4).await;
    let waiting = ask(&binary, 2, "/api/items/2").await;
    binary.until_view("api", "two in line", |view| view["queued"] == 2).await;
    assert_applied(&binary.reload(&upstream(&api, "in_flight_max = 2")).await, "4 → 2");
    for release in &releases[..2] {
        release.notify_one();
    }
    let two = |view: &Value| view["in_flight"] == 2 && view["queued"] == 2;
    binary.until_view("api", "two in flight and two in line", two).await;
    assert_eq!(api.counters().requests, 4);
    for release in &releases[2..] {
        release.notify_one();
    }
    sent.extend(waiting);
    assert_all_answered(sent).await;
}

#[tokio::test]
async fn an_open_breaker_stays_open() {
    let api = api().await;
    let failure = || Step::Status(500, Vec::new(), bytes::Bytes::new());
    api.script("/items/9", [failure(), failure()]);
    let breaker = "[upstreams.api.retry]\nattempts_max = 1\n\
                   [upstreams.api.breaker]\nconsecutive_failures = 2\nopen_for = \"10m\"";
    let binary = Binary::start(&upstream(&api, breaker)).await;
    for _ in 0..2 {
        assert_eq!(binary.get("/api/items/9").await.status, 500);
    }
    let before = binary.view("api").await;
    assert_eq!(before["breaker"][0]["state"], "open", "{before:#}");
    let changed = upstream(&api, &format!("in_flight_max = 3\n{breaker}"));
    assert_applied(&binary.reload(&changed).await, "in_flight_max");
    let after = binary.view("api").await;
    assert_eq!(after["breaker"][0]["state"], "open");
    let left = |view: &Value| view["breaker"][0]["open_remaining_ms"].as_u64().unwrap();
    assert!(left(&after) <= left(&before) && left(&after) > 60_000, "{after:#}");
    let refused = binary.get("/api/items/2").await;
    assert!(refused.text().contains("\"code\":\"breaker_open\""), "{}", refused.text());
    assert_eq!(api.counters().requests, 2);
}

#[tokio::test]
async fn a_cooldown_is_kept_too() {
    let api = api().await;
    let later = [(HeaderName::from_static("retry-after"), HeaderValue::from_static("600"))];
    api.script("/items/9", [Step::Status(429, later.into(), bytes::Bytes::new())]);
    let binary = Binary::start(&upstream(&api, "")).await;
    assert_eq!(binary.get("/api/items/9").await.status, 429);
    assert_applied(&binary.reload(&upstream(&api, "in_flight_max = 3")).await, "16 → 3");
    let refused = binary.get("/api/items/2").await;
    assert!(refused.text().contains("\"code\":\"cooldown\""), "{}", refused.text());
    assert_eq!(api.counters().requests, 1);
}

#[tokio::test]
async fn whoever_waits_for_an_upstream_that_is_removed_is_served() {
    let (api, other) = (api().await, api().await);
    let binary = Binary::start(&upstream(&api, "in_flight_max = 1")).await;
    let (mut clients, releases) = hang(&binary, &api, 1).await;
    clients.extend(ask(&binary, 5, "/api/items/2").await);
    binary.until_view("api", "five in line", |view| view["queued"] == 5).await;
    let without = format!("[upstreams.other]\nurl = \"{}\"\n", other.url());
    assert_applied(&binary.reload(&without).await, "upstreams.api: removed");
    assert_eq!(binary.get("/api/items/3").await.status, 404);
    releases[0].notify_one();
    assert_all_answered(clients).await;
    assert_eq!((api.counters().good, api.counters().overlap_max), (6, 1));
}

#[tokio::test]
async fn twenty_reloads_under_load_fail_nobody_and_break_no_limit() {
    const CLIENTS: usize = 8;
    const RELOADS: u32 = 20;
    let api = api().await;
    let binary = Binary::start(&upstream(&api, "in_flight_max = 1")).await;
    let (proxy, done) = (binary.proxy(), Arc::new(AtomicBool::new(false)));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (done, answered) = (done.clone(), answered.clone());
        clients.spawn(async move {
            let mut client = RawClient::connect(proxy).await;
            while !done.load(Ordering::Relaxed) {
                let request = "GET /api/items/2 HTTP/1.1\r\nHost: localhost\r\n\r\n";
                let response = client.ask(request).await;
                assert_eq!(response.status, 200, "{}\n{}", response.head, response.text());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for n in 0..RELOADS {
        let limit = 2 + n % 3;
        let more = if n % 2 == 0 { "[upstreams.more]\nurl = \"http://localhost:1\"\n" } else { "" };
        let settings =
            upstream(&api, &format!("in_flight_max = {limit}\nmax_wait = \"3{n}s\"\n{more}"));
        assert_applied(&binary.reload(&settings).await, "max_wait");
        // Each configuration sees some of the load.
        let seen = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < seen + 15 && !clients.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            assert!(clients.try_join_next().is_none(), "a client ended");
        }
    }
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) >= 300);
    let seen = api.counters();
    assert!(seen.overlap_max <= 4, "{seen:?}");
    assert_eq!(seen.good as usize, answered.load(Ordering::Relaxed));
}

#[tokio::test]
async fn the_access_log_and_the_limits_of_connections_change_with_a_reload() {
    let api = api().await;
    let with = |access: &str, keep: &str| {
        format!(
            "[log]\naccess = \"{access}\"\n[proxy]\nkeep_alive_timeout = \"{keep}\"\n{}",
            upstream(&api, "")
        )
    };
    let binary = Binary::start(&with("off", "60s")).await;
    binary.get("/api/items/2").await;
    assert_applied(&binary.reload(&with("all", "100ms")).await, "proxy.keep_alive_timeout");
    binary.until_printed("the change", |line| line.contains("configuration applied")).await;
    binary.get("/api/items/3").await;
    binary.until_printed("an access line", |line| line.contains("/items/3")).await;
    assert!(!binary.lines().iter().any(|line| line.contains("/items/2")));
    let mut client = RawClient::connect(binary.proxy()).await;
    let answer = client.ask("GET /api/items/4 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    // The deadline of the raw client is far below the old sixty seconds.
    client.closed().await;
}
