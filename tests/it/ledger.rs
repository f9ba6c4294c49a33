//! The ledger of the built program: explained, queried, read while it is written, and what of it
//! outlives a `kill -9`.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use forbear::admin::backend::Backend;
use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use forbear::store::read::{Filter, Question};
use rustix::process::Signal;
use tokio::sync::Notify;

use crate::support::binary::{Binary, command, err, forbear, out};
use crate::support::forbear::Forbear;
use crate::support::raw::RawClient;
use crate::support::world::{World, answer as scripted, request};

/// An API, a forbear before it in a folder of its own, and requests through it.
struct Scene {
    api: FakeApi,
    binary: Binary,
}

impl Scene {
    async fn start(rest: &str) -> Self {
        let api = FakeApi::start(ApiSettings::default()).await.unwrap();
        let text = format!("[upstreams.api]\nurl = \"{}\"\n{rest}", api.url());
        Self { binary: Binary::start(&text).await, api }
    }

    /// The id of the exchange, once its answer is complete.
    async fn get(&self, path: &str, fields: &[&str]) -> String {
        let mut client = RawClient::connect(self.binary.proxy()).await;
        let answer = client.ask(request(&format!("GET {path}"), fields, b"")).await;
        answer.field("forbear-request-id").unwrap().to_owned()
    }

    async fn forbear(&self, arguments: &[&str]) -> std::process::Output {
        let admin = self.binary.admin_url();
        let mut all = arguments.to_vec();
        if arguments[0] != "query" {
            all.extend(["--admin", &admin]);
        }
        forbear_in(self.binary.folder(), &all).await
    }
}

fn answer(status: u16) -> Step {
    Step::Status(status, Vec::new(), "fine".into())
}

fn limited(seconds: u64) -> Step {
    Step::Status(429, vec![(http::header::RETRY_AFTER, seconds.into())], "".into())
}

async fn forbear_in(folder: &Path, arguments: &[&str]) -> std::process::Output {
    command(arguments).current_dir(folder).output().await.unwrap()
}

