//! What the file adds to the latency of a request: forbears that differ only in where their state
//! goes, at one rate, by turns in one run.
//!
//! Each is a process of its own on the first core, origin and load share the second one. A round
//! measures each for some seconds and the next round begins with another one, so that whatever else the
//! machine does meets all of them; differences are between figures of one round.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::load::Options as LoadOptions;
use crate::origin::SMALL;
use crate::peers::process::{Cores, Guarded, Tool};
use crate::peers::proxies::{answers, free_ports};

/// Longer than a start takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many as ask forbear in the comparison with other proxies.
const CONNECTIONS: usize = 64;

/// What is compared: its name, `state.path`, and successes that are kept in each second.
const VARIANTS: [(&str, &str, u32); 4] = [
    (":memory:, as by default", ":memory:", 10),
    ("a file, as by default", "forbear.db", 10),
    (":memory:, all kept", ":memory:", 1_000_000),
    ("a file, all kept", "forbear.db", 1_000_000),
];

/// One that runs, and what was measured of it.
struct Variant {
    name: &'static str,
    address: SocketAddr,
    p50: Vec<f64>,
    p99: Vec<f64>,
    _process: Guarded,
    _folder: TempDir,
}

/// Measures and prints.
pub(super) fn run(rate: u32, seconds: f64, rounds: usize) -> crate::Outcome {
    let (own, others): (Cores, Cores) = match std::thread::available_parallelism()?.get() {
        1 => (None, None),
        _ => (Some(&[0]), Some(&[1])),
    };
    let folder = tempfile::tempdir()?;
    let (_origin, plain, _) = Tool::origin(folder.path(), others)?;
    let mut variants = Vec::new();
    for (name, path, successes) in VARIANTS {
        variants.push(start(name, path, successes, plain, own)?);
    }
    for round in 0..rounds {
        for at in 0..variants.len() {
            let at = (at + round) % variants.len();
            let Some(variant) = variants.get_mut(at) else { continue };
            let load = LoadOptions {
                target: variant.address,
                path: "/plain/1k".to_owned(),
                body: None,
                expect: SMALL,
                connections: CONNECTIONS,
                warm: 0.3,
                seconds,
                requests: None,
                rate: Some(rate),
                ca: None,
            };
            let report = Tool::load(&load, others)?.measure()?;
            variant.p50.push(report.p50_us);
            variant.p99.push(report.p99_us);
        }
    }
    println!(
        "latency at {rate}/s, {rounds} rounds of {seconds} s each, µs: median (least to most)"
    );
    for (at, variant) in variants.iter().enumerate() {
        // Beside memory that keeps as much.
        let beside = variants.get(at - at % 2).unwrap_or(variant);
        let more = variant.p50.iter().zip(&beside.p50).map(|(own, other)| own - other).collect();
        println!(
            "  {}: half within {}, 99 of 100 within {}; half: {} more than in memory",
            variant.name,
            spread(variant.p50.clone()),
            spread(variant.p99.clone()),
            spread(more),
        );
    }
    Ok(())
}

fn start(
    name: &'static str,
    path: &str,
    successes: u32,
    origin: u16,
    cores: Cores,
) -> Result<Variant, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let [proxy, admin] = free_ports()?;
    let file = folder.path().join("forbear.toml");
    let text = format!(
        "[proxy]\nlisten = \"127.0.0.1:{proxy}\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [log]\naccess = \"failures\"\n\
         [state]\npath = \"{path}\"\nledger_successes_per_second = {successes}\n\
         [limits]\nin_flight_max = 1024\n[defaults]\nin_flight_max = 1024\n\
         [upstreams.plain]\nurl = \"http://127.0.0.1:{origin}\"\n"
    );
    fs::write(&file, text)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_forbear"));
    command.args(["run", "-c"]).arg(&file).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Guarded::spawn(&mut command, cores)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy));
    let began = Instant::now();
    while !answers(address) {
        if began.elapsed() > PATIENCE {
            return Err(format!("{name}: forbear did not start").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (p50, p99) = (Vec::new(), Vec::new());
    Ok(Variant { name, address, p50, p99, _process: process, _folder: folder })
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let of = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
    let last = values.len().saturating_sub(1);
    format!("{:.1} ({:.1} to {:.1})", of(last / 2), of(0), of(last))
}
