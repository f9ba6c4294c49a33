//! The command line: what can be typed, what it means, and with which code it ends.
//!
//! Exit codes: 0 fine, 1 failed while running, 2 usage or configuration. The help is meant to
//! teach: each command has a sentence and an example.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod run;

mod command;

pub mod demo;

pub mod check;

pub mod client;

mod quotas;

pub mod status;

pub mod control;

pub mod explain;

mod preflight;

mod query;

mod timeline;

pub mod interpret;

pub mod profile;

pub mod simulate;

/// What a person who made a mistake in typing or in a file gets.
pub const EXIT_USAGE: u8 = 2;

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Beside { parent, command } => command::become_command(parent, &command),
        Command::Demo { exit } => demo::demo(exit),
        Command::Check(args) => check::check(&args.config, args.effective, args.json),
        Command::Schema => check::schema(),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Interpret(args) => interpret::interpret(&args),
        Command::Profile { action } => profile::profile(&action),
        Command::Status { watch, json, admin } => {
            control::finish(&admin, async |client| status::run(&client, watch, json).await)
        }
        Command::Explain(args) => {
            control::finish(&args.admin, async |client| explain::explain(&client, &args).await)
        }
        Command::Query(args) => query::query(&args),
        Command::Preflight(args) => {
            control::finish(&args.admin, async |client| preflight::preflight(&client, &args).await)
        }
        Command::Breaker(args) => {
            control::finish(&args.admin, async |client| control::breaker(&client, &args).await)
        }
        Command::Health { ready, admin } => {
            control::finish(&admin, async |client| control::health(&client, ready).await)
        }
        Command::Wait { timeout, admin } => {
            control::finish(&admin, async |client| control::wait(&client, timeout).await)
        }
        Command::Quit { admin } => {
            control::finish(&admin, async |client| control::quit(&client).await)
        }
    }
}

/// Says what went wrong, on standard error.
pub fn complain(problem: &str) {
    let red = AnsiColor::Red.on_default().bold();
    // If not even standard error can be written to, the exit code has to do.
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {problem}");
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ABOUT: &str = "\
A sidecar between your jobs and the APIs that limit them. It waits when an API says wait, retries
what is safe to retry, and stops asking when an API is down; your jobs only change their base URL
to http://localhost:8080/<upstream>.";

const EXAMPLES: &str = "\
Start here:
  forbear demo                        see what it does, without network or set-up
  forbear check config.toml           find every mistake in a configuration
  forbear run -c config.toml          serve
  forbear status --watch              see what it is doing
  forbear explain REQUEST-ID          see what happened to one request";

/// `forbear`
#[derive(Debug, Parser)]
#[command(name = "forbear", version, about = ABOUT, after_help = EXAMPLES, styles = STYLES)]
#[command(arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, until told to end; with a command after `--`, for as long as that runs
    #[command(after_help = "\
Examples:
  forbear run -c config.toml
  forbear run -c config.toml -- python etl.py     FORBEAR_URL is set for it; its exit code is ours")]
    Run(RunArgs),
    /// Become the command of `forbear run -- CMD`, which is how that starts it
    #[command(name = command::BESIDE, hide = true)]
    Beside {
        /// The forbear that serves it
        parent: i32,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Show what forbear does: a rate-limited fake API with an outage, and a job that survives it
    #[command(after_help = "Example:\n  forbear demo --exit     end with the summary")]
    Demo {
        /// End after the summary instead of leaving the dashboard up
        #[arg(long)]
        exit: bool,
    },
    /// Find every problem of a configuration, with its place and its fix
    #[command(after_help = "\
Examples:
  forbear check config.toml
  forbear check --effective     every value in force and where it comes from")]
    Check(CheckArgs),
    /// Show upstreams with their breakers, cooldowns, quotas and queues
    #[command(after_help = "\
Examples:
  forbear status --watch
  forbear status --json | jq '.upstreams[].breaker'")]
    Status {
        /// Draw it anew every second
        #[arg(long)]
        watch: bool,
        /// The API's own answer, one line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Tell what happened to a request, moment by moment; or list the last ones
    #[command(after_help = "\
Examples:
  forbear explain 01M7Z8W0VV80B3FNN5QW4EGXDX        the Forbear-Request-Id of an answer
  forbear explain --last 20 --run nightly-7 --failed
  forbear explain --ledger forbear.db --last 5      from the file, after the end")]
    Explain(ExplainArgs),
    /// Ask the ledger in SQL, read-only; without a question it lists views, tables and columns
    #[command(after_help = "\
Examples:
  forbear query 'SELECT * FROM v_runs'
  forbear query --csv 'SELECT * FROM v_fleet' > fleet.csv")]
    Query(QueryArgs),
    /// Say what a configuration would have done: to recorded requests, or to a job you describe
    #[command(after_help = "\
Examples:
  forbear simulate -c new.toml --ledger forbear.db --since 24h
  forbear simulate --limit 100/10s --clients 32 --requests 1000 --outage 20s..40s
  forbear simulate -c a.toml --against b.toml --profile github --request 'GET /search/code'

Hours pass in a second: nothing is sent, and the same --seed gives the same figures.")]
    Simulate(Box<simulate::SimulateArgs>),
    /// Say how long a number of requests would take now, and what they would wait for
    #[command(after_help = "\
Examples:
  forbear preflight github --requests 5000
  forbear preflight github --requests 200 --route search --json | jq .takes_ms")]
    Preflight(PreflightArgs),
    /// Override a breaker by hand, or give it back to itself
    #[command(after_help = "\
Examples:
  forbear breaker open github --reason 'vendor maintenance until 14:00' --for 2h
  forbear breaker auto github --reason 'maintenance is over'")]
    Breaker(BreakerArgs),
    /// Ask whether forbear is alive; exit code 0 or 1, for probes
    #[command(
        after_help = "Example:\n  forbear health --ready     also fails while starting or draining"
    )]
    Health {
        /// Ask whether it wants traffic, not only whether it lives
        #[arg(long)]
        ready: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Block until forbear is ready
    #[command(after_help = "Example:\n  forbear wait --timeout 30s && python etl.py")]
    Wait {
        /// Give up after this time
        #[arg(long, default_value = "60s", value_name = "TIME", value_parser = span)]
        timeout: std::time::Duration,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Finish what is under way, then stop
    #[command(after_help = "Example:\n  python etl.py; forbear quit")]
    Quit {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Read one captured response and say how it is understood
    #[command(after_help = "\
Examples:
  curl -si https://api.example.com/items | forbear interpret
  curl -si https://api.github.com/user | forbear interpret --profile github --json")]
    Interpret(interpret::InterpretArgs),
    /// Look at what is known of APIs, and try a profile of your own
    #[command(after_help = "\
Examples:
  forbear profile list
  forbear profile show github
  forbear profile test ./my-api.toml")]
    Profile {
        #[command(subcommand)]
        action: profile::ProfileAction,
    },
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "Example:\n  forbear schema > forbear.schema.json")]
    Schema,
}

/// `forbear run`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "config.toml", env = "FORBEAR_CONFIG")]
    pub config: PathBuf,
    /// A command to run once forbear is ready
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `forbear check`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckArgs {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "config.toml", env = "FORBEAR_CONFIG")]
    pub config: PathBuf,
    /// Print every value in force and where it comes from
    #[arg(long)]
    pub effective: bool,
    /// For machines
    #[arg(long)]
    pub json: bool,
}

