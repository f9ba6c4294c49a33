//! That the story of an exchange leaves no time out: over a thousand real exchanges, of which many
//! wait, are refused, fail or are left, all intervals together are the time that it took, and that
//! is the time that the client saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forbear::admin::backend::Backend;
use forbear::demo::api::FakeApi;
use forbear::demo::hints::Hints;
use forbear::demo::limiter::Limiter;
use forbear::demo::script::Step;
use forbear::demo::settings::{ApiSettings, Faults};
use forbear::store::read::{Filter, Question};
use forbear::store::view::ExchangeView;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::forbear::Forbear;
use crate::support::raw::RawClient;
use crate::support::world::request;

/// What the intervals may differ by from the whole.
const EXACT_MS: f64 = 1.0;
/// Shares of the time that may be forbear's own, and that only the client saw: both run in one
/// process, with all clients on one thread.
const UNEXPLAINED_MAX: f64 = 0.05;
const UNSEEN_MAX: f64 = 0.5;
/// Clients of each API, and the requests of each client.
const CLIENTS: u32 = 25;
const REQUESTS: u32 = 10;
/// Requests whose client leaves, and requests that hang for a while.
const LEAVERS: u32 = 20;
const HANGS: u32 = 10;

/// Five APIs: one that answers, sometimes badly; two that limit, of which one does not say so; one
/// that is too slow now and then; and one that hangs.
struct Scene {
    apis: Vec<(&'static str, FakeApi)>,
    forbear: Forbear,
    releases: Vec<Arc<Notify>>,
}

impl Scene {
    async fn start() -> Self {
        let ms = Duration::from_millis;
        let api = |limiter, hints, faults| ApiSettings {
            limiter,
            hints,
            faults,
            latency: ms(3),
            ..ApiSettings::default()
        };
        let faults = Faults { reset_every: Some(29), error_every: Some(17) };
        let window = Limiter::FixedWindow { limit: 100, window: ms(500) };
        let mut apis = Vec::new();
        let mut text = "[state]\npath = \":memory:\"\nledger_successes_per_second = 1000000\n\
                        [defaults]\nmax_wait = \"8s\"\nbreaker.consecutive_failures = 1000\n\
                        breaker.failure_rate = \"off\"\nretry.backoff_base = \"20ms\"\n"
            .to_owned();
        for (name, settings, rest) in [
            ("faulty", api(Limiter::None, Hints::None, faults), "in_flight_max = 4\n"),
            ("bare", api(Limiter::Concurrency { limit: 3 }, Hints::None, Faults::default()), ""),
            ("window", api(window, Hints::RetryAfterMs, Faults::default()), ""),
            ("slow", ApiSettings::default(), "attempt_timeout = \"150ms\"\nin_flight_max = 8\n"),
            ("hangs", ApiSettings::default(), "in_flight_max = 3\n"),
        ] {
            let api = FakeApi::start(settings).await.unwrap();
            text.push_str(&format!("[upstreams.{name}]\nurl = \"{}\"\n{rest}", api.url()));
            apis.push((name, api));
        }
        let releases: Vec<_> = (0..HANGS).map(|_| Arc::new(Notify::new())).collect();
        let slow = std::iter::repeat_n(Step::Delay(ms(400)), 3);
        apis[3].1.script("/items/3", slow);
        apis[4].1.script("/items/1", releases.iter().map(|release| Step::Hang(release.clone())));
        Self { apis, forbear: Forbear::start(&text), releases }
    }

