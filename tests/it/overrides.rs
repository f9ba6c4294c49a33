//! Shadow mode decides and records, and does nothing; a person's word outranks a breaker's.

use crate::support::forbear::Forbear;
use crate::support::raw::{RawClient, RawResponse};
use crate::support::world::{World, answer, problem, request};

/// A breaker that opens with the first failure, in a route or upstream that repeats nothing.
const BRITTLE: &str = "[upstreams.api.breaker]\nconsecutive_failures = 1\n";

#[tokio::test]
async fn shadow_mode_repeats_nothing_holds_nobody_and_records_what_it_would_have_done() {
    let world = World::calm(&format!("mode = \"shadow\"\nin_flight_max = 1\n{BRITTLE}")).await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "60")], "wait")]);
    let refused = world.get("/api/items/1").await;
    assert_eq!((refused.status, refused.text()), (429, "wait".to_owned()));
    assert_eq!(refused.field("forbear-attempts"), Some("1"));
    let failed = world.get("/api/status/500").await;
    assert_eq!((failed.status, failed.field("forbear-attempts")), (500, Some("1")));

    for number in 2..5 {
        let answer = world.get(&format!("/api/items/{number}")).await;
        assert_eq!(answer.status, 200, "nothing is held or refused");
        assert_eq!(answer.field("forbear-waited-ms"), None);
    }
    assert_eq!(world.api.counters().requests, 5);

    let view = world.forbear.view("api");
    assert!(!view.cooldowns.is_empty(), "the word of the upstream is known: {view:?}");
    assert_eq!(world.breaker(), "open", "it would be open");
}

async fn order(forbear: &Forbear, path: &str, body: &str) -> RawResponse {
    let mut client = RawClient::connect(forbear.admin()).await;
    let fields = ["Content-Type: application/json"];
    client.ask(request(&format!("POST {path}"), &fields, body.as_bytes())).await
}

#[tokio::test]
async fn a_breaker_opened_by_hand_refuses_until_it_is_let_go() {
    let world = World::calm("").await;
    let path = "/api/v1/upstreams/api/breaker";
    let said = r#"{"state": "open", "reason": "their incident 7", "for": "1h"}"#;
    let ordered = order(&world.forbear, path, said).await;
    assert_eq!(ordered.status, 200, "{ordered:?}");
    assert_eq!(world.breaker(), "forced_open");
    let view = world.forbear.view("api");
    assert_eq!(view.breaker[0].forced_reason.as_deref(), Some("their incident 7"));

    let refusal = world.get("/api/items/1").await;
    assert_eq!((refusal.status, problem(&refusal)["code"].as_str()), (503, Some("breaker_open")));
    assert_eq!(world.api.counters().requests, 0);

    let said = r#"{"state": "auto", "reason": "over"}"#;
    assert_eq!(order(&world.forbear, path, said).await.status, 200);
    assert_eq!(world.breaker(), "closed");
    assert_eq!(world.get("/api/items/1").await.status, 200);
}

#[tokio::test]
async fn a_breaker_closed_by_hand_lets_everything_through_whatever_fails() {
    let world = World::calm(&format!("retry.attempts_max = 1\n{BRITTLE}")).await;
    let path = "/api/v1/upstreams/api/breaker";
    let said = r#"{"state": "closed", "reason": "we must try"}"#;
    assert_eq!(order(&world.forbear, path, said).await.status, 200);
    for _ in 0..5 {
        assert_eq!(world.get("/api/status/500").await.status, 500);
    }
    assert_eq!(world.api.counters().requests, 5);
    assert_eq!(world.breaker(), "disabled");
}

#[tokio::test]
async fn an_override_ends_by_itself() {
    let world = World::calm("").await;
    let said = r#"{"state": "open", "reason": "a short one", "for": "300ms"}"#;
    order(&world.forbear, "/api/v1/upstreams/api/breaker", said).await;
    let held = world.ask("GET /api/items/1", &["Forbear-Wait: none"], b"").await;
    assert_eq!(held.status, 503);
    assert_eq!(world.get("/api/items/1").await.status, 200, "it is held, and then let through");
}

#[tokio::test]
async fn a_cooldown_cleared_by_hand_is_over() {
    let world = World::calm("").await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "600")], "")]);
    let wait = ["Forbear-Wait: none"];
    world.ask("GET /api/items/1", &wait, b"").await;
    assert_eq!(world.ask("GET /api/items/1", &wait, b"").await.status, 429);
    let ordered = order(&world.forbear, "/api/v1/upstreams/api/cooldown/clear", "{}").await;
    assert_eq!(ordered.status, 200, "{ordered:?}");
    assert_eq!(world.ask("GET /api/items/1", &wait, b"").await.status, 200);
    assert_eq!(world.hits("/items/1"), 2);
}
