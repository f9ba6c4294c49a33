//! A fake API on a loopback port that limits, fails and misbehaves as it is told.
//!
//! The demo runs its jobs against it and the project's tests script it. It counts what it sees,
//! so that a promise such as "not one request before the moment that the API named" is checked at
//! the API and not at the client. Everything on its socket is real HTTP/1.1.
//!
//! | request | answer |
//! |---|---|
//! | `GET /items/{n}` | `{"item": n}` |
//! | `POST /items` | 201; counts one side effect for its body |
//! | `/status/{code}` | that status |
//! | `/slow?ms={n}` | 200 after so long |
//! | `/echo` | method, target, fields, body length and fingerprint |
//! | any other | 404 |

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::clock::Stopwatch;
use super::limiter::{LimiterState, Verdict};
use super::record::{Counters, Record, RequestRecord, field_list, fingerprint};
use super::script::{Cut, Reply, Step};
use super::settings::{ApiSettings, Outage};

/// Longest request body; larger ones end the connection. Tests of streaming send a few MiB.
const BODY_MAX: usize = 64 << 20;

/// Longest that [`FakeApi::until`] waits: enough for a busy machine, short enough to be noticed.
const UNTIL_MAX: Duration = Duration::from_secs(10);

/// A running API; it stops when this is dropped.
#[derive(Debug)]
pub struct FakeApi {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl FakeApi {
    /// Starts one on a free loopback port, in the current tokio runtime.
    ///
    /// # Errors
    /// The port could not be bound.
    pub async fn start(settings: ApiSettings) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let limiter = LimiterState::new(settings.limiter);
        let shared = Arc::new(Shared {
            settings,
            stopwatch: OnceLock::new(),
            state: Mutex::new(State {
                limiter,
                record: Record::default(),
                scripts: HashMap::new(),
            }),
            changed: watch::Sender::new(()),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { addr, shared, accepting })
    }

    /// `http://127.0.0.1:{port}`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.shared.lock().record.counters
    }

    /// The requests so far, in the order of their arrival.
    pub fn log(&self) -> Vec<RequestRecord> {
        self.shared.lock().record.log.clone()
    }

    /// How often `POST /items` was carried out for this body.
    pub fn side_effects(&self, body: &[u8]) -> u32 {
        self.shared.lock().record.effects_of(body)
    }

    /// Time since the first request; windows and outages are counted from then, too.
    pub fn elapsed(&self) -> Duration {
        self.shared.stopwatch.get().map_or(Duration::ZERO, Stopwatch::elapsed)
    }

    /// Does these steps to the next requests of a path (without query), one each, after those
    /// that are already there.
    pub fn script(&self, path: &str, steps: impl IntoIterator<Item = Step>) {
        self.shared.lock().scripts.entry(path.to_owned()).or_default().extend(steps);
    }

    /// Waits until the counters are so.
    ///
    /// # Errors
    /// They were not after ten seconds; the text names `what` was waited for.
    pub async fn until(&self, what: &str, holds: impl Fn(&Counters) -> bool) -> Result<(), String> {
        let mut changed = self.shared.changed.subscribe();
        let reached =
            async { while !holds(&self.counters()) && changed.changed().await.is_ok() {} };
        tokio::time::timeout(UNTIL_MAX, reached)
            .await
            .map_err(|_| format!("waited in vain for {what}: {:?}", self.counters()))
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Debug)]
struct Shared {
    settings: ApiSettings,
    /// Started by the first request, so that the time in which a client gets ready is not the
    /// API's.
    stopwatch: OnceLock<Stopwatch>,
    state: Mutex<State>,
    /// Told after each change of the counters.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    limiter: LimiterState,
    record: Record,
    scripts: HashMap<String, VecDeque<Step>>,
}

