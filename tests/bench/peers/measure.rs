//! The rounds, and how each row is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::calls::Counter;
use super::process::{Cores, Cpu, Tool, machine_busy, own_cpu};
use super::proxies::{Origin, Proxy, Running, answers, behind_scripts};
use super::table::{self, Figure, Table};
use super::{Options, ROWS};
use crate::load::{Options as LoadOptions, Report};
use crate::origin::{LARGE, SMALL};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Connections of every loop.
const CONNECTIONS: usize = 64;

/// Requests per second of the open loop: more than one API allows a pipeline, and far from saturation.
const RATE: u32 = 1_000;

/// Connections that only stay.
const IDLE: usize = 1_000;

/// So long they say nothing before memory is read.
const QUIET: Duration = Duration::from_secs(2);

/// Starts whose median counts in a round: one alone is at the mercy of the file cache.
const STARTS: usize = 5;

/// Something that is sent for a while.
struct Row {
    name: &'static str,
    upstream: &'static str,
    file: &'static str,
    expect: usize,
    body: Option<usize>,
    rate: Option<u32>,
    cpu: &'static Figure,
    per_second: Option<&'static Figure>,
    /// Beyond what the origin takes without a proxy: the median, and the 99th percentile.
    added: Option<[&'static Figure; 2]>,
}

const S: Row = Row {
    name: "S",
    upstream: "plain",
    file: "/1k",
    expect: SMALL,
    body: None,
    rate: None,
    cpu: &table::S_CPU,
    per_second: Some(&table::S_RATE),
    added: None,
};

const T: Row =
    Row { name: "T", upstream: "tls", cpu: &table::T_CPU, per_second: Some(&table::T_RATE), ..S };

const OPEN: Row = Row {
    name: "open",
    rate: Some(RATE),
    cpu: &table::OPEN_CPU,
    per_second: None,
    added: Some([&table::OPEN_P50, &table::OPEN_P99]),
    ..T
};

const POST: Row =
    Row { name: "post", body: Some(16 * 1024), cpu: &table::POST_CPU, per_second: None, ..S };

const MIB: Row =
    Row { name: "mib", file: "/1m", expect: LARGE, cpu: &table::MIB_CPU, per_second: None, ..S };

/// What one measurement found.
struct Sample {
    report: Report,
    spent: Cpu,
    before: Cpu,
    rest: f64,
}

impl Sample {
    /// CPU of the proxy per request, in microseconds.
    fn cpu_us(&self) -> f64 {
        self.spent.since(&self.before).as_secs_f64() * 1e6 / self.report.requests as f64
    }

    fn busiest_us(&self) -> f64 {
        self.spent.busiest_since(&self.before).as_secs_f64() * 1e6 / self.report.requests as f64
    }
}

/// A whole run.
pub(crate) struct Bench {
    options: Options,
    proxies: Vec<Proxy>,
    versions: Vec<String>,
    table: Table,
    failed: usize,
    counted_by: &'static str,
    proxy_cores: Cores,
    both_cores: Cores,
    other_cores: Cores,
    // Dropped in this order: first the origin, then the folder with its authority.
    origin: Tool,
    ports: (u16, u16),
    folder: TempDir,
}

impl Bench {
    /// Starts the origin, and each proxy once to see that it can be measured.
    pub(crate) fn new(options: Options, proxies: Vec<Proxy>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (proxy_cores, both_cores, other_cores): (Cores, Cores, Cores) =
            match std::thread::available_parallelism()?.get() {
                1 => {
                    eprintln!("only one core: nothing is pinned, and everything shares it");
                    (None, None, None)
                }
                _ => (Some(&[0]), Some(&[0, 1]), Some(&[1])),
            };
        let (origin, plain, tls) = Tool::origin(folder.path(), other_cores)?;
        let versions = proxies.iter().map(Proxy::version).collect();
        let mut bench = Self {
            options,
            proxies,
            versions,
            table: Table::new(Vec::new()),
            failed: 0,
            counted_by: "",
            proxy_cores,
            both_cores,
            other_cores,
            origin,
            ports: (plain, tls),
            folder,
        };
        for at in 0..bench.proxies.len() {
            let proxy = &bench.proxies[at];
            let program = behind_scripts(&bench.start(at, 1, proxy_cores)?.process, &proxy.program);
            bench.proxies[at].program = program;
        }
        let columns = bench.proxies.iter().map(|proxy| (proxy.name.clone(), proxy.kind)).collect();
        bench.table = Table::new(columns);
        Ok(bench)
    }

