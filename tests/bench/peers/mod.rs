//! Beside other proxies: forbear and every peer on the PATH, each doing the same work.
//!
//! ```text
//! cargo bench --bench bench -- peers --rounds 5 --seconds 2 --only S,T --proxies forbear,nginx
//! cargo bench --bench bench -- peers --forbear new=target/release/forbear --forbear old=/tmp/forbear
//! ```
//!
//! * **One worker each, pinned.** The proxy has core 0, origin and load share core 1.
//! * **Rounds are interleaved.** Each round measures each row for one proxy after the other, and the
//!   next round begins with another proxy. Ratios are of values of one round, so that whatever else the
//!   machine does meets all; how much that was stands in the table.
//! * **CPU is the scheduler's** account of all threads of the proxy, divided by requests. It does not
//!   depend on which of the three processes is the bottleneck, as requests per second do.
//! * **All answers are checked**, and any wrong one fails its row.
//!
//! | row | what is sent |
//! |---|---|
//! | `S` | GET 1 KiB, plain upstream, 64 keep-alive connections in a closed loop |
//! | `T` | the same with an upstream behind TLS, whose certificate is verified |
//! | `open` | `T` at 1,000 requests per second, whatever the answers take |
//! | `post` | POST 16 KiB that may be repeated, plain upstream |
//! | `mib` | downloads of 1 MiB, plain upstream |
//! | `calls` | system calls of `S` and `T`, counted apart from what is timed |
//! | `memory` | resident after the first request, and with 1,000 idle connections |
//! | `start` | from the start of the process to the first 200 through it |
//! | `workers` | CPU per request of the busiest thread: of one worker, divided by that of two |
//!
//! The last row stands for throughput, which two cores cannot show: the load needs one of them.

use std::path::PathBuf;

use clap::Args;

mod calls;
mod measure;
pub(crate) mod process;
pub(crate) mod proxies;
mod table;

use measure::Bench;
use proxies::Proxy;

/// Rows, in the order in which they are measured.
const ROWS: [&str; 9] = ["start", "memory", "S", "T", "open", "post", "mib", "workers", "calls"];

/// What can be chosen.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Rounds, each of which measures every proxy once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rows: S, T, open, post, mib, calls, memory, start, workers [default: all]
    #[arg(long, value_delimiter = ',', value_name = "ROWS")]
    only: Vec<String>,
    /// forbear, nginx, haproxy, envoy, bare (hyper and nothing else) [default: all that are found]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    proxies: Vec<String>,
    /// Another build of forbear, instead of the one of this folder; may be given more than once
    #[arg(long, value_name = "[NAME=]PATH")]
    forbear: Vec<String>,
    /// Writes the table into this file, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl Options {
    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it.eq_ignore_ascii_case(row))
    }
}

/// Measures and prints.
pub(crate) fn run(options: Options) -> crate::Outcome {
    if let Some(row) =
        options.only.iter().find(|it| !ROWS.iter().any(|row| row.eq_ignore_ascii_case(it)))
    {
        return Err(format!("--only: {row} is none of {}", ROWS.join(", ")).into());
    }
    let markdown = options.markdown.clone();
    let proxies = Proxy::all(&options.forbear, &options.proxies)?;
    let mut bench = Bench::new(options, proxies)?;
    let failed = bench.run()?;
    let report = bench.report();
    println!("{report}");
    if let Some(file) = markdown {
        std::fs::write(file, report)?;
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(format!("{failed} measurements failed, see above").into())
    }
}
