//! Whose turn it is at a limited API: flows share it, bands come first, and a full queue drops who
//! can best be spared.

use std::sync::Arc;

use forbear::demo::script::Step;
use tokio::sync::Notify;

use crate::support::raw::RawClient;
use crate::support::world::{World, problem, request};

const ONE: &str = "in_flight_max = 1\n";

/// A request that is held at the API until it is released, and those who wait behind it.
struct Held {
    world: World,
    release: Arc<Notify>,
    first: RawClient,
    waiting: Vec<RawClient>,
}

impl Held {
    async fn start(rest: &str) -> Self {
        let world = World::calm(rest).await;
        let release = Arc::new(Notify::new());
        world.api.script("/slow", [Step::Hang(release.clone())]);
        let mut first = RawClient::connect(world.forbear.proxy()).await;
        first.send(request("GET /api/slow", &[], b"")).await;
        world.api.until("the held request", |seen| seen.requests == 1).await.unwrap();
        Self { world, release, first, waiting: Vec::new() }
    }

    /// One more waits, by the path `/items/{item}`.
    async fn queue(&mut self, item: usize, fields: &[&str]) {
        let mut client = RawClient::connect(self.world.forbear.proxy()).await;
        client.send(request(&format!("GET /api/items/{item}"), fields, b"")).await;
        self.waiting.push(client);
        let queued = u32::try_from(self.waiting.len()).unwrap();
        self.world
            .forbear
            .until("its place in the queue", |it| it.view("api").queued == queued)
            .await;
    }

    /// Lets them go one by one; says in which order the API saw them.
    async fn order(mut self) -> Vec<String> {
        self.release.notify_one();
        assert_eq!(self.first.response().await.status, 200);
        for client in &mut self.waiting {
            assert_eq!(client.response().await.status, 200);
        }
        let log = self.world.api.log();
        let items = log.iter().filter_map(|record| record.target.strip_prefix("/items/"));
        items.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn two_flows_share_a_limited_api_equally_whatever_each_has_queued() {
    for [one, two] in [
        ["Forbear-Flow: one", "Forbear-Flow: two"],
        ["Forbear-Run: one", "Forbear-Flow: two"],
        ["X-Dagster-Run-Id: 7c5a", "X-Airflow-Run-Id: scheduled__2026-11-21"],
        ["X-Airflow-Dag-Run-Id: manual__1", "Authorization: Bearer two"],
    ] {
        let mut held = Held::start(ONE).await;
        for item in 1..=6 {
            held.queue(item, &[one]).await;
        }
        for item in 11..=13 {
            held.queue(item, &[two]).await;
        }
        let order = held.order().await;
        assert_eq!(order, ["1", "11", "2", "12", "3", "13", "4", "5", "6"], "{one}, {two}");
    }
}

#[tokio::test]
async fn a_run_id_of_a_tool_still_reaches_the_api() {
    let world = World::calm("").await;
    world.ask("GET /api/items/1", &["X-Dagster-Run-Id: 7c5a"], b"").await;
    assert_eq!(world.api.log()[0].field("x-dagster-run-id"), Some("7c5a"));
}

#[tokio::test]
async fn a_higher_band_goes_first() {
    let mut held = Held::start(ONE).await;
    for (item, band) in (1..).zip(["backfill", "low", "default", "high", "critical"]) {
        held.queue(item, &[&format!("Forbear-Priority: {band}")]).await;
    }
    held.queue(6, &[]).await;
    let by_band = &held.world.forbear.view("api").queued_by_band;
    assert_eq!(by_band.get("default"), Some(&2));
    assert_eq!(by_band.values().sum::<u32>(), 6);
    assert_eq!(held.order().await, ["5", "4", "3", "6", "2", "1"]);
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_of_the_lowest_band_and_not_who_came_last() {
    let mut held = Held::start("in_flight_max = 1\nqueue_max = 3\n").await;
    for item in 1..=3 {
        held.queue(item, &["Forbear-Priority: backfill"]).await;
    }
    let mut dropped = held.waiting.pop().unwrap();
    held.queue(4, &[]).await;
    let response = dropped.response().await;
    assert_eq!(response.status, 503);
    assert_eq!(problem(&response)["code"], "queue_full");
    let refused = held.world.ask("GET /api/items/5", &["Forbear-Priority: backfill"], b"").await;
    assert_eq!(problem(&refused)["code"], "queue_full", "it would be the newest itself");
    assert_eq!(held.order().await, ["4", "1", "2"]);
}

#[tokio::test]
async fn requests_of_an_ordered_key_are_sent_as_they_came_and_one_by_one() {
    let mut held = Held::start("key = \"ledger\"\n[keys.ledger]\nordered = true\n").await;
    for (item, band) in (1..).zip(["backfill", "default", "critical", "low"]) {
        let priority = format!("Forbear-Priority: {band}");
        held.queue(item, &[&priority, &format!("Forbear-Flow: {item}")]).await;
    }
    assert_eq!(held.world.api.counters().requests, 1, "one at a time");
    assert_eq!(held.order().await, ["1", "2", "3", "4"]);
}
