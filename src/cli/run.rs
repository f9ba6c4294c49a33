//! `forbear run`: start, tell what was bound, serve, reload, end.
//!
//! Exit codes: 0 after an orderly end, whoever asked for it (a sidecar that exits 143 makes some
//! orchestrators wait for ever); with `-- CMD`, that command's own; 2 for a configuration that
//! cannot be used; 1 for anything else.

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Signal as Sig, getpgrp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::command::Wrapped;
use super::{EXIT_USAGE, RunArgs, complain};
use crate::config::watch::Watch;
use crate::config::{self, Loaded};
use crate::serve::ListenerId;
use crate::serve::worker::raise_open_files;
use crate::sidecar::{Idle, Sidecar, StartError, WATCH_INTERVAL};
use crate::telemetry::log::{self, LogTo};
use crate::telemetry::metrics::Metrics;

/// Serves until told to end.
pub fn run(args: RunArgs) -> ExitCode {
    if lacks_command(&args.command) {
        complain(
            "there is no command behind --; name one, or leave the -- out to serve until told to end",
        );
        return ExitCode::from(EXIT_USAGE);
    }
    let loaded = match config::load(&args.config, &config::process_environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            super::check::print_problems(&problems);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    // One thread is enough for admin, signals and files; the workers have their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(serve(loaded, &args.config, args.command)),
        Err(error) => Err(Failure::Running(format!("no runtime could be started: {error}"))),
    };
    match ended {
        Ok(code) => code,
        Err(Failure::Setup(why)) => {
            complain(&why);
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Running(why)) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// Why forbear did not run, or not to its end.
enum Failure {
    /// Something to be mended in the configuration.
    Setup(String),
    /// Anything else.
    Running(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Running(error.to_string())
    }
}

async fn serve(loaded: Loaded, path: &Path, command: Vec<OsString>) -> Result<ExitCode, Failure> {
    let open_files = raise_open_files();
    let metrics = Arc::new(Metrics::new());
    // The standard output of `run -- CMD` is CMD's.
    let to = if command.is_empty() { LogTo::Stdout } else { LogTo::Stderr };
    let guard = log::start(loaded.settings.log, to, metrics.log_lines_dropped.clone())?;
    for warning in &loaded.warnings {
        tracing::warn!(warning = warning.to_string(), "configuration");
    }
    let watch = Watch::new(path, &loaded);
    let mut signals = Signals::listen()?;
    let sidecar = Sidecar::start(loaded, Some(path.to_owned()), metrics, guard.writer()).map_err(
        |error| match error {
            StartError::Build(_) | StartError::Bind(_) | StartError::BindAdmin { .. } => {
                Failure::Setup(error.to_string())
            }
            StartError::Thread(_) => Failure::Running(error.to_string()),
        },
    )?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), open_files, "forbear started");
    match to {
        LogTo::Stdout => announce(&sidecar, &mut std::io::stdout().lock())?,
        LogTo::Stderr => announce(&sidecar, &mut std::io::stderr().lock())?,
    }

    let code = if command.is_empty() {
        let why = until_ended(&sidecar, watch, &mut signals).await;
        tracing::info!(why, "ending");
        ExitCode::SUCCESS
    } else {
        let url = |address: SocketAddr| format!("http://{}", reachable(address));
        let proxy = sidecar.proxy_address().map(url).unwrap_or_default();
        let admin = url(sidecar.admin_address());
        let environment = [("FORBEAR_URL", proxy), ("FORBEAR_ADMIN", admin)];
        let command = Wrapped::start(&command, environment)?;
        with_command(command, &sidecar, watch, &mut signals).await?
    };
    sidecar.drain(signals.end()).await;
    tracing::info!("ended");
    drop(guard);
    Ok(code)
}

/// Whether a command was announced, and none came: `forbear run -- $CMD` with nothing in it.
fn lacks_command(command: &[OsString]) -> bool {
    command.is_empty() && std::env::args_os().next_back().is_some_and(|last| last == "--")
}

/// How it is reached from this machine: what listens everywhere does so on loopback, too.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// One line per listener with the address really bound, then `ready`.
fn announce(sidecar: &Sidecar, out: &mut impl Write) -> std::io::Result<()> {
    for (id, address) in sidecar.addresses() {
        match id {
            ListenerId::Main(_) => writeln!(out, "proxy http://{address}")?,
            ListenerId::Upstream(name) => writeln!(out, "upstream {name} http://{address}")?,
        }
    }
    writeln!(out, "admin http://{}", sidecar.admin_address())?;
    if let Some(address) = sidecar.metrics_address() {
        writeln!(out, "metrics http://{address}")?;
    }
    writeln!(out, "ready")?;
    out.flush()
}

/// Serves until a signal or the admin API ends it; says which.
async fn until_ended(sidecar: &Sidecar, mut watch: Watch, signals: &mut Signals) -> &'static str {
    let mut looks = interval(WATCH_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle = Idle::begin(sidecar.control());
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return "SIGTERM",
            _ = signals.interrupt.recv() => return "SIGINT",
            () = sidecar.control().asked_to_quit() => return "asked through the admin API",
            _ = signals.hangup.recv() => reload(sidecar),
            () = sidecar.control().reloaded() => follow(sidecar, &mut watch),
            _ = looks.tick() => {
                if watch.changed() {
                    reload(sidecar);
                }
                if idle.is_over(sidecar.control()) {
                    return "no exchange for as long as proxy.idle_exit allows";
                }
            }
        }
    }
}

fn reload(sidecar: &Sidecar) {
    // Problems have been logged, each with its place and its fix.
    let _ = sidecar.control().reload_now();
}

/// After a reload, whoever asked for it.
fn follow(sidecar: &Sidecar, watch: &mut Watch) {
    let loaded = sidecar.control().loaded();
    sidecar.set_timeouts(&loaded.settings);
    watch.follow(&loaded);
}

/// Serves for one command: its signals are ours, and its exit code, too.
async fn with_command(
    mut command: Wrapped,
    sidecar: &Sidecar,
    mut watch: Watch,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let mut looks = interval(WATCH_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            code = command.ended() => return Ok(code?),
            _ = signals.terminate.recv() => command.tell(Sig::TERM),
            // A terminal sends Ctrl-C to the whole group in its foreground: the command has it already.
            _ = signals.interrupt.recv() => if !is_in_foreground() { command.tell(Sig::INT) },
            _ = signals.hangup.recv() => {
                command.tell(Sig::HUP);
                reload(sidecar);
            }
            _ = signals.user1.recv() => command.tell(Sig::USR1),
            _ = signals.user2.recv() => command.tell(Sig::USR2),
            () = sidecar.control().asked_to_quit() => command.tell(Sig::TERM),
            () = sidecar.control().reloaded() => follow(sidecar, &mut watch),
            _ = looks.tick() => {
                if watch.changed() {
                    reload(sidecar);
                }
            }
        }
    }
}

/// Whether this process and the command that it started are what a terminal shows at the moment.
fn is_in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == getpgrp())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// A further SIGTERM or SIGINT: end at once.
    async fn end(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
