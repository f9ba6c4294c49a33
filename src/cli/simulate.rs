//! `forbear simulate`: what a configuration would have done, and how long that would have taken.
//!
//! The policy that decides in the proxy decides here under a virtual clock, so hours pass in a
//! second, and the same seed gives the same bytes. Requests come from a ledger, or are invented.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::json;

use self::table::Column;
use super::{EXIT_USAGE, check, complain, span};
use crate::config::settings::{Settings, UpstreamConfig};
use crate::config::{load, process_environment};
use crate::profiles;
use crate::simulate::figures::{Counter, Figures};
use crate::simulate::model::{Hints, QuotaFields};
use crate::simulate::past::{self, Past};
use crate::simulate::workload::{self, Api, Kind, Typed, Workload, words};
use crate::simulate::world::World;
use crate::store::file::open_to_read;

mod table;

/// Events between two looks at how far it is.
const PROGRESS_STEP: u32 = 100_000;

/// `forbear simulate`
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// The configuration that is tried
    #[arg(short, long, value_name = "FILE", default_value = "config.toml", env = "FORBEAR_CONFIG")]
    config: PathBuf,
    /// Another one, to be shown beside it
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Replay what this ledger recorded, instead of an invented job
    #[arg(long, value_name = "FILE", conflicts_with_all = ["profile", "clients", "requests", "rate", "latency", "outage", "request"])]
    ledger: Option<PathBuf>,
    /// Of the ledger, only so long before its newest exchange
    #[arg(long, value_name = "TIME", value_parser = span, requires = "ledger")]
    since: Option<Duration>,
    /// Of the ledger, only this run (Forbear-Run)
    #[arg(long, value_name = "RUN", requires = "ledger")]
    run: Option<String>,
    /// The upstream that is meant; needed where the configuration has several
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// The API enforces what this profile documents; the upstream's own profile if not given
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The API enforces this instead, such as 100/10s or 5000/1h; repeatable
    #[arg(long, value_name = "N/TIME")]
    limit: Vec<Typed>,
    /// How --limit counts
    #[arg(long, value_enum, default_value = "window", requires = "limit")]
    limit_kind: LimitKind,
    /// Clients, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Requests of all clients together
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    requests: u32,
    /// Requests of all clients together, per second, such as 20/s; as fast as answers come if not given
    #[arg(long, value_name = "N/s", value_parser = rate)]
    rate: Option<f64>,
    /// How long the API takes for an answer, give or take half of it
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = span)]
    latency: Duration,
    /// The API answers 500 from … to …, such as 60s..90s
    #[arg(long, value_name = "FROM..TO", value_parser = outage)]
    outage: Option<(Duration, Duration)>,
    /// What is requested; routes of the configuration and quotas of the profile depend on it
    #[arg(long, value_name = "METHOD PATH", default_value = "GET /", value_parser = request)]
    request: (Method, String),
    /// Another history; the same number gives the same one
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// For machines: one object
    #[arg(long)]
    json: bool,
}

/// `--limit-kind`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LimitKind {
    /// So many in each window of the clock
    Window,
    /// So many in any window
    Sliding,
    /// A bucket of that size, filled once per time
    Bucket,
    /// So many at once
    Concurrency,
}