    /// Sends everything; what each exchange took, as its client saw it.
    async fn ask_all(&self) -> HashMap<String, Duration> {
        let mut clients = JoinSet::new();
        for name in self.apis[..4].iter().map(|(name, _)| *name) {
            for number in 0..CLIENTS {
                let proxy = self.forbear.proxy();
                clients.spawn(async move {
                    let mut client = RawClient::connect(proxy).await;
                    let mut seen = Vec::new();
                    for item in 0..REQUESTS {
                        let asked =
                            request(&format!("GET /{name}/items/{}", number + item), &[], b"");
                        let began = Instant::now();
                        let answer = client.ask(asked).await;
                        let id = answer.field("forbear-request-id").unwrap().to_owned();
                        seen.push((id, began.elapsed()));
                    }
                    seen
                });
            }
        }
        let mut hanging = Vec::new();
        for (clients, queued) in [(3, 0), (HANGS + LEAVERS - 3, HANGS + LEAVERS - 3)] {
            for _ in 0..clients {
                hanging.push(self.hang().await);
            }
            let are_there = |it: &Forbear| {
                let view = it.view("hangs");
                (view.in_flight, view.queued) == (3, queued)
            };
            self.forbear.until("all at the API that hangs, or in line", are_there).await;
        }
        // Of those who leave, two are at the API, and the others wait.
        hanging.drain(..2);
        hanging.truncate(HANGS as usize);
        for release in &self.releases {
            release.notify_one();
        }
        let mut seen = HashMap::new();
        while let Some(client) = clients.join_next().await {
            seen.extend(client.unwrap());
        }
        for mut client in hanging {
            assert_eq!(client.response().await.status, 200);
        }
        seen
    }

    async fn hang(&self) -> RawClient {
        let mut client = RawClient::connect(self.forbear.proxy()).await;
        client.send(request("GET /hangs/items/1", &[], b"")).await;
        client
    }

    /// All stories, once they are told.
    async fn told(&self) -> Vec<ExchangeView> {
        let expected = 4 * CLIENTS * REQUESTS + HANGS + LEAVERS;
        for _ in 0..1_000 {
            let mut told = Vec::new();
            for (name, _) in &self.apis {
                let upstream = Some((*name).to_owned());
                let filter = Filter { last: 1_000, upstream, ..Filter::default() };
                let asked = self.forbear.control().ask_ledger(Question::Last(filter)).await;
                told.extend(asked.unwrap());
            }
            if told.len() == expected as usize {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not all of {expected} exchanges are told");
    }
}

fn sum<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().sum()
}

#[tokio::test]
async fn the_intervals_of_a_thousand_exchanges_are_the_time_that_each_took() {
    let scene = Scene::start().await;
    let seen = scene.ask_all().await;
    let told = scene.told().await;
    let (mut took, mut own, mut by_clients) = (0.0, 0.0, 0.0);
    for view in &told {
        let waited = sum(view.waited_ms.values());
        let before_attempts: f64 =
            view.attempts.iter().map(|attempt| sum(attempt.waited_ms.values())).sum();
        let sending: f64 = view.attempts.iter().map(|attempt| attempt.ms).sum();
        let all = waited + sending + view.streamed_ms + view.own_ms;
        assert!((all - view.took_ms).abs() < EXACT_MS, "{all}: {view:#?}");
        assert!(before_attempts <= waited + EXACT_MS, "{view:#?}");
        if let Some(client) = seen.get(&view.id) {
            let client_ms = client.as_secs_f64() * 1000.0;
            assert!(view.took_ms <= client_ms + EXACT_MS, "{client_ms}: {view:#?}");
            by_clients += client_ms;
            took += view.took_ms;
        }
        own += view.own_ms;
    }
    // Nothing hides in what is left over, or between the client and forbear.
    assert!(own < took * UNEXPLAINED_MAX, "{own} of {took} ms");
    assert!(by_clients - took < by_clients * UNSEEN_MAX, "{took} of {by_clients} ms");
    // And it was no calm sea.
    for kind in ["queue", "cooldown", "backoff"] {
        assert!(told.iter().any(|view| view.waited_ms.contains_key(kind)), "nobody waited: {kind}");
    }
    let timed_out = |view: &ExchangeView| {
        view.attempts.iter().any(|attempt| attempt.error.as_deref() == Some("timeout_first_byte"))
    };
    assert!(told.iter().any(timed_out), "nothing was cut");
    assert!(told.iter().filter(|view| view.attempts.len() > 1).count() > 20, "few were repeated");
    let left = |view: &&ExchangeView| view.outcome == "client_disconnect";
    assert_eq!(told.iter().filter(left).count(), LEAVERS as usize);
    let at_api = |view: &&ExchangeView| left(view) && !view.attempts.is_empty();
    assert_eq!(told.iter().filter(at_api).count(), 2);
}
