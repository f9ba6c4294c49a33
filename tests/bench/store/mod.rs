//! The ledger: what telling costs the data path, what writing costs the writer's thread, what the file
//! adds to the latency of requests, and how large it gets.
//!
//! ```text
//! cargo bench --bench bench -- store
//! cargo bench --bench bench -- store --only writing --seconds 60
//! ```
#![allow(
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    reason = "it measures from outside and prints what it found"
)]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use forbear::config::settings::StateSettings;
use forbear::gateway::clock::Clock;
use forbear::policy::outcome::{Class, Sent, WaitKind, Waits};
use forbear::policy::time::WallTime;
use forbear::store::Store;
use forbear::telemetry::store::StoreMetrics;
use forbear::telemetry::story::{AttemptStory, Decision, Ending, Notes, RequestId, Story};

mod latency;

const DEADLINE: Duration = Duration::from_secs(120);

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Exchanges per second in the paced part
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Seconds of it
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Exchanges that fill the file
    #[arg(long, default_value_t = 1_000_000)]
    fill: u64,
    /// Rounds of the comparison with memory, two seconds of each
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Parts: telling, writing, latency, filling [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<String>,
}

/// Seconds for which each forbear is asked in a round.
const ROUND_SECONDS: f64 = 2.0;

/// Measures and prints.
pub(crate) fn run(options: Options) -> crate::Outcome {
    let wants = |part: &str| options.only.is_empty() || options.only.iter().any(|it| it == part);
    if wants("telling") {
        telling()?;
    }
    if wants("writing") {
        writing(options.rate, options.seconds)?;
    }
    if wants("latency") {
        latency::run(u32::try_from(options.rate)?, ROUND_SECONDS, options.rounds)?;
    }
    if wants("filling") {
        filling(options.fill, 200_000)?;
        filling(options.fill, 10 * options.fill)?;
    }
    Ok(())
}

fn settings(path: &Path, rows_max: u64, successes: u32) -> StateSettings {
    StateSettings {
        path: path.display().to_string(),
        ledger_keep: Duration::from_secs(7 * 86_400),
        ledger_rows_max: rows_max,
        ledger_successes_per_second: successes,
    }
}

/// An ordinary exchange; one in ten waited for its key.
fn story(n: u64) -> Story {
    let mut waited = Waits::default();
    if n.is_multiple_of(10) {
        waited.charge(WaitKind::Queue, Duration::from_micros(12_345));
    }
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = WallTime { unix_ms: i64::try_from(before.as_millis()).unwrap_or(0) };
    Story {
        id: RequestId::new(started, u128::from(n) * 0x9e37_79b9_7f4a_7c15_f39c),
        started,
        upstream: Some("github".into()),
        route: Some("default".into()),
        method: http::Method::GET,
        path: format!("/repos/acme/widgets/issues/{n}"),
        keys: vec!["ingestion".into()],
        flow: None,
        run: Some("nightly-2026-01-15".into()),
        trace: None,
        attempts: vec![AttemptStory {
            n: 1,
            status: Some(200),
            class: Class::Ok,
            sent: Sent::Answered,
            error: None,
            sent_after: Duration::ZERO,
            took: Duration::from_micros(87_654),
            hint: None,
            told: Default::default(),
            waited,
        }],
        waited,
        shadow: None,
        decision: Decision::Pass,
        status: 200,
        ending: Ending::Ok,
        bytes_up: 0,
        bytes_down: 4_321,
        took: Duration::from_micros(101_234),
        streamed: Duration::from_micros(765),
        notes: Notes::default(),
    }
}

/// Nanoseconds of one call on the data path, for an exchange that is kept, one for which another one's
/// row stands, and one of which nothing is kept.
fn telling() -> crate::Outcome {
    const CALLS: u64 = 4_000;
    let folder = tempfile::tempdir()?;
    for (what, successes) in [("kept", 1_000_000), ("stood for", 1), ("not wanted", 0)] {
        let settings = settings(&folder.path().join("telling.db"), 200_000, successes);
        let store = Store::open(&settings, Clock::start(), StoreMetrics::unregistered())?;
        let mut best = Duration::MAX;
        for _ in 0..20 {
            let mut stories: Vec<Story> = (1..=CALLS).map(|n| story(n * 10 + 1)).collect();
            let began = Instant::now();
            for story in &mut stories {
                store.ledger().tell(black_box(story));
            }
            best = best.min(began.elapsed());
            store.flush(DEADLINE);
        }
        println!("tell, {what}: {} ns", best.as_nanos() / u128::from(CALLS));
        store.close(DEADLINE);
    }
    Ok(())
}

/// CPU of the writer's thread per exchange.
fn writing(rate: u64, seconds: u64) -> crate::Outcome {
    let folder = tempfile::tempdir()?;
    for (what, rows_max, successes) in [
        ("default sampling", 200_000, 10),
        ("all kept, file growing", 10_000_000, 1_000_000),
        ("all kept, file full and oldest deleted", 20_000, 1_000_000),
    ] {
        let path = folder.path().join(format!("{rows_max}.db"));
        let settings = settings(&path, rows_max, successes);
        let store = Store::open(&settings, Clock::start(), StoreMetrics::unregistered())?;
        if rows_max == 20_000 {
            for n in 0..rows_max / 2 {
                store.ledger().tell(&mut story(n));
                if n.is_multiple_of(2_000) {
                    store.flush(DEADLINE);
                }
            }
        }
        // Its thread has a name once it runs.
        store.flush(DEADLINE);
        let before = writer_cpu()?;
        let began = Instant::now();
        let mut told = 0;
        while told < rate * seconds {
            let due = u64::try_from(began.elapsed().as_millis())? * rate / 1_000;
            while told < due.min(rate * seconds) {
                store.ledger().tell(&mut story(told + rows_max));
                told += 1;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        store.flush(DEADLINE);
        let spent = writer_cpu()?.saturating_sub(before);
        let each = spent.as_nanos() / u128::from(told);
        println!("write at {rate}/s, {what}: {each} ns CPU per exchange");
        store.close(DEADLINE);
    }
    Ok(())
}

/// The file after so many exchanges, one attempt each.
fn filling(exchanges: u64, rows_max: u64) -> crate::Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("fill.db");
    let metrics = StoreMetrics::unregistered();
    let settings = settings(&path, rows_max, 1_000_000);
    let store = Store::open(&settings, Clock::start(), metrics.clone())?;
    let began = Instant::now();
    let mut largest = 0;
    for n in 0..exchanges {
        store.ledger().tell(&mut story(n));
        if n.is_multiple_of(4_000) {
            store.flush(DEADLINE);
            largest = largest.max(size(&path) + size(&folder.path().join("fill.db-wal")));
        }
    }
    store.flush(DEADLINE);
    let took = began.elapsed();
    store.close(DEADLINE);
    println!(
        "{exchanges} exchanges, {rows_max} rows at most: {:.1} MB at the end, {:.1} MB at most with its \
         write-ahead log; {:.1} s, {} kept, {} lost",
        size(&path) as f64 / 1e6,
        largest as f64 / 1e6,
        took.as_secs_f64(),
        metrics.kept.get(),
        metrics.dropped.get(),
    );
    Ok(())
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Of the thread that is named `store` (Linux).
fn writer_cpu() -> Result<Duration, Box<dyn std::error::Error>> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "store") {
            let spent = std::fs::read_to_string(task.join("schedstat"))?;
            let nanos: u64 = spent.split(' ').next().unwrap_or_default().parse()?;
            return Ok(Duration::from_nanos(nanos));
        }
    }
    Err("there is no thread named store".into())
}
