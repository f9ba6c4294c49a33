//! Counts system calls of a process tree: with `perf`, which hardly slows it, or else with `strace`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::process::Guarded;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Until a counter is attached to all threads. Neither of them tells, and what is counted outside the
/// measurement is a handful among tens of thousands.
const ATTACHED_AFTER: Duration = Duration::from_millis(300);

/// A counter at work.
pub(crate) struct Counter {
    process: Guarded,
    file: PathBuf,
    by: &'static str,
}

/// What it counted.
pub(crate) struct Count {
    pub(crate) calls: u64,
    pub(crate) by: &'static str,
}

impl Counter {
    /// Attaches to all processes of this tree; the result goes through a file in the folder.
    pub(crate) fn attach(measured: &Guarded, folder: &Path) -> Result<Self> {
        let file = folder.join("calls");
        let ids: Vec<String> = measured.tree().iter().map(u32::to_string).collect();
        let by = if perf_counts() { "perf" } else { "strace" };
        let mut command = Command::new(by);
        match by {
            "perf" => {
                command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o"]).arg(&file);
                command.args(["-p", &ids.join(",")]);
            }
            _ => {
                command.args(["-c", "-f", "-o"]).arg(&file);
                command.args(ids.iter().flat_map(|id| ["-p", id]));
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Guarded::spawn(&mut command, None)
            .map_err(|error| format!("neither perf nor strace can count: {error}"))?;
        std::thread::sleep(ATTACHED_AFTER);
        Ok(Self { process, file, by })
    }

    /// Detaches.
    pub(crate) fn read(self) -> Result<Count> {
        self.process.end(Signal::INT)?;
        let text = std::fs::read_to_string(&self.file)?;
        let calls = match self.by {
            "perf" => text.lines().find(|line| line.contains("sys_enter")).and_then(first_number),
            // "100.00    0.001000           0      1234        12 total"
            _ => text.lines().find(|line| line.ends_with(" total")).and_then(|line| {
                line.split_whitespace().nth(3).and_then(|count| count.parse().ok())
            }),
        };
        let calls = calls.ok_or_else(|| format!("{} counted nothing: {}", self.by, text.trim()))?;
        Ok(Count { calls, by: self.by })
    }
}

fn first_number(line: &str) -> Option<u64> {
    line.split(',').next()?.parse().ok()
}

/// Whether perf is there and may count: that needs the tracepoints of the kernel.
fn perf_counts() -> bool {
    let mut command = Command::new("perf");
    command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"]);
    let Ok(output) = command.output() else { return false };
    String::from_utf8_lossy(&output.stderr).lines().any(|line| first_number(line).is_some())
}