impl LimitKind {
    fn kind(self) -> Kind {
        match self {
            Self::Window => Kind::Window,
            Self::Sliding => Kind::Sliding,
            Self::Bucket => Kind::Bucket,
            Self::Concurrency => Kind::Concurrency,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number
        .filter(|rate: &f64| (0.000_1..=1_000_000.0).contains(rate))
        .ok_or_else(|| "write requests per second, such as 20/s or 0.5/s".to_owned())
}

fn outage(text: &str) -> Result<(Duration, Duration), String> {
    let wrong = || "write when it begins and ends, such as 60s..90s".to_owned();
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let from = if from == "0s" { Duration::ZERO } else { span(from).map_err(|_| wrong())? };
    let to = span(to).map_err(|_| wrong())?;
    if from < to { Ok((from, to)) } else { Err(wrong()) }
}

fn request(text: &str) -> Result<(Method, String), String> {
    let wrong = || "write a method and a path, such as \"GET /search/code\"".to_owned();
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong())?;
    if path.starts_with('/') { Ok((method, path.to_owned())) } else { Err(wrong()) }
}

/// Why nothing is shown.
enum Stop {
    /// Something that was typed; the configuration's problems were printed.
    Usage(Option<String>),
    /// It cannot be done.
    Failed(String),
}

/// What is simulated, whatever the configuration.
enum Source {
    Past(Box<Past>, Option<Api>),
    Job(Workload),
}

/// One configuration and what came of it.
struct Outcome {
    figures: Figures,
    said: Vec<String>,
}

/// Simulates and shows. 0, or 1 if the ledger has nothing, or 2 for what was typed.
pub(super) fn simulate(args: &SimulateArgs) -> ExitCode {
    let shown = run(args).and_then(|text| match write!(anstream::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Stop::Failed(format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Usage(problem)) => {
            if let Some(problem) = problem {
                complain(&problem);
            }
            ExitCode::from(EXIT_USAGE)
        }
        Err(Stop::Failed(problem)) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &SimulateArgs) -> Result<String, Stop> {
    let mut configurations = vec![(&args.config, settings(&args.config)?)];
    if let Some(other) = &args.against {
        configurations.push((other, settings(other)?));
    }
    let source = source(args)?;
    let mut columns = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    for (path, settings) in &configurations {
        let Outcome { figures, said } = outcome(args, settings, &source)?;
        notes.extend(said.into_iter().filter(|line| !notes.contains(line)).collect::<Vec<_>>());
        columns.push(Column { name: path.display().to_string(), figures });
    }
    let real = match &source {
        Source::Past(past, _) => Some(past.real),
        Source::Job(_) => None,
    };
    if args.json {
        let runs = columns
            .iter()
            .map(|column| json!({ "config": column.name, "figures": column.figures }));
        let runs: Vec<_> = runs.collect();
        let all = json!({ "seed": args.seed, "notes": notes, "recorded": real, "runs": runs });
        return Ok(format!("{all}\n"));
    }
    let title = match &source {
        Source::Past(_, _) => "What would have happened to the recorded requests".to_owned(),
        Source::Job(job) => format!(
            "What would happen: {} requests {} {} by {} clients",
            job.requests, job.method, job.path, job.clients
        ),
    };
    Ok(table::render(&title, &notes, real.as_ref(), &columns))
}

fn settings(path: &Path) -> Result<Settings, Stop> {
    match load(path, &process_environment) {
        Ok(loaded) => Ok(loaded.settings),
        Err(problems) => {
            check::print_problems(&problems);
            Err(Stop::Usage(None))
        }
    }
}

fn source(args: &SimulateArgs) -> Result<Source, Stop> {
    let Some(ledger) = &args.ledger else {
        return Ok(Source::Job(Workload {
            clients: args.clients,
            requests: args.requests,
            rate: args.rate,
            latency: args.latency,
            method: args.request.0.clone(),
            path: args.request.1.clone(),
            outage: args.outage,
        }));
    };
    let connection = open_to_read(ledger).map_err(|problem| {
        Stop::Failed(format!("{problem}; name the file of state.path with --ledger"))
    })?;
    let part =
        past::Part { since: args.since, run: args.run.clone(), upstream: args.upstream.clone() };
    let past = past::read(&connection, &part).map_err(Stop::Failed)?;
    Ok(Source::Past(Box::new(past), typed(args)?))
}

/// The API that `--limit` describes, if it was typed.
fn typed(args: &SimulateArgs) -> Result<Option<Api>, Stop> {
    let limiters = args.limit.iter().map(|limit| limit.limiter(args.limit_kind.kind()));
    let limiters: Vec<_> =
        limiters.collect::<Result<_, _>>().map_err(|problem| Stop::Usage(Some(problem)))?;
    let is_concurrency = args.limit_kind == LimitKind::Concurrency;
    Ok((!limiters.is_empty()).then(|| Api {
        said: limiters.iter().map(words).collect(),
        limiters,
        units: 1,
        // Nobody can tell beforehand when there is room.
        hints: if is_concurrency { Hints::None } else { Hints::Quota },
        fields: QuotaFields::default(),
    }))
}

fn outcome(args: &SimulateArgs, settings: &Settings, source: &Source) -> Result<Outcome, Stop> {
    let (world, mut said) = match source {
        Source::Past(past, given) => {
            past.world(settings, given.as_ref(), args.seed).map_err(Stop::Failed)?
        }
        Source::Job(job) => {
            let usage = |problem| Stop::Usage(Some(problem));
            let (index, upstream) = upstream(args, settings).map_err(usage)?;
            let api = match typed(args)? {
                Some(api) => api,
                None => documented(args, upstream, job).map_err(usage)?,
            };
            let world = workload::world(settings, index, job, &api, args.seed).map_err(usage)?;
            (world, api.said.iter().map(|line| format!("{}: {line}", upstream.name)).collect())
        }
    };
    said.retain(|line| !line.is_empty());
    Ok(Outcome { figures: finished(world), said })
}

/// Which upstream of the configuration is asked.
fn upstream<'a>(
    args: &SimulateArgs,
    settings: &'a Settings,
) -> Result<(usize, &'a UpstreamConfig), String> {
    let all = || settings.upstreams.iter().enumerate();
    let names = || settings.upstreams.iter().map(|it| &*it.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = &args.upstream {
        return all().find(|(_, it)| *it.name == **name).ok_or_else(|| {
            format!("there is no [upstreams.{name}] in the configuration; it has {}", names())
        });
    }
    let mut meant: Vec<_> = match &args.profile {
        Some(profile) => all().filter(|(_, it)| it.profile.as_deref() == Some(profile)).collect(),
        None => Vec::new(),
    };
    if meant.is_empty() {
        meant = all().collect();
    }
    match meant.as_slice() {
        [one] => Ok(*one),
        [] => Err("the configuration has no upstream".to_owned()),
        _ => Err(format!("which upstream is asked? Name one with --upstream: {}", names())),
    }
}

/// What the API's profile says of its limits.
fn documented(
    args: &SimulateArgs,
    upstream: &UpstreamConfig,
    job: &Workload,
) -> Result<Api, String> {
    let Some(name) = args.profile.as_deref().or(upstream.profile.as_deref()) else {
        return Err(format!(
            "nothing is known of the limits of {}: say them with --limit 100/10s, or name its API with \
             --profile or upstreams.{}.profile",
            upstream.name, upstream.name
        ));
    };
    let profile = profiles::open(name)?;
    Ok(workload::api_of(&profile, upstream, job))
}

fn finished(mut world: World<Counter>) -> Figures {
    let shows = io::stderr().is_terminal();
    let mut steps = 0_u32;
    while world.step() {
        steps = steps.wrapping_add(1);
        if shows && steps.is_multiple_of(PROGRESS_STEP) {
            // Progress is a courtesy: the figures come in any case.
            let _ = write!(anstream::stderr(), "\r{} requests simulated ", world.watch.requests());
        }
    }
    if shows && steps >= PROGRESS_STEP {
        let _ = write!(anstream::stderr(), "\r\u{1b}[K");
    }
    world.watch.figures()
}
