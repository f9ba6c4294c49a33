//! `forbear profile`: what is known of APIs, and whether a profile of one's own does what it says.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use super::{EXIT_USAGE, complain};
use crate::profiles::{self, Profile};

/// `forbear profile`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ProfileAction {
    /// All profiles, and the hosts to which they apply by themselves
    #[command(after_help = "Example:\n  forbear profile list")]
    List,
    /// One profile: as a summary, or as the file that it is, to begin one of your own
    #[command(after_help = "\
Examples:
  forbear profile show github
  forbear profile show github --toml > my-api.toml")]
    Show {
        /// A name of the list, or a file that ends in .toml
        name: String,
        /// The file itself
        #[arg(long)]
        toml: bool,
    },
    /// Read every answer that a profile brings along, and compare; exit code 0, or 1 if one differs
    #[command(after_help = "\
Examples:
  forbear profile test                 all that are built in
  forbear profile test ./my-api.toml")]
    Test {
        /// Names of the list, or files that end in .toml; all that are built in if none is given
        names: Vec<String>,
    },
}

/// Does it. The exit code is 0, 1 if a profile fails its test, or 2 if there is none of that name.
pub fn profile(action: &ProfileAction) -> ExitCode {
    let (text, code) = match action {
        ProfileAction::List => (list(), ExitCode::SUCCESS),
        ProfileAction::Show { name, toml } => match show(name, *toml) {
            Ok(text) => (text, ExitCode::SUCCESS),
            Err(problem) => return usage(&problem),
        },
        ProfileAction::Test { names } => match opened(names) {
            Ok(profiles) => {
                let (text, failed) = test(&profiles);
                (text, if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
            }
            Err(problem) => return usage(&problem),
        },
    };
    match write!(anstream::stdout(), "{text}") {
        Ok(()) => code,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn usage(problem: &str) -> ExitCode {
    complain(problem);
    ExitCode::from(EXIT_USAGE)
}

fn opened(names: &[String]) -> Result<Vec<Profile>, String> {
    if names.is_empty() {
        return Ok(profiles::known().cloned().collect());
    }
    names.iter().map(|name| profiles::open(name)).collect()
}

fn list() -> String {
    let width = profiles::known().map(|profile| profile.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for profile in profiles::known() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:width$}  {} ({})",
            profile.name,
            profile.title,
            if profile.origins.is_empty() {
                "where it is named".to_owned()
            } else {
                profile.origins.join(", ")
            }
        );
    }
    text
}

fn show(name: &str, toml: bool) -> Result<String, String> {
    let profile = profiles::open(name)?;
    if toml {
        return match profile.text() {
            Some(text) if profiles::find(name).is_some() => Ok(text.to_owned()),
            Some(_) | None => {
                std::fs::read_to_string(name).map_err(|error| format!("{name}: {error}"))
            }
        };
    }
    let mut text = String::new();
    let mut put = |label: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{label:<12} {value}");
        }
    };
    put("profile", &profile.name);
    put("API", &profile.title);
    put("documented", &profile.docs);
    put("differs", &profile.notes);
    put("applies to", &profile.origins.join(", "));
    for limit in &profile.limits {
        let of = if limit.of.is_empty() { "requests" } else { &limit.of };
        put("limit", &format!("{}: {} {of} in {:?}", limit.name, limit.units, limit.per));
    }
    for bucket in &profile.buckets {
        put("bucket", &format!("{}: {}", bucket.name, bucket.routes.join(", ")));
    }
    for cost in &profile.costs {
        put("cost", &format!("{}: {}", cost.route, cost.units));
    }
    let made = if profile.makes_idempotency_key { ", made where a request has none" } else { "" };
    let key = profile.idempotency_key.as_ref().map(|name| format!("{name}{made}"));
    put("idempotency", &key.unwrap_or_default());
    put("links", &profile.links.join(", "));
    for (label, time) in
        [("head within", profile.attempt_timeout), ("pieces", profile.idle_timeout)]
    {
        put(label, &time.map(|time| format!("{time:?}")).unwrap_or_default());
    }
    Ok(text)
}

fn test(profiles: &[Profile]) -> (String, bool) {
    let mut text = String::new();
    let mut failed = false;
    for profile in profiles {
        // Writing to a String cannot fail.
        let _ = match profile.test() {
            Ok(count) => {
                writeln!(text, "{}: {count} answers, all read as they should be", profile.name)
            }
            Err(failures) => {
                failed = true;
                failures.iter().try_for_each(|failure| {
                    writeln!(
                        text,
                        "{}: {}\n  should be  {}\n  is read as {}",
                        profile.name, failure.fixture, failure.expected, failure.read
                    )
                })
            }
        };
    }
    (text, failed)
}
