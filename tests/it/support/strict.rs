//! An origin that reads requests by the letter of RFC 9112 and keeps all that it read.
//!
//! Whatever forbear sends must be a whole, valid request; what is not is kept as a fault, and
//! bytes of a request that never became whole as a remainder. [`Attack`] puts forbear in front of
//! one, sends any bytes and a good request behind them, and compares what both sides saw.
#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::forbear::Forbear;
use super::raw::{RawClient, find, parse_fields};

/// A request as the origin read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Method and target.
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Seen {
    /// All values of that field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let same = self.fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<Seen>,
    faults: Vec<String>,
    /// Requests that ended in the middle.
    cut: usize,
    connections: usize,
}

/// The origin. It answers each request with `200`, and method and target as the body.
#[derive(Debug)]
pub(crate) struct StrictOrigin {
    pub(crate) addr: SocketAddr,
    log: Arc<Mutex<Log>>,
    accepting: AbortHandle,
}

impl StrictOrigin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Log>>::default();
        let shared = log.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                lock(&shared).connections += 1;
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { addr, log, accepting: accepting.abort_handle() }
    }

    /// The requests since the last call. Panics if anything came that is no request.
    #[track_caller]
    pub(crate) fn take(&self) -> Vec<Seen> {
        let mut log = lock(&self.log);
        assert!(log.faults.is_empty(), "the origin was sent: {:?}", log.faults);
        std::mem::take(&mut log.requests)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.log).connections
    }

    /// Requests of which only a part came.
    pub(crate) fn cut(&self) -> usize {
        lock(&self.log).cut
    }
}

impl Drop for StrictOrigin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Log>>) {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        loop {
            match parse(&bytes) {
                Ok(None) => break,
                Ok(Some((seen, used))) => {
                    bytes.drain(..used);
                    let body = seen.line.clone();
                    let is_head = body.starts_with("HEAD ");
                    lock(&log).requests.push(seen);
                    let mut answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    if !is_head {
                        answer.push_str(&body);
                    }
                    drop(stream.write_all(answer.as_bytes()).await);
                }
                Err(fault) => {
                    let shown = String::from_utf8_lossy(&bytes).into_owned();
                    return lock(&log).faults.push(format!("{fault}: {shown:?}"));
                }
            }
        }
        match stream.read(&mut piece).await {
            Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
            Ok(_) | Err(_) => {
                lock(&log).cut += usize::from(!bytes.is_empty());
                return;
            }
        }
    }
}

/// The first request and its length, once it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Seen, usize)>, String> {
    let Some(head_len) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..head_len]).unwrap_or_default();
    let head = if head.is_empty() {
        String::from_utf8_lossy(&bytes[..head_len]).into_owned()
    } else {
        head.to_owned()
    };
    let mut lines = head.split("\r\n");
    let request_line = lines.next().unwrap_or_default();
    let line = request_line.strip_suffix(" HTTP/1.1").ok_or("no HTTP/1.1")?.to_owned();
    if line.split(' ').count() != 2 || line.contains(|c: char| c.is_ascii_control()) {
        return Err("a bad request line".to_owned());
    }
    for field in lines.clone() {
        let name = field.split(':').next().unwrap_or_default();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) || !field.contains(':') {
            return Err(format!("a bad field line {field:?}"));
        }
        if field.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return Err(format!("a control byte in {field:?}"));
        }
    }
    let fields = parse_fields(lines);
    let mut seen = Seen { line, fields, body: Vec::new(), trailers: Vec::new() };
    if seen.all("host").len() != 1 {
        return Err("not exactly one Host".to_owned());
    }
    let body_at = head_len + 4;
    let rest = &bytes[body_at..];
    match (&seen.all("transfer-encoding")[..], &seen.all("content-length")[..]) {
        ([], []) => Ok(Some((seen, body_at))),
        ([], [length]) => {
            let length: usize = length.parse().map_err(|_| "a bad Content-Length")?;
            let Some(body) = rest.get(..length) else { return Ok(None) };
            seen.body = body.to_vec();
            Ok(Some((seen, body_at + length)))
        }
        (["chunked"], []) => {
            let Some(used) = parse_chunks(rest, &mut seen)? else { return Ok(None) };
            Ok(Some((seen, body_at + used)))
        }
        (codings, lengths) => Err(format!("framing by {codings:?} and {lengths:?}")),
    }
}

fn parse_chunks(bytes: &[u8], seen: &mut Seen) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(len) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&bytes[at..at + len]).map_err(|e| e.to_string())?;
        let size = usize::from_str_radix(line, 16).map_err(|_| format!("chunk size {line:?}"))?;
        at += len + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !data.ends_with(b"\r\n") {
            return Err("a chunk that does not end".to_owned());
        }
        seen.body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
    loop {
        let Some(len) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&bytes[at..at + len]).into_owned();
        at += len + 2;
        if line.is_empty() {
            return Ok(Some(at));
        }
        seen.trailers.extend(parse_fields([line.as_str()]));
    }
}