/// Serves connections until it is aborted; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
                // Out of file descriptors, most likely: let others go on and free some.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Only the speed of small answers depends on it.
    let _ = stream.set_nodelay(true);
    let (order, mut ordered) = mpsc::channel(1);
    let service = service_fn(move |request| {
        let (shared, order) = (Arc::clone(&shared), order.clone());
        async move {
            match shared.reply(request).await {
                Reply::Answer(response) => Ok::<_, Infallible>(response),
                Reply::Cut(how) => {
                    // If the receiver is gone, so is the connection.
                    let _ = order.send(how).await;
                    std::future::pending().await
                }
            }
        }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // An error says that the client has gone or an answer was broken on purpose.
        _ = &mut connection => {}
        Some(how) = ordered.recv() => {
            let stream = connection.into_parts().io.into_inner();
            if how == Cut::Reset {
                // A closed socket that may not linger is reset instead; on failure it is closed.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopwatch(&self) -> &Stopwatch {
        self.stopwatch.get_or_init(Stopwatch::start)
    }

    /// Changes the record and tells those who wait for it.
    fn note<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let result = change(&mut self.lock().record);
        self.changed.send_replace(());
        result
    }

    async fn reply(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let now = self.stopwatch().elapsed();
        let number = self.note(|record| record.arrived(now, &head));
        let _visit = Visit(self);
        let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
            return Reply::Cut(Cut::Close);
        };
        let body = body.to_bytes();
        self.note(|record| record.read(number, &body));

        let reply = self.act(number, &head, &body).await;
        let status = match &reply {
            Reply::Answer(response) => Some(response.status().as_u16()),
            Reply::Cut(_) => None,
        };
        self.note(|record| record.answered(number, status));
        reply
    }

    /// The scripted step of this request, or the usual.
    async fn act(&self, number: u32, head: &Parts, body: &Bytes) -> Reply {
        let step = self.lock().scripts.get_mut(head.uri.path()).and_then(VecDeque::pop_front);
        match step {
            None => self.usual(number, head, body).await,
            Some(Step::Status(status, fields, body)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_IMPLEMENTED);
                Reply::new(status, fields, body)
            }
            Some(Step::Reset) => Reply::Cut(Cut::Reset),
            Some(Step::CloseBeforeHead) => Reply::Cut(Cut::Close),
            Some(Step::ResetAfterEffect) => {
                self.usual(number, head, body).await;
                Reply::Cut(Cut::Reset)
            }
            Some(Step::Hang(released)) => {
                released.notified().await;
                self.usual(number, head, body).await
            }
            Some(Step::Delay(span)) => {
                sleep(span).await;
                self.usual(number, head, body).await
            }
            Some(Step::HeadThenStall) => Reply::stalled(),
            Some(Step::Truncate) => Reply::truncated(),
        }
    }

    /// Outage, fault, limiter, latency, route: in this order.
    async fn usual(&self, number: u32, head: &Parts, body: &Bytes) -> Reply {
        let now = self.stopwatch().elapsed();
        if self.settings.outages.iter().any(|outage| outage.contains(&now)) {
            return match self.settings.outage {
                Outage::Unavailable => Reply::empty(StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
                Outage::Reset => Reply::Cut(Cut::Reset),
            };
        }
        if hits(self.settings.faults.reset_every, number) {
            return Reply::Cut(Cut::Reset);
        }
        if hits(self.settings.faults.error_every, number) {
            return Reply::empty(StatusCode::INTERNAL_SERVER_ERROR, Vec::new());
        }
        let verdict = self.lock().limiter.ask(now);
        let wall = self.stopwatch().wall(now);
        let fields = self.settings.hints.fields(verdict, self.settings.limiter.limit(), wall);
        if let Verdict::Refuse { wait } = verdict {
            self.note(|record| record.refused(now, wait));
            return Reply::empty(StatusCode::TOO_MANY_REQUESTS, fields);
        }
        let _admitted = Admitted(self);
        sleep(self.settings.latency).await;
        self.route(head, body, fields).await
    }

    async fn route(
        &self,
        head: &Parts,
        body: &Bytes,
        mut fields: Vec<(HeaderName, HeaderValue)>,
    ) -> Reply {
        let path = head.uri.path();
        let (status, value) = if path == "/items" && head.method == Method::POST {
            self.note(|record| record.carry_out(body));
            (StatusCode::CREATED, json!({ "stored": true }))
        } else if path == "/echo" {
            let echo = json!({
                "method": head.method.as_str(),
                "target": head.uri.path_and_query().map(|target| target.as_str()),
                "headers": field_list(&head.headers),
                "body_length": body.len(),
                "body_hash": format!("{:016x}", fingerprint(body)),
            });
            (StatusCode::OK, echo)
        } else if path == "/slow" {
            let ms = head.uri.query().and_then(|query| query.strip_prefix("ms="));
            let ms = ms.and_then(|ms| ms.parse().ok()).unwrap_or(0);
            sleep(Duration::from_millis(ms)).await;
            (StatusCode::OK, json!({ "slept_ms": ms }))
        } else if let Some(item) = numbered(path, "/items/") {
            (StatusCode::OK, json!({ "item": item }))
        } else if let Some(status) = numbered(path, "/status/")
            .and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok())
        {
            (status, json!({ "status": status.as_u16() }))
        } else {
            (StatusCode::NOT_FOUND, json!({ "error": "no such path" }))
        };
        fields.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        Reply::new(status, fields, Bytes::from(value.to_string()))
    }
}

fn numbered(path: &str, prefix: &str) -> Option<u32> {
    path.strip_prefix(prefix)?.parse().ok()
}

fn hits(every: Option<u32>, number: u32) -> bool {
    every.is_some_and(|every| number.is_multiple_of(every.max(1)))
}

/// A request that is being worked on; it ends also when the client goes away.
struct Visit<'a>(&'a Shared);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.note(Record::left);
    }
}

/// A request that the limiter admitted.
struct Admitted<'a>(&'a Shared);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.lock().limiter.done();
    }
}

#[cfg(test)]
mod tests;
