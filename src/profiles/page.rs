//! The chapter of the README about known APIs, made from the profiles, so that it cannot lie.
//!
//! A test compares; `FORBEAR_WRITE_README=1 cargo test --lib the_readme_has_the_table` writes it.

use std::fmt::Write;

use super::{Profile, known};

/// Two lines between which the chapter stands in `README.md`.
pub const MARKS: (&str, &str) =
    ("<!-- profiles: generated, see src/profiles/page.rs -->\n", "<!-- /profiles -->\n");

/// The table of all profiles, in Markdown.
pub fn table() -> String {
    let mut page = String::from(
        "| profile | API | what is different | also known | applies to |\n|---|---|---|---|---|\n",
    );
    for profile in known() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | [{}]({}) | {} | {} | {} |",
            profile.name,
            profile.title,
            profile.docs,
            cell(&profile.notes),
            also_known(profile),
            origins(profile)
        );
    }
    page
}

fn origins(profile: &Profile) -> String {
    /// More would make the table unreadable; `forbear profile show` has all.
    const SHOWN: usize = 2;
    let mut shown: Vec<_> =
        profile.origins.iter().take(SHOWN).map(|origin| format!("`{origin}`")).collect();
    if profile.origins.len() > SHOWN {
        shown.push("…".to_owned());
    }
    if shown.is_empty() { "where it is named".to_owned() } else { shown.join(", ") }
}

/// What else of the API is known, besides how its answers are read.
fn also_known(profile: &Profile) -> String {
    let mut facts = Vec::new();
    if !profile.buckets.is_empty() {
        let names = profile.buckets.iter().map(|bucket| format!("`{}`", bucket.name));
        facts.push(format!("buckets {}", names.collect::<Vec<_>>().join(", ")));
    }
    if !profile.costs.is_empty() {
        facts.push("costs of requests".to_owned());
    }
    if let Some(name) = &profile.idempotency_key {
        let made = if profile.makes_idempotency_key { ", made where it is missing" } else { "" };
        facts.push(format!("`{name}`{made}"));
    }
    if !profile.links.is_empty() {
        facts.push("links in bodies".to_owned());
    }
    if let Some(time) = profile.attempt_timeout {
        facts.push(format!("slow answers ({} s)", time.as_secs()));
    }
    facts.join("; ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
