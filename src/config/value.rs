//! Values that were read and make sense by themselves, and how they are printed.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::address::Url;
use super::settings::RouteMatch;
use super::units::{print_duration, print_size};

/// A value that was read and makes sense by itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Duration(Duration),
    Durations(Vec<Duration>),
    Size(u64),
    Count(u64),
    Share(f64),
    Flag(bool),
    Text(String),
    Addresses(Vec<SocketAddr>),
    Url(Url),
    Hosts(Vec<String>),
    Match(RouteMatch),
}

impl Value {
    /// As it would be typed in the file.
    pub(super) fn print(&self) -> String {
        let list = |items: Vec<String>| match items.as_slice() {
            [one] => one.clone(),
            _ => format!("[{}]", items.join(", ")),
        };
        match self {
            Self::Duration(duration) => quoted(&print_duration(*duration)),
            Self::Durations(all) => {
                let all: Vec<String> =
                    all.iter().map(|duration| quoted(&print_duration(*duration))).collect();
                format!("[{}]", all.join(", "))
            }
            Self::Size(bytes) => quoted(&print_size(*bytes)),
            Self::Count(count) => count.to_string(),
            Self::Share(share) if *share > 1.0 => quoted("off"),
            Self::Share(share) => format!("{share:?}"),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) => quoted(text),
            Self::Addresses(all) => {
                list(all.iter().map(|address| quoted(&address.to_string())).collect())
            }
            Self::Url(url) => quoted(&url.print()),
            Self::Hosts(all) => list(all.iter().map(|host| quoted(host)).collect()),
            Self::Match(route) => quoted(&print_match(route)),
        }
    }
}

/// `GET /search/*`.
pub(super) fn print_match(route: &RouteMatch) -> String {
    match &route.method {
        Some(method) => format!("{method} {}", route.path),
        None => route.path.clone(),
    }
}

/// What a wrong value looks like in a message.
pub(super) fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 60 => "a long text".into(),
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
