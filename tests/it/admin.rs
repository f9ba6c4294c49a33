//! The admin side of a whole forbear: what it counts, whom it trusts, what it never tells.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use forbear::admin::backend::Backend;
use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use forbear::store::read::{Filter, Question};
use forbear::telemetry::names::CATALOGUE;
use http::{HeaderName, HeaderValue};

use crate::support::binary::{Binary, command, err, get, out};
use crate::support::exposition::{Series, read};
use crate::support::forbear::Forbear;
use crate::support::raw::{RawClient, RawResponse};

async fn api() -> FakeApi {
    FakeApi::start(ApiSettings::default()).await.unwrap()
}

fn answer(status: u16, fields: &[(&'static str, &'static str)]) -> Step {
    let fields = fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Step::Status(status, fields.collect(), bytes::Bytes::from_static(b"{}"))
}

async fn ask(forbear: &Forbear, request: &str) -> RawResponse {
    RawClient::connect(forbear.proxy()).await.ask(request).await
}

async fn get_with(forbear: &Forbear, path: &str, fields: &str) -> RawResponse {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    ask(forbear, &request).await
}

/// A forbear that has lived through everything that it counts.
async fn after_a_mixed_run() -> (FakeApi, Forbear) {
    let api = api().await;
    let forbear = Forbear::start(&format!(
        "[keys.one]\nin_flight_max = 1\n\
         [upstreams.api]\nurl = \"{url}\"\n\
         [upstreams.api.retry]\nbackoff_base = \"1ms\"\nreplay_body_max = \"1KiB\"\n\
         [upstreams.ill]\nurl = \"{url}\"\nretry.attempts_max = 1\n\
         breaker.consecutive_failures = 2\n\
         [upstreams.dead]\nurl = \"http://127.0.0.1:9\"\nretry.backoff_base = \"1ms\"\n",
        url = api.url()
    ));
    let quota = [
        ("ratelimit-limit", "9"),
        ("ratelimit-remaining", "8"),
        ("ratelimit-reset", "60"),
        ("link", "</items/2>; rel=next, <https://other.example/>; rel=license"),
    ];
    api.script("/items/1", [answer(200, &quota)]);
    api.script("/items/2", [answer(502, &[])]);
    api.script("/items/3", [answer(429, &[("retry-after", "1")])]);
    api.script("/items/4", [answer(500, &[]), answer(500, &[])]);
    let hang = std::sync::Arc::new(tokio::sync::Notify::new());
    api.script("/items/5", [Step::Hang(hang.clone())]);
    let mut holder = RawClient::connect(forbear.proxy()).await;
    holder.send("GET /api/items/5 HTTP/1.1\r\nHost: a\r\nForbear-Key: one\r\n\r\n").await;
    forbear.until("the key to be held", |it| it.view("api").in_flight == 1).await;
    let refused =
        get_with(&forbear, "/api/items/6", "Forbear-Key: one\r\nForbear-Wait: 50ms\r\n").await;
    assert!(refused.text().contains("\"code\":\"queue_timeout\""), "{}", refused.text());
    hang.notify_one();
    assert_eq!(holder.response().await.status, 200);
    for path in ["/api/items/2", "/api/items/3", "/dead/items", "/nowhere", "/api/items/1"] {
        get_with(&forbear, path, "").await;
    }
    for _ in 0..2 {
        get_with(&forbear, "/ill/items/4", "").await;
    }
    get_with(&forbear, "/ill/items/1", "Forbear-Wait: none\r\n").await;
    api.script("/items/7", (0..5).map(|_| answer(401, &[])));
    for _ in 0..5 {
        get_with(&forbear, "/api/items/7", "Authorization: Bearer nobody's\r\n").await;
    }
    let body = "x".repeat(2_000);
    let head = "POST /api/items HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n\r\n";
    ask(&forbear, &format!("{head}{body}")).await;
    (api, forbear)
}

#[tokio::test]
async fn the_exposition_is_well_formed_before_and_after_traffic() {
    let forbear = Forbear::start("[upstreams.api]\nurl = \"http://127.0.0.1:9\"\n");
    read(&forbear.metrics());
    let (_api, forbear) = after_a_mixed_run().await;
    let answer = get(forbear.admin(), "/metrics").await;
    let media = answer.field("content-type").unwrap_or_default();
    assert!(media.starts_with("text/plain; version=0.0.4"), "{media}");
    read(&answer.text());
}

