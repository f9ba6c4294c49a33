//! What can stand at the right of an equals sign: kinds of settings, and how each is read.
//!
//! A kind reads a value from TOML, prints it again, and describes itself to the JSON Schema.
//! Built-in defaults are texts that go through the same reading, so they cannot be of a form that
//! a file could not have.

use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::address::{self, Url};
use super::problem::Fault;
use super::spec::Setting;
use super::units::{DURATION_FIX, parse_duration, parse_size};
use super::value::Value;

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `"30s"`; zero only where it has a meaning.
    Duration { zero: bool },
    /// `["1s", "5s"]`, at least one.
    Durations,
    /// `"64KiB"`.
    Size,
    /// A whole number; `why` and `fix` are said when it is too small.
    Count { min: u64, max: u64, why: &'static str, fix: &'static str },
    /// A share above 0 and at most 1; 0 or `"off"` only where that has a meaning.
    Share { zero: bool, off: bool },
    /// `true` or `false`.
    Flag,
    /// Any text that is not empty.
    Text,
    /// Text that may be empty.
    Prefix,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `"auto"` or a number.
    Workers,
    /// Lower-case letters, digits, hyphens and underscores.
    Name,
    /// A listening address.
    Address,
    /// One or several of them.
    Addresses,
    /// Address of an upstream.
    Url,
    /// What the paths of an upstream begin with.
    PathPrefix,
    /// Host names, one or several.
    Hosts,
    /// Method and path pattern.
    Match,
    /// A field name that forbear may set.
    Header,
    /// A table.
    Table(&'static [Setting]),
    /// Tables with names of the user's choice.
    Named(NameRule, &'static [Setting]),
    /// `[[…]]`.
    List(&'static [Setting]),
}

/// What a name of the user's choice may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameRule {
    /// As [`Kind::Name`].
    Plain,
    /// `ingestion`, `tenant:*`.
    Key,
}

impl Kind {
    /// Reads a value of this kind; tables are walked by `read`, not here.
    pub(super) fn read(self, value: &DeValue<'_>) -> Result<Value, Fault> {
        match self {
            Self::Duration { zero } => read_duration(value, zero).map(Value::Duration),
            Self::Durations => read_durations(value),
            Self::Size => parse_size(text_or_number(value)?).map(Value::Size),
            Self::Count { min, max, why, fix } => read_count(value, min, max, Fault::new(why, fix)),
            Self::Share { zero, off } => read_share(value, zero, off),
            Self::Flag => value.as_bool().map(Value::Flag).ok_or_else(|| {
                Fault::new(
                    "it is a choice between true and false",
                    "Write true or false, without quotes.",
                )
            }),
            Self::Text => match text(value)? {
                "" => Err(Fault::new("it is empty", "Write a value, or take the line out.")),
                text => Ok(Value::Text(text.to_owned())),
            },
            Self::Prefix => field_value(text(value)?),
            Self::Choice(words) => read_choice(value.as_str(), words),
            Self::Workers if value.as_str() == Some("auto") => Ok(Value::Text("auto".into())),
            Self::Workers => {
                read_count(value, 1, 256, Fault::new("without a worker nothing is served", ""))
                    .map_err(|fault| {
                        Fault::new(fault.why, r#"Write "auto", or a number from 1 to 256."#)
                    })
            }
            Self::Name => {
                let name = text(value)?;
                NameRule::Plain.check(name).map(|()| Value::Text(name.to_owned()))
            }
            Self::Address => read_address(value).map(|address| Value::Addresses(vec![address])),
            Self::Addresses => one_or_more(value, read_address).map(Value::Addresses),
            Self::Url => Url::parse(text(value)?).map(Value::Url),
            Self::PathPrefix => address::prefix(text(value)?).map(Value::Text),
            Self::Hosts => {
                one_or_more(value, |host| address::listed_host(text(host)?)).map(Value::Hosts)
            }
            Self::Match => address::route_match(text(value)?).map(Value::Match),
            Self::Header => header_name(text(value)?).map(Value::Text),
            Self::Table(_) | Self::Named(..) | Self::List(_) => Err(Fault::new(
                "a table belongs here",
                "Write its settings below a [header] of its own.",
            )),
        }
    }

    /// Reads a built-in default, which is written as in the file but without quotes.
    pub(super) fn read_default(self, default: &str) -> Result<Value, Fault> {
        if matches!(self, Self::Count { .. } | Self::Share { .. } | Self::Flag) {
            let value = DeValue::parse(default).map_err(|e| Fault::new(e.message(), ""))?;
            return self.read(value.get_ref());
        }
        self.read(&DeValue::String(default.into()))
    }
}

impl NameRule {
    /// Whether a name is of the right form.
    pub(super) fn check(self, name: &str) -> Result<(), Fault> {
        let legal =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        let (stem, extra, fix) = match self {
            Self::Plain => (
                name,
                "",
                "Begin with a lower-case letter or a digit, and go on with those, - and _.",
            ),
            Self::Key => {
                let stem = name.strip_suffix(":*").unwrap_or(name);
                (
                    stem,
                    ".:",
                    "Begin with a letter or a digit, go on with those and . _ - :, and write name:* for a pattern.",
                )
            }
        };
        let key = self == Self::Key;
        let first = stem.bytes().next().is_some_and(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || (key && b.is_ascii_uppercase())
        });
        let rest = stem
            .bytes()
            .all(|b| legal(b) || extra.as_bytes().contains(&b) || (key && b.is_ascii_uppercase()));
        if first && rest && name.len() <= NAME_MAX {
            return Ok(());
        }
        let why = format!(
            "names become parts of paths, headers and labels, with at most {NAME_MAX} characters"
        );
        Err(Fault::new(why, fix))
    }
}

/// Names stand in labels, headers and columns: 64 characters keep those readable.
const NAME_MAX: usize = 64;

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, Fault> {
    let fix = "Put one value between double quotes.";
    value.as_str().ok_or_else(|| Fault::new("a text belongs here", fix))
}

/// A text, or a bare number, about which the caller has something better to say.
fn text_or_number<'a>(value: &'a DeValue<'_>) -> Result<&'a str, Fault> {
    let integer = value.as_integer().map(|number| number.as_str());
    match integer.or_else(|| value.as_float().map(|number| number.as_str())) {
        Some(number) => Ok(number),
        None => text(value),
    }
}

fn read_duration(value: &DeValue<'_>, zero: bool) -> Result<Duration, Fault> {
    let other = |_| Fault::new("that is no duration", DURATION_FIX);
    let duration = parse_duration(text_or_number(value).map_err(other)?)?;
    if duration.is_zero() && !zero {
        return Err(Fault::new("no time at all is never enough", r#"Write at least "1ms"."#));
    }
    Ok(duration)
}

fn read_durations(value: &DeValue<'_>) -> Result<Value, Fault> {
    let fix = r#"Write a list such as ["1s", "5s", "30s"]."#;
    let items = value.as_array().ok_or_else(|| Fault::new("it is a list of durations", fix))?;
    if items.is_empty() {
        return Err(Fault::new("an empty list names no wait", fix));
    }
    items
        .iter()
        .map(|item| read_duration(item.get_ref(), true))
        .collect::<Result<_, _>>()
        .map(Value::Durations)
}

fn read_count(value: &DeValue<'_>, min: u64, max: u64, too_small: Fault) -> Result<Value, Fault> {
    let range = format!("Write a number from {min} to {max}.");
    let DeValue::Integer(number) = value else {
        return Err(Fault::new("it is a whole number without quotes", range));
    };
    match i128::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) if number < 0 => Err(Fault::new("it cannot be negative", range)),
        Ok(number) if number < i128::from(min) => Err(too_small),
        Ok(number) if number <= i128::from(max) => {
            Ok(Value::Count(u64::try_from(number).unwrap_or(max)))
        }
        Ok(_) | Err(_) => Err(Fault::new(format!("more than {max} is not supported"), range)),
    }
}

fn read_share(value: &DeValue<'_>, zero: bool, off: bool) -> Result<Value, Fault> {
    if off && value.as_str() == Some("off") {
        return Ok(Value::Share(SHARE_OFF));
    }
    let fix = match (zero, off) {
        (_, true) => r#"Write a share such as 0.5, or "off"."#,
        (true, false) => "Write a share such as 0.2; 1.0 is all, 0 is none.",
        (false, false) => "Write a share such as 0.5; 1.0 is all.",
    };
    let number = if value.is_str() { None } else { text_or_number(value).ok() };
    match number.and_then(|number| number.parse::<f64>().ok()) {
        Some(share) if share > 0.0 && share <= 1.0 || (zero && share == 0.0) => {
            Ok(Value::Share(share))
        }
        Some(_) | None if zero => Err(Fault::new("it is a share from 0 to 1", fix)),
        Some(_) | None => Err(Fault::new("it is a share above 0 and at most 1", fix)),
    }
}

/// The policy takes a rate above 1 as "this detector is off": it can never be reached.
const SHARE_OFF: f64 = 2.0;

/// `None` stands for what is no text.
fn read_choice(word: Option<&str>, words: &[&str]) -> Result<Value, Fault> {
    if let Some(word) = word.filter(|word| words.contains(word)) {
        return Ok(Value::Text(word.to_owned()));
    }
    let all: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let fix = match word.and_then(|word| nearest(word, words.iter().copied())) {
        Some(near) => format!("Did you mean {near:?}? Possible are {}.", all.join(", ")),
        None => format!("Possible are {}.", all.join(", ")),
    };
    Err(Fault::new("there is no such choice", fix))
}

/// The word that was probably meant, if one is close enough.
pub(super) fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = |word: &&str| strsim::damerau_levenshtein(typed, word) <= (word.len() / 3).max(1);
    let likeness = |word: &&str| strsim::damerau_levenshtein(typed, word);
    words.filter(close).min_by_key(likeness)
}

