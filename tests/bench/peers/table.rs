//! What was measured, as a Markdown table.
//!
//! Each value knows its round. A ratio is always that of two values of one round, so that what slows the
//! whole machine down for a while slows both; what is told of ratios is their minimum, median and maximum.

use std::fmt::Write as _;

use super::proxies::Kind;

/// Ratios that differ from their target by less are a tie: as much differs between two runs of one program.
const TIE: f64 = 1.10;

/// One thing that is measured.
pub(crate) struct Figure {
    /// What it is.
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) target: Target,
}

/// What forbear is to reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// At most so many times what this peer needs.
    Beside(Kind, f64),
    /// At most, or less than, an absolute value.
    AtMost(f64),
    /// At least an absolute value.
    AtLeast(f64),
    /// Only told.
    None,
}

const fn figure(title: &'static str, unit: &'static str, target: Target) -> Figure {
    Figure { title, unit, target }
}

use Kind::{Envoy, Nginx};
use Target::{AtLeast, AtMost, Beside, None as Told};

pub(crate) const S_CPU: Figure = figure("S: CPU per request", "µs", Beside(Nginx, 1.0));
pub(crate) const S_RATE: Figure = figure("S: requests per second", "", Told);
pub(crate) const T_CPU: Figure = figure("T: CPU per request", "µs", Beside(Nginx, 1.0));
pub(crate) const T_RATE: Figure = figure("T: requests per second", "", Told);
pub(crate) const OPEN_CPU: Figure =
    figure("T at 1,000/s: CPU per request", "µs", Beside(Nginx, 0.95));
pub(crate) const OPEN_P50: Figure =
    figure("T at 1,000/s: added median latency", "µs", Beside(Nginx, 1.0));
pub(crate) const OPEN_P99: Figure = figure("T at 1,000/s: added 99th percentile", "µs", Told);
pub(crate) const POST_CPU: Figure =
    figure("POST 16 KiB: CPU per request", "µs", Beside(Nginx, 1.1));
pub(crate) const MIB_CPU: Figure = figure("1 MiB: CPU per MiB", "µs", Beside(Envoy, 1.0));
pub(crate) const START: Figure = figure("Start to first 200", "ms", AtMost(10.0));
pub(crate) const IDLE: Figure = figure("Resident when idle", "MiB", AtMost(10.0));
pub(crate) const HELD: Figure = figure("Resident with 1,000 idle connections", "MiB", AtMost(16.0));
pub(crate) const EACH: Figure = figure("Per idle connection", "KiB", AtMost(8.0));
pub(crate) const TWO: Figure = figure("Two workers: capacity beside one", "×", AtLeast(1.8));
pub(crate) const S_CALLS: Figure = figure("S: system calls per request", "", AtMost(4.2));
pub(crate) const T_CALLS: Figure = figure("T: system calls per request", "", AtMost(4.2));

/// All of them, in the order of the table.
pub(crate) const FIGURES: [&Figure; 16] = [
    &S_CPU, &S_RATE, &T_CPU, &T_RATE, &OPEN_CPU, &OPEN_P50, &OPEN_P99, &POST_CPU, &MIB_CPU,
    &S_CALLS, &T_CALLS, &IDLE, &HELD, &EACH, &START, &TWO,
];

/// One value.
struct Record {
    title: &'static str,
    proxy: usize,
    round: usize,
    value: f64,
    rest: Option<f64>,
}

/// All values of a run, of these proxies.
pub(crate) struct Table {
    proxies: Vec<(String, Kind)>,
    records: Vec<Record>,
}

impl Table {
    pub(crate) fn new(proxies: Vec<(String, Kind)>) -> Self {
        Self { proxies, records: Vec::new() }
    }

    /// Adds a value; `rest` is how busy the rest of the machine was, from 0 to 1.
    pub(crate) fn add(
        &mut self,
        figure: &Figure,
        proxy: usize,
        round: usize,
        value: f64,
        rest: Option<f64>,
    ) {
        self.records.push(Record { title: figure.title, proxy, round, value, rest });
    }

