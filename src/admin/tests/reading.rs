//! What can be read: views, probes, and the stream of events.

use super::super::events::READERS_MAX;
use super::*;
use crate::policy::time::WallTime;
use crate::telemetry::view::{EventKind, Moment};

fn event(n: usize) -> EventView {
    EventView {
        time: Moment(WallTime { unix_ms: 0 }),
        kind: EventKind::Breaker,
        upstream: Some("github".to_owned()),
        scope: None,
        detail: format!("event {n}\nof many"),
    }
}

/// Reads until `text` has come, and gives back everything so far.
async fn until(body: &mut Incoming, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    seen
}

#[tokio::test]
async fn views_are_json_and_the_page_is_html() {
    let served = Served::open(&Fake::new());
    let upstreams = served.send("GET /api/v1/upstreams", &[], "").await;
    assert_eq!(upstreams.headers["content-type"], "application/json");
    assert_eq!(upstreams.json()[1]["name"], "jira");
    assert_eq!(served.send("GET /api/v1/upstreams/jira", &[], "").await.json()["name"], "jira");
    assert_eq!(served.send("GET /api/v1/keys", &[], "").await.json()[0]["waiting"], 3);
    let page = served.send("GET /", &[], "").await;
    assert!(page.text().contains("api/v1/upstreams") && !page.text().contains("src="));
}

#[tokio::test]
async fn probes_tell_life_from_readiness() {
    let mut draining = Fake::new();
    Arc::get_mut(&mut draining).unwrap().ready = false;
    let served = Served::open(&draining);
    assert_eq!(served.send("GET /healthz", &[], "").await.text(), "ok\n");
    let ready = served.send("GET /readyz", &[], "").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reason"], "it drains");
}

#[tokio::test]
async fn a_probe_is_answered_while_a_scrape_is_being_written() {
    let fake = Fake::new();
    let (began, has_begun) = oneshot::channel();
    let (go, gate) = mpsc::sync_channel(1);
    *fake.gate.lock().unwrap() = Some((began, gate));
    let served = Served::open(&fake);

    let probe = async {
        has_begun.await.unwrap();
        let answer = served.send("GET /healthz", &[], "").await;
        let _ = go.send(());
        answer
    };
    let (scrape, probe) = tokio::join!(served.send("GET /metrics", &[], ""), probe);

    assert_eq!(probe.text(), "ok\n");
    assert_eq!((scrape.status.as_u16(), scrape.text().as_str()), (200, "forbear_draining 0\n"));
}

#[tokio::test]
async fn what_does_not_exist_yet_is_a_problem_with_a_way_out() {
    let served = Served::open(&Fake::new());
    for path in ["/api", "/x"] {
        let answer = served.send(&format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"), "{path}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(path));
    }
}

#[tokio::test]
async fn exchanges_are_asked_for_by_id_or_by_what_they_are() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let answer = served.send("GET /api/v1/exchanges/01M7", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "unknown_exchange"));
    let line = "GET /api/v1/exchanges?last=3&run=a%20b&failed=true";
    assert_eq!(served.send(line, &[], "").await.json(), serde_json::json!([]));
    let wrong = served.send("GET /api/v1/exchanges?lst=3", &[], "").await;
    assert_eq!((wrong.status.as_u16(), wrong.code().as_str()), (400, "bad_request"));

    let asked = [
        r#"One("01M7")"#,
        r#"Last(Filter { last: 3, run: Some("a b"), upstream: None, failed: true })"#,
    ];
    assert_eq!(fake.asked(), asked);
}

#[tokio::test]
async fn events_come_as_they_happen_one_data_line_each() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let (head, mut body) = served.open_body("GET /api/v1/events", &[], "").await;
    assert_eq!(head.headers["content-type"], "text/event-stream");

    fake.events.send(event(1)).unwrap();

    let text = until(&mut body, "of many").await;
    let (_, text) = text.split_once("event: breaker\ndata: ").unwrap();
    let (json, rest) = text.split_once('\n').unwrap();
    assert_eq!(serde_json::from_str::<EventView>(json).unwrap(), event(1));
    assert_eq!(rest, "\n");
}

#[tokio::test]
async fn a_reader_that_lags_loses_events_and_is_told() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let (_, mut body) = served.open_body("GET /api/v1/events", &[], "").await;

    // All in one go: the task that forwards them cannot run in between.
    for n in 0..EVENTS + 3 {
        fake.events.send(event(n)).unwrap();
    }

    let text = until(&mut body, &format!("event {}", EVENTS + 2)).await;
    assert!(text.contains("event: lost\ndata: {\"lost\":3}\n\n"), "{text}");
    assert!(!text.contains("event 2"), "{text}");
}

#[tokio::test]
async fn readers_of_events_are_bounded_and_give_their_place_back() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let mut readers = Vec::new();
    for _ in 0..READERS_MAX {
        let (head, body) = served.open_body("GET /api/v1/events", &[], "").await;
        assert_eq!(head.status, 200);
        readers.push(body);
    }
    let refused = served.send("GET /api/v1/events", &[], "").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "too_many_readers"));

    readers.clear();
    // The server notices a closed connection when it next looks; each event makes it look.
    for _ in 0..10_000 {
        let _ = fake.events.send(event(0));
        let (head, _body) = served.open_body("GET /api/v1/events", &[], "").await;
        if head.status == 200 {
            return;
        }
    }
    panic!("no place was given back");
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_end() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let (_, mut body) = served.open_body("GET /api/v1/events", &[], "").await;

    served.end.send(()).unwrap();

    served.server.await.unwrap().unwrap();
    while let Some(Ok(_)) = body.frame().await {}
}
