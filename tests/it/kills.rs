//! Killed at any moment, under load, as often as it is asked for: what somebody was told is still
//! known to the next process. `FORBEAR_TEST_KILLS=1000` is the long version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forbear::demo::api::FakeApi;
use forbear::demo::limiter::Limiter;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::binary::Binary;
use crate::support::raw::{RawClient, RawResponse};
use crate::support::world::request;

/// Kills in every test run.
const KILLS: u32 = 15;
/// Requests under way all the time.
const LOAD: usize = 4;

#[expect(clippy::disallowed_methods, reason = "the only way to tell a test how long to be")]
fn kills() -> u32 {
    let wish = std::env::var("FORBEAR_TEST_KILLS");
    wish.map_or(KILLS, |kills| kills.parse().expect("FORBEAR_TEST_KILLS is a number"))
}

/// What one process was told before it was killed.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// 429 with `Retry-After`, to a credential of its own.
    Cooldown,
    /// Failures that opened a breaker.
    Breaker,
    /// A breaker that a person opened.
    Override,
}

struct Scene {
    api: FakeApi,
    binary: Binary,
    chance: fastrand::Rng,
}

impl Scene {
    async fn ask(&self, path: &str, fields: &[&str]) -> RawResponse {
        let fields = [fields, &["Forbear-Wait: none"]].concat();
        let mut client = RawClient::connect(self.binary.proxy()).await;
        client.ask(request(&format!("GET {path}"), &fields, b"")).await
    }

    /// Clients that ask until they are told to stop, whatever becomes of it.
    fn load(&self) -> Arc<AtomicBool> {
        let goes_on = Arc::new(AtomicBool::new(true));
        for n in 0..LOAD {
            let (goes_on, proxy) = (goes_on.clone(), self.binary.proxy());
            tokio::spawn(async move {
                while goes_on.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(proxy).await else { break };
                    let asked =
                        request(&format!("GET /load/items/{n}"), &["Connection: close"], b"");
                    // It may be killed at any moment of this.
                    if stream.write_all(asked.as_ref()).await.is_ok() {
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    }
                }
            });
        }
        goes_on
    }

    /// Kills it at some moment within the next 12 ms and starts another one with its files.
    async fn kill(mut self) -> Self {
        tokio::time::sleep(Duration::from_micros(self.chance.u64(0..12_000))).await;
        self.binary.signal(Signal::KILL);
        assert!(!self.binary.ended().await.success());
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.binary.folder()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let binary = Binary::start_in(folder, &[]).await;
        let moved = binary.lines().into_iter().find(|line| line.contains("moved aside"));
        assert_eq!(moved, None, "the file can be opened");
        Self { binary, ..self }
    }

    /// Requests that the API has seen for this path.
    fn seen(&self, path: &str) -> usize {
        self.api.log().iter().filter(|record| record.target == path).count()
    }
}

fn status(status: u16, fields: &[(&'static str, &'static str)]) -> Step {
    let fields = fields.iter().map(|(name, value)| {
        let name = http::HeaderName::from_static(name);
        (name, http::HeaderValue::from_static(value))
    });
    Step::Status(status, fields.collect(), "".into())
}

