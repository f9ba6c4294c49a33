//! The result as Markdown.

use std::cell::RefCell;
use std::fmt::Write as _;

use forbear::demo::hints::Hints;

use super::policies::Case;
use super::{Client, Options, Run};

/// All rounds of one client against one policy.
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) client: Client,
    pub(crate) runs: RefCell<Vec<Run>>,
}

impl Row {
    pub(crate) fn new(case: Case, client: Client) -> Self {
        Self { case, client, runs: RefCell::default() }
    }

    /// Median and worst of a number of each run.
    fn cell(&self, digits: usize, number: impl Fn(&Run) -> f64) -> String {
        let mut numbers: Vec<f64> = self.runs.borrow().iter().map(number).collect();
        numbers.sort_by(f64::total_cmp);
        match (numbers.get(numbers.len() / 2), numbers.last()) {
            (Some(median), Some(worst)) => format!("{median:.digits$} ({worst:.digits$})"),
            (Some(_) | None, _) => "–".to_owned(),
        }
    }

    /// Only who has got everything can be compared: giving up is quick.
    fn time(&self) -> String {
        let optimum = self.case.optimum;
        let times = self.cell(2, |run| run.took.div_duration_f64(optimum));
        let runs = self.runs.borrow();
        if runs.iter().any(|run| run.cut) {
            format!("> {times}")
        } else if runs.iter().any(|run| run.lost > 0) {
            format!("~~{times}~~")
        } else {
            times
        }
    }

    /// Only of an API that names waits.
    fn in_a_wait(&self, number: impl Fn(&Run) -> u32) -> String {
        match self.case.api.hints {
            Hints::None => "–".to_owned(),
            Hints::RetryAfterSeconds
            | Hints::RetryAfterMs
            | Hints::RetryAfterDate
            | Hints::RateLimitFields => self.cell(0, |run| number(run).into()),
        }
    }
}

/// The APIs with the best that is possible, the results, and how to read them.
pub(crate) fn render(rows: &[Row], options: &Options) -> String {
    const INFALLIBLE: &str = "writing to a string cannot fail";
    let mut text = String::new();
    let Options { requests, workers, rounds, timeout, job_timeout, .. } = options;
    writeln!(
        text,
        "{requests} items, {workers} threads, {rounds} rounds; median (worst).\n\n\
         | policy | the API admits | optimum | obeying whole seconds |\n|---|---|---:|---:|"
    )
    .expect(INFALLIBLE);
    let mut last = None;
    for Case { policy, optimum, told_optimum, .. } in rows.iter().map(|row| &row.case) {
        if last.replace(policy) == Some(policy) {
            continue;
        }
        let told = told_optimum.map(|told| format!("{:.2} ×", told.div_duration_f64(*optimum)));
        let (name, help, told) = (policy.name(), policy.help(), told.unwrap_or("–".to_owned()));
        writeln!(text, "| {name} | {help} | {:.2} s | {told} |", optimum.as_secs_f64())
            .expect(INFALLIBLE);
    }
    text.push_str(
        "\n| policy | client | time × optimum | lost | refused per good answer | during a wait that \
         it had named | 100 ms into it |\n|---|---|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.case.policy.name(),
            row.client.name(),
            row.time(),
            row.cell(0, |run| run.lost.into()),
            row.cell(2, Run::refused_per_good),
            row.in_a_wait(|run| run.seen.refused_during_pause),
            row.in_a_wait(|run| run.late),
        )
        .expect(INFALLIBLE);
    }
    write!(
        text,
        "\nA time is struck out where items were lost: giving up is quick. An item is lost when its \
         client gave up, or when the job was ended after {job_timeout} s, which a > shows. A client \
         waits {timeout} s for an answer. Refused are 429, 503 and cut connections; what comes in the \
         first 100 ms of a wait may have been on its way when the wait was named. The optimum is \
         that of a client which knows the API and has any number of connections; beside it is what \
         it takes with these threads and no more knowledge than the API gives away in whole seconds."
    )
    .expect(INFALLIBLE);
    text
}