/// `forbear explain`
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Forbear-Request-Id of an answer; without it, the last exchanges are listed
    #[arg(value_name = "REQUEST-ID", conflicts_with_all = ["last", "run", "upstream", "failed"])]
    pub id: Option<String>,
    /// That many exchanges at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub last: u32,
    /// Only those of this run (Forbear-Run)
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Only those with this upstream
    #[arg(long, value_name = "NAME")]
    pub upstream: Option<String>,
    /// Only those that did not end well
    #[arg(long)]
    pub failed: bool,
    /// For machines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `forbear query`
#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    /// One SELECT
    #[arg(value_name = "SQL")]
    pub sql: Option<String>,
    /// Comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// A list of objects
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    ledger: LedgerArgs,
}

/// Which file the ledger is.
#[derive(Clone, Debug, Args)]
pub struct LedgerArgs {
    /// The ledger's file, instead of asking a running forbear or the configuration
    #[arg(long = "ledger", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration whose state.path is meant
    #[arg(short, long, value_name = "FILE", default_value = "config.toml", env = "FORBEAR_CONFIG")]
    config: PathBuf,
}

/// `forbear preflight`
#[derive(Clone, Debug, Args)]
pub struct PreflightArgs {
    /// Name of the upstream
    pub upstream: String,
    /// How many more requests it is about
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests: u32,
    /// The route they go by, if it is not the default one
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// For machines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `forbear breaker`
#[derive(Clone, Debug, Args)]
pub struct BreakerArgs {
    /// `open` stops traffic, `close` lets all of it through, `auto` ends an override
    #[arg(value_enum)]
    pub action: BreakerAction,
    /// Name of the upstream
    pub upstream: String,
    /// Why; shown wherever the breaker is shown
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// For how long; an hour if not given
    #[arg(long = "for", value_name = "TIME")]
    pub for_: Option<String>,
    /// The breaker of this route, instead of the upstream's
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What to make of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BreakerAction {
    /// No traffic
    Open,
    /// All traffic
    Close,
    /// As it thinks best
    Auto,
}

/// Where the admin API is.
#[derive(Clone, Debug, Args)]
pub struct AdminArgs {
    /// The admin listener of the forbear to talk to
    #[arg(long = "admin", value_name = "URL", default_value = "http://127.0.0.1:8081")]
    #[arg(env = "FORBEAR_ADMIN")]
    pub url: String,
    /// A file with the admin token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    crate::admin::parse_span(text)
        .ok_or_else(|| "write a time with a unit, such as 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests;
