//! The commands that ask or change one thing: `breaker`, `health`, `wait`, `quit`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Client, ClientError, segment};
use super::{AdminArgs, BreakerAction, BreakerArgs, EXIT_USAGE, complain};
use crate::admin::backend::ForcedState;

/// A forbear that is alive answers within milliseconds, and whoever asks has a few seconds at most.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(3);
/// Between two questions of `wait`. Start-up takes a few of these.
const WAIT_STEP: Duration = Duration::from_millis(100);

/// Why a command ended with another code than 0.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The admin API did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It did, and the answer is no.
    #[error("{0}")]
    No(String),
    /// Nothing can be shown.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Client(ClientError::Address(_) | ClientError::Token { .. }) => {
                ExitCode::from(EXIT_USAGE)
            }
            // Whoever reads has had enough (`forbear status | head`).
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Client(_) | Self::No(_) | Self::Output(_) => ExitCode::FAILURE,
        }
    }
}

/// Runs a command against the admin API, and says why if it fails.
pub(super) fn finish(
    admin: &AdminArgs,
    command: impl AsyncFnOnce(Client) -> Result<(), Failure>,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Failure::Output).and_then(|runtime| {
        let client = Client::new(admin)?;
        runtime.block_on(command(client))
    });
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    let code = failure.exit_code();
    if code != ExitCode::SUCCESS {
        complain(&failure.to_string());
    }
    code
}

/// `forbear breaker`
///
/// # Errors
/// When it was not done.
pub async fn breaker(client: &Client, args: &BreakerArgs) -> Result<(), Failure> {
    let (state, done) = match args.action {
        BreakerAction::Open => (ForcedState::Open, "held open"),
        BreakerAction::Close => (ForcedState::Closed, "held closed"),
        BreakerAction::Auto => (ForcedState::Auto, "left to itself"),
    };
    let mut body = json!({ "state": state, "reason": args.reason });
    for (name, value) in [("for", &args.for_), ("route", &args.route)] {
        if let (Some(value), Some(fields)) = (value, body.as_object_mut()) {
            fields.insert(name.to_owned(), value.as_str().into());
        }
    }
    client.post(&format!("/api/v1/upstreams/{}/breaker", segment(&args.upstream)), &body).await?;
    let route = args.route.as_deref().map(|name| format!(", route {name},")).unwrap_or_default();
    say(&format!("The breaker of {}{route} is now {done}.", args.upstream))
}

/// `forbear health`
///
/// # Errors
/// When it is not well, or not there.
pub async fn health(client: &Client, ready: bool) -> Result<(), Failure> {
    let path = if ready { "/readyz" } else { "/healthz" };
    let asked = tokio::time::timeout(HEALTH_TIME_MAX, client.ask(Method::GET, path, None));
    let late = |_| Failure::No(format!("forbear on {} says nothing", client.authority()));
    let answer = asked.await.map_err(late)??;
    if answer.status != StatusCode::OK {
        let reason = reason(&answer.body);
        return Err(Failure::No(format!("forbear on {} is not {reason}", client.authority())));
    }
    let state = if ready { "ready" } else { "alive" };
    say(&format!("forbear on {} is {state}.", client.authority()))
}

/// `forbear wait`
///
/// # Errors
/// When `timeout` passes first.
pub async fn wait(client: &Client, timeout: Duration) -> Result<(), Failure> {
    let mut last = String::new();
    let ready = async {
        loop {
            let not_yet = match client.ask(Method::GET, "/readyz", None).await {
                Ok(answer) if answer.status == StatusCode::OK => return,
                Ok(answer) => format!("it is not {}", reason(&answer.body)),
                Err(error) => error.to_string(),
            };
            if not_yet != last {
                let _ = writeln!(anstream::stderr(), "waiting: {not_yet}");
                last = not_yet;
            }
            tokio::time::sleep(WAIT_STEP).await;
        }
    };
    if tokio::time::timeout(timeout, ready).await.is_err() {
        return Err(Failure::No(format!(
            "forbear on {} was not ready within {} s: {last}",
            client.authority(),
            timeout.as_secs_f64()
        )));
    }
    say(&format!("forbear on {} is ready.", client.authority()))
}

/// `forbear quit`
///
/// # Errors
/// When it could not be told.
pub async fn quit(client: &Client) -> Result<(), Failure> {
    client.post("/api/v1/quit", &json!({})).await?;
    say(&format!("forbear on {} finishes what is under way and stops.", client.authority()))
}

/// `ready: it drains`, for the end of a sentence.
fn reason(body: &Value) -> String {
    let reason = body.get("reason").and_then(Value::as_str);
    reason.map_or_else(|| "ready".to_owned(), |reason| format!("ready: {reason}"))
}

fn say(sentence: &str) -> Result<(), Failure> {
    Ok(writeln!(anstream::stdout(), "{sentence}")?)
}
