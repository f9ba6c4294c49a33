//! The load: closed loop, or open loop at a fixed rate.
//!
//! It is a process of its own that writes one request again and again and checks status and length of every
//! answer. It speaks with whoever started it by lines: it connects, warms up, prints `ready`, waits for a
//! line, measures, prints a [`Report`] as JSON, and ends with its standard input.
//!
//! In the closed loop each connection sends its next request when the last one is answered. In the open loop
//! requests are due at times that do not depend on answers, each is sent by the connection that has been
//! idle longest, and its latency counts from when it was due: a proxy that stalls is charged for all that
//! had to wait (what is called coordinated omission is not omitted). The times come from a timer of the
//! kernel, because tokio's own has steps of a millisecond.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use crate::Outcome;
use crate::origin::{body_length, head_end};

/// Longer than any measured answer takes: what takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is read at once.
const BUFFER: usize = 64 * 1024;

/// What can be chosen.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Whom to ask
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// What to ask for
    #[arg(long)]
    pub(crate) path: String,
    /// Sends a POST with so many bytes and an idempotency key
    #[arg(long)]
    pub(crate) body: Option<usize>,
    /// Bytes of each answer's body
    #[arg(long)]
    pub(crate) expect: usize,
    /// Keep-alive connections
    #[arg(long)]
    pub(crate) connections: usize,
    /// Seconds before the measurement in which the same is sent
    #[arg(long, default_value_t = 0.3)]
    pub(crate) warm: f64,
    /// Seconds of the measurement
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Ends after so many requests instead
    #[arg(long)]
    pub(crate) requests: Option<u64>,
    /// Requests per second of the open loop; without it, the loop is closed
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// Speaks TLS, and trusts this authority
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
}

/// What was found.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Report {
    /// Answered as they should be.
    pub(crate) requests: u64,
    /// Failed, or answered otherwise.
    pub(crate) errors: u64,
    /// The first of them.
    pub(crate) first_error: Option<String>,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Of the latencies, in microseconds.
    pub(crate) p50_us: f64,
    /// Of the latencies, in microseconds.
    pub(crate) p99_us: f64,
}

/// Connects, warms up, measures, reports.
pub(crate) fn run(options: &Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plan = Arc::new(Plan::new(options));
    let mut connections = runtime.block_on(connect(options, &plan))?;
    if options.warm > 0.0 {
        let warmed = runtime.block_on(measure(&plan, connections, options.warm, None));
        if let Some(error) = warmed.0.first_error {
            return Err(format!("warming up: {error}").into());
        }
        connections = warmed.1;
    }
    println!("ready");
    let mut lines = io::stdin().lock().lines();
    let Some(Ok(_)) = lines.next() else { return Ok(()) };
    let (report, connections) =
        runtime.block_on(measure(&plan, connections, options.seconds, options.requests));
    println!("{}", serde_json::to_string(&report)?);
    // The connections stay open until then: closing them is no part of the measurement.
    lines.for_each(drop);
    drop(connections);
    Ok(())
}

/// What every connection does.
struct Plan {
    request: Vec<u8>,
    expect: usize,
    rate: Option<u32>,
}

