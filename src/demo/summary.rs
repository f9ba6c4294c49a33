//! The table at the end: the same job three times, side by side, in 80 columns.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::job::Report;
use super::record::Counters;

const LABEL_WIDTH: usize = 32;
const CELL_WIDTH: usize = 15;

/// One run of the job, as the job and as the API saw it.
#[derive(Clone, Copy, Debug)]
pub struct RunResult {
    /// The name of its column.
    pub name: &'static str,
    /// What the job got.
    pub report: Report,
    /// What the API saw.
    pub counters: Counters,
}

/// Everything that the table shows.
#[derive(Clone, Debug)]
pub struct SummaryTable {
    /// One per column.
    pub runs: Vec<RunResult>,
    /// The shortest possible time.
    pub optimum: Duration,
    /// The API's window.
    pub window: Duration,
}

impl SummaryTable {
    /// The table with ANSI styles, each line at most 80 columns wide.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.row(&mut text, Style::new().bold(), "", |run| (run.name.to_owned(), Tone::Plain));
        let plain = Style::new();
        self.row(&mut text, plain, "time", |run| {
            (format!("{:.1} s", run.report.took.as_secs_f64()), Tone::Plain)
        });
        let optimum = format!("× shortest possible ({:.1} s)", self.optimum.as_secs_f64());
        self.row(&mut text, plain, &optimum, |run| self.ratio(run));
        self.row(&mut text, plain, "items lost", |run| match run.report.lost {
            0 => ("0".to_owned(), Tone::Good),
            lost => (format!("{lost} of {}", lost + run.report.good), Tone::Bad),
        });
        self.row(&mut text, plain, "requests the API refused (429)", |run| {
            (run.counters.refused.to_string(), Tone::Plain)
        });
        self.row(&mut text, plain, "  per window", |run| {
            (format!("{:.1}", self.refused_per_window(run)), Tone::Plain)
        });
        self.row(&mut text, plain, "  during a wait it had named", |run| {
            (run.counters.refused_during_pause.to_string(), Tone::Plain)
        });
        self.row(&mut text, plain, "requests that met 503 or reset", |run| {
            ((run.counters.failed + run.counters.resets).to_string(), Tone::Plain)
        });
        text
    }

    /// Only a finished job can be compared: giving up is quick.
    fn ratio(&self, run: &RunResult) -> (String, Tone) {
        if run.report.lost > 0 || self.optimum.is_zero() {
            return ("not finished".to_owned(), Tone::Plain);
        }
        let ratio = run.report.took.as_secs_f64() / self.optimum.as_secs_f64();
        (format!("{ratio:.2}"), Tone::Plain)
    }

    fn refused_per_window(&self, run: &RunResult) -> f64 {
        let windows = run.report.took.as_nanos().div_ceil(self.window.as_nanos().max(1)).max(1);
        f64::from(run.counters.refused) / windows as f64
    }

    fn row(
        &self,
        text: &mut String,
        style: Style,
        label: &str,
        cell: impl Fn(&RunResult) -> (String, Tone),
    ) {
        const INFALLIBLE: &str = "writing to a string cannot fail";
        write!(text, "  {label:LABEL_WIDTH$}").expect(INFALLIBLE);
        for run in &self.runs {
            let (value, tone) = cell(run);
            let style = match tone {
                Tone::Plain => style,
                Tone::Good => AnsiColor::Green.on_default(),
                Tone::Bad => AnsiColor::Red.on_default(),
            };
            write!(text, "{style}{value:>CELL_WIDTH$}{style:#}").expect(INFALLIBLE);
        }
        text.push('\n');
    }
}

enum Tone {
    Plain,
    Good,
    Bad,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> SummaryTable {
        let run = |name, took_ms, good, counters: [u32; 4]| {
            let [refused, refused_during_pause, failed, resets] = counters;
            RunResult {
                name,
                report: Report { took: Duration::from_millis(took_ms), good, lost: 400 - good },
                counters: Counters {
                    refused,
                    refused_during_pause,
                    failed,
                    resets,
                    ..Counters::default()
                },
            }
        };
        SummaryTable {
            runs: vec![
                run("naive", 530, 80, [314, 313, 0, 6]),
                run("fixed wait", 25_530, 400, [80, 75, 16, 8]),
                run("forbear", 10_840, 400, [0, 0, 7, 6]),
            ],
            optimum: Duration::from_millis(10_020),
            window: Duration::from_secs(2),
        }
    }

    #[test]
    fn the_table_reads_as_it_should() {
        let plain = anstream::adapter::strip_str(&table().render()).to_string();
        let expected = "
                                            naive     fixed wait        forbear
  time                                      0.5 s         25.5 s         10.8 s
  × shortest possible (10.0 s)       not finished           2.55           1.08
  items lost                           320 of 400              0              0
  requests the API refused (429)              314             80              0
    per window                              314.0            6.2            0.0
    during a wait it had named                313             75              0
  requests that met 503 or reset                6             24             13
";
        assert_eq!(format!("\n{plain}"), expected);
    }

    #[test]
    fn the_table_fits_in_80_columns_whatever_happens() {
        let mut table = table();
        for run in &mut table.runs {
            run.report = Report { took: Duration::from_secs(99_999), good: 99_999, lost: 99_999 };
            run.counters.refused = u32::MAX;
        }
        for line in anstream::adapter::strip_str(&table.render()).to_string().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
