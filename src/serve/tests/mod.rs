//! What goes in through a socket, what the exchanges get to see, and what comes back.

mod attacks;
mod bounds;
mod lives;
mod splits;
mod workers;
mod world;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::connection::Connection;
use super::gate::Socket;
use super::session::{self, Host};
use super::shutdown::{Accept, Connections, Load, Orders};
use super::{BoxError, Exchanges, Intake, ListenerId, Protocol, Timeouts};

impl Socket for DuplexStream {
    fn abort(&self) {}
}

const TIMEOUTS: Timeouts =
    Timeouts { header: Duration::from_secs(10), keep_alive: Duration::from_secs(60) };

/// What an exchange got to see.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    line: String,
    body: Vec<u8>,
    trailers: usize,
}

/// Answers everything, and remembers it.
#[derive(Clone, Debug, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    refused: Arc<Mutex<Vec<u16>>>,
    arrived: Arc<Notify>,
    release: Arc<Notify>,
    dropped: Arc<Notify>,
}

impl Recorder {
    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect()
    }

    fn saw(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A response body that breaks off after its first piece.
struct Cut(bool);

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let began = std::mem::replace(&mut self.0, true);
        let piece = if began { Err("cut".into()) } else { Ok(Frame::data(Bytes::from("half"))) };
        Poll::Ready(Some(piece))
    }
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Exchanges for Recorder {
    type Body = UnsyncBoxBody<Bytes, BoxError>;

    fn call(
        &self,
        intake: Intake,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static {
        let this = self.clone();
        async move {
            let mut request = match intake {
                Intake::Request(request) => request,
                Intake::Refused(violation) => {
                    this.refused.lock().unwrap().push(violation.status.as_u16());
                    return answer(violation.status, violation.detail);
                }
            };
            let dropped = NotifyOnDrop(this.dropped.clone());
            let path = request.uri().path().to_owned();
            let line = format!("{} {}", request.method(), request.uri());
            if path == "/held" {
                this.arrived.notify_one();
                this.release.notified().await;
            }
            if path == "/late-bug" {
                tokio::task::yield_now().await;
            }
            assert!(!path.ends_with("bug"), "a bug, on purpose");
            if path == "/unread" {
                return answer(StatusCode::OK, "not read");
            }
            if path == "/cut" {
                return Response::new(Cut(false).boxed_unsync());
            }
            if path == "/large" {
                return answer(StatusCode::OK, "x".repeat(8 * 1024 * 1024));
            }
            let upgrade = path == "/tunnel"
                && request.extensions().get::<hyper::upgrade::OnUpgrade>().is_some();
            if upgrade {
                let on = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut io = TokioIo::new(on.await.unwrap());
                    let mut bytes = Vec::new();
                    io.read_to_end(&mut bytes).await.unwrap();
                    io.write_all(&[b"echo ", &bytes[..]].concat()).await.unwrap();
                    io.shutdown().await.unwrap();
                });
            }
            let status = match request.into_body().collect().await {
                Ok(body) => {
                    let trailers = body.trailers().map_or(0, http::HeaderMap::len);
                    let body = body.to_bytes().to_vec();
                    this.seen.lock().unwrap().push(Seen { line, body, trailers });
                    if upgrade { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK }
                }
                Err(_) => connection.violation().map_or(StatusCode::IM_A_TEAPOT, |v| v.status),
            };
            drop(dropped);
            answer(status, if upgrade { "" } else { "fine" })
        }
    }

    fn panicked(&self) -> Response<Self::Body> {
        answer(StatusCode::INTERNAL_SERVER_ERROR, "a bug")
    }
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).version(Version::HTTP_11).body(body).unwrap()
}

/// One connection over an in-memory pipe.
struct Line {
    client: DuplexStream,
    recorder: Recorder,
    orders: watch::Sender<Orders>,
    connection: Arc<Connection>,
    session: JoinHandle<()>,
}

fn connect() -> Line {
    connect_with(TIMEOUTS, 256 * 1024)
}

fn connect_with(timeouts: Timeouts, pipe: usize) -> Line {
    let (client, server) = tokio::io::duplex(pipe);
    let recorder = Recorder::default();
    let (orders, watching) =
        watch::channel(Orders { accept: Accept::Yes, connections: Connections::Keep, timeouts });
    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    let connection = Arc::new(Connection::new(peer, peer, ListenerId::Main(0)));
    let host = Host { exchanges: recorder.clone(), orders: watching, load: Arc::new(Load::new(1)) };
    let session = tokio::spawn(session::run(server, connection.clone(), None, host));
    Line { client, recorder, orders, connection, session }
}

impl Line {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything until the other side closes; the statuses of the responses in it.
    async fn statuses(&mut self) -> Vec<u16> {
        let mut bytes = Vec::new();
        let read = self.client.read_to_end(&mut bytes);
        tokio::time::timeout(Duration::from_secs(600), read).await.expect("it closes").unwrap();
        statuses(&bytes)
    }

    /// The status and the text of one response, which has a length.
    async fn response(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            bytes.push(self.client.read_u8().await.expect("a whole response"));
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .split("content-length: ")
                .nth(1)
                .map_or("0", |rest| rest.lines().next().unwrap());
            if body.len() == length.parse::<usize>().unwrap() {
                return String::from_utf8(bytes).unwrap();
            }
        }
    }
}

fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let of = |part: &str| part.get(1..).and_then(|rest| rest.get(1..4)?.parse().ok());
    text.split("HTTP/1.").skip(1).filter_map(of).collect()
}

/// Sent behind everything that should leave the connection usable.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
