//! `forbear explain`: the time line of one exchange, or a list of the last ones.
//!
//! A running forbear is asked through its admin listener. Where none runs, the file is read: the
//! question "why did it take so long" often comes when the job and its sidecar are gone.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::client::{Client, ClientError, segment};
use super::control::Failure;
use super::{ExplainArgs, LedgerArgs, timeline};
use crate::config;
use crate::config::settings::StateSettings;
use crate::store::file::{IN_MEMORY, open_to_read};
use crate::store::read::{self, Answer, Filter, LIST_MAX, Question};
use crate::store::view::ExchangeView;

/// Where the ledger is unless the configuration says otherwise.
const DEFAULT_PATH: &str = "forbear.db";

/// Asks and draws.
///
/// # Errors
/// When there is no such exchange, or nobody to ask.
pub async fn explain(client: &Client, args: &ExplainArgs) -> Result<(), Failure> {
    let question = match &args.id {
        Some(id) => Question::One(id.clone()),
        None => Question::Last(Filter {
            last: args.last.clamp(1, LIST_MAX),
            run: args.run.clone(),
            upstream: args.upstream.clone(),
            failed: args.failed,
        }),
    };
    let found = if args.ledger.file.is_some() {
        from_file(&question, &args.ledger)?
    } else {
        match client.get(&path_of(&question)).await {
            Ok(answer) => understood(answer)?,
            Err(nobody @ ClientError::NobodyThere(_)) => {
                if !args.ledger.path()?.exists() {
                    let path = args.ledger.path()?.display().to_string();
                    return Err(Failure::No(format!(
                        "{nobody}; and there is no ledger at {path}: name the file with --ledger"
                    )));
                }
                from_file(&question, &args.ledger)?
            }
            Err(error) => return Err(error.into()),
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

fn from_file(question: &Question, ledger: &LedgerArgs) -> Result<Vec<ExchangeView>, Failure> {
    let connection = open_to_read(&ledger.path()?).map_err(Failure::No)?;
    match read::answer(&connection, question) {
        Answer::Found(found) => Ok(found),
        Answer::Unknown { oldest } => {
            let id = match question {
                Question::One(id) => id.as_str(),
                Question::Last(_) => "",
            };
            Err(Failure::No(read::unknown(id, oldest, None)))
        }
        Answer::Failed(why) => Err(Failure::No(format!("the ledger cannot be read: {why}"))),
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
        match configured(&self.config) {
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

/// `[state]` of a configuration that can be used; whoever asks about the past has other worries
/// than a mistake in it.
fn configured(path: &Path) -> Option<StateSettings> {
    config::load(path, &config::process_environment).ok().map(|loaded| loaded.settings.state)
}
