//! Exchanges that wait, by the thousand: in order, within the bound, and none is lost.

use super::origin::Origin;
use super::{ONE_AT_A_TIME, get};
use crate::support::process::Process;
use crate::support::raw::RawClient;

const QUIET: &str = "[log]\naccess = \"off\"\n";

/// Puts a request in line and waits until it stands there.
async fn stand_in_line(forbear: &Process, path: &str) -> RawClient {
    let mut client = RawClient::connect(forbear.proxy).await;
    client.send(get(path)).await;
    client
}

#[tokio::test]
async fn a_thousand_waiting_exchanges_keep_their_order_and_none_is_lost() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let table = origin.table("api", "in_flight_max = 1\nqueue_max = 1000");
    let forbear = Process::start(&format!("[proxy]\n{QUIET}{table}"));
    let mut admin = forbear.admin().await;
    let mut clients = Vec::new();
    for n in 0..=1_000 {
        clients.push(Some(stand_in_line(&forbear, &format!("/api/hold/{n}")).await));
        while n == 0 && origin.held().is_empty() {
            tokio::task::yield_now().await;
        }
        admin.until_queued("api", n).await;
    }
    let mut over = stand_in_line(&forbear, "/api/hold/over").await;
    let refused = over.response().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("\"queue_full\""), "{}", refused.text());

    // Every tenth leaves; as many newcomers find a place, and no more.
    for client in clients.iter_mut().skip(10).step_by(10) {
        *client = None;
    }
    admin.until_queued("api", 900).await;
    for n in 1_001..=1_100 {
        clients.push(Some(stand_in_line(&forbear, &format!("/api/hold/{n}")).await));
        admin.until_queued("api", n - 100).await;
    }
    assert_eq!(over.ask(get("/api/hold/over")).await.status, 503);

    origin.let_go(1_001);
    for client in clients.iter_mut().flatten() {
        let response = client.response().await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let expected: Vec<_> = (0..=1_100)
        .filter(|n| *n == 0 || *n > 1_000 || n % 10 != 0)
        .map(|n| format!("/hold/{n}"))
        .collect();
    assert_eq!(origin.held(), expected, "the order of arrival is the order of service");
    admin.until_queued("api", 0).await;
}

#[tokio::test]
async fn the_bound_of_the_process_holds_over_all_upstreams() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let (a, b) = (origin.table("a", "in_flight_max = 1"), origin.table("b", "in_flight_max = 1"));
    let forbear = Process::start(&format!("[proxy]\n{QUIET}[limits]\nqueue_max = 5\n{a}{b}"));
    let mut admin = forbear.admin().await;
    let mut clients = Vec::new();
    for (name, count) in [("a", 4), ("b", 3)] {
        for waiting in 0..count {
            clients.push(stand_in_line(&forbear, &format!("/{name}/hold")).await);
            while waiting == 0 && origin.held().len() < if name == "a" { 1 } else { 2 } {
                tokio::task::yield_now().await;
            }
            admin.until_queued(name, waiting).await;
        }
    }
    for name in ["a", "b"] {
        let mut over = stand_in_line(&forbear, &format!("/{name}/hold")).await;
        let refused = over.response().await;
        assert_eq!(refused.status, 503);
        assert!(refused.text().contains("limits.queue_max"), "{}", refused.text());
    }
    origin.let_go(7);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn five_thousand_exchanges_of_five_hundred_tenants_are_all_served() {
    const TENANTS: usize = 500;
    const EACH: usize = 10;
    let _alone = ONE_AT_A_TIME.lock().await;
    let origin = Origin::start().await;
    let table = origin.table("api", "in_flight_max = 16\nqueue_max = 5000");
    let forbear = Process::start(&format!(
        "[proxy]\nconnections_max = 20000\n{QUIET}[limits]\nqueue_max = 6000\n\
         [keys.\"tenant:*\"]\nin_flight_max = 1\n{table}"
    ));
    let mut admin = forbear.admin().await;
    let mut clients = Vec::new();
    for n in 0..TENANTS * EACH {
        let tenant = n % TENANTS;
        let mut client = RawClient::connect(forbear.proxy).await;
        let head = format!("GET /api/hold/{tenant} HTTP/1.1\r\nHost: localhost\r\n");
        client.send(format!("{head}Forbear-Key: tenant:{tenant}\r\n\r\n")).await;
        clients.push(client);
    }
    let all = (TENANTS * EACH) as u64;
    admin.until_queued("api", all - 16).await;
    let began = forbear.ticks();
    origin.let_go(TENANTS * EACH);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    println!("5000 waiting exchanges of 500 tenants: {} ticks of 10 ms", forbear.ticks() - began);
    assert_eq!(origin.held().len() as u64, all);
    assert!(origin.most_held() <= 16, "{} were in flight", origin.most_held());
    admin.until_queued("api", 0).await;
}
