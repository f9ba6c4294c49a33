//! `forbear demo`: one job, three times, against an API that limits, resets and goes down.
//!
//! Nothing is simulated: the API listens on a loopback port, the job's workers hold real
//! connections, and forbear stands between them as it would beside a pipeline. Each run gets a
//! fresh API that behaves alike. The demo tells what it counted and nothing else; the numbers come
//! from the API and the job, not from forbear.
//!
//! The same fake API serves the project's tests.

pub mod api;
pub mod client;
pub mod clock;
pub mod hints;
pub mod job;
pub mod limiter;
pub mod record;
pub mod scenario;
pub mod screen;
pub mod script;
pub mod settings;
pub mod summary;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use api::FakeApi;
use client::ClientError;
use clock::Stopwatch;
use job::{Habit, Job, Progress};
use limiter::Limiter;
use scenario::{Scenario, TIME_SCALE, optimum};
use screen::{Live, ProgressView, Screen};
use settings::ApiSettings;
use summary::{RunResult, SummaryTable};

/// Between two drawings of the progress line: smooth for the eye, nothing for the CPU.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Whatever puts forbear in front of an API. The command line fills it with the real one.
pub trait Proxy {
    /// Starts forbear with [`Scenario::proxy_config`] and listeners on free loopback ports;
    /// returns once it is ready.
    ///
    /// # Errors
    /// It did not start; the text says why.
    fn start(&self, upstream_url: &str)
    -> impl Future<Output = Result<ProxyHandle, String>> + Send;
}

/// A running forbear.
pub struct ProxyHandle {
    /// What the job uses as its base URL, prefix included.
    pub base_url: String,
    /// Where the admin API and the dashboard are.
    pub admin_url: String,
    /// What it waits for just now, in at most [`screen::WAIT_WIDTH`] characters: `cooldown 1.2 s`.
    pub waiting_for: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Ends when it has stopped; does nothing until it is polled.
    pub stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for ProxyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyHandle")
            .field("base_url", &self.base_url)
            .field("admin_url", &self.admin_url)
            .finish_non_exhaustive()
    }
}

/// What the demo does after its summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Leave forbear and the API up until Ctrl-C.
    Stay,
    /// End at once.
    Exit,
}

/// Whether forbear kept its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The job through forbear got every item.
    GotAll,
    /// It lost so many.
    Lost(u32),
}

