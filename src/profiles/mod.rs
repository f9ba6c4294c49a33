//! Known APIs, as data: one TOML file for each, embedded, with its own examples.
//!
//! A profile says what no reader can guess: which fields an API writes in its own way, which
//! answers are refusals in disguise, what its documentation promises. `file` is what stands in
//! such a file, `compile` makes of it what the reader in [`policy`](crate::policy) needs, and
//! `fixtures` holds every profile to the answers that it brings along. A user's own file has the
//! same form, and may extend one that is embedded.

/// A file that is embedded, read when it is first asked for: a forbear meets few of these APIs, and
/// is started often.
struct Embedded {
    name: &'static str,
    text: &'static str,
    /// Every file is read by an ordinary test; a broken one is none, not a crash.
    profile: LazyLock<Option<Profile>>,
}

macro_rules! embedded {
    ($name:literal) => {
        Embedded {
            name: $name,
            text: include_str!(concat!($name, ".toml")),
            profile: LazyLock::new(|| parse(include_str!(concat!($name, ".toml")), $name).ok()),
        }
    };
}

mod compile;
mod file;
mod fixtures;
pub mod page;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::HeaderName;

pub use self::fixtures::Failure;
use crate::policy::profile::Profile as Dialect;

/// One known API.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name in configurations.
    pub name: Arc<str>,
    /// What it is, for people.
    pub title: String,
    /// Where its limits are documented.
    pub docs: String,
    /// Hosts of its origins, lower case; a leading `*.` stands for any labels.
    pub origins: Vec<String>,
    /// What the reader needs.
    pub dialect: Arc<Dialect>,
    /// What differs from the generic reading, in a sentence for people.
    pub notes: String,
    /// Documented limits.
    pub limits: Vec<Limit>,
    /// Which routes share a quota.
    pub buckets: Vec<Bucket>,
    /// What requests cost, where that is not one.
    pub costs: Vec<Cost>,
    /// The field by which a request can be repeated safely, if the API has one.
    pub idempotency_key: Option<HeaderName>,
    /// Whether requests without it may be given one: the API says that it does no harm.
    pub makes_idempotency_key: bool,
    /// Where bodies have addresses of the API, as dotted paths.
    pub links: Vec<String>,
    /// Until the head of a response, where the usual time is too short.
    pub attempt_timeout: Option<Duration>,
    /// Between two pieces of a response, where the usual time is too short.
    pub idle_timeout: Option<Duration>,
    /// Answers that it must read rightly.
    fixtures: Vec<file::Fixture>,
    /// As it was written, so that another can extend it.
    source: Arc<file::File>,
}

/// A limit that is documented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it is of.
    pub name: String,
    /// How much.
    pub units: u64,
    /// In which time.
    pub per: Duration,
    /// The header that counts it by its name, or what it is of.
    pub of: String,
}

/// Routes that share a quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// As the API's own fields call it, where they do.
    pub name: String,
    /// An optional method and a path, as in `match` of a route.
    pub routes: Vec<String>,
}

/// What a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// An optional method and a path, as in `match` of a route.
    pub route: String,
    /// Units of quota.
    pub units: u64,
}

/// The embedded files. A list, so that nothing has to be read at build time; a test holds it to
/// the folder.
static EMBEDDED: [Embedded; 39] = [
    embedded!("airtable"),
    embedded!("amazon-sp-api"),
    embedded!("anthropic"),
    embedded!("atlassian-dc"),
    embedded!("aws"),
    embedded!("azure-openai"),
    embedded!("basecamp"),
    embedded!("binance"),
    embedded!("bluesky"),
    embedded!("bybit"),
    embedded!("discord"),
    embedded!("generic"),
    embedded!("github"),
    embedded!("gitlab"),
    embedded!("google"),
    embedded!("hubspot"),
    embedded!("jira"),
    embedded!("kraken"),
    embedded!("kucoin"),
    embedded!("linear"),
    embedded!("mediawiki"),
    embedded!("meta"),
    embedded!("monday"),
    embedded!("notion"),
    embedded!("okta"),
    embedded!("openai"),
    embedded!("reddit"),
    embedded!("riot"),
    embedded!("salesforce"),
    embedded!("sentry"),
    embedded!("shopify"),
    embedded!("slack"),
    embedded!("strava"),
    embedded!("stripe"),
    embedded!("toggl"),
    embedded!("trello"),
    embedded!("twilio"),
    embedded!("xero"),
    embedded!("zendesk"),
];

