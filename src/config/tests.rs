//! What a person reads when a configuration is wrong; what is in force when it is right; and that
//! no secret is ever shown.

mod meaning;
mod messages;
mod push;
mod reference;
mod tracing;

use super::*;

/// The smallest useful file.
const SMALL: &str = "[upstreams.a]\nurl = \"https://a.example\"\n";

/// What must appear nowhere.
const CANARY: &str = "s3cr3t-canary";

fn load_with(text: &str) -> Result<Loaded, Problems> {
    load_str(text, "config.toml", &|name| (name == "TOKEN").then(|| CANARY.to_owned()))
}

fn good(text: &str) -> Loaded {
    load_with(text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> String {
    match load_with(text) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}
