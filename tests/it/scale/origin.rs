//! An origin for bulk: bodies of any size in constant memory, and answers that are held back until
//! the test lets them go.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// One piece of a long body.
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// The origin; it ends with the test's runtime.
pub(super) struct Origin {
    pub(super) addr: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// Targets under `/hold`, in the order of arrival.
    held: Mutex<Vec<String>>,
    /// A permit lets one held answer go.
    gate: Semaphore,
    /// Bytes of long bodies that the connection has taken.
    given: AtomicU64,
    uploads: AtomicU64,
    now: AtomicU64,
    most: AtomicU64,
}

impl Origin {
    /// Answers `/long/N` with N bytes, `/hold…` when let go, and everything else at once with the
    /// number of bytes that came.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            held: Mutex::default(),
            gate: Semaphore::new(0),
            given: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
            now: AtomicU64::new(0),
            most: AtomicU64::new(0),
        });
        let shared = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let seen = shared.clone();
                let service = service_fn(move |request| answer(request, seen.clone()));
                let server = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A client that leaves is no failure of the origin.
                tokio::spawn(async move { drop(server.await) });
            }
        });
        Self { addr, seen }
    }

    /// The table of an upstream of that name.
    pub(super) fn table(&self, name: &str, settings: &str) -> String {
        format!("\n[upstreams.{name}]\nurl = \"http://{}\"\n{settings}\n", self.addr)
    }

    /// Lets so many held answers go.
    pub(super) fn let_go(&self, count: usize) {
        self.seen.gate.add_permits(count);
    }

    /// Targets of the held requests, in the order of their arrival.
    pub(super) fn held(&self) -> Vec<String> {
        self.seen.held.lock().unwrap().clone()
    }

    /// Bytes of long bodies given so far.
    pub(super) fn given(&self) -> u64 {
        self.seen.given.load(Ordering::Relaxed)
    }

    /// Request bodies that came whole.
    pub(super) fn uploads(&self) -> u64 {
        self.seen.uploads.load(Ordering::Relaxed)
    }

    /// The most requests that were held at the same time.
    pub(super) fn most_held(&self) -> u64 {
        self.seen.most.load(Ordering::Relaxed)
    }
}

type Reply = Response<Either<Full<Bytes>, Long>>;

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Reply, hyper::Error> {
    let target = request.uri().to_string();
    if let Some(length) = target.strip_prefix("/long/") {
        let left = length.parse().unwrap();
        return Ok(Response::new(Either::Right(Long { left, seen })));
    }
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    seen.uploads.fetch_add(u64::from(bytes > 0), Ordering::Relaxed);
    if target.starts_with("/hold") {
        seen.held.lock().unwrap().push(target);
        let now = seen.now.fetch_add(1, Ordering::Relaxed) + 1;
        seen.most.fetch_max(now, Ordering::Relaxed);
        seen.gate.acquire().await.unwrap().forget();
        seen.now.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(Response::new(Either::Left(Full::from(bytes.to_string()))))
}

/// A body that is made while it is sent.
struct Long {
    left: u64,
    seen: Arc<Seen>,
}

impl Body for Long {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.left.min(PIECE.len() as u64);
        self.left -= size;
        self.seen.given.fetch_add(size, Ordering::Relaxed);
        let piece = Bytes::from_static(&PIECE).slice(..size as usize);
        Poll::Ready((size > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
