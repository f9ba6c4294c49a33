//! The rate-limited job: the same items from the same API by clients that repeat by themselves, and
//! by one that does not and has forbear before it.
//!
//! Every run is real: the fake API listens on a loopback port of this process, a client is a Python
//! program in a virtual environment, forbear is the built program with its own configuration file.
//! Nothing outlives the command: children are killed with it, also on Ctrl-C.

use std::cell::RefCell;
use std::path::Path;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

mod policies;

mod processes;

mod table;

use policies::{Case, Policy};
use processes::{Run, one_run, virtual_environment};
use table::Row;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this policy; repeatable. `outage-defaults` runs only when it is named
    #[arg(long, value_name = "POLICY")]
    only: Vec<Policy>,
    /// Which clients, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "naive,tenacity,tenacity-hint,urllib3,forbear"
    )]
    clients: Vec<Client>,
    /// Items that a job fetches
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    requests: u32,
    /// Threads of a job
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=128))]
    workers: u32,
    /// How often each job runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// In which fields the API names its waits, where the policy names any
    #[arg(long, default_value = "seconds")]
    hints: Told,
    /// What a client waits for one answer at most, in seconds
    #[arg(long, default_value_t = 60)]
    timeout: u32,
    /// A job that takes longer, in seconds, is ended; what it has not got by then is lost
    #[arg(long, default_value_t = 20)]
    job_timeout: u32,
}

/// Whose job it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// httpx, one attempt
    Naive,
    /// httpx repeated by tenacity, random exponential waits
    Tenacity,
    /// The same, but waits as `Retry-After` says where there is one
    TenacityHint,
    /// urllib3 with its Retry, which obeys `Retry-After`
    Urllib3,
    /// httpx, one attempt, through forbear
    Forbear,
}

impl Client {
    /// As on the command line, and in `clients.py`.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// In which fields an API speaks of its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Told {
    /// `Retry-After` in whole seconds, which all of the clients can read
    Seconds,
    /// `retry-after-ms`, which only forbear reads
    Ms,
    /// `RateLimit-Limit`, `-Remaining` and `-Reset` on every answer, and `Retry-After`
    Fields,
    /// A 429 and nothing else
    None,
}

/// Measures and prints.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub(crate) fn run(options: Options) -> crate::Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let mut terminated = signal(SignalKind::terminate())?;
        // Whatever is not finished is dropped, and its processes with it.
        tokio::select! {
            table = measure(&options) => {
                println!("{}", table?);
                Ok(())
            }
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = terminated.recv() => Err("terminated".into()),
        }
    })
}

#[expect(clippy::print_stderr, reason = "progress, beside the table")]
async fn measure(options: &Options) -> Result<String, Box<dyn std::error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/job");
    let python = virtual_environment(&here.join("requirements.txt")).await?;
    let policies =
        if options.only.is_empty() { Policy::USUAL.to_vec() } else { options.only.clone() };
    let mut rows: Vec<Row> = Vec::new();
    for &policy in &policies {
        let case = Case::new(policy, options.hints, options.requests, options.workers);
        rows.extend(options.clients.iter().map(|&client| Row::new(case.clone(), client)));
    }
    // Rounds are outermost, so that whatever else the machine does meets all rows alike.
    let todo = (1..=options.rounds).flat_map(|round| rows.iter().map(move |row| (round, row)));
    let todo = RefCell::new(todo);
    // A closure, so that nothing stays borrowed while a job runs.
    let next = || todo.borrow_mut().next();
    let lane = async || -> crate::Outcome {
        while let Some((round, row)) = next() {
            let run = one_run(&python, &here.join("clients.py"), row, options).await?;
            let (policy, client) = (row.case.policy.name(), row.client.name());
            eprintln!("round {round}/{}: {policy}, {client}: {run}", options.rounds);
            row.runs.borrow_mut().push(run);
        }
        Ok(())
    };
    // Two at once: a job sleeps nearly all the time, and has an API and a forbear of its own.
    tokio::try_join!(lane(), lane())?;
    Ok(table::render(&rows, options))
}
