//! The whole way of an exchange, socket to socket, over pipes with a paused clock: half a minute's
//! wait is tested to the millisecond and takes no time.

use std::collections::VecDeque;

use arc_swap::ArcSwap;

use super::*;
use crate::config;
use crate::gateway::clock::Clock;
use crate::gateway::{Common, Gateway};
use crate::policy::time::MonoTime;
use crate::proxy::Proxy;
use crate::telemetry::access::AccessLogger;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::writer::LogWriter;
use crate::transport::{Dial, Target};

/// What the upstream says to one request; it then keeps the connection.
type Script = Arc<Mutex<VecDeque<&'static str>>>;

/// One forbear with one upstream, `/api`.
struct World {
    clock: Clock,
    host: Host<Proxy>,
    metrics: Arc<Metrics>,
    /// When each attempt reached the upstream.
    arrivals: Arc<Mutex<Vec<Duration>>>,
    _orders: watch::Sender<Orders>,
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
const SILENCE: &str = "";

impl World {
    /// With these settings of the upstream, which says this and is silent from then on.
    fn with(settings: &str, script: impl IntoIterator<Item = &'static str>) -> Self {
        let text = format!("[upstreams.api]\nurl = \"http://memory\"\n{settings}\n");
        let settings = config::load_str(&text, "test.toml", &|_| None).unwrap().settings;
        let settings = Arc::new(settings);
        let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
        let log = LogWriter::start(std::io::sink(), metrics.log_lines_dropped.clone()).unwrap();
        let common = Common::new(clock, metrics.clone(), &settings);
        let access = AccessLogger::new(settings.log, log);
        let mut gateway = Gateway::build(settings, access, &common, None).unwrap();
        gateway.enforce();

        let script: Script = Arc::new(Mutex::new(script.into_iter().collect()));
        let arrivals = Arc::<Mutex<Vec<Duration>>>::default();
        let seen = arrivals.clone();
        let dial: Dial = Arc::new(move || {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(serve(far, clock, script.clone(), seen.clone()));
            Box::pin(async move { Ok(near) })
        });
        let upstream = Arc::get_mut(&mut gateway.upstreams[0]).expect("nobody else has it yet");
        upstream.target = Arc::new(Target::in_memory(dial, Duration::from_secs(5)));
        let (orders, watching) = watch::channel(Orders {
            accept: Accept::Yes,
            connections: Connections::Keep,
            timeouts: TIMEOUTS,
        });
        let exchanges = Proxy::new(Arc::new(ArcSwap::from_pointee(gateway)));
        let host = Host { exchanges, orders: watching, load: Arc::new(Load::new(1)) };
        Self { clock, host, metrics, arrivals, _orders: orders }
    }

    /// Sends a GET with these fields; the answer, and how long it took.
    async fn get(&self, fields: &str) -> (String, Duration) {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let connection = Arc::new(Connection::new(peer, peer, ListenerId::Main(0)));
        tokio::spawn(session::run(server, connection, None, self.host.clone()));
        let start = self.clock.now();
        let head = format!("GET /api/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        (String::from_utf8(bytes).unwrap(), self.clock.now().since(start))
    }

    /// The time between the first attempt and each further one.
    fn waits(&self) -> Vec<Duration> {
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.iter().skip(1).map(|at| *at - arrivals[0]).collect()
    }
}

/// One connection of the upstream.
async fn serve(
    mut stream: DuplexStream,
    clock: Clock,
    script: Script,
    seen: Arc<Mutex<Vec<Duration>>>,
) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            seen.lock().unwrap().push(clock.now().since(MonoTime::ZERO));
            let says = script.lock().unwrap().pop_front().unwrap_or(SILENCE);
            stream.write_all(says.as_bytes()).await.unwrap();
        }
    }
}

/// Timers have milliseconds, so a few may be added; none may be missing.
fn assert_about(took: Duration, expected: Duration) {
    let late = took.checked_sub(expected).unwrap_or_else(|| panic!("{took:?} < {expected:?}"));
    assert!(late <= Duration::from_millis(5), "{took:?} instead of {expected:?}");
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const LATER: &str = "HTTP/1.1 429 Slow\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn told_to_come_back_in_half_a_minute_forbear_comes_back_then() {
    let world = World::with("", [LATER, OK]);
    let (answer, took) = world.get("").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fine"), "{answer}");
    assert!(answer.contains("forbear-waited-ms: 30300;cooldown=30300"), "{answer}");
    // Half a minute, and one per cent that may not be missing.
    assert_about(took, ms(30_300));
    assert_about(world.waits()[0], ms(30_300));
}

#[tokio::test(start_paused = true)]
async fn a_wait_longer_than_the_client_has_patience_is_not_begun() {
    let world = World::with("", [LATER, OK]);
    let (answer, took) = world.get("Forbear-Wait: 20s\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("retry-after: 31\r\n"), "{answer}");
    assert_about(took, Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (answer, took) = world.get("Forbear-Wait: 20s\r\n").await;
    assert!(answer.contains("\"code\":\"cooldown\""), "{answer}");
    assert!(answer.contains("retry-after: 26\r\n"), "{answer}");
    assert_about(took, Duration::ZERO);
    assert!(world.waits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_says_nothing_is_given_its_time_and_no_more() {
    let world = World::with("attempt_timeout = \"10s\"\nretry.attempts_max = 1", [SILENCE]);
    let (answer, took) = world.get("").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_about(took, ms(10_000));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_cut_when_it_has_been_idle_for_its_time() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let world = World::with("idle_timeout = \"7s\"", [half]);
    let (answer, took) = world.get("").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("half"), "{answer}");
    assert_about(took, ms(7_000));
}

#[tokio::test(start_paused = true)]
async fn between_two_attempts_lies_the_configured_pause() {
    const ILL: &str = "HTTP/1.1 502 Ill\r\nContent-Length: 0\r\n\r\n";
    let retry = "retry.backoff = \"fixed\"\nretry.backoff_base = \"2s\"";
    let world = World::with(retry, [ILL, ILL, OK]);
    let (answer, _) = world.get("").await;
    assert!(answer.contains("forbear-attempts: 3") && answer.ends_with("fine"), "{answer}");
    let [second, third] = world.waits()[..] else { panic!("three attempts") };
    assert_about(second, ms(2_000));
    assert_about(third, ms(4_000));
}

#[tokio::test]
async fn a_bug_in_an_exchange_is_answered_and_counted() {
    let world = World::with("", []);
    let response = world.host.exchanges.panicked();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()[http::header::CONTENT_TYPE], "application/problem+json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["code"], &body["status"]), (&"internal".into(), &500.into()));
    assert_eq!(world.metrics.panics.get(), 1);
}