fn read_address(value: &DeValue<'_>) -> Result<SocketAddr, Fault> {
    address::listener(text_or_number(value)?)
}

fn one_or_more<T>(
    value: &DeValue<'_>,
    read: impl Fn(&DeValue<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    match value.as_array() {
        Some(items) if items.is_empty() => {
            Err(Fault::new("the list is empty", "Write at least one, or take the line out."))
        }
        Some(items) => items.iter().map(|item| read(item.get_ref())).collect(),
        None => read(value).map(|one| vec![one]),
    }
}

/// Visible ASCII, spaces and tabs: what RFC 9110 section 5.5 lets a field value be, without the
/// obsolete bytes above 0x7F that some servers refuse.
pub(super) fn is_field_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

fn field_value(text: &str) -> Result<Value, Fault> {
    if text.bytes().all(is_field_value_byte) {
        return Ok(Value::Text(text.to_owned()));
    }
    Err(Fault::new(
        "it has a character that cannot stand in a header",
        "Use visible ASCII characters and spaces.",
    ))
}

pub(super) fn header_name(text: &str) -> Result<String, Fault> {
    /// Fields that belong to one connection (RFC 9110 section 7.6.1) or to the framing.
    const OWN: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = text.to_ascii_lowercase();
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(Fault::new(
            "that is no header name",
            r#"Write it like "authorization" or "x-api-key"."#,
        ));
    }
    let fix = r#"Name the header in which the API expects its key, such as "authorization"."#;
    if OWN.contains(&name.as_str()) {
        return Err(Fault::new(format!("forbear sets or removes {name} itself"), fix));
    }
    if name.starts_with("forbear-") {
        return Err(Fault::new("fields of forbear's own are never sent to an upstream", fix));
    }
    Ok(name)
}