async fn one_kill(mut scene: Scene, n: u32) -> Scene {
    let told = [Told::Cooldown, Told::Breaker, Told::Override][n as usize % 3];
    let path = format!("/items/{}", 1000 + n);
    let who = format!("Authorization: Bearer {n}");
    let load = scene.load();
    let (asked, decision) = match told {
        Told::Cooldown => {
            scene.api.script(&path, [status(429, &[("retry-after", "20")])]);
            (format!("/limited{path}"), "cooldown")
        }
        Told::Breaker => {
            scene.api.script(&path, [status(500, &[])]);
            (format!("/ill{path}"), "breaker_open")
        }
        Told::Override => (format!("/held{path}"), "breaker_open"),
    };
    let before = match told {
        Told::Override => {
            let order = r#"{"state":"open","reason":"their incident","for":"1h"}"#;
            let done = scene.binary.post("/api/v1/upstreams/held/breaker", order).await;
            assert_eq!(done.status, 200);
            0
        }
        Told::Cooldown | Told::Breaker => {
            let answer = scene.ask(&asked, &[&who]).await;
            assert!(matches!(answer.status, 429 | 500), "{}", answer.head);
            1
        }
    };
    load.store(false, Ordering::Relaxed);
    scene = scene.kill().await;
    let answer = scene.ask(&asked, &[&who]).await;
    assert_eq!(answer.field("forbear-decision"), Some(decision), "kill {n}, {told:?}");
    assert_eq!(scene.seen(&path), before, "kill {n}, {told:?}: nothing was sent");
    // For the next one, and nothing is closed for longer than it was told.
    match told {
        Told::Cooldown => {}
        Told::Breaker => {
            let closed = r#"{"state":"closed","reason":"next","for":"1s"}"#;
            scene.binary.post("/api/v1/upstreams/ill/breaker", closed).await;
            assert_eq!(scene.ask(&asked, &[&who]).await.status, 200, "kill {n}");
            let auto = r#"{"state":"auto","reason":"next"}"#;
            scene.binary.post("/api/v1/upstreams/ill/breaker", auto).await;
        }
        Told::Override => {
            let view = scene.binary.view("held").await;
            assert_eq!(view["breaker"][0]["forced_reason"], "their incident", "kill {n}");
            let auto = r#"{"state":"auto","reason":"next"}"#;
            scene.binary.post("/api/v1/upstreams/held/breaker", auto).await;
            assert_eq!(scene.ask(&asked, &[&who]).await.status, 200, "kill {n}");
        }
    }
    scene
}

#[tokio::test]
async fn what_was_told_before_a_kill_is_known_after_it() {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let upstream = |name: &str, rest: &str| {
        format!("[upstreams.{name}]\nurl = \"{}\"\nretry.attempts_max = 1\n{rest}", api.url())
    };
    let text = [
        upstream("limited", ""),
        upstream("ill", "breaker.consecutive_failures = 1\nbreaker.open_for = \"20s\"\n"),
        upstream("held", ""),
        upstream("load", ""),
    ];
    let binary = Binary::start(&text.concat()).await;
    let mut scene = Scene { api, binary, chance: fastrand::Rng::with_seed(7) };
    for n in 0..kills() {
        scene = one_kill(scene, n).await;
    }
}

/// Sixteen clients that ask one after the other, until all have what they want.
async fn job(binary: &Binary) {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..16 {
        let proxy = binary.proxy();
        clients.spawn(async move {
            let mut connection = RawClient::connect(proxy).await;
            for n in 0..8 {
                let asked = request(&format!("GET /api/items/{}", client * 8 + n), &[], b"");
                assert_eq!(connection.ask(asked).await.status, 200);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn an_api_that_says_nothing_need_not_refuse_again_to_teach_the_next_process() {
    let settings = ApiSettings {
        limiter: Limiter::Concurrency { limit: 3 },
        latency: Duration::from_millis(5),
        ..ApiSettings::default()
    };
    let api = FakeApi::start(settings).await.unwrap();
    let text = format!(
        "[defaults]\nretry.backoff_base = \"50ms\"\n[upstreams.api]\nurl = \"{}\"\n",
        api.url()
    );
    let mut binary = Binary::start(&text).await;
    job(&binary).await;
    let first = api.counters().refused;
    assert!(first >= 3, "all at once, and three fitted: {first}");
    // Asking the ledger writes what was learned before.
    binary.admin_get("/api/v1/exchanges?last=1").await;
    binary.signal(Signal::KILL);
    binary.ended().await;

    let binary = Binary::start_in(binary.into_folder(), &[]).await;
    job(&binary).await;

    let second = api.counters().refused - first;
    println!("{first} refusals before the restart, {second} after it");
    assert!(second * 3 <= first, "{first} refusals before the restart, {second} after it");
}
