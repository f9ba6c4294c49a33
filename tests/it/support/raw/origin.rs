//! A scripted origin that records every byte it receives.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::{End, find, within};

/// Bytes recorded per connection at most; a test that sends more has gone wild.
const RECORD_MAX: usize = 256 << 20;

/// One step of a scripted connection. The waits look at bytes that earlier waits have not consumed.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    /// Wait until a request head is complete.
    AwaitHead,
    /// Wait until this text was received, and consume everything up to its end.
    AwaitText(&'static str),
    /// Wait until so many bytes were received, and consume them.
    AwaitBytes(usize),
    /// Wait until the peer has closed its side.
    AwaitEof,
    /// Wait until released with `notify_one`, which is also remembered when it comes first.
    AwaitRelease(Arc<Notify>),
    /// Write these bytes.
    Write(Vec<u8>),
    /// Write these bytes in pieces of `piece` bytes, with a pause after each.
    WriteSlowly { bytes: Vec<u8>, piece: usize, pause: Duration },
    /// Close this side only (FIN), and go on.
    HalfClose,
    /// Close the connection (FIN). A script that ends does that, too.
    Close,
    /// Reset the connection (RST).
    Reset,
}

impl Move {
    /// Writes a text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Write(text.as_bytes().to_vec())
    }
}

/// A scripted origin on a free loopback port; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct RawOrigin {
    pub(crate) addr: SocketAddr,
    connections: Arc<Connections>,
    accepting: AbortHandle,
}

/// What each connection has received so far.
#[derive(Debug)]
struct Connections {
    received: Mutex<Vec<Received>>,
    changed: watch::Sender<()>,
}

#[derive(Clone, Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    end: Option<End>,
}

impl RawOrigin {
    /// Plays the first script to the first connection and so on; the last one serves all others.
    pub(crate) async fn start(scripts: Vec<Vec<Move>>) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port is free");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let connections =
            Arc::new(Connections { received: Mutex::default(), changed: watch::Sender::new(()) });
        let accepting = tokio::spawn(accept(listener, scripts, Arc::clone(&connections)));
        Self { addr, connections, accepting: accepting.abort_handle() }
    }

    /// `http://127.0.0.1:{port}`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.lock().len()
    }

    /// Everything that the connection has received so far; nothing if there is none.
    pub(crate) fn received(&self, connection: usize) -> Vec<u8> {
        self.connections.lock().get(connection).map(|it| it.bytes.clone()).unwrap_or_default()
    }

    /// The same as text.
    pub(crate) fn received_text(&self, connection: usize) -> String {
        String::from_utf8_lossy(&self.received(connection)).into_owned()
    }

    /// Waits for so many connections.
    pub(crate) async fn until_connections(&self, count: usize) {
        let reached = self.connections.until(|all| (all.len() >= count).then_some(()));
        within(&format!("{count} connections"), reached).await;
    }

    /// Waits until the connection has received this text.
    pub(crate) async fn until_received(&self, connection: usize, text: &str) {
        let reached = self
            .connections
            .until(|all| find(&all.get(connection)?.bytes, text.as_bytes()).map(|_| ()));
        within(&format!("{text:?} on connection {connection}"), reached).await;
    }

    /// Waits until the peer has ended the connection, and says how.
    pub(crate) async fn until_ended(&self, connection: usize) -> End {
        let reached = self.connections.until(|all| all.get(connection)?.end);
        within(&format!("the end of connection {connection}"), reached).await
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `seen` returns something.
    async fn until<T>(&self, seen: impl Fn(&[Received]) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(result) = seen(&self.lock()) {
                return result;
            }
            changed.changed().await.expect("self keeps the sender");
        }
    }

    /// Waits for the text after the first `from` bytes; returns where it ends.
    async fn until_text(&self, number: usize, from: usize, text: &str) -> usize {
        self.until(|all| {
            let fresh = all.get(number)?.bytes.get(from..)?;
            Some(from + find(fresh, text.as_bytes())? + text.len())
        })
        .await
    }

    fn change(&self, connection: usize, change: impl FnOnce(&mut Received)) {
        if let Some(received) = self.lock().get_mut(connection) {
            change(received);
        }
        self.changed.send_replace(());
    }
}

async fn accept(listener: TcpListener, scripts: Vec<Vec<Move>>, connections: Arc<Connections>) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = {
            let mut all = connections.lock();
            all.push(Received::default());
            all.len() - 1
        };
        connections.changed.send_replace(());
        let script = scripts.get(number).or(scripts.last()).cloned().unwrap_or_default();
        tasks.spawn(play(stream, script, number, Arc::clone(&connections)));
    }
}

async fn play(stream: TcpStream, script: Vec<Move>, number: usize, all: Arc<Connections>) {
    stream.set_nodelay(true).expect("a connected socket takes options");
    let (reading, mut writing) = stream.into_split();
    let recorder = tokio::spawn(record(reading, number, Arc::clone(&all)));
    let mut consumed = 0;
    let mut reset = false;
    for step in script {
        match step {
            Move::AwaitHead => consumed = all.until_text(number, consumed, "\r\n\r\n").await,
            Move::AwaitText(text) => consumed = all.until_text(number, consumed, text).await,
            Move::AwaitBytes(count) => {
                consumed += count;
                all.until(|all| (all.get(number)?.bytes.len() >= consumed).then_some(())).await;
            }
            Move::AwaitEof => {
                all.until(|all| all.get(number)?.end).await;
            }
            Move::AwaitRelease(released) => released.notified().await,
            // A peer that has gone shows itself to the waits and in the record.
            Move::Write(bytes) => drop(writing.write_all(&bytes).await),
            Move::WriteSlowly { bytes, piece, pause } => {
                for piece in bytes.chunks(piece.max(1)) {
                    drop(writing.write_all(piece).await);
                    tokio::time::sleep(pause).await;
                }
            }
            Move::HalfClose => drop(writing.shutdown().await),
            Move::Close => break,
            Move::Reset => {
                reset = true;
                break;
            }
        }
    }
    finish(writing, recorder, reset).await;
}

/// Closes the connection: with FIN, or with RST if it is to be reset.
async fn finish(writing: OwnedWriteHalf, recorder: tokio::task::JoinHandle<()>, reset: bool) {
    if reset {
        socket2::SockRef::from(writing.as_ref())
            .set_linger(Some(Duration::ZERO))
            .expect("a connected socket takes options");
    }
    // The socket is closed once both halves are gone.
    recorder.abort();
    drop(recorder.await);
    if reset {
        // Dropped as usual, it would send FIN first.
        writing.forget();
    }
}

async fn record(mut reading: OwnedReadHalf, number: usize, all: Arc<Connections>) {
    let mut piece = vec![0; 16 << 10];
    loop {
        match reading.read(&mut piece).await {
            Ok(0) => return all.change(number, |received| received.end = Some(End::Eof)),
            Ok(count) => all.change(number, |received| {
                received.bytes.extend(piece.iter().take(count));
                assert!(received.bytes.len() <= RECORD_MAX, "a peer sends without end");
            }),
            Err(_) => return all.change(number, |received| received.end = Some(End::Reset)),
        }
    }
}
