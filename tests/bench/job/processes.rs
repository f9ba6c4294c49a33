//! What runs beside this process: the virtual environment's maker, a client, and forbear.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use forbear::demo::api::FakeApi;
use forbear::demo::record::{Counters, RequestRecord};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::table::Row;
use super::{Client, Options};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// forbear binds loopback ports and is ready; a busy machine needs a part of this.
const READY_MAX: Duration = Duration::from_secs(20);

/// What was sent before the first refusal was heard arrives sooner than this after it, also on a busy
/// machine.
const ON_THE_WAY: Duration = Duration::from_millis(100);

/// A slow package registry needs a part of this.
const INSTALL_MAX: Duration = Duration::from_secs(300);

/// One job, as the client and as the API saw it.
#[derive(Default)]
pub(crate) struct Run {
    /// To the last answer.
    pub(crate) took: Duration,
    pub(crate) good: u32,
    pub(crate) lost: u32,
    pub(crate) seen: Counters,
    /// 429s that came [`ON_THE_WAY`] or more after the first of those without a 2xx between them.
    pub(crate) late: u32,
    /// It was ended before it was finished.
    pub(crate) cut: bool,
}

impl Run {
    /// Requests that the API refused or failed, for each item got.
    pub(crate) fn refused_per_good(&self) -> f64 {
        f64::from(self.seen.refused + self.seen.failed + self.seen.resets) / f64::from(self.good)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { took, good, lost, seen, late, cut } = self;
        write!(
            f,
            "{:.2} s{}, {good} good, {lost} lost, {} refused ({} in a pause, {late} late), {} failed",
            took.as_secs_f64(),
            if *cut { " (cut)" } else { "" },
            seen.refused,
            seen.refused_during_pause,
            seen.failed + seen.resets,
        )
    }
}

/// Python with the clients' libraries; made anew when their list has changed.
pub(crate) async fn virtual_environment(wanted: &Path) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("job-venv");
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if std::fs::read(wanted)? != std::fs::read(&installed).unwrap_or_default() {
        finish(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).await?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ]);
        finish(pip.arg(wanted)).await?;
        std::fs::copy(wanted, installed)?;
    }
    Ok(python)
}

async fn finish(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let ended = timeout(INSTALL_MAX, async { command.spawn()?.wait().await }).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err(format!("{command:?}: {ended:?}").into()),
    }
}

/// One job against a fresh API, through a fresh forbear if it is its.
pub(crate) async fn one_run(
    python: &Path,
    clients: &Path,
    Row { case, client, .. }: &Row,
    options: &Options,
) -> Result<Run> {
    let api = FakeApi::start(case.api.clone()).await?;
    let folder = tempfile::tempdir()?;
    let mut base = api.url();
    let mut forbear = None;
    if *client == Client::Forbear {
        let file = folder.path().join("config.toml");
        std::fs::write(&file, case.policy.configuration(&base))?;
        let started = Forbear::start(&file).await?;
        base = format!("{}/api", started.url);
        forbear = Some(started);
    }
    let mut job = Command::new(python);
    job.arg(clients).args([client.name(), base]);
    job.args([case.items, options.workers, options.timeout].map(|number| number.to_string()));
    let mut child = job.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let out = child.stdout.take().ok_or("the job has no output")?;
    let mut run = Run::default();
    let all = Duration::from_secs(options.job_timeout.into());
    match timeout(all, follow(out, &mut run)).await {
        Ok(followed) => {
            followed?;
            let status = child.wait().await?;
            if !status.success() {
                return Err(format!("the job ended with {status}").into());
            }
        }
        Err(_) => {
            child.kill().await?;
            (run.cut, run.took) = (true, all);
        }
    }
    run.lost = case.items - run.good;
    (run.seen, run.late) = (api.counters(), late(&api.log()));
    if let Some(forbear) = forbear {
        forbear.stop().await?;
    }
    Ok(run)
}

fn late(log: &[RequestRecord]) -> u32 {
    let (mut late, mut first) = (0, None);
    for record in log {
        match record.status {
            Some(429) => {
                late += u32::from(record.at >= *first.get_or_insert(record.at) + ON_THE_WAY);
            }
            Some(200..=299) => first = None,
            Some(_) | None => {}
        }
    }
    late
}

/// Reads what became of each item.
async fn follow(out: ChildStdout, run: &mut Run) -> Result<()> {
    let mut lines = BufReader::new(out).lines();
    while let Some(line) = lines.next_line().await? {
        let (end, seconds) =
            line.split_once(' ').ok_or_else(|| format!("no item's end: {line}"))?;
        run.good += u32::from(end == "good");
        run.took = run.took.max(Duration::from_secs_f64(seconds.parse()?));
    }
    Ok(())
}

/// A running forbear; killed when dropped.
struct Forbear {
    child: Child,
    url: String,
    /// Kept open, because forbear may print.
    _out: ChildStdout,
}

impl Forbear {
    /// Returns once it is ready.
    async fn start(file: &Path) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forbear"));
        command.args(["run", "-c"]).arg(file);
        command.env_remove("FORBEAR_CONFIG").env_remove("FORBEAR_ADMIN").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut out = BufReader::new(child.stdout.take().ok_or("forbear has no output")?);
        let announced = async {
            let (mut url, mut line) = (None, String::new());
            while out.read_line(&mut line).await? > 0 {
                match line.trim_end().split_once(' ') {
                    Some(("proxy", address)) => url = Some(address.to_owned()),
                    None if line.trim_end() == "ready" => break,
                    Some(_) | None => {}
                }
                line.clear();
            }
            url.ok_or_else(|| "forbear announced no listener".into())
        };
        let url: Result<String> = timeout(READY_MAX, announced).await?;
        Ok(Self { child, url: url?, _out: out.into_inner() })
    }

    async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}
