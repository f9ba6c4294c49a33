//! Traces: what a collector is sent, what an upstream sees of them, and that neither costs an exchange.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use forbear::admin::backend::Backend;
use serde_json::Value;

use crate::support::world::{World, answer};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// An OTLP/HTTP collector that keeps what it was sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    requests: Vec<(HeaderMap, Value)>,
    /// Answers to the first requests; then 200.
    answers: VecDeque<u16>,
}

impl Collector {
    async fn start(answers: &[u16]) -> (Self, SocketAddr) {
        let collector = Self::default();
        collector.0.lock().unwrap().answers = answers.iter().copied().collect();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router =
            Router::new().route("/base/v1/traces", post(Self::take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, address)
    }

    async fn take(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let mut kept = this.0.lock().unwrap();
        kept.requests.push((headers, serde_json::from_slice(&body).unwrap()));
        StatusCode::from_u16(kept.answers.pop_front().unwrap_or(200)).unwrap()
    }

    fn requests(&self) -> Vec<(HeaderMap, Value)> {
        self.0.lock().unwrap().requests.clone()
    }

    /// All spans, once there are so many.
    async fn spans(&self, count: usize) -> Vec<Value> {
        for _ in 0..2_000 {
            let spans: Vec<Value> = self.requests().iter().flat_map(|it| spans_of(&it.1)).collect();
            if spans.len() >= count {
                return spans;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited ten seconds for {count} spans: {:?}", self.requests());
    }
}

fn spans_of(body: &Value) -> Vec<Value> {
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn attribute<'a>(of: &'a Value, key: &str) -> &'a str {
    let all = of["attributes"].as_array().unwrap();
    let found = all.iter().find(|attribute| attribute["key"] == key);
    let text = found.and_then(|it| {
        it["value"]["stringValue"].as_str().or_else(|| it["value"]["intValue"].as_str())
    });
    text.unwrap_or("absent")
}

fn nanos(span: &Value, name: &str) -> u64 {
    span[name].as_str().unwrap().parse().unwrap()
}

fn names(spans: &[Value]) -> Vec<(&str, u64)> {
    spans.iter().map(|it| (it["name"].as_str().unwrap(), it["kind"].as_u64().unwrap())).collect()
}

/// An API, a forbear that exports, and a collector that first gives these answers.
async fn traced(answers: &[u16], rest: &str) -> (World, Collector) {
    let (collector, address) = Collector::start(answers).await;
    let world = World::calm(&format!(
        "[tracing]\nendpoint = \"http://{address}/base/\"\nservice_name = \"nightly\"\n{rest}"
    ))
    .await;
    (world, collector)
}

/// What the API saw of a field, request by request.
fn seen(world: &World, path: &str, name: &str) -> Vec<Option<String>> {
    let log = world.api.log();
    let of_path = log.iter().filter(|record| record.target == path);
    of_path.map(|record| record.field(name).map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_plain_exchange_is_two_spans_and_the_upstream_is_told_of_the_attempt() {
    let (world, collector) = traced(&[], "").await;
    world
        .ask("GET /api/items/1?token=hidden", &["Forbear-Run: n-7", "Authorization: hidden"], b"")
        .await;

    let spans = collector.spans(2).await;
    let (headers, body) = collector.requests().swap_remove(0);
    assert_eq!(headers["content-type"], "application/json");
    assert!(headers["user-agent"].to_str().unwrap().starts_with("forbear/"));
    let resource = &body["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name"), "nightly");
    assert!(!body.to_string().contains("hidden"), "{body}");

    assert_eq!(names(&spans), [("GET api", 2), ("GET", 3)]);
    let [exchange, attempt] = spans.as_slice() else { panic!("{spans:?}") };
    let id = |span: &Value, name: &str| span[name].as_str().unwrap_or("none").to_owned();
    assert_eq!(id(exchange, "parentSpanId"), "none");
    assert_eq!(id(attempt, "parentSpanId"), id(exchange, "spanId"));
    let told = format!("00-{}-{}-03", id(attempt, "traceId"), id(attempt, "spanId"));
    assert_eq!(seen(&world, "/items/1?token=hidden", "traceparent"), [Some(told)]);
    let api = world.api.url();
    let port = api.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    for (span, key, value) in [
        (exchange, "http.request.method", "GET"),
        (exchange, "url.path", "/api/items/1"),
        (exchange, "http.response.status_code", "200"),
        (exchange, "forbear.decision", "pass"),
        (exchange, "forbear.upstream", "api"),
        (exchange, "forbear.route", "default"),
        (exchange, "forbear.run", "n-7"),
        (attempt, "server.address", "127.0.0.1"),
        (attempt, "server.port", &port),
        (attempt, "http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(span, key), value, "{key} of {span}");
    }
    assert!(exchange["status"].is_null() && attempt["status"].is_null());
    let [begin, end] = ["startTimeUnixNano", "endTimeUnixNano"];
    assert!(nanos(exchange, begin) <= nanos(attempt, begin));
    assert!(nanos(attempt, begin) < nanos(attempt, end));
    assert!(nanos(attempt, end) <= nanos(exchange, end));
}

#[tokio::test]
async fn a_wait_as_told_is_a_span_between_two_attempts_in_the_callers_trace() {
    let (world, collector) = traced(&[], "").await;
    world.api.script("/items/1", [answer(429, &[("retry-after-ms", "50")], "")]);
    let caller = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    world.ask("GET /api/items/1", &[&caller, "tracestate: a=1"], b"").await;

    let spans = collector.spans(4).await;
    assert_eq!(names(&spans), [("GET api", 2), ("GET", 3), ("wait cooldown", 1), ("GET", 3)]);
    assert!(spans.iter().all(|span| span["traceId"] == TRACE));
    assert_eq!(spans[0]["parentSpanId"], SPAN);
    assert!(spans[1..].iter().all(|span| span["parentSpanId"] == spans[0]["spanId"]));
    assert_eq!(spans[1]["status"]["code"], 2);
    assert!(spans[3]["status"].is_null());
    for (span, key, value) in [
        (&spans[0], "forbear.decision", "retried"),
        (&spans[1], "error.type", "429"),
        (&spans[1], "forbear.hint.source", "retry-after-ms"),
        (&spans[2], "forbear.wait.kind", "cooldown"),
        (&spans[3], "http.request.resend_count", "1"),
    ] {
        assert_eq!(attribute(span, key), value, "{key} of {span}");
    }
    let [begin, end] = ["startTimeUnixNano", "endTimeUnixNano"];
    assert!(nanos(&spans[2], end) - nanos(&spans[2], begin) >= 45_000_000, "{:?}", spans[2]);
    assert_eq!(nanos(&spans[2], end), nanos(&spans[3], begin), "it ends where the next one begins");
    assert!(nanos(&spans[1], end) <= nanos(&spans[2], begin) + 1_000_000);
    let expected: Vec<_> = [&spans[1], &spans[3]]
        .map(|span| Some(format!("00-{TRACE}-{}-01", span["spanId"].as_str().unwrap())))
        .to_vec();
    assert_eq!(seen(&world, "/items/1", "traceparent"), expected);
    assert_eq!(seen(&world, "/items/1", "tracestate"), vec![Some("a=1".to_owned()); 2]);
}

#[tokio::test]
async fn a_refusal_is_one_span_with_its_code() {
    let (world, collector) = traced(&[], "").await;
    world.api.script("/items/1", [answer(429, &[("retry-after", "3600")], "")]);
    assert_eq!(world.get("/api/items/1").await.status, 429);
    assert_eq!(world.get("/api/items/2").await.field("forbear-decision"), Some("cooldown"));
    assert_eq!(world.get("/nowhere").await.status, 404);

    let spans = collector.spans(4).await;
    assert_eq!(names(&spans), [("GET api", 2), ("GET", 3), ("GET api", 2), ("GET", 2)]);
    for (span, code, status) in [(&spans[2], "cooldown", "429"), (&spans[3], "no_route", "404")] {
        assert_eq!(attribute(span, "forbear.code"), code);
        assert_eq!(attribute(span, "error.type"), code);
        assert_eq!(attribute(span, "http.response.status_code"), status);
        assert_eq!(span["status"]["code"], 2);
    }
    assert_eq!(attribute(&spans[0], "error.type"), "429", "the upstream's own word");
}

#[tokio::test]
async fn an_unsampled_parent_passes_as_it_is_and_nothing_is_exported() {
    let (world, collector) = traced(&[], "").await;
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    world.ask("GET /api/quiet", &[&format!("traceparent: {unsampled}")], b"").await;
    world.ask("GET /api/heard", &[&format!("traceparent: 00-{TRACE}-{SPAN}-01")], b"").await;

    let spans = collector.spans(2).await;
    assert_eq!(attribute(&spans[0], "url.path"), "/api/heard");
    assert_eq!(seen(&world, "/quiet", "traceparent"), [Some(unsampled)]);
    world.forbear.until("the export to be counted", |it| exported(&it.metrics()) == 1.0).await;
    assert_eq!(collector.spans(2).await.len(), 2);
}

#[tokio::test]
async fn without_the_table_an_upstream_sees_what_the_client_sent_and_nothing_else() {
    let world = World::calm("").await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    world.ask("GET /api/a", &[&format!("traceparent: {parent}"), "tracestate: a=1"], b"").await;
    world.ask("GET /api/b", &["traceparent: anything"], b"").await;
    world.get("/api/c").await;
    assert_eq!(seen(&world, "/a", "traceparent"), [Some(parent)]);
    assert_eq!(seen(&world, "/a", "tracestate"), [Some("a=1".to_owned())]);
    assert_eq!(seen(&world, "/b", "traceparent"), [Some("anything".to_owned())]);
    assert_eq!(seen(&world, "/c", "traceparent"), [None]);
    assert_eq!((exported(&world.forbear.metrics()), dropped(&world.forbear.metrics())), (0.0, 0.0));
}

#[tokio::test]
async fn a_batch_that_a_busy_collector_refused_is_sent_again() {
    let (world, collector) = traced(&[503, 429], "").await;
    world.get("/api/items/1").await;
    world.forbear.until("the batch to be taken", |it| exported(&it.metrics()) == 1.0).await;
    let requests = collector.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|(_, body)| *body == requests[0].1), "the same each time");
    assert_eq!(dropped(&world.forbear.metrics()), 0.0);
}

#[tokio::test]
async fn a_batch_that_a_collector_finds_wrong_is_dropped_and_counted() {
    let (world, collector) = traced(&[400], "").await;
    world.get("/api/items/1").await;
    world.forbear.until("the batch to be dropped", |it| dropped(&it.metrics()) == 1.0).await;
    assert_eq!(collector.requests().len(), 1);
    world.get("/api/items/2").await;
    world.forbear.until("the next one to be taken", |it| exported(&it.metrics()) == 1.0).await;
}

#[tokio::test]
async fn what_was_told_last_is_sent_before_the_end() {
    let (world, collector) = traced(&[], "[proxy]\ndrain_idle = \"1ms\"\n").await;
    world.get("/api/items/1").await;
    let World { api: _api, forbear } = world;
    forbear.drain().await;
    assert_eq!(collector.requests().len(), 1);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_exchange() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::calm(&format!(
        "[tracing]\nendpoint = \"http://{nobody}\"\n[proxy]\ndrain_idle = \"1ms\"\n"
    ))
    .await;
    for _ in 0..3 {
        assert_eq!(world.get("/api/items/1").await.status, 200);
    }
    let control = world.forbear.control().clone();
    let World { api: _api, forbear } = world;
    forbear.drain().await;
    assert_eq!((exported(&control.scrape()), dropped(&control.scrape())), (0.0, 3.0));
}

fn exported(metrics: &str) -> f64 {
    counted(metrics, "exported")
}

fn dropped(metrics: &str) -> f64 {
    counted(metrics, "dropped")
}

fn counted(metrics: &str, result: &str) -> f64 {
    let series = format!("forbear_traces_total{{result=\"{result}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}