impl From<Conclusion> for ExitCode {
    /// 1 if anything was lost.
    fn from(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::GotAll => Self::SUCCESS,
            Conclusion::Lost(_) => Self::FAILURE,
        }
    }
}

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The output or a loopback port failed.
    #[error("the demo could not use its output or a loopback port")]
    Io(#[from] std::io::Error),
    /// forbear did not start.
    #[error("forbear did not start: {0}")]
    Proxy(String),
    /// forbear's URL is none.
    #[error("the job could not start")]
    Job(#[from] ClientError),
}

/// Runs the demo on the standard output; takes about 35 seconds.
///
/// # Errors
/// See [`DemoError`]; lost items are no error but a [`Conclusion`].
pub async fn run(proxy: &impl Proxy, afterwards: Afterwards) -> Result<Conclusion, DemoError> {
    let live = if std::io::stdout().is_terminal() { Live::Redraw } else { Live::Quarters };
    let mut screen = Screen::new(anstream::stdout(), live);
    show(&mut screen, &Scenario::standard(), proxy, afterwards).await
}

async fn show<W: Write>(
    screen: &mut Screen<W>,
    scenario: &Scenario,
    proxy: &impl Proxy,
    afterwards: Afterwards,
) -> Result<Conclusion, DemoError> {
    let optimum = optimum(&scenario.api, scenario.items);
    screen.say(&introduction(scenario, optimum))?;

    let fixed = Habit::FixedWait { wait: scenario.fixed_wait, attempts_max: scenario.attempts_max };
    let mut runs = Vec::new();
    for (name, habit) in [("naive", Habit::OneAttempt), ("fixed wait", fixed)] {
        let api = FakeApi::start(scenario.api.clone()).await?;
        runs.push(run_one(screen, scenario, name, habit, &api, &api.url(), &|| None).await?);
    }
    let api = FakeApi::start(scenario.api.clone()).await?;
    let forbear = proxy.start(&api.url()).await.map_err(DemoError::Proxy)?;
    let (url, waiting_for) = (&forbear.base_url, &*forbear.waiting_for);
    let run =
        run_one(screen, scenario, "forbear", Habit::OneAttempt, &api, url, waiting_for).await?;
    runs.push(run);

    screen.say("")?;
    screen.say(&SummaryTable { runs, optimum, window: scenario.window }.render())?;
    screen.say(&conclusion_text(&run, scenario.items))?;
    if afterwards == Afterwards::Stay {
        screen.say(&look_around(&forbear))?;
        tokio::signal::ctrl_c().await?;
        screen.say("")?;
    }
    forbear.stop.await;
    Ok(match run.report.lost {
        0 => Conclusion::GotAll,
        lost => Conclusion::Lost(lost),
    })
}

/// Runs the job once and shows how far it is meanwhile.
async fn run_one<W: Write>(
    screen: &mut Screen<W>,
    scenario: &Scenario,
    name: &'static str,
    habit: Habit,
    api: &FakeApi,
    base_url: &str,
    waiting_for: &(dyn Fn() -> Option<String> + Send + Sync),
) -> Result<RunResult, DemoError> {
    let (items, workers) = (scenario.items, scenario.workers);
    let job = Job { base_url: base_url.to_owned(), items, workers, habit };
    let progress = Arc::new(Progress::default());
    let view = |elapsed, waiting_for| {
        let (good, lost) = progress.so_far();
        let refused = api.counters().refused;
        ProgressView { name, elapsed, good, lost, items, refused, waiting_for }
    };
    let stopwatch = Stopwatch::start();
    let mut redraw = interval(REDRAW_INTERVAL);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut running = pin!(job.run(Arc::clone(&progress)));
    let report = loop {
        tokio::select! {
            report = &mut running => break report?,
            _ = redraw.tick() => screen.progress(&view(stopwatch.elapsed(), waiting_for()))?,
        }
    };
    screen.finish(&view(report.took, None))?;
    Ok(RunResult { name, report, counters: api.counters() })
}

fn introduction(scenario: &Scenario, optimum: Duration) -> String {
    format!(
        "
  A fake API on this machine
{api}
  A job fetches {items} items from it with {workers} workers, three times:

    naive        takes the first answer as it comes
    fixed wait   sleeps {wait} after any failure and repeats, {attempts} attempts in all
    forbear      the naive job again; only its base URL is another

  Clocks run {TIME_SCALE} times faster than life, forbear's breaker and backoff too: the
  window is an API's minute, the sleep is the usual 150 s. Whoever knew all this
  in advance would be done after {optimum}.
",
        api = api_text(&scenario.api),
        items = scenario.items,
        workers = scenario.workers,
        wait = seconds(scenario.fixed_wait),
        attempts = scenario.attempts_max,
        optimum = seconds(optimum),
    )
}

/// One line per trouble that the API makes.
fn api_text(api: &ApiSettings) -> String {
    let mut lines = vec![match api.limiter {
        Limiter::None => "admits every request".to_owned(),
        Limiter::FixedWindow { limit, window } | Limiter::SlidingWindow { limit, window } => {
            format!("admits {limit} requests per {} and answers 429 beyond that", seconds(window))
        }
        Limiter::TokenBucket { rate_per_s, burst } => {
            format!("admits {rate_per_s} requests per second, {burst} at once")
        }
        Limiter::Concurrency { limit } => format!("admits {limit} requests at the same time"),
        Limiter::Punishing { limit, window, penalty } => format!(
            "admits {limit} requests per {}, and each one beyond that adds a pause of {}",
            seconds(window),
            seconds(penalty),
        ),
    }];
    for outage in &api.outages {
        lines.push(format!("is down from {} to {}", seconds(outage.start), seconds(outage.end)));
    }
    if let Some(every) = api.faults.reset_every {
        lines.push(format!("resets the connection of every {every}th request"));
    }
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

/// `2 s`, `0.5 s`, `10.02 s`.
fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs_f64())
}

fn conclusion_text(run: &RunResult, items: u32) -> String {
    match run.report.lost {
        0 => {
            format!("  Through forbear, the job got all {items} items without a retry of its own.")
        }
        lost => {
            format!("  Through forbear, the job lost {lost} of {items} items. That must not be.")
        }
    }
}

fn look_around(forbear: &ProxyHandle) -> String {
    let ProxyHandle { base_url, admin_url, .. } = forbear;
    format!(
        "
  forbear and the API stay up. Look around, and end with Ctrl-C:

    dashboard    {admin_url}/
    status       forbear status --admin {admin_url}
    metrics      curl {admin_url}/metrics
    a request    curl -i {base_url}/items/1"
    )
}

#[cfg(test)]
mod tests;