/// Every embedded profile, in the order of their names.
pub fn known() -> impl Iterator<Item = &'static Profile> {
    EMBEDDED.iter().filter_map(|file| file.profile.as_ref())
}

/// The embedded profile of that name.
pub fn find(name: &str) -> Option<&'static Profile> {
    EMBEDDED.iter().find(|file| file.name == name)?.profile.as_ref()
}

/// The embedded profile that applies to a host (lower case).
pub fn for_host(host: &str) -> Option<&'static Profile> {
    let exact = |origin: &String| origin == host;
    let below = |origin: &String| {
        origin.strip_prefix('*').is_some_and(|end| host.len() > end.len() && host.ends_with(end))
    };
    // Whichever origin matches ends in these, so only files in which they stand need be read.
    let labels = host.rmatch_indices('.').nth(1).map_or(host, |(at, _)| host.split_at(at + 1).1);
    let candidates: Vec<_> = EMBEDDED
        .iter()
        .filter(|file| file.text.contains(labels))
        .filter_map(|file| file.profile.as_ref())
        .collect();
    let with = |matches: &dyn Fn(&String) -> bool| {
        candidates.iter().copied().find(|profile| profile.origins.iter().any(matches))
    };
    with(&exact).or_else(|| with(&below))
}

/// Whether a name is that of a file and not of an embedded profile.
pub fn is_file(name: &str) -> bool {
    name.ends_with(".toml") || name.contains('/')
}

/// Reads a profile that is not embedded.
///
/// # Errors
/// A sentence that says what is wrong, and where.
pub fn parse(text: &str, name: &str) -> Result<Profile, String> {
    let file: file::File = toml::from_str(text).map_err(|error| format!("{name}: {error}"))?;
    compile::compile(file, name)
}

/// The profile that a name means: an embedded one, or a file.
///
/// # Errors
/// A sentence that says what is wrong, and what would be right.
pub fn open(name: &str) -> Result<Profile, String> {
    if let Some(known) = find(name) {
        return Ok(known.clone());
    }
    if is_file(name) {
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|error| format!("{name} cannot be read: {error}"))?;
        return parse(&text, name);
    }
    Err(unknown(name))
}

/// Says that there is no profile of that name, and which is near.
pub fn unknown(name: &str) -> String {
    let near = EMBEDDED
        .iter()
        .map(|file| (strsim::damerau_levenshtein(name, file.name), file.name))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance);
    let near = near.map(|(_, near)| format!("Did you mean {near:?}? ")).unwrap_or_default();
    format!(
        "there is no profile {name:?}. {near}`forbear profile list` shows all; a file of your own \
         ends in .toml."
    )
}

impl Profile {
    /// Reads every fixture, and compares.
    ///
    /// # Errors
    /// Every fixture that was not read as it says.
    pub fn test(&self) -> Result<usize, Vec<Failure>> {
        let failures: Vec<_> =
            self.fixtures.iter().filter_map(|fixture| fixture.check(&self.dialect)).collect();
        if failures.is_empty() { Ok(self.fixtures.len()) } else { Err(failures) }
    }

    /// The file's own text.
    pub fn text(&self) -> Option<&'static str> {
        EMBEDDED.iter().find(|file| *file.name == *self.name).map(|file| file.text)
    }
}