    /// All rounds; how many measurements failed.
    pub(crate) fn run(&mut self) -> Result<usize> {
        for round in 0..self.options.rounds {
            eprintln!("round {} of {}", round + 1, self.options.rounds);
            let count = self.proxies.len();
            let order: Vec<usize> = (0..count).map(|at| (at + round) % count).collect();
            for proxy in &order {
                let outcome = self.starts(*proxy, round);
                self.note("start", *proxy, outcome);
                let outcome = self.memory(*proxy, round);
                self.note("memory", *proxy, outcome);
            }
            self.rows(&order, round)?;
            for proxy in &order {
                let outcome = self.workers(*proxy, round);
                self.note("workers", *proxy, outcome);
                let outcome = self.calls(*proxy, round);
                self.note("calls", *proxy, outcome);
            }
        }
        Ok(self.failed)
    }

    /// The table, and what has to be known to read it.
    pub(crate) fn report(&self) -> String {
        let mut out = String::new();
        for (proxy, version) in self.proxies.iter().zip(&self.versions) {
            out.push_str(&format!("- {}: {version}\n", proxy.name));
        }
        let pinned = match self.proxy_cores {
            Some(_) => "the proxy on core 0, origin and load on core 1",
            None => "one core, nothing pinned",
        };
        let Options { rounds, seconds, .. } = self.options;
        out.push_str(&format!("- {rounds} rounds of {seconds} s; {pinned}\n"));
        if !self.counted_by.is_empty() {
            out.push_str(&format!("- system calls counted by {}\n", self.counted_by));
        }
        out.push('\n');
        out + &self.table.markdown()
    }

    fn note(&mut self, row: &str, proxy: usize, outcome: Result<()>) {
        debug_assert!(ROWS.contains(&row), "each row can be selected");
        if let Err(error) = outcome {
            self.failed += 1;
            eprintln!("FAILED {row} {}: {error}", self.proxies[proxy].name);
        }
    }

    fn start(&self, proxy: usize, workers: usize, cores: Cores) -> Result<Running> {
        let (plain, tls) = self.ports;
        let origin = Origin { plain, tls, folder: self.folder.path() };
        self.proxies[proxy].start(&origin, workers, cores)
    }

    fn load(&self, row: &Row, target: SocketAddr) -> LoadOptions {
        LoadOptions {
            target,
            path: format!("/{}{}", row.upstream, row.file),
            body: row.body,
            expect: row.expect,
            connections: CONNECTIONS,
            warm: 0.3,
            seconds: self.options.seconds,
            requests: None,
            rate: row.rate,
            ca: None,
        }
    }

    /// Sends for a while; `running` are all proxies that live now, so that none counts as the rest.
    fn sample(
        &self,
        load: &LoadOptions,
        measured: Option<&Running>,
        running: &[&Running],
    ) -> Result<Sample> {
        let mut load = Tool::load(load, self.other_cores)?;
        let cpu_of = |load: &Tool| {
            let tools = self.origin.cpu().with(load.cpu());
            running.iter().fold(tools, |all, one| all.with(one.process.cpu()))
        };
        let of_measured = || measured.map(|one| one.process.cpu()).unwrap_or_default();
        let (all, own, busy) = (cpu_of(&load), own_cpu(), machine_busy());
        let (start, before) = (Instant::now(), of_measured());
        let report = load.measure()?;
        let (elapsed, spent) = (start.elapsed(), of_measured());
        let ours = cpu_of(&load).since(&all) + own_cpu().saturating_sub(own);
        let rest = machine_busy().saturating_sub(busy).saturating_sub(ours);
        let cores = std::thread::available_parallelism()?.get() as f64;
        let rest = rest.as_secs_f64() / elapsed.as_secs_f64() / cores;
        Ok(Sample { report, spent, before, rest })
    }

    /// Everything that is sent for a while, row by row and within a row proxy by proxy.
    fn rows(&mut self, order: &[usize], round: usize) -> Result<()> {
        let rows: Vec<Row> = [S, T, OPEN, POST, MIB]
            .into_iter()
            .filter(|row| self.options.wants(row.name))
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let running = order
            .iter()
            .map(|proxy| Ok((*proxy, self.start(*proxy, 1, self.proxy_cores)?)))
            .collect::<Result<Vec<_>>>()?;
        let all: Vec<&Running> = running.iter().map(|(_, one)| one).collect();
        for row in rows {
            let direct = match row.added {
                Some(_) => Some(self.direct(&row, &all)?),
                None => None,
            };
            for (proxy, one) in &running {
                let outcome = self.sample(&self.load(&row, one.address), Some(one), &all);
                let outcome = outcome.map(|it| self.add(&row, *proxy, round, &it, direct.as_ref()));
                self.note(row.name, *proxy, outcome);
            }
        }
        Ok(())
    }