/// forbear before a strict origin, and before a canary that nothing may ever reach.
pub(crate) struct Attack {
    pub(crate) forbear: Forbear,
    pub(crate) origin: StrictOrigin,
    pub(crate) canary: StrictOrigin,
}

/// What came of an attack.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Status and body of each answer until the connection closed.
    pub(crate) answers: Vec<(u16, String)>,
    /// All that was received.
    pub(crate) text: String,
    /// What the origin was asked.
    pub(crate) seen: Vec<Seen>,
}

impl Outcome {
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|(status, _)| *status).collect()
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.seen.iter().map(|seen| seen.line.as_str()).collect()
    }
}

/// A good request that ends the connection.
pub(crate) const LAST: &[u8] =
    b"GET /api/last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Time limits short enough for tests, and no policy that would get in the way.
pub(crate) const PLAIN: &str = "[proxy]\nworkers = 1\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"\n\
    [defaults.retry]\nattempts_max = 1\n[defaults.breaker]\nconsecutive_failures = 100000\n\
    failure_rate = 1.0\nsamples_min = 100000\n";

impl Attack {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// With more settings of the upstream `api`.
    pub(crate) async fn with(settings: &str) -> Self {
        let (origin, canary) = (StrictOrigin::start().await, StrictOrigin::start().await);
        let forbear = Forbear::start(&format!(
            "{PLAIN}[upstreams.api]\nurl = \"http://{}\"\n{settings}",
            origin.addr
        ));
        Self { forbear, origin, canary }
    }

    /// Sends the bytes and [`LAST`] behind them, and waits for the end of the connection.
    pub(crate) async fn run(&self, bytes: impl AsRef<[u8]>) -> Outcome {
        self.run_alone([bytes.as_ref(), LAST].concat()).await
    }

    /// Sends the bytes and waits for the end of the connection.
    pub(crate) async fn run_alone(&self, bytes: impl AsRef<[u8]>) -> Outcome {
        let mut client = RawClient::connect(self.forbear.proxy()).await;
        client.send(bytes).await;
        let (rest, _) = client.rest().await;
        assert_eq!(self.canary.connections(), 0, "the canary was dialled");
        Outcome {
            answers: answers(&rest),
            text: String::from_utf8_lossy(&rest).into_owned(),
            seen: self.origin.take(),
        }
    }

    /// One answer of that status, then the end; the origin is asked nothing.
    pub(crate) async fn refused(&self, name: &str, bytes: impl AsRef<[u8]>, status: u16) {
        let outcome = self.run(bytes).await;
        assert_eq!(outcome.statuses(), [status], "{name}: {}", outcome.text);
        assert!(outcome.lines().is_empty(), "{name}: {:?}", outcome.seen);
        assert!(outcome.text.contains("\"detail\""), "{name} says why: {}", outcome.text);
    }

    /// Answered with that status, and the connection goes on: the request behind it is served.
    pub(crate) async fn declined(&self, name: &str, bytes: impl AsRef<[u8]>, status: u16) {
        let outcome = self.run(bytes).await;
        assert_eq!(outcome.statuses(), [status, 200], "{name}: {}", outcome.text);
        assert_eq!(outcome.lines(), ["GET /last"], "{name}");
    }

    /// Served: the origin is asked exactly `line`, then what came behind it.
    pub(crate) async fn served(&self, name: &str, bytes: impl AsRef<[u8]>, line: &str) -> Seen {
        let outcome = self.run(bytes).await;
        assert_eq!(outcome.statuses(), [200, 200], "{name}: {}", outcome.text);
        assert_eq!(outcome.lines(), [line, "GET /last"], "{name}");
        outcome.seen[0].clone()
    }
}

/// Every answer in the bytes. Panics if they are not a row of whole answers.
pub(crate) fn answers(bytes: &[u8]) -> Vec<(u16, String)> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let shown = || String::from_utf8_lossy(rest).into_owned();
        let head_len = find(rest, b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {:?}", shown()));
        let head = String::from_utf8_lossy(&rest[..head_len]).into_owned();
        let status: u16 = head[9..12].parse().unwrap_or_else(|_| panic!("no status: {head:?}"));
        let fields = parse_fields(head.lines().skip(1));
        let get = |name: &str| {
            let mut same = fields.iter().filter(|(it, _)| it.eq_ignore_ascii_case(name));
            same.next().map(|(_, value)| value.clone())
        };
        rest = &rest[head_len + 4..];
        let mut body = Vec::new();
        if get("transfer-encoding").is_some() {
            let mut seen = Seen { line: head, fields: vec![], body: vec![], trailers: vec![] };
            let used = parse_chunks(rest, &mut seen).unwrap().expect("the last chunk");
            body = seen.body;
            rest = &rest[used..];
        } else if let Some(length) = get("content-length").filter(|_| status >= 200) {
            let length: usize = length.parse().unwrap();
            assert!(length <= rest.len(), "an incomplete body of {status}: {head}");
            body = rest[..length].to_vec();
            rest = &rest[length..];
        }
        all.push((status, String::from_utf8_lossy(&body).into_owned()));
    }
    all
}
