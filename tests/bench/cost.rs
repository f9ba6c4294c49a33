//! What does not depend on the clock: instructions and allocations per request, under callgrind.
//!
//! forbear runs as it is shipped, with one worker before a plain origin, and one connection sends requests
//! one after the other. That is done twice, with few and with many requests; the difference is what
//! requests cost, without start and end. All that user space executes counts, in every thread. An
//! allocation is a call into the allocator from outside of it.
//!
//! Steps that must not grow with what is configured or waits are checked in the same way, see [`growth`].
//!
//! The bounds stand in `tests/bench/cost.toml`. What remains of chance is a few parts in a thousand:
//! how often a worker finds several events at once, the seeds of hash maps, and timers.
//!
//! ```text
//! cargo bench --bench bench -- cost
//! callgrind_annotate --inclusive=yes target/tmp/cost/get-1200.callgrind
//! ```

mod growth;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use rustix::process::Signal;
use serde::Deserialize;

use crate::load::Options as LoadOptions;
use crate::origin::SMALL;
use crate::peers::process::Tool;
use crate::peers::proxies::{Origin, Proxy};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Requests of the two runs. The first is enough for pools and buffers to be as they stay.
const REQUESTS: [u64; 2] = [200, 1_200];

/// Entry points of allocators, by name: of the C library, and of those that replace it.
const ALLOCATORS: [&str; 12] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_realloc",
    "mi_realloc_aligned",
];

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Another build of forbear, instead of the one of this folder
    #[arg(long, value_name = "PATH")]
    forbear: Option<PathBuf>,
    /// Measures as often, to see how much the figures vary
    #[arg(long, default_value_t = 1)]
    runs: usize,
}

/// What one request may cost at most.
#[derive(Deserialize)]
struct Bounds {
    instructions_per_request: f64,
    allocations_per_request: f64,
}

#[derive(Deserialize)]
struct AllBounds {
    get: Bounds,
    post: Bounds,
    growth: Vec<growth::Growth>,
}

/// One kind of request.
struct Case<'a> {
    name: &'static str,
    body: Option<usize>,
    bounds: &'a Bounds,
}

/// What a run, or a request, cost.
#[derive(Clone, Copy)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

/// Measures, prints, and compares with the bounds.
pub(crate) fn run(options: Options) -> crate::Outcome {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if !valgrind.status().is_ok_and(|status| status.success()) {
        return Err("valgrind is not on the PATH; install it to count instructions".into());
    }
    let program = options.forbear.unwrap_or_else(|| env!("CARGO_BIN_EXE_forbear").into());
    let bounds: AllBounds = toml::from_str(include_str!("cost.toml"))?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cost");
    std::fs::create_dir_all(&folder)?;
    let mut too_much = Vec::new();
    println!("| Case | Instructions | at most | Allocations | at most |\n|---|--:|--:|--:|--:|");
    for run in 0..options.runs {
        for case in [
            Case { name: "get", body: None, bounds: &bounds.get },
            Case { name: "post", body: Some(SMALL), bounds: &bounds.post },
        ] {
            eprintln!("run {} of {}: {}", run + 1, options.runs, case.name);
            let cost = case.measure(&program, &folder)?;
            println!(
                "| {} | {:.0} | {:.0} | {:.1} | {:.1} |",
                case.name,
                cost.instructions,
                case.bounds.instructions_per_request,
                cost.allocations,
                case.bounds.allocations_per_request
            );
            too_much.extend(case.too_much(cost, &folder));
        }
    }
    too_much.extend(growth::check(&bounds.growth, &folder)?);
    too_much.iter().for_each(|why| eprintln!("TOO MUCH {why}"));
    let checked = 2 * 2 * options.runs + bounds.growth.len();
    println!("\n{} passed, {} failed", checked - too_much.len(), too_much.len());
    if too_much.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bounds are broken", too_much.len()).into())
    }
}

