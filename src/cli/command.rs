//! The command that `forbear run -- CMD` lives for: how it starts, what it is told, how its end is noticed.
//!
//! It begins as a second forbear (`forbear beside`), which asks the kernel for a signal when the first
//! one dies, and then becomes the command. The standard library could do that only in unsafe code.
//! As the first process of a container, forbear is also the parent of every process whose own has
//! gone, and must bury those, or each keeps its number for ever.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal as Sig, WaitOptions, WaitStatus, getpid, getppid, kill_process,
    set_parent_process_death_signal, wait, waitpid,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{EXIT_USAGE, complain};

/// This program, also after its file was replaced.
const MYSELF: &str = "/proc/self/exe";
/// How a second one is told to become the command; hidden, since nobody else has a use for it.
pub(super) const BESIDE: &str = "beside";

/// A command that runs.
pub(super) struct Wrapped {
    id: Pid,
    /// Children that ended.
    ends: Signal,
    /// Whether orphans are ours, too.
    is_first: bool,
}

impl Wrapped {
    /// Starts it, with these in its environment. Must be called on the main thread: the kernel takes the end
    /// of the thread that starts a process for the death of the parent.
    pub(super) fn start(
        command: &[OsString],
        environment: [(&str, String); 2],
    ) -> io::Result<Self> {
        let ends = signal(SignalKind::child())?;
        let parent = getpid().as_raw_pid().to_string();
        let child = Command::new(MYSELF)
            .args([BESIDE, &parent, "--"])
            .args(command)
            .envs(environment)
            .spawn()?;
        Ok(Self { id: Pid::from_child(&child), ends, is_first: getpid().is_init() })
    }

    /// Sends it a signal. It may have ended in this moment; waiting for it tells.
    pub(super) fn tell(&self, sig: Sig) {
        let _ = kill_process(self.id, sig);
    }

    /// Waits for its end, and gives its exit code as a shell would: 128 and the signal's number for a
    /// command that was killed. May be given up and asked again.
    pub(super) async fn ended(&mut self) -> io::Result<ExitCode> {
        loop {
            if let Some(status) = self.look()? {
                let killed = || status.terminating_signal().map(|signal| 128 + signal);
                let code = status.exit_status().or_else(killed).unwrap_or(1);
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            self.ends.recv().await;
        }
    }

    /// Its end, if it has come; buries whoever else ended until then.
    fn look(&self) -> io::Result<Option<WaitStatus>> {
        loop {
            let found = if self.is_first {
                wait(WaitOptions::NOHANG)
            } else {
                waitpid(Some(self.id), WaitOptions::NOHANG)
            };
            match found {
                Ok(Some((id, status))) if id == self.id => return Ok(Some(status)),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Becomes the command, which is told to end (SIGTERM) should forbear, the process `parent`, die
/// without a chance to say so. Returns only if that is impossible.
pub(super) fn become_command(parent: i32, command: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else {
        return ExitCode::from(EXIT_USAGE);
    };
    // Where it is not to be had, the command runs as it would without.
    let _ = set_parent_process_death_signal(Some(Sig::TERM));
    // It may have died before that.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return ExitCode::FAILURE;
    }
    // The allocator forbids 2 MiB where 4 KiB were touched: idle, that would be half of all memory. A
    // command would inherit that, and may want them.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    let error = Command::new(program).args(arguments).exec();
    complain(&format!("`{}` cannot be started: {error}", Path::new(program).display()));
    ExitCode::from(EXIT_USAGE)
}