    /// The same requests without a proxy.
    fn direct(&self, row: &Row, all: &[&Running]) -> Result<Report> {
        let (path, ca) = (row.file.to_owned(), Some(self.folder.path().join("ca.pem")));
        let load = self.load(row, SocketAddr::from(([127, 0, 0, 1], self.ports.1)));
        Ok(self.sample(&LoadOptions { path, ca, ..load }, None, all)?.report)
    }

    fn add(
        &mut self,
        row: &Row,
        proxy: usize,
        round: usize,
        sample: &Sample,
        direct: Option<&Report>,
    ) {
        let (report, rest) = (&sample.report, Some(sample.rest));
        let per_second = report.requests as f64 / report.seconds;
        eprintln!(
            "  {:5} {:8} {:8.2} µs CPU, {per_second:7.0}/s, p50 {:6.0} µs, p99 {:6.0} µs, rest {:.0} %",
            row.name,
            self.proxies[proxy].name,
            sample.cpu_us(),
            report.p50_us,
            report.p99_us,
            sample.rest * 100.0
        );
        self.table.add(row.cpu, proxy, round, sample.cpu_us(), rest);
        if let Some(figure) = row.per_second {
            self.table.add(figure, proxy, round, per_second, rest);
        }
        if let Some(([median, tail], direct)) = row.added.zip(direct) {
            self.table.add(median, proxy, round, report.p50_us - direct.p50_us, rest);
            self.table.add(tail, proxy, round, report.p99_us - direct.p99_us, rest);
        }
    }

    fn starts(&mut self, proxy: usize, round: usize) -> Result<()> {
        if !self.options.wants("start") {
            return Ok(());
        }
        let mut times = (0..STARTS)
            .map(|_| Ok(self.start(proxy, 1, self.proxy_cores)?.started_in))
            .collect::<Result<Vec<Duration>>>()?;
        times.sort_unstable();
        self.table.add(&table::START, proxy, round, times[STARTS / 2].as_secs_f64() * 1e3, None);
        Ok(())
    }

    /// Resident memory: as soon as it answered, and while a thousand callers stay, who asked once each.
    /// Callers that stay are mostly quiet, so this waits; and one more caller asks in the end, since
    /// allocators give memory back when they are used.
    fn memory(&mut self, proxy: usize, round: usize) -> Result<()> {
        if !self.options.wants("memory") {
            return Ok(());
        }
        let one = self.start(proxy, 1, self.proxy_cores)?;
        let idle = one.process.resident_kib();
        let load = LoadOptions { connections: IDLE, warm: 0.0, ..self.load(&S, one.address) };
        let _held = Tool::load(&load, self.other_cores)?;
        std::thread::sleep(QUIET);
        if !answers(one.address) {
            return Err("one more caller got no answer".into());
        }
        let held = one.process.resident_kib();
        self.table.add(&table::IDLE, proxy, round, idle / 1024.0, None);
        self.table.add(&table::HELD, proxy, round, held / 1024.0, None);
        self.table.add(&table::EACH, proxy, round, (held - idle) / IDLE as f64, None);
        Ok(())
    }

    /// How much more two workers could carry, judged by the busiest thread's CPU per request.
    fn workers(&mut self, proxy: usize, round: usize) -> Result<()> {
        if !self.options.wants("workers") {
            return Ok(());
        }
        let of = |workers| {
            let one = self.start(proxy, workers, self.both_cores)?;
            self.sample(&self.load(&S, one.address), Some(&one), &[&one])
        };
        let (one, two) = (of(1)?, of(2)?);
        let rest = Some(one.rest.max(two.rest));
        eprintln!(
            "  workers {:8} one {:.2} µs, two {:.2} µs, busiest {:.2} and {:.2} µs, {:.0}/s and {:.0}/s",
            self.proxies[proxy].name,
            one.cpu_us(),
            two.cpu_us(),
            one.busiest_us(),
            two.busiest_us(),
            one.report.requests as f64 / one.report.seconds,
            two.report.requests as f64 / two.report.seconds,
        );
        self.table.add(&table::TWO, proxy, round, one.busiest_us() / two.busiest_us(), rest);
        Ok(())
    }

    /// System calls, on their own because counting them costs time.
    fn calls(&mut self, proxy: usize, round: usize) -> Result<()> {
        if !self.options.wants("calls") {
            return Ok(());
        }
        let one = self.start(proxy, 1, self.proxy_cores)?;
        for (row, figure) in [(S, &table::S_CALLS), (T, &table::T_CALLS)] {
            let mut load = Tool::load(&self.load(&row, one.address), self.other_cores)?;
            let counter = Counter::attach(&one.process, one.folder())?;
            let report = load.measure()?;
            let count = counter.read()?;
            self.counted_by = count.by;
            self.table.add(figure, proxy, round, count.calls as f64 / report.requests as f64, None);
        }
        Ok(())
    }
}
