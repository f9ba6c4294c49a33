//! Jobs that are over before anybody has looked: an end by itself, and what was counted put away.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::binary::{Binary, folder_with, value_of};
use crate::support::exposition;
use crate::support::forbear::with_free_ports;
use crate::support::raw::RawClient;

/// Longest wait for an end that has to come; `drain_timeout` alone would be 25 s.
const SOON: Duration = Duration::from_secs(20);

/// What a Pushgateway was sent.
type Put = (Method, String, HeaderMap, String);

/// Something like a Pushgateway, which always gives the same answer.
#[derive(Clone)]
struct Gateway {
    answer: StatusCode,
    puts: Arc<Mutex<Vec<Put>>>,
}

impl Gateway {
    async fn start(answer: StatusCode) -> (Self, SocketAddr) {
        let gateway = Self { answer, puts: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(Self::take).with_state(gateway.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (gateway, address)
    }

    async fn take(
        State(this): State<Self>,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: String,
    ) -> StatusCode {
        this.puts.lock().unwrap().push((method, uri.path().to_owned(), headers, body));
        this.answer
    }

    /// The only request.
    fn put(&self) -> Put {
        let puts = self.puts.lock().unwrap();
        assert_eq!(puts.len(), 1, "{puts:?}");
        puts[0].clone()
    }
}

/// A configuration with an API behind it.
async fn configured(proxy: &str, rest: &str) -> (FakeApi, String) {
    let api = FakeApi::start(ApiSettings::default()).await.unwrap();
    let upstream = format!("[upstreams.api]\nurl = \"{}\"\n", api.url());
    (api, format!("[proxy]\ndrain_idle = \"10ms\"\n{proxy}\n{rest}\n{upstream}"))
}

fn push_to(address: SocketAddr) -> String {
    format!("[metrics.push]\nurl = \"http://{address}/metrics/job/nightly\"\n")
}

/// Starts one that runs this command, if any.
async fn start(text: &str, command: &[&str]) -> Binary {
    Binary::start_in(folder_with(&with_free_ports(text)).0, command).await
}

async fn ends_well(binary: &mut Binary) {
    let status = timeout(SOON, binary.ended()).await;
    let status = status.unwrap_or_else(|_| panic!("it runs on: {}", binary.lines().join("\n")));
    assert_eq!(status.code(), Some(0), "{}", binary.lines().join("\n"));
}

#[tokio::test]
async fn without_an_exchange_for_idle_exit_forbear_ends_by_itself_and_says_why() {
    let began = Instant::now();
    let (_api, text) = configured("idle_exit = \"2s\"", "").await;
    let mut binary = Binary::start(&text).await;
    assert_eq!(binary.get("/api/items/1").await.status, 200);
    ends_well(&mut binary).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    binary.until_printed("why", |line| line.contains("proxy.idle_exit")).await;
    binary.until_printed("the drain", |line| line.contains("draining: ")).await;
}

#[tokio::test]
async fn what_waits_is_in_flight_or_has_become_a_tunnel_keeps_it_alive() {
    let (api, text) = configured("idle_exit = \"2s\"", "").await;
    let release = Arc::new(Notify::new());
    api.script("/items/1", [Step::Hang(release.clone())]);
    let mut binary = Binary::start(&format!("{text}in_flight_max = 1\n")).await;
    let mut slow = RawClient::connect(binary.proxy()).await;
    slow.send("GET /api/items/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    api.until("the request at the API", |seen| seen.requests == 1).await.unwrap();
    let mut queued = RawClient::connect(binary.proxy()).await;
    queued.send("GET /api/items/2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    // Twice as long as it would last, if nobody were there.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(binary.runs(), "{}", binary.lines().join("\n"));
    release.notify_one();
    assert_eq!(slow.response().await.status, 200);
    assert_eq!(queued.response().await.status, 200);
    ends_well(&mut binary).await;
}

#[tokio::test]
async fn a_tunnel_keeps_it_alive_although_no_request_comes() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let text = format!(
        "[proxy]\ndrain_idle = \"10ms\"\nidle_exit = \"2s\"\n\
         [upstreams.api]\nurl = \"http://{address}\"\n"
    );
    let mut binary = Binary::start(&text).await;
    let mut client = RawClient::connect(binary.proxy()).await;
    let ask =
        "GET /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    client.send(ask).await;
    let (mut socket, _) = upstream.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    socket.write_all(switch).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(binary.runs(), "{}", binary.lines().join("\n"));
    drop(socket);
    drop(client);
    ends_well(&mut binary).await;
}

#[tokio::test]
async fn a_command_outlives_idle_exit() {
    let (_api, text) = configured("idle_exit = \"100ms\"", "").await;
    let mut binary = start(&text, &["sh", "-c", "sleep 3; exit 5"]).await;
    assert_eq!(binary.ended().await.code(), Some(5), "{}", binary.lines().join("\n"));
}

#[tokio::test]
async fn at_the_end_what_was_counted_is_put_where_the_address_says() {
    let (gateway, address) = Gateway::start(StatusCode::OK).await;
    let (_api, text) = configured("", &push_to(address)).await;
    let mut binary = Binary::start(&text).await;
    assert_eq!(binary.get("/api/items/1").await.status, 200);
    binary.signal(Signal::TERM);
    ends_well(&mut binary).await;

    let (method, path, headers, body) = gateway.put();
    assert_eq!((method, path.as_str()), (Method::PUT, "/metrics/job/nightly"));
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(headers["host"], address.to_string());
    exposition::read(&body);
    let ok = "forbear_requests_total{code=\"200\",method=\"GET\",outcome=\"ok\",route=\"default\",upstream=\"api\"}";
    assert_eq!(value_of(&body, ok), Some(1.0), "{body}");
    assert!(!body.contains(" gauge\n"), "a state is told that is over: {body}");
    assert!(!body.contains("forbear_breaker_state"), "{body}");
    binary.until_printed("the push", |line| line.contains("metrics pushed")).await;
}

#[tokio::test]
async fn each_way_to_end_pushes_once() {
    for (way, idle, command) in
        [("quit", "", None), ("idle", "idle_exit = \"1s\"", None), ("command", "", Some("exit 3"))]
    {
        let (gateway, address) = Gateway::start(StatusCode::ACCEPTED).await;
        let (_api, text) = configured(idle, &push_to(address)).await;
        let command: Vec<_> = command.iter().flat_map(|script| ["sh", "-c", script]).collect();
        let mut binary = start(&text, &command).await;
        if way == "quit" {
            assert_eq!(binary.post("/api/v1/quit", "").await.status, 202);
        }
        let code = timeout(SOON, binary.ended()).await.expect("it ends").code();
        assert_eq!(code, Some(if way == "command" { 3 } else { 0 }), "{way}");
        assert_eq!(gateway.put().1, "/metrics/job/nightly", "{way}");
    }
}

#[tokio::test]
async fn pods_that_ask_for_it_have_a_group_of_their_own_and_a_field_has_its_secret() {
    let (gateway, address) = Gateway::start(StatusCode::OK).await;
    let push = push_to(address);
    let header = "[metrics.push.headers.authorization]\nprefix = \"Bearer \"\nfile = \"token\"\n";
    let (_api, text) = configured("", &format!("{push}instance = true\n{header}")).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cr3t-canary\n").unwrap();
    let mut binary = Binary::start_with(folder, &text).await;
    binary.signal(Signal::TERM);
    ends_well(&mut binary).await;
    let (_, path, headers, _) = gateway.put();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(path, format!("/metrics/job/nightly/instance/{}", name.trim()));
    assert_eq!(headers["authorization"], "Bearer s3cr3t-canary");
    assert!(!binary.lines().join("\n").contains("s3cr3t-canary"));
}

#[tokio::test]
async fn a_push_that_fails_is_one_warning_and_no_other_exit_code() {
    let (_gateway, refusing) = Gateway::start(StatusCode::BAD_REQUEST).await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // It listens, and nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, why) in [
        (refusing, "400 Bad Request"),
        (away, "refused"),
        (silent.local_addr().unwrap(), "longer than 1s"),
    ] {
        let (_api, text) = configured("", &push_to(address)).await;
        let mut binary = Binary::start(&text).await;
        let began = Instant::now();
        binary.signal(Signal::TERM);
        ends_well(&mut binary).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        binary.until_printed(why, |line| line.contains(why)).await;
        let warnings = |line: &&String| line.contains("could not be pushed");
        assert_eq!(binary.lines().iter().filter(warnings).count(), 1, "{:?}", binary.lines());
    }
}
