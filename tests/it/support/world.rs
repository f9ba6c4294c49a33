//! A fake API and forbear in front of it, and clients in this process and in others.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use forbear::demo::api::FakeApi;
use forbear::demo::script::Step;
use forbear::demo::settings::ApiSettings;
use http::{HeaderName, HeaderValue};

use super::forbear::Forbear;
use super::raw::{RawClient, RawResponse};

/// One API behind one forbear, as upstream `api`.
pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) forbear: Forbear,
}

impl World {
    /// The API behaves like this; `rest` follows the upstream's `url` in the configuration.
    pub(crate) async fn start(settings: ApiSettings, rest: &str) -> Self {
        let api = FakeApi::start(settings).await.unwrap();
        let forbear = Forbear::start(&format!("[upstreams.api]\nurl = \"{}\"\n{rest}", api.url()));
        Self { api, forbear }
    }

    /// An API without limits.
    pub(crate) async fn calm(rest: &str) -> Self {
        Self::start(ApiSettings::default(), rest).await
    }

    /// Sends one request over a connection of its own. `fields` are whole lines.
    pub(crate) async fn ask(&self, line: &str, fields: &[&str], body: &[u8]) -> RawResponse {
        RawClient::connect(self.forbear.proxy()).await.ask(request(line, fields, body)).await
    }

    /// GET without anything else.
    pub(crate) async fn get(&self, path: &str) -> RawResponse {
        self.ask(&format!("GET {path}"), &[], b"").await
    }

    /// Requests that arrived at this path of the API.
    pub(crate) fn hits(&self, path: &str) -> usize {
        self.api.log().iter().filter(|record| record.target == path).count()
    }

    /// Whether the breaker of the upstream lets traffic flow.
    pub(crate) fn breaker(&self) -> &'static str {
        self.forbear.view("api").breaker.first().unwrap().state.name()
    }
}

/// A request with a body of known length; `line` is method and path.
pub(crate) fn request(line: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
    for field in fields {
        text.push_str(&format!("{field}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut bytes = format!("{text}\r\n").into_bytes();
    bytes.extend(body);
    bytes
}

/// A scripted answer with these fields.
pub(crate) fn answer(status: u16, fields: &[(&'static str, &'static str)], body: &str) -> Step {
    let fields = fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Step::Status(status, fields.collect(), body.to_owned().into())
}

/// The body of a refusal.
pub(crate) fn problem(response: &RawResponse) -> serde_json::Value {
    assert_eq!(response.field("content-type"), Some("application/problem+json"), "{response:?}");
    serde_json::from_slice(&response.body).unwrap()
}

/// `Retry-After` in seconds.
pub(crate) fn retry_after(response: &RawResponse) -> u64 {
    response.field("retry-after").unwrap_or_else(|| panic!("{}", response.head)).parse().unwrap()
}

/// Milliseconds that the response says this exchange waited, for one reason or (`""`) in all.
pub(crate) fn waited_ms(response: &RawResponse, kind: &str) -> u64 {
    let all = response.field("forbear-waited-ms").unwrap_or("0");
    let mut parts = all.split(';');
    if kind.is_empty() {
        return parts.next().unwrap().parse().unwrap();
    }
    let prefix = format!("{kind}=");
    parts.find_map(|part| part.strip_prefix(&prefix)).map_or(0, |ms| ms.parse().unwrap())
}

/// Says to the helper below what to send, and where: address, line break, request.
const CLIENT_ORDER: &str = "FORBEAR_TEST_CLIENT";

/// A client that is a process of its own: this test executable, told to run the helper below.
pub(crate) fn client_process(proxy: SocketAddr, line: &str, fields: &[&str]) -> Child {
    let mut all = fields.to_vec();
    all.push("Connection: close");
    let request = String::from_utf8(request(line, &all, b"")).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["support::world::acts_as_a_client_of_its_own", "--exact", "--ignored"])
        .arg("--nocapture")
        .env(CLIENT_ORDER, format!("{proxy}\n{request}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a client process received, among the words of the test harness.
pub(crate) async fn printed(child: Child) -> String {
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "it is started by other tests, as their client"]
fn acts_as_a_client_of_its_own() {
    let Some(order) = std::env::var_os(CLIENT_ORDER) else { return };
    let order = order.into_string().unwrap();
    let (address, request) = order.split_once('\n').unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    println!("{answer}");
}