#[tokio::test]
async fn an_exchange_is_explained_right_after_its_answer_and_after_the_end() {
    let scene = Scene::start("").await;
    scene.api.script("/x", [limited(1), answer(200)]);
    let id = scene.get("/api/x?token=hunter2", &["Forbear-Run: nightly-7"]).await;

    let told = scene.forbear(&["explain", &id]).await;
    let text = out(&told);
    assert!(told.status.success(), "{}", err(&told));
    assert!(text.contains("attempt 1: 429 throttled, retry-after: 1"), "{text}");
    assert!(text.contains("cooled down, as retry-after said"), "{text}");
    assert!(text.contains("attempt 2: 200 ok"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains('\u{1b}'), "{text:?}");

    let unknown = scene.forbear(&["explain", "01KF0HJ0800000000000000000"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("state.ledger_keep"), "{}", err(&unknown));

    let Scene { mut binary, .. } = scene;
    binary.signal(Signal::TERM);
    assert!(binary.ended().await.success());
    let nobody = "http://127.0.0.1:9";
    let after = forbear_in(binary.folder(), &["explain", &id, "--admin", nobody]).await;
    assert_eq!(out(&after), text);
    let listed = ["explain", "--run", "nightly-7", "--json", "--admin", nobody];
    let listed = out(&forbear_in(binary.folder(), &listed).await);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["id"], id.as_str());
    assert_eq!(listed[0]["path"], "/api/x");
}

#[tokio::test]
async fn whoever_reads_the_file_just_after_an_answer_finds_it_or_is_told_why_not() {
    let scene = Scene::start("[state]\npath = \"forbear.db\"\n").await;
    let nobody = ["--admin", "http://127.0.0.1:9"];
    let list = ["explain", "--ledger", "forbear.db", "--last", "5"];
    let listed = forbear_in(scene.binary.folder(), &list).await;
    assert!(listed.status.success(), "{}", err(&listed));
    assert!(err(&listed).contains("within the last second"), "{}", err(&listed));

    let id = scene.get("/api/items/1", &["Authorization: Bearer one"]).await;
    let read = forbear_in(scene.binary.folder(), &["explain", &id, "--ledger", "forbear.db"]).await;
    assert!(out(&read).contains("attempt 1: 200 ok"), "{}{}", out(&read), err(&read));
    let id = scene.get("/api/items/1", &["Authorization: Bearer one"]).await;
    let read = forbear_in(scene.binary.folder(), &[&["explain", &id][..], &nobody].concat()).await;
    assert!(out(&read).contains(" · credential "), "{}{}", out(&read), err(&read));

    // The configuration says where its forbear is, so nobody has to repeat it.
    let config = std::fs::read_to_string(scene.binary.folder().join("config.toml")).unwrap();
    let admin = scene.binary.admin().to_string();
    let place =
        config.lines().find(|line| line.contains("127.0.0.1:0") && config.contains("[admin]"));
    assert!(place.is_some(), "{config}");
    let (before, after) = config.split_once("[admin]").unwrap();
    let moved = format!("{before}[admin]{}", after.replacen("127.0.0.1:0", &admin, 1));
    std::fs::write(scene.binary.folder().join("config.toml"), moved).unwrap();
    let id = scene.get("/api/items/1", &[]).await;
    let asked = [&["explain", "--last", "5"][..], &nobody].concat();
    let asked = forbear_in(scene.binary.folder(), &asked).await;
    assert!(out(&asked).contains(&id), "{}{}", out(&asked), err(&asked));
    assert_eq!(err(&asked), "", "a running forbear lacks nothing");

    let unknown = "01M7Z8W0VV80B3FNN5QW4EGXDX";
    let unknown = err(&scene.forbear(&["explain", unknown]).await);
    assert!(unknown.contains(&format!("the forbear at {admin}")), "{unknown}");
}

#[tokio::test]
async fn sql_is_answered_while_it_is_written_by_forbear_and_by_sqlite3() {
    let scene = Scene::start("").await;
    scene.api.script("/gone", [answer(404)]);
    let id = scene.get("/api/gone", &[]).await;
    // Asking the ledger writes what was told before.
    scene.forbear(&["explain", &id]).await;

    let sql = "SELECT id, status, outcome FROM exchange";
    let csv = out(&scene.forbear(&["query", "--csv", sql]).await);
    assert_eq!(csv, format!("id,status,outcome\r\n{id},404,client_error\r\n"));
    let json = out(&scene.forbear(&["query", "--json", sql]).await);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::json!([{ "id": id, "status": 404, "outcome": "client_error" }]));
    let table = out(&scene.forbear(&["query", sql]).await);
    assert!(table.starts_with("id ") && table.contains("404     client_error"), "{table}");
    let all = out(&scene.forbear(&["query"]).await);
    assert!(all.contains("v_open_circuits  upstream, route, state, opened_at"), "{all}");

    for wrong in ["SELEC 1", "DELETE FROM exchange", "SELECT 1; SELECT 2"] {
        let refused = scene.forbear(&["query", wrong]).await;
        assert_eq!(refused.status.code(), Some(2), "{wrong}: {}", out(&refused));
    }

    let database = scene.binary.folder().join("forbear.db");
    let shell = std::process::Command::new("sqlite3")
        .arg("-readonly")
        .arg(&database)
        .arg("SELECT avg_attempts FROM v_fleet")
        .stderr(Stdio::inherit())
        .output();
    match shell {
        Ok(shell) => assert_eq!(out(&shell), "1.0\n"),
        Err(_) => println!("skipped: there is no sqlite3 on this machine"),
    }
}

#[tokio::test]
async fn without_a_file_the_way_to_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = ["explain", "--last", "3", "--admin", "http://127.0.0.1:9"];
    let said = err(&forbear_in(folder.path(), &nobody).await);
    assert!(said.contains("nothing listens") && said.contains("--ledger"), "{said}");
    let text = "[state]\npath = \":memory:\"\n[upstreams.a]\nurl = \"https://a.example\"\n";
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let said = err(&forbear_in(folder.path(), &["query", "SELECT 1"]).await);
    assert!(said.contains("state.path = \":memory:\""), "{said}");
    std::fs::write(folder.path().join("x.db"), "no database at all").unwrap();
    let said = err(&forbear_in(folder.path(), &["query", "SELECT 1", "--ledger", "x.db"]).await);
    assert!(said.contains("no SQLite database"), "{said}");
    let help = forbear(["explain", "ID", "--failed"]).await;
    assert_eq!(help.status.code(), Some(2));
}