impl Plan {
    fn new(options: &Options) -> Self {
        let (path, host) = (&options.path, options.target);
        let request = match options.body {
            None => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n"),
            Some(length) => format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nIdempotency-Key: 8e03978e\r\n\
                 Content-Length: {length}\r\n\r\n{}",
                "x".repeat(length)
            ),
        };
        Self { request: request.into_bytes(), expect: options.expect, rate: options.rate }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection with its buffer.
struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// Opens the connections one after the other, each with one request.
async fn connect(
    options: &Options,
    plan: &Plan,
) -> Result<Vec<Connection>, Box<dyn std::error::Error>> {
    let connector = options.ca.as_deref().map(trusting).transpose()?;
    let mut connections = Vec::new();
    for _ in 0..options.connections {
        let tcp = TcpStream::connect(options.target).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &connector {
            None => Box::new(tcp),
            Some(tls) => Box::new(tls.connect(ServerName::try_from("localhost")?, tcp).await?),
        };
        let mut connection =
            Connection { stream, buffer: vec![0; BUFFER.min(options.expect + 4096)] };
        connection.exchange(plan).await?;
        connections.push(connection);
    }
    Ok(connections)
}

fn trusting(file: &Path) -> Result<TlsConnector, Box<dyn std::error::Error>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Connection {
    /// Sends the request and reads the whole answer.
    async fn exchange(&mut self, plan: &Plan) -> io::Result<()> {
        self.stream.write_all(&plan.request).await?;
        self.stream.flush().await?;
        let mut have = 0;
        let head = loop {
            if let Some(end) = head_end(&self.buffer[..have]) {
                break end;
            }
            have += self.read(have).await?;
        };
        let text = || String::from_utf8_lossy(&self.buffer[..have]).into_owned();
        if !self.buffer.starts_with(b"HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("answered otherwise: {}", text())));
        }
        if body_length(&self.buffer[..head])? != plan.expect {
            return Err(io::Error::other(format!("another length: {}", text())));
        }
        let mut missing = (head + plan.expect)
            .checked_sub(have)
            .ok_or_else(|| io::Error::other("more than was announced"))?;
        while missing > 0 {
            missing = missing
                .checked_sub(self.read(0).await?)
                .ok_or_else(|| io::Error::other("more than was announced"))?;
        }
        Ok(())
    }

    async fn read(&mut self, from: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[from..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

/// What the connections share: when the next request is due, and what came of the others.
struct Schedule {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    pace: Pace,
    latencies: Vec<Duration>,
    errors: u64,
    first_error: Option<String>,
}

enum Pace {
    /// At once, until then and so many times.
    Closed { until: Instant, left: u64 },
    /// At these times; more may come.
    Open { due: VecDeque<Instant>, ended: bool },
}

enum Next {
    Due(Instant),
    Later,
    Never,
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Next {
        match &mut self.lock().pace {
            Pace::Closed { until, left } => {
                let now = Instant::now();
                if *left == 0 || now >= *until {
                    return Next::Never;
                }
                *left -= 1;
                Next::Due(now)
            }
            Pace::Open { due, ended } => match due.pop_front() {
                Some(time) => Next::Due(time),
                None if *ended => Next::Never,
                None => Next::Later,
            },
        }
    }

    /// Sends on one connection until nothing is due any more. A connection that failed is not replaced:
    /// the row has failed, and a proxy in trouble gets no storm on top.
    async fn keep(&self, mut connection: Connection, plan: &Plan) -> Option<Connection> {
        loop {
            let due = match self.next() {
                Next::Due(time) => time,
                Next::Later => {
                    self.changed.notified().await;
                    continue;
                }
                Next::Never => return Some(connection),
            };
            match connection.exchange(plan).await {
                Ok(()) => self.lock().latencies.push(due.elapsed()),
                Err(error) => {
                    let mut state = self.lock();
                    state.errors += 1;
                    state.first_error.get_or_insert_with(|| error.to_string());
                    return None;
                }
            }
        }
    }

    /// Lets so many requests become due, one each period.
    async fn pace(&self, period: Duration, count: u64) -> io::Result<()> {
        let seconds = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
        let step = Timespec { tv_sec: seconds, tv_nsec: period.subsec_nanos().into() };
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let times = Itimerspec { it_interval: step, it_value: step };
        let start = Instant::now();
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times)?;
        #[expect(deprecated, reason = "its successor is unsafe, and an owned timer stays open")]
        let timer = AsyncFd::new(timer)?;
        let mut sent = 0;
        while sent < count {
            for _ in 0..expirations(&timer).await?.min(count - sent) {
                sent += 1;
                let due = start + period * u32::try_from(sent).unwrap_or(u32::MAX);
                if let Pace::Open { due: times, .. } = &mut self.lock().pace {
                    times.push_back(due);
                }
                self.changed.notify_one();
            }
        }
        if let Pace::Open { ended, .. } = &mut self.lock().pace {
            *ended = true;
        }
        self.changed.notify_waiters();
        Ok(())
    }
}

/// Waits for the timer and says how often it expired.
async fn expirations(timer: &AsyncFd<OwnedFd>) -> io::Result<u64> {
    loop {
        let mut ready = timer.readable().await?;
        let mut count = [0; 8];
        let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?));
        if let Ok(read) = read {
            read?;
            return Ok(u64::from_ne_bytes(count));
        }
    }
}

/// One measurement on these connections, which are given back.
async fn measure(
    plan: &Arc<Plan>,
    connections: Vec<Connection>,
    seconds: f64,
    requests: Option<u64>,
) -> (Report, Vec<Connection>) {
    let start = Instant::now();
    let until = start + requests.map_or(Duration::from_secs_f64(seconds), |_| 60 * PATIENCE);
    let pace = match plan.rate {
        None => Pace::Closed { until, left: requests.unwrap_or(u64::MAX) },
        Some(_) => Pace::Open { due: VecDeque::new(), ended: false },
    };
    let state = State { pace, latencies: Vec::new(), errors: 0, first_error: None };
    let schedule = Arc::new(Schedule { state: Mutex::new(state), changed: Notify::new() });
    let mut tasks = tokio::task::JoinSet::new();
    for connection in connections {
        let (schedule, plan) = (schedule.clone(), plan.clone());
        tasks.spawn(async move { schedule.keep(connection, &plan).await });
    }
    let paced = match plan.rate {
        None => Ok(()),
        Some(rate) => {
            let count = requests.unwrap_or((seconds * f64::from(rate)) as u64);
            schedule.pace(Duration::from_secs(1) / rate, count).await
        }
    };
    let mut kept = Vec::new();
    let rest = async {
        while let Some(ended) = tasks.join_next().await {
            kept.extend(ended.ok().flatten());
        }
    };
    let patience = until.saturating_duration_since(Instant::now()) + PATIENCE;
    let in_time = tokio::time::timeout(patience, rest).await;
    let elapsed = start.elapsed();
    let mut state = schedule.lock();
    if in_time.is_err() || paced.is_err() {
        state.errors += 1;
        state.first_error.get_or_insert_with(|| "answers were missing at the end".to_owned());
    }
    (state.report(elapsed), kept)
}

impl State {
    fn report(&mut self, elapsed: Duration) -> Report {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let at = |share: f64| {
            let at = (share * last as f64).round() as usize;
            self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
        };
        Report {
            requests: self.latencies.len() as u64,
            errors: self.errors,
            first_error: self.first_error.take(),
            seconds: elapsed.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }
}
