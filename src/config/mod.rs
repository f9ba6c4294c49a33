//! What was typed becomes what is meant.
//!
//! `read` turns text into sections, held against the declarations in `spec`; `resolve` and
//! `upstream` turn sections into [`settings::Settings`], with defaults, inheritance and secrets.
//! Either everything is right, or every problem is told at once. The rest of the program never
//! sees the file.

pub mod carrier;
pub mod problem;
pub mod reload;
pub mod schema;
pub mod secret;
pub mod settings;
pub mod units;
pub mod watch;

mod address;
mod kind;
mod layout;
mod quota;
mod read;
mod repeat;
mod resolve;
mod scope;
mod sources;
mod spec;
mod trace;
mod upstream;
mod value;

#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use self::problem::{Fault, Notes, Problem, Problems};
pub use self::scope::EffectiveValue;
use self::scope::Resolver;
use self::settings::Settings;
use self::sources::Sources;
pub use self::sources::{Environment, read_again};

/// The way out of having no configuration.
const FIRST_FILE: &str = "Correct the name, or create the file: the two lines [upstreams.github] \
                          and url = \"https://api.github.com\" are enough.";

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is meant.
    pub settings: Settings,
    /// Every value in force, in the order of their paths.
    pub effective: Vec<EffectiveValue>,
    /// What is doubtful.
    pub warnings: Vec<Problem>,
    /// Of the file and the watched files; equal as long as nothing has changed. Only meant to be
    /// compared within one process.
    pub content_hash: u64,
}

/// Reads a configuration file.
///
/// # Errors
/// Every problem of the file, in the order of their positions.
pub fn load(path: &Path, env: &Environment<'_>) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let unusable = |fault: Fault| {
        let mut notes = Notes::new(&name, "");
        notes.problem(&(0..0), "", None, fault);
        match notes.finish() {
            Ok(none) => Problems(none),
            Err(problems) => problems,
        }
    };
    let bytes = sources::read_bounded(path).map_err(|error| {
        // Often the very first thing that somebody meets.
        let is_missing = error.kind() == std::io::ErrorKind::NotFound;
        let missing = || Fault::new("there is no such file", FIRST_FILE);
        unusable(if is_missing { missing() } else { sources::unreadable(&error) })
    })?;
    if bytes.len() as u64 > sources::FILE_MAX {
        return Err(unusable(Fault::new("that file is larger than 1 MiB", "Name the right file.")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| unusable(Fault::new("that file is not UTF-8 text", "Save it as UTF-8.")))?;
    load_text(&text, &name, path.parent().unwrap_or(Path::new("")), env)
}

/// Reads a configuration that is not in a file; files it names are sought from the working
/// directory.
///
/// # Errors
/// Every problem of the text, in the order of their positions.
pub fn load_str(text: &str, file_name: &str, env: &Environment<'_>) -> Result<Loaded, Problems> {
    load_text(text, file_name, Path::new(""), env)
}

/// The environment of this process, for [`load`]. A variable that is not UTF-8 is as good as unset.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn load_text(
    text: &str,
    name: &str,
    folder: &Path,
    env: &Environment<'_>,
) -> Result<Loaded, Problems> {
    let mut notes = Notes::new(name, text);
    let root = read::read(text, &mut notes);
    if notes.syntax_is_broken() {
        // Half a file resolves to nonsense, and nonsense would be reported.
        return Err(notes.finish().err().unwrap_or(Problems(Vec::new())));
    }
    let mut resolver = Resolver { notes: &mut notes, effective: Vec::new() };
    let settings = resolve::resolve(&root, &mut Sources::new(env, folder), &mut resolver);
    let mut effective = resolver.effective;
    effective.sort_by(|a, b| a.path.cmp(&b.path));
    let warnings = notes.finish()?;
    let content_hash = content_hash(text.as_bytes(), &settings.watched_files);
    Ok(Loaded { settings, effective, warnings, content_hash })
}

/// A hash of the configuration and of everything it was made from.
fn content_hash(text: &[u8], watched: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    for path in watched {
        path.hash(&mut hasher);
        sources::read_bounded(path).ok().hash(&mut hasher);
    }
    hasher.finish()
}
