//! The admin listener over a real loopback socket, with a fake of everything behind it.

mod access;
mod actions;
mod reading;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

use super::auth::Access;
use super::backend::{Asking, Backend, ControlError, ForceBreaker, Reload};
use super::server;
use crate::config::secret::Secret;
use crate::store::read::Question;
use crate::telemetry::view::{
    EventView, KeyView, Moment, PreflightView, Readiness, ReloadReport, UpstreamView,
};

/// Events kept for a slow reader.
const EVENTS: usize = 4;
pub(crate) const TOKEN: &str = "hunter2-the-admin-token";

/// Two upstreams, and a memory of what was asked of it.
pub(crate) struct Fake {
    ready: bool,
    asked: Mutex<Vec<String>>,
    /// Of the next scrape: tells that it began, and is told to go on.
    gate: Mutex<Option<(oneshot::Sender<()>, mpsc::Receiver<()>)>>,
    events: broadcast::Sender<EventView>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ready: true,
            asked: Mutex::default(),
            gate: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
        })
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn find(&self, name: &str) -> Result<UpstreamView, ControlError> {
        let all = self.upstreams();
        let known = all.iter().map(|view| view.name.clone()).collect();
        let found = all.into_iter().find(|view| view.name == name);
        found.ok_or_else(|| ControlError::UnknownUpstream { name: name.to_owned(), known })
    }
}

impl Backend for Fake {
    fn upstreams(&self) -> Vec<UpstreamView> {
        let view = |name: &str| UpstreamView { name: name.to_owned(), ..UpstreamView::default() };
        vec![view("github"), view("jira")]
    }

    fn keys(&self) -> Vec<KeyView> {
        let (key, pattern) = ("tenant:42".to_owned(), "tenant:*".to_owned());
        vec![KeyView { key, pattern, in_flight_max: 2, in_flight: 1, waiting: 3 }]
    }

    fn config(&self) -> Value {
        serde_json::json!({ "admin": { "token": Secret::new(TOKEN).to_string() } })
    }

    fn ready(&self) -> Readiness {
        let reason = (!self.ready).then(|| "it drains".to_owned());
        Readiness { ready: self.ready, reason }
    }

    fn scrape(&self) -> String {
        if let Some((began, go)) = self.gate.lock().unwrap().take() {
            began.send(()).unwrap();
            go.recv_timeout(Duration::from_secs(10)).expect("somebody lets it go on");
        }
        "forbear_draining 0\n".to_owned()
    }

    fn force_breaker(
        &self,
        upstream: &str,
        request: ForceBreaker,
    ) -> Result<UpstreamView, ControlError> {
        self.note(format!("{upstream} {request:?}"));
        self.find(upstream)
    }

    fn clear_cooldown(
        &self,
        upstream: &str,
        scope: Option<&str>,
    ) -> Result<UpstreamView, ControlError> {
        self.note(format!("{upstream} clear {scope:?}"));
        self.find(upstream)
    }

    fn preflight(
        &self,
        upstream: &str,
        route: &str,
        requests: u32,
    ) -> Result<PreflightView, ControlError> {
        self.note(format!("{upstream} {route} {requests}"));
        self.find(upstream)?;
        Ok(PreflightView {
            upstream: upstream.to_owned(),
            route: route.to_owned(),
            requests,
            takes_ms: 1,
            done_at: Moment(crate::policy::time::WallTime { unix_ms: 0 }),
            starts_in_ms: 0,
            bound_by: "concurrency".to_owned(),
            quota: None,
            scope: None,
            queued: 0,
            in_flight_max: 16,
            per_request_ms: None,
        })
    }

    fn ask_ledger(&self, question: Question) -> Asking<'_> {
        self.note(format!("{question:?}"));
        let why = "no such exchange".to_owned();
        Box::pin(async move {
            match question {
                Question::One(_) => Err(ControlError::UnknownExchange { why }),
                Question::Last(_) => Ok(Vec::new()),
            }
        })
    }

    fn reload(&self) -> Reload<'_> {
        self.note("reload".to_owned());
        Box::pin(async { Ok(ReloadReport { changes: vec!["x".to_owned()], hash: "h".to_owned() }) })
    }

    fn quit(&self) {
        self.note("quit".to_owned());
    }

    fn subscribe(&self) -> broadcast::Receiver<EventView> {
        self.events.subscribe()
    }
}

/// A served router. Ends when it is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    end: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Served {
    fn start(router: axum::Router) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        let server = tokio::spawn(server::serve(listener, router, async {
            let _ = ended.await;
        }));
        Self { address, end, server }
    }

    /// Everything, as on loopback without a token.
    pub(crate) fn open(fake: &Arc<Fake>) -> Self {
        Self::with(fake, None, true)
    }

    pub(crate) fn with(fake: &Arc<Fake>, token: Option<&str>, loopback: bool) -> Self {
        let access = Access::new(token.map(Secret::new), loopback);
        Self::start(super::router(Arc::clone(fake) as Arc<dyn Backend>, Arc::new(access)))
    }

    /// Sends one request; a field given here replaces the usual one.
    async fn send(&self, line: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let (head, body) = self.open_body(line, fields, body).await;
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn open_body(
        &self,
        line: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> (http::response::Parts, Incoming) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in [("host", "localhost:8081"), ("content-type", "application/json")] {
            if !fields.iter().any(|(given, _)| *given == name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        sender.send_request(request).await.unwrap().into_parts()
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// The code of a problem body.
    fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["code"].as_str().unwrap().to_owned()
    }
}
