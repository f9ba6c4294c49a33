//! Secrets that are renewed, and credentials that an API does not accept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::binary::{Binary, forbear, out};
use crate::support::raw::{RawClient, RawResponse};
use crate::support::world::{World, answer, problem, request, retry_after};

/// An API that accepts one token, and remembers which came.
struct Guarded {
    desk: Arc<Desk>,
    url: String,
    serving: tokio::task::AbortHandle,
}

#[derive(Default)]
struct Desk {
    accepted: Mutex<String>,
    seen: Mutex<Vec<String>>,
}

impl Guarded {
    async fn start(accepted: &str) -> Self {
        let desk = Arc::new(Desk::default());
        let app = Router::new().fallback(judge).with_state(desk.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let guarded = Self { desk, url, serving: serving.abort_handle() };
        guarded.accept(accepted);
        guarded
    }

    /// From now on this token, and no other.
    fn accept(&self, token: &str) {
        *self.desk.accepted.lock().unwrap() = format!("Bearer {token}");
    }

    /// Every token that came, in order.
    fn seen(&self) -> Vec<String> {
        self.desk.seen.lock().unwrap().clone()
    }

    /// A configuration that puts the secret in `./secret` on every request.
    fn injecting(&self, rest: &str) -> String {
        format!(
            "[upstreams.api]\nurl = \"{}\"\ncredential = {{ prefix = \"Bearer \", file = \"./secret\" }}\n{rest}",
            self.url
        )
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn judge(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let token = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    desk.seen.lock().unwrap().push(token.to_owned());
    if token == *desk.accepted.lock().unwrap() {
        (StatusCode::OK, body)
    } else {
        (StatusCode::UNAUTHORIZED, "who are you?".to_owned())
    }
}

/// A forbear in a folder that has this secret.
async fn with_secret(configuration: &str, secret: &str) -> Binary {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), secret).unwrap();
    Binary::start_with(folder, configuration).await
}

async fn ask(binary: &Binary, line: &str, token: Option<&str>, body: &[u8]) -> RawResponse {
    let field = token.map(|token| format!("Authorization: Bearer {token}"));
    let fields: Vec<&str> = field.as_deref().into_iter().collect();
    RawClient::connect(binary.proxy()).await.ask(request(line, &fields, body)).await
}

fn attempts(response: &RawResponse) -> u32 {
    response.field("forbear-attempts").unwrap_or("1").parse().unwrap()
}

fn assert_locked(response: &RawResponse) {
    assert_eq!(response.status, 503, "{}", response.head);
    assert_eq!(problem(response)["code"], "credential_locked");
    assert_eq!(response.field("forbear-verdict"), Some("credential"));
    assert!((1..=60).contains(&retry_after(response)), "{}", response.head);
}

#[tokio::test]
async fn a_secret_that_is_rotated_costs_nobody_an_answer_and_each_at_most_one_hidden_401() {
    let api = Guarded::start("first-secret").await;
    let binary = with_secret(&api.injecting("in_flight_max = 8\n"), "first-secret\n").await;
    let binary = Arc::new(binary);
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let binary = binary.clone();
        clients.spawn(async move {
            let mut hidden = 0;
            for n in 0..40 {
                let (line, body) = match n % 2 {
                    0 => ("GET /api/x", String::new()),
                    _ => ("POST /api/x", format!("{client}, {n}")),
                };
                let answer = ask(&binary, line, None, body.as_bytes()).await;
                assert_eq!((answer.status, answer.text()), (200, body), "{}", answer.head);
                assert!(attempts(&answer) <= 2, "{}", answer.head);
                hidden += attempts(&answer) - 1;
            }
            hidden
        });
    }
    let half = async {
        while api.seen().len() < 160 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), half).await.unwrap();
    binary.write("secret", "second-secret\n");
    api.accept("second-secret");
    let mut hidden = 0;
    while let Some(client) = clients.join_next().await {
        hidden += client.unwrap();
    }
    // No exchange but those that were under way with the old one.
    assert!((1..=8).contains(&hidden), "{hidden}");
    assert_eq!(api.seen().len(), 8 * 40 + usize::try_from(hidden).unwrap());
    assert!(binary.view("api").await["locks"].as_array().unwrap().is_empty());
    binary
        .until_printed("why it was read", |line| {
            line.contains("refused, and there is a new secret")
        })
        .await;
    let printed = binary.lines().join("\n");
    assert!(!printed.contains("first-secret") && !printed.contains("second-secret"), "{printed}");
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_again_gets_its_401_and_the_next_exchange_the_new_secret() {
    let api = Guarded::start("second").await;
    let rest = "[upstreams.api.retry]\nreplay_body_max = \"0B\"\n";
    let binary = with_secret(&api.injecting(rest), "first").await;
    binary.write("secret", "second");
    let answer = ask(&binary, "POST /api/x", None, b"once").await;
    assert_eq!((answer.status, attempts(&answer)), (401, 1), "{}", answer.head);
    assert_eq!(ask(&binary, "POST /api/x", None, b"twice").await.status, 200);
    assert_eq!(api.seen(), ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn a_wrong_secret_is_told_at_once_then_locked_and_unlocked_by_a_new_one() {
    let api = Guarded::start("right").await;
    let binary = with_secret(&api.injecting(""), "wrong").await;
    for _ in 0..5 {
        let answer = ask(&binary, "GET /api/x", None, b"").await;
        assert_eq!((answer.status, attempts(&answer)), (401, 1), "{}", answer.head);
    }
    assert_locked(&ask(&binary, "GET /api/x", None, b"").await);
    assert_eq!(api.seen().len(), 5);
    let status = out(&forbear(["status", "--admin", &binary.admin_url()]).await);
    assert!(status.contains("s (locked)") && status.is_ascii(), "{status}");
    // Nobody asks, so it is found by the look that is taken every second.
    binary.write("secret", "right");
    let has_none = |view: &Value| view["locks"].as_array().unwrap().is_empty();
    binary.until_view("api", "no lock", has_none).await;
    let answer = ask(&binary, "GET /api/x", None, b"").await;
    assert_eq!((answer.status, attempts(&answer)), (200, 1), "{}", answer.head);
}

#[tokio::test]
async fn a_token_that_is_refused_five_times_in_a_row_is_locked_over_a_restart_and_no_other() {
    let api = Guarded::start("right").await;
    let configuration = format!("[upstreams.api]\nurl = \"{}\"\n", api.url);
    let mut binary = with_secret(&configuration, "").await;
    let locked = "forbear_credentials_locked{upstream=\"api\"}";
    assert_eq!(binary.metric(locked).await, 0.0);
    for _ in 0..5 {
        assert_eq!(ask(&binary, "GET /api/x", Some("wrong"), b"").await.status, 401);
    }
    assert_locked(&ask(&binary, "GET /api/x", Some("wrong"), b"").await);
    assert_eq!(binary.metric(locked).await, 1.0);
    assert_eq!(ask(&binary, "GET /api/x", Some("right"), b"").await.status, 200);
    assert_eq!(ask(&binary, "GET /api/x", None, b"").await.status, 401, "nobody's is never locked");
    binary.signal(Signal::TERM);
    assert!(binary.ended().await.success());
    let sql = "SELECT kind, upstream, detail FROM event WHERE kind = 'credential'";
    let ledger = binary.folder().join("forbear.db");
    let rows = forbear(["query", "--csv", sql, "--ledger", ledger.to_str().unwrap()]).await;
    let rows = out(&rows);
    assert!(rows.contains("credential,api,refused again and again: locked until 2"), "{rows}");
    let sql = "SELECT upstream, scope, times FROM v_locks";
    let rows = forbear(["query", "--csv", sql, "--ledger", ledger.to_str().unwrap()]).await;
    let rows = out(&rows);
    assert!(rows.contains("\napi,credential ") && rows.lines().count() == 2, "{rows}");
    let printed = binary.lines().join("\n");
    assert!(printed.contains("refused again and again") && !printed.contains("wrong"), "{printed}");

    let binary = Binary::start_in(binary.into_folder(), &[]).await;
    let asked = api.seen().len();
    assert_locked(&ask(&binary, "GET /api/x", Some("wrong"), b"").await);
    assert_eq!(api.seen().len(), asked);
    assert_eq!(ask(&binary, "GET /api/x", Some("right"), b"").await.status, 200);
}

#[tokio::test]
async fn a_secret_that_was_corrected_before_a_restart_is_not_locked_after_it() {
    for (corrected, status) in [(false, 503), (true, 200)] {
        let api = Guarded::start("right").await;
        let mut binary = with_secret(&api.injecting(""), "wrong").await;
        for _ in 0..5 {
            assert_eq!(ask(&binary, "GET /api/x", None, b"").await.status, 401);
        }
        binary.signal(Signal::TERM);
        assert!(binary.ended().await.success());
        if corrected {
            binary.write("secret", "right");
        }
        let binary = Binary::start_in(binary.into_folder(), &[]).await;
        assert_eq!(ask(&binary, "GET /api/x", None, b"").await.status, status);
    }
}

#[tokio::test]
async fn a_key_in_a_query_or_a_cookie_is_a_credential_where_it_is_said_to_be_one() {
    for (setting, one, two) in [
        ("query:api_key", ("?q=1&api_key=k-first", ""), ("?q=1&api_key=k-second", "")),
        ("cookie:sid", ("", "Cookie: a=1; sid=k-first"), ("", "Cookie: a=1; sid=k-second")),
        ("header:x-account", ("", "X-Account: k-first"), ("", "X-Account: k-second")),
    ] {
        let rest = format!("max_wait = \"1s\"\ncredential_from = \"{setting}\"\n");
        let world = World::calm(&rest).await;
        let refusal = answer(429, &[("retry-after", "60")], "");
        world.api.script("/items/1", [refusal]);
        let get = async |(query, field): (&str, &str)| {
            let fields: Vec<&str> = [field].into_iter().filter(|it| !it.is_empty()).collect();
            world.ask(&format!("GET /api/items/1{query}"), &fields, b"").await.status
        };
        assert_eq!(get(one).await, 429, "{setting}");
        let hits = world.api.counters().requests;
        assert_eq!(get(one).await, 429, "{setting}: it is held back");
        assert_eq!(world.api.counters().requests, hits, "{setting}");
        assert_eq!(get(two).await, 200, "{setting}: nothing was said to this one");
        let shown = format!("{:?}", world.forbear.view("api"));
        assert!(shown.contains("credential ") && !shown.contains("k-first"), "{setting}: {shown}");
    }
}