#[tokio::test]
async fn what_was_learned_outlives_kill_9() {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    api.script("/x", [limited(600)]);
    let text = format!(
        "[defaults]\nmax_wait = \"1s\"\n[upstreams.api]\nurl = \"{0}\"\n\
         [upstreams.other]\nurl = \"{0}\"\n",
        api.url()
    );
    let binary = Binary::start(&text).await;
    let scene = Scene { api, binary };
    scene.get("/api/x", &["Authorization: Bearer one"]).await;
    let override_it = ["breaker", "open", "other", "--reason", "their incident 7", "--for", "2h"];
    assert!(scene.forbear(&override_it).await.status.success());
    // Asking the ledger waits for what was told before, state included.
    scene.forbear(&["explain", "--last", "1"]).await;

    let Scene { api, mut binary } = scene;
    binary.signal(Signal::KILL);
    assert!(!binary.ended().await.success());
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(binary.folder()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let scene = Scene { api, binary: Binary::start_in(folder, &[]).await };

    let hits = scene.api.log().len();
    for (path, code) in [("/api/x", "cooldown"), ("/other/x", "breaker_open")] {
        let mut client = RawClient::connect(scene.binary.proxy()).await;
        let fields = ["Authorization: Bearer one"];
        let answer = client.ask(request(&format!("GET {path}"), &fields, b"")).await;
        assert_eq!(answer.field("forbear-decision"), Some(code));
    }
    assert_eq!(scene.api.log().len(), hits, "nothing was sent");
    let other = scene.binary.view("other").await;
    assert_eq!(other["breaker"][0]["forced_reason"], "their incident 7");
    // Another credential was told nothing.
    scene.get("/api/x", &["Authorization: Bearer two"]).await;
    assert_eq!(scene.api.log().len(), hits + 1);
}

#[tokio::test]
async fn who_waited_is_told_behind_how_many_also_if_they_left() {
    let world = World::calm("in_flight_max = 1\n").await;
    let hold = Arc::new(Notify::new());
    world.api.script("/items/1", [Step::Hang(hold.clone())]);
    let mut clients = Vec::new();
    for (path, queued) in [("1", 0), ("2", 1), ("3", 2), ("4", 3)] {
        let mut client = RawClient::connect(world.forbear.proxy()).await;
        client.send(request(&format!("GET /api/items/{path}"), &[], b"")).await;
        let there = |it: &Forbear| {
            let view = it.view("api");
            view.in_flight == 1 && view.queued == queued
        };
        world.forbear.until("the next one", there).await;
        clients.push(client);
    }
    drop(clients.pop());
    world.forbear.until("one to leave", |it| it.view("api").queued == 2).await;
    hold.notify_one();
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    let question = Question::Last(Filter { last: 10, ..Filter::default() });
    let told = world.forbear.control().ask_ledger(question).await.unwrap();
    let of = |n: &str| told.iter().find(|view| view.path == format!("/api/items/{n}")).unwrap();
    let behind = ["1", "2", "3", "4"].map(|n| of(n).behind);
    assert_eq!(behind, [None, Some(0), Some(1), Some(2)]);
    let left = of("4");
    assert_eq!((left.outcome.as_str(), left.attempts.len()), ("client_disconnect", 0));
    assert!(left.waited_ms["queue"] > 0.0 && left.own_ms < left.took_ms, "{left:?}");
}

#[tokio::test]
async fn whatever_field_named_a_time_is_quoted() {
    let world = World::calm("max_wait = \"10ms\"\n").await;
    for (path, field, source, raw) in [
        ("/a", ("retry-after-ms", "2000"), "retry-after-ms", "retry-after-ms: 2000"),
        ("/b", ("x-shop-retry-after", "7"), "vendor-retry-after", "x-shop-retry-after: 7"),
    ] {
        world.api.script(path, [scripted(429, &[field], "")]);
        world.ask(&format!("GET /api{path}"), &[&format!("Authorization: {path}")], b"").await;
        let question = Question::Last(Filter { last: 1, ..Filter::default() });
        let told = world.forbear.control().ask_ledger(question).await.unwrap();
        let hint = told[0].attempts[0].hint.as_ref().unwrap();
        assert_eq!((hint.source.as_str(), hint.raw.as_deref()), (source, Some(raw)));
    }
}
