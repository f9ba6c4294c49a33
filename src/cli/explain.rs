//! `forbear explain`: the time line of one exchange, or a list of the last ones.
//!
//! A running forbear is asked through its admin listener. Where none runs, the file is read: the
//! question "why did it take so long" often comes when the job and its sidecar are gone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::client::{Client, ClientError, segment};
use super::control::Failure;
use super::{AdminArgs, ExplainArgs, LedgerArgs, timeline};
use crate::config;
use crate::config::settings::Settings;
use crate::store::file::{IN_MEMORY, beside, open_to_read};
use crate::store::read::{self, Answer, Filter, LIST_MAX, Question};
use crate::store::view::ExchangeView;

/// Where the ledger is unless the configuration says otherwise.
const DEFAULT_PATH: &str = "forbear.db";
/// Between two looks into a file that is being written.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So often: longer than what was told is on its way to the file.
const LOOKS: u32 = 15;

/// Asks and draws.
///
/// # Errors
/// When there is no such exchange, or nobody to ask.
pub async fn explain(client: &Client, args: &ExplainArgs) -> Result<(), Failure> {
    let question = match &args.id {
        Some(id) => Question::One(id.clone()),
        None => Question::Last(Filter {
            last: args.last.min(LIST_MAX),
            run: args.run.clone(),
            upstream: args.upstream.clone(),
            failed: args.failed,
        }),
    };
    let found = if args.ledger.file.is_some() {
        from_file(&question, &args.ledger).await?
    } else {
        match from_running(client, args, &question).await {
            Ok(found) => found,
            Err(Failure::Client(nobody @ ClientError::NobodyThere(_))) => {
                if !args.ledger.path()?.exists() {
                    let path = args.ledger.path()?.display().to_string();
                    return Err(Failure::No(format!(
                        "{nobody}; and there is no ledger at {path}: name the file with --ledger"
                    )));
                }
                from_file(&question, &args.ledger).await?
            }
            Err(failure) => return Err(failure),
        }
    };
    let mut out = anstream::stdout();
    match (&question, found.as_slice()) {
        (Question::One(_), [one]) if args.json => write!(out, "{}", timeline::json(one))?,
        (_, found) if args.json => write!(out, "{}", timeline::json(&found))?,
        (Question::One(_), found) => {
            for one in found {
                write!(out, "{}", timeline::timeline(one))?;
            }
        }
        (Question::Last(_), found) => write!(out, "{}", timeline::table(found))?,
    }
    Ok(out.flush()?)
}

fn path_of(question: &Question) -> String {
    match question {
        Question::One(id) => format!("/api/v1/exchanges/{}", segment(id)),
        Question::Last(Filter { last, run, upstream, failed }) => {
            let mut path = format!("/api/v1/exchanges?last={last}&failed={failed}");
            for (name, value) in [("run", run), ("upstream", upstream)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", segment(value)));
                }
            }
            path
        }
    }
}

fn understood(answer: Value) -> Result<Vec<ExchangeView>, Failure> {
    let answer = if answer.is_array() { answer } else { Value::Array(vec![answer]) };
    serde_json::from_value(answer).map_err(|error| {
        Failure::No(format!("the answer is not understood ({error}); is it another version?"))
    })
}

/// What the forbear at `--admin` says or, where nobody listens, the one of the configuration: its
/// file lacks what ended just now, and it does not.
async fn from_running(
    client: &Client,
    args: &ExplainArgs,
    question: &Question,
) -> Result<Vec<ExchangeView>, Failure> {
    let path = path_of(question);
    let mut asked = client.authority().to_owned();
    let mut answer = client.get(&path).await;
    if matches!(answer, Err(ClientError::NobodyThere(_)))
        && let Some(settings) = configured(&args.ledger.config)
        && settings.admin.listen.port() != 0
        && settings.admin.listen.to_string() != asked
    {
        let url = format!("http://{}", settings.admin.listen);
        let there = Client::new(&AdminArgs { url, token_file: args.admin.token_file.clone() })?;
        match there.get(&path).await {
            // What was typed is what the sentence should name.
            Err(ClientError::NobodyThere(_)) => {}
            other => (asked, answer) = (there.authority().to_owned(), other),
        }
    }
    match answer {
        Err(ClientError::Refused { status: StatusCode::NOT_FOUND, detail }) => {
            Err(Failure::No(format!(
                "{detail} (So says the forbear at {asked}; the ledger of another one is read with --ledger FILE.)"
            )))
        }
        answer => understood(answer?),
    }
}

/// What the file says. A forbear that runs writes once a second: where one does, an exchange that is
/// not there is looked for until that has passed, and what a list may lack is said.
async fn from_file(question: &Question, ledger: &LedgerArgs) -> Result<Vec<ExchangeView>, Failure> {
    let path = ledger.path()?;
    // It is removed when the last one closes the file in good order.
    let is_open = beside(&path, "-wal").exists();
    let just_now = format!(
        "{} was read; if its forbear is running, what ended within the last second may not be in it yet: \
         name the address of that one with --admin",
        path.display()
    );
    let connection = open_to_read(&path).map_err(Failure::No)?;
    let mut looks = if is_open { LOOKS } else { 1 };
    loop {
        looks -= 1;
        match (read::answer(&connection, question), question) {
            (Answer::Found(found), Question::Last(_)) if is_open => {
                // A courtesy: the answer comes in any case.
                let _ = writeln!(anstream::stderr(), "({just_now})");
                return Ok(found);
            }
            (Answer::Found(found), _) => return Ok(found),
            (Answer::Unknown { .. }, _) if looks > 0 => tokio::time::sleep(LOOK_AGAIN).await,
            (Answer::Unknown { oldest }, Question::One(id)) => {
                let unknown = read::unknown(id, oldest, None);
                let just_now = if is_open { format!(" ({just_now}.)") } else { String::new() };
                return Err(Failure::No(format!("{unknown}{just_now}")));
            }
            (Answer::Unknown { .. }, Question::Last(_)) => return Ok(Vec::new()),
            (Answer::Failed(why), _) => {
                return Err(Failure::No(format!("the ledger cannot be read: {why}")));
            }
        }
    }
}

impl LedgerArgs {
    /// The file that is meant: the one that was named, or that of the configuration.
    ///
    /// # Errors
    /// When the configuration keeps none.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        match configured(&self.config).map(|settings| settings.state) {
            Some(state) if state.path == IN_MEMORY => Err(Failure::No(format!(
                "state.path = \"{IN_MEMORY}\" in {}: nothing is kept in a file. Write a path there, or ask \
                 the running forbear with `forbear explain`",
                self.config.display()
            ))),
            Some(state) => Ok(state.path.into()),
            None => Ok(DEFAULT_PATH.into()),
        }
    }
}

/// A configuration that can be used; whoever asks about the past has other worries than a mistake
/// in it.
fn configured(path: &Path) -> Option<Settings> {
    config::load(path, &config::process_environment).ok().map(|loaded| loaded.settings)
}
