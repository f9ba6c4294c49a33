//! Processes that are ended with their guard, and what the system accounts to them.
//!
//! CPU time is the scheduler's (`schedstat`, in nanoseconds) of all threads of a process and all its
//! descendants, because nginx works in a child of the process that was started. Processes are pinned by
//! pinning this thread while it starts them, so that not even their first instruction runs elsewhere.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::signal::unix::{SignalKind, signal};

use crate::load::{Options as LoadOptions, Report};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Cores on which something is to run; `None` leaves that to the scheduler.
pub(crate) type Cores = Option<&'static [usize]>;

/// A process with its descendants; all of them are killed when it is dropped.
pub(crate) struct Guarded {
    child: Child,
}

impl Guarded {
    /// Starts it on these cores.
    pub(crate) fn spawn(command: &mut Command, cores: Cores) -> Result<Self> {
        ON_SIGNALS.call_once(|| drop(std::thread::spawn(end_all_on_signals)));
        let child = Self::pinned(command, cores)?;
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).push(child.id());
        Ok(Self { child })
    }

    fn pinned(command: &mut Command, cores: Cores) -> Result<Child> {
        let Some(cores) = cores else { return Ok(command.spawn()?) };
        let before = sched_getaffinity(None)?;
        let mut wanted = CpuSet::new();
        cores.iter().for_each(|core| wanted.set(*core));
        sched_setaffinity(None, &wanted)?;
        let child = command.spawn();
        sched_setaffinity(None, &before)?;
        Ok(child?)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// It and its descendants, parents first.
    pub(crate) fn tree(&self) -> Vec<u32> {
        tree(self.id())
    }

    /// CPU time of each thread so far.
    pub(crate) fn cpu(&self) -> Cpu {
        let mut threads = HashMap::new();
        for process in self.tree() {
            for task in tasks(process) {
                let text = fs::read_to_string(format!("/proc/{process}/task/{task}/schedstat"));
                let first = text.ok().and_then(|text| text.split(' ').next()?.parse().ok());
                threads.insert(task, Duration::from_nanos(first.unwrap_or(0)));
            }
        }
        Cpu { threads }
    }

    /// Resident memory of all of them in KiB.
    pub(crate) fn resident_kib(&self) -> f64 {
        let of = |process: u32| {
            let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<f64>().ok()
        };
        self.tree().into_iter().filter_map(of).sum()
    }

    /// Asks the first process to end, and waits until it did.
    pub(crate) fn end(mut self, signal: Signal) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.id())?).ok_or("no process id")?;
        kill_process(id, signal)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| *id != self.id());
        if !self.has_ended() {
            kill(&self.tree());
        }
        drop(self.child.wait());
    }
}

/// What was started and not yet ended.
static LIVING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

static ON_SIGNALS: Once = Once::new();

/// Guards are not dropped when this process is told to end, so this ends what they guard.
fn end_all_on_signals() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let Ok(runtime) = runtime else { return };
    let told = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        std::io::Result::Ok(())
    });
    if told.is_ok() {
        let living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        living.iter().for_each(|id| kill(&tree(*id)));
        std::process::exit(130);
    }
}

/// Parents are killed before their children, whom they could replace.
fn kill(tree: &[u32]) {
    for id in tree.iter().filter_map(|id| Pid::from_raw(i32::try_from(*id).ok()?)) {
        let _ = kill_process(id, Signal::KILL);
    }
}

/// A process and its descendants, parents first.
fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut at = 0;
    while let Some(process) = all.get(at) {
        let children: Vec<u32> = tasks(*process)
            .filter_map(|task| {
                fs::read_to_string(format!("/proc/{process}/task/{task}/children")).ok()
            })
            .flat_map(|text| text.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
            .collect();
        all.extend(children);
        at += 1;
    }
    all
}

fn tasks(process: u32) -> impl Iterator<Item = u32> {
    let found = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    found.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// CPU time of threads.
#[derive(Default)]
pub(crate) struct Cpu {
    threads: HashMap<u32, Duration>,
}

impl Cpu {
    fn spent<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Duration> + 'a {
        let of = |task| before.threads.get(task).copied().unwrap_or_default();
        self.threads.iter().map(move |(task, time)| time.saturating_sub(of(task)))
    }

    /// All that was spent since.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        self.spent(before).sum()
    }

    /// What the busiest thread spent since.
    pub(crate) fn busiest_since(&self, before: &Self) -> Duration {
        self.spent(before).max().unwrap_or_default()
    }

    /// Both together.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.threads.extend(other.threads);
        self
    }
}

/// This process.
pub(crate) fn own_cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let first = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// Time in which any core of the machine was busy, by the kernel's ticks of 10 ms.
pub(crate) fn machine_busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    Duration::from_millis(busy * 10)
}

/// Our own program as another process, which is spoken with by lines.
pub(crate) struct Tool {
    process: Guarded,
    lines: BufReader<ChildStdout>,
}

impl Tool {
    fn start(arguments: &[String], cores: Cores) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Guarded::spawn(&mut command, cores)?;
        let out = process.child.stdout.take().ok_or("no standard output")?;
        Ok(Self { process, lines: BufReader::new(out) })
    }

    /// Starts the origin, which puts its authority into this folder; its plain and its TLS port.
    pub(crate) fn origin(folder: &std::path::Path, cores: Cores) -> Result<(Self, u16, u16)> {
        let folder = folder.to_str().ok_or("a folder that is no text")?.to_owned();
        let mut origin = Self::start(&["origin".to_owned(), "--folder".to_owned(), folder], cores)?;
        let line = origin.line()?;
        let (plain, tls) = line.split_once(' ').ok_or("the origin did not start")?;
        let ports = (plain.parse()?, tls.parse()?);
        Ok((origin, ports.0, ports.1))
    }

    /// Starts the load and waits until it is ready to measure.
    pub(crate) fn load(options: &LoadOptions, cores: Cores) -> Result<Self> {
        let mut arguments = vec![
            "load".to_owned(),
            format!("--target={}", options.target),
            format!("--path={}", options.path),
            format!("--expect={}", options.expect),
            format!("--connections={}", options.connections),
            format!("--warm={}", options.warm),
            format!("--seconds={}", options.seconds),
        ];
        arguments.extend(options.body.map(|bytes| format!("--body={bytes}")));
        arguments.extend(options.requests.map(|count| format!("--requests={count}")));
        arguments.extend(options.rate.map(|rate| format!("--rate={rate}")));
        arguments.extend(options.ca.as_ref().map(|file| format!("--ca={}", file.display())));
        let mut load = Self::start(&arguments, cores)?;
        match load.line()?.as_str() {
            "ready" => Ok(load),
            _ => Err("the load could not begin".into()),
        }
    }

    /// Lets the load measure; any wrong answer is an error.
    pub(crate) fn measure(&mut self) -> Result<Report> {
        self.process.child.stdin.as_mut().ok_or("no standard input")?.write_all(b"go\n")?;
        let report: Report = serde_json::from_str(&self.line()?)?;
        match &report.first_error {
            Some(error) => Err(format!("{} requests failed: {error}", report.errors).into()),
            None if report.requests == 0 => Err("no request was sent".into()),
            None => Ok(report),
        }
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.process.cpu()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}
