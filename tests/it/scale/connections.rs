//! Connections: idle ones by the thousand, slow ones, more than are permitted, and more than there
//! are file descriptors.

use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::origin::Origin;
use super::{ONE_AT_A_TIME, get, timed_get};
use crate::support::process::Process;
use crate::support::raw::{End, RawClient};

/// Idle connections, where the limit on open files permits.
const IDLE: u64 = 10_000;
/// Descriptors that the test needs for everything else.
const OTHER_FILES: u64 = 500;
/// Clients that connect or ask at the same time.
const BATCH: usize = 100;

/// As many connections as wanted, or as the hard limit on open files permits.
fn affordable() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let permitted = limit.maximum.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES);
    if permitted < IDLE {
        println!("the limit on open files permits only {permitted} of {IDLE} connections");
    }
    IDLE.min(permitted) as usize
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_slow_nobody_down() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let count = affordable();
    let origin = Origin::start().await;
    let forbear = Process::start(&format!(
        "[proxy]\nconnections_max = 20000\nheader_timeout = \"60s\"\n[log]\naccess = \"off\"\n{}",
        origin.table("api", "")
    ));
    let mut client = RawClient::connect(forbear.proxy).await;
    timed_get(&mut client).await;
    let mut admin = forbear.admin().await;
    admin.metric("forbear_listener_connections").await;
    let before = forbear.memory_kib("VmRSS");

    // Half of them never say anything, half have been served once.
    let mut idle = Vec::with_capacity(count);
    while idle.len() < count {
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..BATCH.min(count - idle.len()) {
            batch.push(RawClient::connect(forbear.proxy).await);
        }
        for client in batch.iter_mut().step_by(2) {
            client.send(get("/api/hello")).await;
        }
        for client in batch.iter_mut().step_by(2) {
            assert_eq!(client.response().await.status, 200);
        }
        idle.extend(batch);
    }
    admin.until_metric("forbear_listener_connections", count as u64).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        slowest = slowest.max(timed_get(&mut client).await);
        slowest = slowest.max(timed_get(&mut RawClient::connect(forbear.proxy).await).await);
    }
    let peak = forbear.memory_kib("VmHWM");
    let each = (peak - before) as f64 / count as f64;
    println!("{count} idle connections: {each:.1} KiB each; slowest of 200 GETs {slowest:?}");
    assert!(each <= 16.0, "an idle connection costs {each:.1} KiB");
    assert!(slowest < Duration::from_secs(1), "a GET took {slowest:?}");

    for client in &mut idle {
        assert_eq!(client.ask(get("/api/hello")).await.status, 200, "each is still served");
    }
}

#[tokio::test]
async fn connections_over_the_bound_wait_and_the_log_says_which_setting_holds_them() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let forbear = Process::start(&format!(
        "[proxy]\nworkers = 1\nconnections_max = 8\n{}",
        origin.table("api", "")
    ));
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = RawClient::connect(forbear.proxy).await;
        timed_get(&mut client).await;
        clients.push(client);
    }
    let mut ninth = RawClient::connect(forbear.proxy).await;
    ninth.send(get("/api/hello")).await;
    for client in &mut clients {
        timed_get(client).await;
    }
    let mut admin = forbear.admin().await;
    assert_eq!(admin.metric("forbear_listener_connections").await, 8);
    // The log is written by a thread of its own.
    let said = async {
        while !forbear.has_said("proxy.connections_max") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), said).await;
    assert!(told.is_ok(), "somebody has to know why it waits");
    clients.pop();
    assert_eq!(ninth.response().await.status, 200, "its turn comes when another one leaves");
}

#[tokio::test]
async fn slow_heads_keep_nobody_waiting_and_are_cut_in_time() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let forbear = Process::start(&format!(
        "[proxy]\nheader_timeout = \"1s\"\n[log]\naccess = \"off\"\n{}",
        origin.table("api", "")
    ));
    let mut client = RawClient::connect(forbear.proxy).await;
    timed_get(&mut client).await;
    let mut slow = Vec::new();
    let began = Instant::now();
    for _ in 0..500 {
        let mut one = RawClient::connect(forbear.proxy).await;
        one.send("GET /api/hello HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
        slow.push(one);
    }
    let mut slowest = Duration::ZERO;
    let mut rounds = 0;
    // A byte each, again and again, for longer than a head may take.
    while began.elapsed() < Duration::from_millis(2_500) {
        for one in &mut slow {
            one.send("x").await;
        }
        slowest = slowest.max(timed_get(&mut client).await);
        slowest = slowest.max(timed_get(&mut RawClient::connect(forbear.proxy).await).await);
        rounds += 1;
    }
    println!("slowest of {} GETs beside 500 slow heads: {slowest:?}", 2 * rounds);
    assert!(slowest < Duration::from_secs(1), "a GET took {slowest:?}");
    for one in &mut slow {
        let (said, end) = one.rest().await;
        let said = String::from_utf8_lossy(&said);
        // A reset may take the answer with it, as more bytes came than were read.
        assert!(said.starts_with("HTTP/1.1 408 ") || end == End::Reset, "{said}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "the last was cut after {took:?}");
}

#[tokio::test]
async fn without_file_descriptors_it_survives_says_so_and_does_not_spin() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let configuration = format!("[proxy]\nworkers = 1\n{}", origin.table("api", ""));
    let mut forbear = Process::start_with_files(&configuration, Some(64));
    let mut admin = forbear.admin().await;
    assert_eq!(admin.metric("forbear_accept_errors_total").await, 0);
    let mut first = RawClient::connect(forbear.proxy).await;
    timed_get(&mut first).await;

    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(RawClient::connect(forbear.proxy).await);
    }
    admin.until_metric("forbear_accept_errors_total", 2).await;
    let (ticks, began) = (forbear.ticks(), Instant::now());
    for _ in 0..10 {
        timed_get(&mut first).await;
    }
    let errors = admin.metric("forbear_accept_errors_total").await;
    admin.until_metric("forbear_accept_errors_total", errors + 3).await;
    let (spent, took) = (forbear.ticks() - ticks, began.elapsed());
    println!("without descriptors: {spent} ticks of 10 ms in {took:?}");
    assert!(u128::from(spent) * 10 * 2 < took.as_millis(), "{spent} ticks in {took:?}: it spins");
    assert!(forbear.has_said("raise the limit of open files"));

    drop(crowd);
    let mut late = RawClient::connect(forbear.proxy).await;
    timed_get(&mut late).await;
    assert!(forbear.is_alive());
}