#[tokio::test]
async fn promtool_finds_nothing_to_say() {
    let (_api, forbear) = after_a_mixed_run().await;
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else {
        println!("skipped: there is no promtool on PATH");
        return;
    };
    tool.stdin.take().unwrap().write_all(forbear.metrics().as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
}

/// Families that a healthy run of this kind does not move, and why.
const STILL: [(&str, &str); 12] = [
    ("forbear_accept_errors_total", "file descriptors suffice"),
    ("forbear_log_lines_dropped_total", "the log keeps up"),
    ("forbear_panics_total", "each one is a bug"),
    ("forbear_metrics_label_overflow_total", "the API's statuses are few"),
    ("forbear_store_fallback_active", "memory is where its state is meant to be"),
    ("forbear_store_size_bytes", "so there is no file"),
    ("forbear_draining", "nobody asked it to end"),
    ("forbear_traces_total", "no collector is configured"),
    ("forbear_concurrency_in_use", "everything has been given back"),
    ("forbear_concurrency_waiting", "nobody waits any more"),
    ("forbear_requests_in_flight", "everything has ended"),
    ("forbear_listener_connections", "the clients have gone"),
];

#[tokio::test]
async fn every_metric_of_the_catalogue_moves_in_a_mixed_run() {
    let (_api, forbear) = after_a_mixed_run().await;
    // Asking the ledger has it write what it was told.
    let question = Question::Last(Filter { last: 1, ..Filter::default() });
    assert_eq!(forbear.control().ask_ledger(question).await.unwrap().len(), 1);
    let series = read(&forbear.metrics());
    let sum = |name: &str| -> f64 {
        let of = |full: &str| {
            let found = full.split('{').next().unwrap_or_default();
            found == name || found.strip_suffix("_count") == Some(name)
        };
        series.iter().filter(|(full, _)| of(full)).map(|(_, value)| value).sum()
    };
    let unmoved: Vec<_> = CATALOGUE
        .iter()
        .map(|def| def.name)
        .filter(|name| sum(name) == 0.0 && !STILL.iter().any(|(still, _)| still == name))
        .collect();
    assert!(unmoved.is_empty(), "these never moved: {unmoved:?}");
    for bug in ["forbear_panics_total", "forbear_log_lines_dropped_total"] {
        assert!(sum(bug) == 0.0, "{bug}");
    }
}

#[tokio::test]
async fn label_sets_that_the_configuration_knows_are_there_before_the_first_request() {
    let forbear = Forbear::start(
        "[keys.\"tenant:*\"]\nin_flight_max = 2\n[upstreams.api]\nurl = \"http://127.0.0.1:9\"\n\
         [[upstreams.api.routes]]\nname = \"search\"\nmatch = \"GET /search/*\"\n",
    );
    let series = read(&forbear.metrics());
    for full in [
        r#"forbear_upstream_attempt_errors_total{upstream="api",error="reset"}"#,
        r#"forbear_retries_total{upstream="api",reason="status_429"}"#,
        r#"forbear_retries_exhausted_total{upstream="api",by="attempts"}"#,
        r#"forbear_wait_duration_seconds_count{upstream="api",reason="cooldown"}"#,
        r#"forbear_breaker_transitions_total{upstream="api",breaker="upstream",from="closed",to="open"}"#,
        r#"forbear_breaker_rejections_total{upstream="api",breaker="upstream"}"#,
        r#"forbear_concurrency_rejections_total{key="tenant:*",reason="timeout"}"#,
        r#"forbear_requests_recovered_total{upstream="api",by="retry"}"#,
        r#"forbear_config_reloads_total{result="refused"}"#,
        r#"forbear_traces_total{result="exported"}"#,
        r#"forbear_traces_total{result="dropped"}"#,
        "forbear_panics_total",
    ] {
        assert_eq!(series_of(&series, full), Some(0.0), "{full}");
    }
}

/// The value of a series whose labels may stand in any order.
fn series_of(series: &Series, wanted: &str) -> Option<f64> {
    let parts = |full: &str| -> BTreeSet<String> {
        full.trim_end_matches('}').split(['{', ',']).map(str::to_owned).collect()
    };
    let wanted = parts(wanted);
    series.iter().find(|(full, _)| parts(full) == wanted).map(|(_, value)| *value)
}

#[tokio::test]
async fn ten_thousand_hostile_requests_leave_the_number_of_series_unchanged() {
    const REQUESTS: usize = 10_000;
    let (api, forbear) = after_a_mixed_run().await;
    let configuration = format!("[upstreams.api]\nurl = \"{}\"\nqueue_max = 4000\n", api.url());
    drop(forbear);
    let forbear = Forbear::start(&format!("{configuration}[keys.\"k:*\"]\nin_flight_max = 9\n"));
    let hostile = |n: usize| {
        let word = format!("{:x}", fastrand::u64(..));
        let method = ["GET", "POST", "DELETE", "PURGE", &format!("M{word}")][n % 5].to_owned();
        let path = match n % 3 {
            0 => format!("/{word}/x"),
            1 => format!("/api/{word}?q={word}"),
            _ => format!("/api/%ff{word}/{}", "a/".repeat(n % 40)),
        };
        let value =
            if n.is_multiple_of(7) { "not valid \u{7f}".to_owned() } else { format!("k:{word}") };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {word}\r\nContent-Length: 0\r\n\
             Forbear-Key: {value}\r\nForbear-Flow: {word}\r\nForbear-Run: {word}\r\n\r\n"
        )
    };
    // Every kind of request and answer has been met after this.
    let run = async |count: usize| {
        let mut client = RawClient::connect(forbear.proxy()).await;
        for n in 0..count {
            let answer = client.ask(hostile(n)).await;
            if answer.field("connection") == Some("close") {
                client = RawClient::connect(forbear.proxy()).await;
            }
        }
    };
    run(420).await;
    let count = |text: &str| read(text).keys().filter(|full| !full.contains("process_")).count();
    let before = count(&forbear.metrics());
    run(REQUESTS).await;
    assert_eq!(count(&forbear.metrics()), before);
}

