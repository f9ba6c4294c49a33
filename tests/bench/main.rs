//! Everything about forbear that is measured rather than promised, in one program:
//! `cargo bench -- --help`.
//!
//! | command | answers |
//! |---|---|
//! | `micro` | what one step costs, and how that grows with upstreams, keys, scopes and queues |
//! | `peers` | CPU, system calls, latency and memory beside other proxies, in the same rounds |
//! | `job` | how long a rate-limited job takes beside clients that retry by themselves |
//! | `store` | what the ledger costs the data path and its own thread, and how large its file gets |
//! | `cost` | instructions and allocations per request, which do not depend on the clock |
//!
//! `origin` and `load` are the two ends of `peers`, `job` and `cost`, and `bare` is a peer; each is a process of its own, so that
//! the scheduler accounts for it separately and it can be pinned to another core.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement reads clocks and prints what it found"
)]

use clap::{Parser, Subcommand};

/// What the product allocates with, so that a step costs here what it costs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod bare;

mod cost;

mod load;

mod origin;

mod job;

mod micro;

mod peers;

mod store;

/// Measures forbear.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What `cargo bench` adds by itself.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// What one step costs, and how that grows
    Micro(micro::Options),
    /// Beside nginx, HAProxy and Envoy, whichever are found on the PATH
    Peers(peers::Options),
    /// The rate-limited job, beside clients that retry by themselves
    Job(job::Options),
    /// The ledger: telling, writing, size
    Store(store::Options),
    /// Instructions and allocations per request, under valgrind
    Cost(cost::Options),
    /// A proxy that is hyper and nothing else
    #[command(hide = true)]
    Bare(bare::Options),
    /// The origin
    #[command(hide = true)]
    Origin(origin::Options),
    /// The load
    #[command(hide = true)]
    Load(load::Options),
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Micro(options) => micro::run(options),
        Command::Peers(options) => peers::run(options),
        Command::Job(options) => job::run(options),
        Command::Store(options) => store::run(options),
        Command::Cost(options) => cost::run(options),
        Command::Bare(options) => bare::run(&options),
        Command::Origin(options) => origin::run(&options),
        Command::Load(options) => load::run(&options),
    }
}