    fn of<'a>(&'a self, figure: &'a Figure, proxy: usize) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |it| it.title == figure.title && it.proxy == proxy)
    }

    /// Of this proxy against that one, round by round.
    fn ratios(&self, figure: &Figure, proxy: usize, to: usize) -> Spread {
        let of_round = |round| self.of(figure, to).find(|it| it.round == round);
        let ratio = |it: &Record| Some(it.value / of_round(it.round)?.value);
        Spread::of(
            self.of(figure, proxy)
                .filter_map(ratio)
                .filter(|it| it.is_finite() && *it > 0.0)
                .collect(),
        )
    }

    fn first(&self, kind: Kind) -> Option<usize> {
        self.proxies.iter().position(|(_, it)| *it == kind)
    }

    /// The whole table. Ratios are to nginx, or to the first proxy where nginx was left out.
    pub(crate) fn markdown(&self) -> String {
        let yardstick = self.first(Nginx).unwrap_or(0);
        let name = self.proxies.get(yardstick).map_or("", |(name, _)| name);
        let mut out = format!(
            "| Measured | Proxy | min | median | max | ÷ {name}: min | median | max | Rest busy | \
             Target | Verdict |\n|---|---|--:|--:|--:|--:|--:|--:|--:|---|---|\n"
        );
        for figure in FIGURES {
            for (proxy, (name, kind)) in self.proxies.iter().enumerate() {
                let values = Spread::of(self.of(figure, proxy).map(|it| it.value).collect());
                let Some([min, median, max]) = values.0 else { continue };
                let rest = Spread::of(self.of(figure, proxy).filter_map(|it| it.rest).collect());
                let rest = rest.0.map_or(String::new(), |it| format!("{:.0} %", it[1] * 100.0));
                let ratios = match self.ratios(figure, proxy, yardstick).0 {
                    Some(all) if proxy != yardstick => all.map(|it| format!("{it:.2}")),
                    Some(_) | None => Default::default(),
                };
                let [target, verdict] = match kind {
                    Kind::Forbear => [figure.target.text(), self.verdict(figure, proxy, median)],
                    Nginx | Kind::Haproxy | Envoy | Kind::Bare => Default::default(),
                };
                let title = format!("{} {}", figure.title, figure.unit);
                let values = [min, median, max].map(short).join(" | ");
                let ratios = ratios.join(" | ");
                let written = writeln!(
                    out,
                    "| {} | {name} | {values} | {ratios} | {rest} | {target} | {verdict} |",
                    title.trim()
                );
                written.expect("a string takes everything");
            }
        }
        out
    }

    fn verdict(&self, figure: &Figure, proxy: usize, median: f64) -> String {
        let word = |share: f64| match share {
            share if share <= 1.0 => "met",
            share if share <= TIE => "tie",
            _ => "missed",
        };
        let absolute = |fits| if fits { "met" } else { "missed" };
        let verdict = match figure.target {
            Beside(kind, most) => match self.first(kind) {
                None => "not measured",
                Some(to) => match self.ratios(figure, proxy, to).0 {
                    Some([_, median, _]) => word(median / most),
                    None => "not measured",
                },
            },
            AtMost(most) => absolute(median <= most),
            AtLeast(least) => absolute(median >= least),
            Told => "",
        };
        verdict.to_owned()
    }
}

impl Target {
    fn text(self) -> String {
        match self {
            Beside(Kind::Forbear, most) => format!("≤ {most:.2} × forbear"),
            Beside(Nginx, most) => format!("≤ {most:.2} × nginx"),
            Beside(Kind::Haproxy, most) => format!("≤ {most:.2} × haproxy"),
            Beside(Kind::Bare, most) => format!("≤ {most:.2} × bare"),
            Beside(Envoy, most) => format!("≤ {most:.2} × envoy"),
            AtMost(most) => format!("≤ {most}"),
            AtLeast(least) => format!("≥ {least}"),
            Told => String::new(),
        }
    }
}

/// Minimum, median and maximum, if there is anything.
struct Spread(Option<[f64; 3]>);

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied();
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            at(middle)
        } else {
            middle.checked_sub(1).and_then(at).zip(at(middle)).map(|(low, high)| (low + high) / 2.0)
        };
        let last = values.len().checked_sub(1).and_then(at);
        Self(at(0).zip(median).zip(last).map(|((min, median), max)| [min, median, max]))
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