#[tokio::test]
async fn each_listener_answers_what_its_trust_allows() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "let-me-in\n").unwrap();
    let text = "[proxy]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\ntoken = { file = \"./token\" }\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n[upstreams.api]\nurl = \"http://127.0.0.1:9\"\n";
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let binary = Binary::start_in(folder, &[]).await;
    let (proxy, admin, metrics) = (binary.proxy(), binary.admin(), binary.address("metrics"));
    for (address, path, status) in [
        (proxy, "/metrics", 404),
        (proxy, "/healthz", 404),
        (proxy, "/api/v1/upstreams", 404),
        (admin, "/metrics", 200),
        (admin, "/healthz", 200),
        (admin, "/api/v1/config", 200),
        (metrics, "/metrics", 200),
        (metrics, "/readyz", 200),
        (metrics, "/", 404),
        (metrics, "/api/v1/upstreams", 404),
        (metrics, "/api/v1/config", 404),
    ] {
        let answer = get(address, path).await;
        // The prefix /api is an upstream of the proxy: it is not reachable, and not forbear's own.
        let status = if address == proxy && path.starts_with("/api/") { 502 } else { status };
        assert_eq!(answer.status, status, "{address}{path}: {}", answer.text());
    }
    assert_eq!(binary.post("/api/v1/quit", "{}").await.status, 401);
    let quit = "POST /api/v1/quit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    assert_ne!(RawClient::connect(metrics).await.ask(quit).await.status, 202);
    let admin_url = binary.admin_url();
    let file = binary.folder().join("token");
    let mut quit = command(["quit", "--admin", admin_url.as_str(), "--token-file"]);
    let output = quit.arg(file).output().await.unwrap();
    assert!(output.status.success(), "{}", err(&output));
}

#[tokio::test]
async fn no_secret_shows_anywhere() {
    const CANARIES: [&str; 4] =
        ["canary-token-1", "canary-credential-2", "canary-client-3", "canary-query-4"];
    let api = api().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), CANARIES[0]).unwrap();
    std::fs::write(folder.path().join("secret"), CANARIES[1]).unwrap();
    let text = format!(
        "[log]\nlevel = \"trace\"\n[proxy]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\ntoken = {{ file = \"./token\" }}\n\
         [upstreams.api]\nurl = \"{}\"\n\
         credential = {{ header = \"x-api-key\", file = \"./secret\" }}\n\
         [upstreams.plain]\nurl = \"http://127.0.0.1:9\"\nretry.attempts_max = 1\n",
        api.url()
    );
    std::fs::write(folder.path().join("config.toml"), &text).unwrap();
    let mut binary = Binary::start_in(folder, &[]).await;
    let mut told = String::new();
    for path in ["/api/items/1", "/api/status/401", "/plain/x", "/nowhere", "/plain/../%00"] {
        let request = format!(
            "GET {path}?key={} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            CANARIES[3], CANARIES[2]
        );
        let answer = RawClient::connect(binary.proxy()).await.ask(request).await;
        told += &format!("{}\n{}\n", answer.head, answer.text());
    }
    let sent = api.log();
    assert_eq!(sent[0].field("x-api-key"), Some(CANARIES[1]), "the credential is used");
    for path in ["/metrics", "/api/v1/config", "/api/v1/upstreams", "/api/v1/keys", "/"] {
        told += &binary.admin_get(path).await.text();
    }
    let file = binary.folder().join("config.toml");
    for flags in [&["--effective"][..], &["--effective", "--json"]] {
        let output = command(["check"]).arg(&file).args(flags).output().await.unwrap();
        told += &format!("{}{}", out(&output), err(&output));
    }
    binary.write("secret", "canary-credential-2b");
    binary.until_printed("the renewed secret", |line| line.contains("configuration applied")).await;
    binary.signal(rustix::process::Signal::TERM);
    binary.ended().await;
    told += &binary.lines().join("\n");
    for canary in CANARIES {
        let line = told.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "{canary} was told");
    }
}
