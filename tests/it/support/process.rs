//! forbear as a process of its own, so that its memory and its processor time can be told from the
//! test's. Nothing more: what it says of itself comes from its admin listener.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::raw::RawClient;

/// Lines of the log that are kept; a test that writes more has gone wild.
const LINES_MAX: usize = 20_000;
/// Lines that a failed test shows.
const LINES_TOLD: usize = 40;

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) proxy: SocketAddr,
    admin: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

impl Process {
    /// Starts with this configuration, whose tables proxy and admin must not set `listen`.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::start_with_files(configuration, None)
    }

    /// The same, with so many file descriptors at most. `FORBEAR_TEST_BINARY` names another build
    /// to be measured by the same tests.
    pub(crate) fn start_with_files(configuration: &str, files_max: Option<u32>) -> Self {
        let listen = "listen = \"127.0.0.1:0\"\n";
        let text = configuration.replacen("[proxy]\n", &format!("[proxy]\n{listen}"), 1);
        assert_ne!(text, configuration, "the configuration has a table [proxy]");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("forbear.toml");
        std::fs::write(&file, format!("{text}\n[admin]\n{listen}")).unwrap();
        let limit = files_max.map(|max| format!("ulimit -n {max}; ")).unwrap_or_default();
        let binary = std::env::var_os("FORBEAR_TEST_BINARY");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{limit}exec \"$0\" run -c \"$1\"")])
            .arg(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_forbear").into()))
            .arg(&file)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (mut proxy, mut admin) = (None, None);
        loop {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "forbear ended before it was ready");
            let address = |name| line.trim().strip_prefix(name)?.parse().ok();
            proxy = proxy.or_else(|| address("proxy http://"));
            admin = admin.or_else(|| address("admin http://"));
            if line == "ready\n" {
                break;
            }
        }
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < LINES_MAX {
                    kept.push(line);
                }
            }
        });
        let (proxy, admin) = (proxy.unwrap(), admin.unwrap());
        Self { child, proxy, admin, lines, _folder: folder }
    }

    /// Whether a line of the log so far holds this text.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Whether the process is alive.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A connection to the admin listener, for many questions.
    pub(crate) async fn admin(&self) -> Admin {
        Admin(RawClient::connect(self.admin).await)
    }

    /// Resident memory in KiB: now (`VmRSS`) or the most there ever was (`VmHWM`).
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Makes the present amount the most there ever was.
    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// Processor time so far, in hundredths of a second, user and system.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name in parentheses may hold blanks; what follows is fields 3 and later.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let last = lines.len().saturating_sub(LINES_TOLD);
            eprintln!("the last lines of forbear's log:\n{}", lines[last..].join("\n"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection to the admin listener.
pub(crate) struct Admin(RawClient);

impl Admin {
    /// A metric without its labels: the sum of its series.
    pub(crate) async fn metric(&mut self, name: &str) -> u64 {
        let text = self.get("/metrics").await;
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let series = series.filter(|rest| rest.starts_with(['{', ' ']));
        series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// Exchanges that wait for this upstream.
    pub(crate) async fn queued(&mut self, upstream: &str) -> u64 {
        let view = self.get(&format!("/api/v1/upstreams/{upstream}")).await;
        let view: serde_json::Value = serde_json::from_str(&view).unwrap();
        view["queued"].as_u64().unwrap()
    }

    /// Waits until so many exchanges wait, at most ten seconds.
    pub(crate) async fn until_queued(&mut self, upstream: &str, wanted: u64) {
        for _ in 0..10_000 {
            if self.queued(upstream).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} exchanges wait instead of {wanted}", self.queued(upstream).await);
    }

    /// Waits until a metric has at least this value, at most twenty seconds.
    pub(crate) async fn until_metric(&mut self, name: &str, least: u64) {
        for _ in 0..1_000 {
            if self.metric(name).await >= least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{name} is {} and not {least}", self.metric(name).await);
    }

    async fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.ask(request).await.text()
    }
}
