//! The promises of this layer, against scripted upstreams: real sockets where the network is the
//! subject, pipes and a paused clock where time is.

mod ahead;
mod http1;
mod http2;
mod replay;
mod reuse;
mod secure;
mod time;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::error::SendError;
use super::{
    Replay, ReplayMemory, RequestBody, ResponseBody, SendOptions, Source, Target, pool, send,
};
use crate::config::settings::{Origin, Scheme, TlsConfig};

const OPTIONS: SendOptions = SendOptions {
    head_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(10),
    fresh: false,
};
const FRESH: SendOptions = SendOptions { fresh: true, ..OPTIONS };

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An upstream whose connections are handled one after the other by a script; joining it gives
/// what the script saw.
async fn upstream<F, T>(script: impl FnOnce(TcpListener) -> F) -> (Arc<Target>, JoinHandle<T>)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = plain_target(listener.local_addr().unwrap());
    (target, tokio::spawn(script(listener)))
}

/// An upstream that answers one request with these bytes and closes.
async fn answering(answer: impl Into<Vec<u8>>) -> Arc<Target> {
    let answer = answer.into();
    let (target, _) = upstream(|listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            let _ = stream.write_all(&answer).await;
        }
    })
    .await;
    target
}

fn plain_target(address: SocketAddr) -> Arc<Target> {
    let host = address.ip().to_string();
    let origin = Origin { scheme: Scheme::Http, host, port: address.port() };
    Arc::new(Target::new(&origin, &TlsConfig::default(), Duration::from_secs(5)).unwrap())
}

fn replay_of(source: Source) -> Replay {
    let memory = Arc::new(ReplayMemory::new(1 << 20));
    Replay::new(source, 1 << 16, memory, Duration::from_secs(10))
}

fn get(target: &str) -> Request<RequestBody> {
    Request::get(target).header("host", "upstream.test").body(RequestBody::empty()).unwrap()
}

fn post(body: &'static str) -> Request<RequestBody> {
    let body = replay_of(Source::Full(Bytes::from_static(body.as_bytes()))).attempt().unwrap();
    Request::post("/orders").header("host", "upstream.test").body(body).unwrap()
}

async fn text(response: Response<ResponseBody>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn failure(outcome: Result<Response<ResponseBody>, SendError>) -> SendError {
    outcome.map(|response| response.status()).expect_err("the attempt should fail")
}

/// Reads up to the empty line; at the end of the stream, what there was.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn read_exactly(stream: &mut (impl AsyncRead + Unpin), length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Lets the runtime's other tasks work until the condition holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never happened: {what}");
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}
