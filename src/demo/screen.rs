//! What a person sees while the demo runs: paragraphs, and one line that is drawn again and again.
//!
//! On a terminal the line is redrawn ten times a second; elsewhere (a pipe, a CI log) it is
//! printed at each quarter of the job, so that nothing has to be overwritten.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

/// Cells of the bar.
const BAR_WIDTH: u32 = 16;

/// Columns of the text after the numbers: with it, a line is 79 columns wide.
pub const WAIT_WIDTH: usize = 14;

/// Whether a line can be drawn over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// A terminal: redraw the line.
    Redraw,
    /// Anything else: a line at each quarter.
    Quarters,
}

/// How far a run is.
#[derive(Clone, Debug)]
pub struct ProgressView {
    /// The run's name.
    pub name: &'static str,
    /// Since its start.
    pub elapsed: Duration,
    /// Items got.
    pub good: u32,
    /// Items lost.
    pub lost: u32,
    /// All items; at least 1.
    pub items: u32,
    /// Requests that the API refused.
    pub refused: u32,
    /// What forbear waits for, if it does.
    pub waiting_for: Option<String>,
}

impl ProgressView {
    fn done(&self) -> u32 {
        self.good + self.lost
    }

    fn quarter(&self) -> u32 {
        self.done() * 4 / self.items.max(1)
    }

    /// The line with ANSI styles, at most 79 columns wide: a line as wide as the terminal makes
    /// some of them begin another.
    pub fn render(&self) -> String {
        let cells = |count: u32| ((count * BAR_WIDTH) / self.items.max(1)) as usize;
        let done = cells(self.done()).min(BAR_WIDTH as usize);
        // One lost item is worth a cell of its own.
        let bad = cells(self.lost).max(usize::from(self.lost > 0)).min(done);
        let (good, rest) = (done - bad, BAR_WIDTH as usize - done);
        let (green, red) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default());
        let dim = Style::new().dimmed();
        let waiting = self.waiting_for.as_ref().map_or(String::new(), |text| {
            let text: String = text.chars().take(WAIT_WIDTH).collect();
            format!("  {dim}{text}{dim:#}")
        });
        format!(
            "  {:11}{green}{}{green:#}{red}{}{red:#}{dim}{}{dim:#}{:4}/{:<4}lost {:<4}429s {:<4}\
             {:5.1} s{waiting}",
            self.name,
            "█".repeat(good),
            "▒".repeat(bad),
            "░".repeat(rest),
            self.good,
            self.items,
            self.lost,
            self.refused,
            self.elapsed.as_secs_f64(),
        )
    }
}

/// Where the demo writes.
#[derive(Debug)]
pub struct Screen<W> {
    out: W,
    live: Live,
    /// Quarters of the current run that have been printed.
    quarters: u32,
}

impl<W: Write> Screen<W> {
    /// Writes to `out`, which removes ANSI styles if it must have none.
    pub fn new(out: W, live: Live) -> Self {
        Self { out, live, quarters: 0 }
    }

    /// Prints paragraphs.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Shows how far a run is.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn progress(&mut self, view: &ProgressView) -> io::Result<()> {
        match self.live {
            Live::Redraw => write!(self.out, "\r{}\x1b[K", view.render())?,
            Live::Quarters if view.quarter() > self.quarters => {
                self.quarters = view.quarter();
                writeln!(self.out, "{}", view.render())?;
            }
            Live::Quarters => {}
        }
        self.out.flush()
    }

    /// Shows how a run ended; the line stays.
    ///
    /// # Errors
    /// The output cannot be written to.
    pub fn finish(&mut self, view: &ProgressView) -> io::Result<()> {
        self.progress(view)?;
        self.quarters = 0;
        match self.live {
            Live::Redraw => writeln!(self.out),
            Live::Quarters => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(good: u32, lost: u32) -> ProgressView {
        ProgressView {
            name: "fixed wait",
            elapsed: Duration::from_millis(7_400),
            good,
            lost,
            items: 400,
            refused: 64,
            waiting_for: Some("cooldown 1.2 s".to_owned()),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_line_shows_got_lost_refused_time_and_what_is_waited_for() {
        let expected =
            "  fixed wait ████▒▒░░░░░░░░░░ 100/400 lost 50  429s 64    7.4 s  cooldown 1.2 s";
        assert_eq!(plain(&view(100, 50).render()), expected);
    }

    #[test]
    fn the_line_fits_in_79_columns_whatever_happens() {
        for (good, lost) in [(0, 0), (400, 0), (0, 400), (1, 399), (399, 1)] {
            let waiting_for = Some("a reason that nobody expected to be so long".to_owned());
            let line = plain(&ProgressView { waiting_for, ..view(good, lost) }.render());
            assert!(line.chars().count() <= 79, "{line}");
        }
    }

    #[test]
    fn without_a_terminal_a_line_is_printed_at_each_quarter_of_each_run() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Live::Quarters);
        for _ in 0..2 {
            for good in 0..400 {
                screen.progress(&view(good, 0)).unwrap();
            }
            screen.finish(&view(400, 0)).unwrap();
        }
        let text = plain(&String::from_utf8(out).unwrap());
        assert!(!text.contains(['\r', '\x1b']));
        let at: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        assert_eq!(at, ["100/400", "200/400", "300/400", "400/400"].repeat(2));
    }
}