impl Case<'_> {
    /// What one request costs: the difference of two runs, divided by the requests between them.
    fn measure(&self, program: &Path, folder: &Path) -> Result<Cost> {
        let [few, many] = REQUESTS;
        let [small, large] =
            [self.total(program, folder, few)?, self.total(program, folder, many)?];
        let per_request = |small: f64, large: f64| (large - small) / (many - few) as f64;
        Ok(Cost {
            instructions: per_request(small.instructions, large.instructions),
            allocations: per_request(small.allocations, large.allocations),
        })
    }

    fn file(&self, folder: &Path, requests: u64) -> PathBuf {
        folder.join(format!("{}-{requests}.callgrind", self.name))
    }

    /// A whole life of forbear, with so many requests in it.
    fn total(&self, program: &Path, folder: &Path, requests: u64) -> Result<Cost> {
        let file = self.file(folder, requests);
        let home = tempfile::tempdir()?;
        let (_origin, plain, tls) = Tool::origin(home.path(), None)?;
        let origin = Origin { plain, tls, folder: home.path() };
        let running = Proxy::forbear_under(callgrind(&file), program).start(&origin, 1, None)?;
        let mut load = Tool::load(
            &LoadOptions {
                target: running.address,
                path: "/plain/1k".to_owned(),
                body: self.body,
                expect: SMALL,
                connections: 1,
                warm: 0.0,
                seconds: 0.0,
                requests: Some(requests),
                rate: None,
                ca: None,
            },
            None,
        )?;
        let report = load.measure()?;
        if report.requests != requests {
            return Err(format!("{} of {requests} requests were sent", report.requests).into());
        }
        drop(load);
        running.process.end(Signal::TERM)?;
        counted(&std::fs::read_to_string(&file)?)
    }

    /// What is beyond its bound, and how to see why.
    fn too_much(&self, cost: Cost, folder: &Path) -> Vec<String> {
        let file = self.file(folder, REQUESTS[1]);
        let bounds = self.bounds;
        [
            ("instructions_per_request", cost.instructions, bounds.instructions_per_request),
            ("allocations_per_request", cost.allocations, bounds.allocations_per_request),
        ]
        .into_iter()
        .filter(|(_, found, most)| found > most)
        .map(|(what, found, most)| {
            format!(
                "{}: {what} is {found:.1}, and at most {most:.1} in tests/bench/cost.toml; look with: \
                 callgrind_annotate --inclusive=yes {}",
                self.name,
                file.display()
            )
        })
        .collect()
    }
}

/// What stands before a command so that its instructions are counted into this file.
fn callgrind(file: &Path) -> Vec<String> {
    let out = format!("--callgrind-out-file={}", file.display());
    ["valgrind", "--tool=callgrind", "--quiet", &out].map(str::to_owned).to_vec()
}

/// Reads what callgrind wrote: the totals, and the calls into the allocator from outside of it.
fn counted(text: &str) -> Result<Cost> {
    let mut names = Names::default();
    let (mut is_inside, mut is_called) = (false, false);
    let (mut instructions, mut allocations) = (None, 0.0);
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            is_inside = names.is_allocator(function);
        } else if let Some(function) = line.strip_prefix("cfn=") {
            is_called = names.is_allocator(function);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if is_called && !is_inside {
                let count = calls.split(' ').next().unwrap_or_default();
                allocations += count.parse::<f64>()?;
            }
        } else if let Some(totals) = line.strip_prefix("totals:") {
            instructions = Some(totals.trim().parse::<f64>()?);
        }
    }
    let instructions = instructions.ok_or("callgrind wrote no totals")?;
    Ok(Cost { instructions, allocations })
}

/// The functions that were named so far. A name is told once, as `(7) malloc`, and is `(7)` from then on;
/// a `'2` behind it is the depth of a recursion.
#[derive(Default)]
struct Names {
    are_allocators: HashMap<String, bool>,
}

impl Names {
    fn is_allocator(&mut self, function: &str) -> bool {
        let (id, name) = function.split_once(' ').unwrap_or((function, ""));
        if name.is_empty() {
            return self.are_allocators.get(id).copied().unwrap_or(false);
        }
        let name = name.split('\'').next().unwrap_or_default();
        let is = ALLOCATORS.contains(&name);
        self.are_allocators.insert(id.to_owned(), is);
        is
    }
}
