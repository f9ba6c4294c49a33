//! forbear as it is shipped: the binary, a file, signals, and what it prints.
//!
//! Each one runs in a folder of its own on free ports, with the caller's `FORBEAR_*` variables taken
//! away, and is ended with its test: by its own process id and no other. What it prints is kept, so
//! that a test can wait for a line and a failure can show all of them.
#![allow(dead_code, reason = "each test uses the part that it needs")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::forbear::with_free_ports;
use super::raw::{RawClient, RawResponse};

/// Longest wait for anything: enough for a busy machine, short enough to be noticed.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running `forbear run`; killed when dropped.
pub(crate) struct Binary {
    child: Child,
    folder: TempDir,
    printed: Printed,
    addresses: HashMap<String, SocketAddr>,
}

/// All lines so far, of both streams.
#[derive(Clone)]
struct Printed {
    lines: Arc<Mutex<Vec<String>>>,
    changed: watch::Sender<()>,
}

/// The binary with these arguments, without what the caller's environment says about forbear.
pub(crate) fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forbear"));
    command.args(arguments).env_remove("FORBEAR_CONFIG").env_remove("FORBEAR_ADMIN");
    command.stdin(Stdio::null()).kill_on_drop(true);
    // Where its state file goes, unless the configuration or the test says otherwise.
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs the binary to its end.
pub(crate) async fn forbear<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    let output = command(arguments).output();
    tokio::time::timeout(DEADLINE, output).await.expect("it ends").expect("it can be started")
}

/// Standard output as text.
pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Binary {
    /// Starts one with this configuration, to which free loopback ports are added, and waits until
    /// it is ready.
    pub(crate) async fn start(configuration: &str) -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), configuration).await
    }

    /// The same in this folder, which may have files that the configuration names.
    pub(crate) async fn start_with(folder: TempDir, configuration: &str) -> Self {
        std::fs::write(folder.path().join("config.toml"), with_free_ports(configuration)).unwrap();
        Self::start_in(folder, &[]).await
    }

    /// Starts one for the `config.toml` of this folder, with a command to run, and waits until it
    /// is ready.
    pub(crate) async fn start_in(folder: TempDir, tail: &[&str]) -> Self {
        let mut command = command(["run", "-c"]);
        command.arg(folder.path().join("config.toml"));
        if !tail.is_empty() {
            command.arg("--").args(tail);
        }
        Self::start_command(folder, command).await
    }

    /// Runs this command, which becomes a forbear in that folder, and waits until it is ready.
    pub(crate) async fn start_command(folder: TempDir, mut command: Command) -> Self {
        command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = Printed { lines: Arc::default(), changed: watch::Sender::new(()) };
        printed.follow(child.stdout.take().unwrap());
        printed.follow(child.stderr.take().unwrap());
        let mut binary = Self { child, folder, printed, addresses: HashMap::new() };
        binary.until_printed("ready", |line| line == "ready").await;
        binary.addresses = binary.lines().iter().filter_map(|line| announced(line)).collect();
        binary
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// The folder with `config.toml`, in which it runs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder, for the next one; this one must have ended.
    pub(crate) fn into_folder(self) -> TempDir {
        self.folder
    }

    /// The listener that was announced under this name.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        *self.addresses.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.addresses))
    }

    pub(crate) fn proxy(&self) -> SocketAddr {
        self.address("proxy")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// `http://` and the admin listener, for `--admin`.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.admin())
    }

    /// Everything printed so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.printed.lock().clone()
    }

    /// Waits for a line that is so.
    pub(crate) async fn until_printed(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let mut changed = self.printed.changed.subscribe();
        let found = async {
            while !self.printed.lock().iter().any(|line| is_it(line)) {
                changed.changed().await.expect("this holds the sender");
            }
        };
        if tokio::time::timeout(DEADLINE, found).await.is_err() {
            panic!("waited in vain for {what} in:\n{}", self.lines().join("\n"));
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        match tokio::time::timeout(DEADLINE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it did not end; it printed:\n{}", self.lines().join("\n")),
        }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Writes a file in its folder, all at once as far as a reader can tell.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let new = self.folder().join(format!(".{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.folder().join(name)).unwrap();
    }

    /// Replaces `config.toml`.
    pub(crate) fn configure(&self, configuration: &str) {
        self.write("config.toml", &with_free_ports(configuration));
    }

    /// Replaces `config.toml` and has it read through the admin API; status and body.
    pub(crate) async fn reload(&self, configuration: &str) -> RawResponse {
        self.configure(configuration);
        self.post("/api/v1/reload", "{}").await
    }

    /// Asks the proxy, on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> RawResponse {
        get(self.proxy(), path).await
    }

    /// Asks the admin listener.
    pub(crate) async fn admin_get(&self, path: &str) -> RawResponse {
        get(self.admin(), path).await
    }

    /// Changes something through the admin listener.
    pub(crate) async fn post(&self, path: &str, body: &str) -> RawResponse {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        RawClient::connect(self.admin()).await.ask(request).await
    }

    /// The upstream of that name, as the admin API shows it.
    pub(crate) async fn view(&self, upstream: &str) -> serde_json::Value {
        let answer = self.admin_get(&format!("/api/v1/upstreams/{upstream}")).await;
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The value of the series that is written so, such as `forbear_draining`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.admin_get("/metrics").await.text();
        value_of(&text, series).unwrap_or_else(|| panic!("no series {series} in:\n{text}"))
    }

    /// Waits until a series has this value.
    pub(crate) async fn until_metric(&self, series: &str, value: f64) {
        let mut last = f64::NAN;
        for _ in 0..1_000 {
            last = self.metric(series).await;
            if last.to_bits() == value.to_bits() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{series} is {last}, not {value}, after:\n{}", self.lines().join("\n"));
    }

    /// Waits until the admin API's view of an upstream is so.
    pub(crate) async fn until_view(
        &self,
        upstream: &str,
        what: &str,
        holds: impl Fn(&serde_json::Value) -> bool,
    ) {
        for _ in 0..1_000 {
            if holds(&self.view(upstream).await) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {what}; last: {:#}", self.view(upstream).await);
    }
}

impl Printed {
    fn follow(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let mut lines = BufReader::new(stream).lines();
        let printed = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                printed.lock().push(line);
                printed.changed.send_replace(());
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap()
    }
}

/// One GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> RawResponse {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    RawClient::connect(address).await.ask(request).await
}

/// The value of a series in an exposition.
pub(crate) fn value_of(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// A folder with a `config.toml`.
pub(crate) fn folder_with(configuration: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, configuration).unwrap();
    (folder, file)
}

/// `upstream api http://127.0.0.1:4711` and its likes: the name and the address.
fn announced(line: &str) -> Option<(String, SocketAddr)> {
    let (name, address) = line.split_once(" http://")?;
    let name = name.strip_prefix("upstream ").unwrap_or(name);
    Some((name.to_owned(), address.parse().ok()?))
}
