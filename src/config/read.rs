//! From text to sections: TOML is parsed, keys are held against the declarations, and every value
//! is read by its kind. What is wrong is noted with its position, and reading goes on, so that one
//! mistake never hides another.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::{Kind, NameRule, nearest};
use super::problem::{Fault, Notes, Span, may_hold_a_secret};
use super::spec::{self, Setting};
use super::value::{Value, show};

/// One table of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// As it was typed: `upstreams.github.retry`; empty for the file itself.
    pub(super) path: String,
    /// Its header, or the key it stands behind.
    pub(super) span: Span,
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) tables: BTreeMap<&'static str, Section>,
    /// Tables with names of the user's choice.
    pub(super) named: BTreeMap<&'static str, Vec<(String, Section)>>,
    pub(super) lists: BTreeMap<&'static str, Vec<Section>>,
}

/// A value as it was typed.
#[derive(Debug)]
pub(super) struct Given {
    /// `None` if it was wrong, which has been noted.
    pub(super) value: Option<Value>,
    pub(super) span: Span,
}

impl Section {
    fn new(path: String, span: Span) -> Self {
        let (values, tables, named, lists) = Default::default();
        Self { path, span, values, tables, named, lists }
    }

    /// The tables of a setting with names of the user's choice.
    pub(super) fn named(&self, name: &str) -> &[(String, Self)] {
        self.named.get(name).map_or(&[], Vec::as_slice)
    }

    /// The elements of a `[[…]]` setting.
    pub(super) fn list(&self, name: &str) -> &[Self] {
        self.lists.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Reads a whole file. Where its syntax is broken, only that and what is surely wrong is noted.
pub(super) fn read(source: &str, notes: &mut Notes<'_>) -> Section {
    let (root, errors) = DeTable::parse_recoverable(source);
    for error in &errors {
        notes.syntax(&error.span().unwrap_or(0..0), error.message());
    }
    let section =
        read_section(notes, Section::new(String::new(), 0..0), root.get_ref(), spec::ROOT);
    if !errors.is_empty() {
        notes.forget_echoes_of_syntax();
    }
    section
}

fn read_section(
    notes: &mut Notes<'_>,
    mut section: Section,
    table: &DeTable<'_>,
    known: &'static [Setting],
) -> Section {
    for (key, value) in table {
        let path = join(&section.path, key.get_ref());
        match spec::find(known, key.get_ref()) {
            Some(setting) => read_setting(notes, &mut section, setting, &path, key.span(), value),
            None => unknown(notes, &section.path, key.get_ref(), &key.span(), known),
        }
    }
    // A file without upstreams gets a better answer than this one.
    let at_top = section.path.is_empty();
    for setting in known.iter().filter(|setting| setting.required && !at_top) {
        if !section.values.contains_key(setting.name) {
            let path = join(&section.path, setting.name);
            let fault = Fault::new(
                "it is missing and has no default",
                format!("{} Write {}.", setting.doc, example(setting)),
            );
            notes.problem(&section.span, &path, None, fault);
        }
    }
    section
}

fn read_setting(
    notes: &mut Notes<'_>,
    section: &mut Section,
    setting: &'static Setting,
    path: &str,
    key: Span,
    value: &Spanned<DeValue<'_>>,
) {
    let name = setting.name;
    match setting.kind {
        Kind::Table(known) => {
            let fix = format!("Write [{path}] with its settings below, or {name} = {{ … }}.");
            if let Some(table) = expect_table(notes, value, path, fix) {
                let child = Section::new(path.to_owned(), key);
                section.tables.insert(name, read_section(notes, child, table, known));
            }
        }
        Kind::Named(rule, known) => {
            let fix = format!("Write [{path}.NAME] with its settings below.");
            if let Some(table) = expect_table(notes, value, path, fix) {
                section.named.insert(name, read_named(notes, path, table, rule, known));
            }
        }
        Kind::List(known) => {
            let children = read_list(notes, path, value, known);
            section.lists.insert(name, children);
        }
        kind @ (Kind::Duration { .. }
        | Kind::Durations
        | Kind::Size
        | Kind::Count { .. }
        | Kind::Share { .. }
        | Kind::Flag
        | Kind::Text
        | Kind::Prefix
        | Kind::Choice(_)
        | Kind::Workers
        | Kind::Name
        | Kind::Address
        | Kind::Addresses
        | Kind::Url
        | Kind::PathPrefix
        | Kind::Hosts
        | Kind::Match
        | Kind::Header) => {
            let read = kind.read(value.get_ref());
            let value_or_none = read
                .map_err(|fault| {
                    notes.problem(&value.span(), path, found(path, value.get_ref()), fault)
                })
                .ok();
            section.values.insert(name, Given { value: value_or_none, span: value.span() });
        }
    }
}

fn read_named(
    notes: &mut Notes<'_>,
    path: &str,
    table: &DeTable<'_>,
    rule: NameRule,
    known: &'static [Setting],
) -> Vec<(String, Section)> {
    let mut sections = Vec::new();
    for (key, value) in table {
        let name = key.get_ref();
        let path = join(path, name);
        if let Err(fault) = rule.check(name) {
            notes.problem(&key.span(), &path, Some(format!("the name {name:?}")), fault);
        }
        let fix = format!(
            "If {name} is its name, write [{path}] with its settings below; else put the name into the header above."
        );
        if let Some(table) = expect_table(notes, value, &path, fix) {
            let section = Section::new(path, key.span());
            sections.push((name.to_string(), read_section(notes, section, table, known)));
        }
    }
    sections
}

fn read_list(
    notes: &mut Notes<'_>,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    known: &'static [Setting],
) -> Vec<Section> {
    let fix = format!("Write [[{path}]] with two brackets, once for each.");
    let Some(items) = value.get_ref().as_array() else {
        let found = kind_of(value.get_ref());
        notes.problem(
            &value.span(),
            path,
            Some(found),
            Fault::new("a list of tables belongs here", fix),
        );
        return Vec::new();
    };
    let mut sections = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let label = item.get_ref().get("name").and_then(|name| name.get_ref().as_str());
        let path = match label.filter(|label| NameRule::Plain.check(label).is_ok()) {
            Some(label) => join(path, label),
            None => format!("{path}[{index}]"),
        };
        if let Some(table) = expect_table(notes, item, &path, fix.clone()) {
            let section = Section::new(path, item.span());
            sections.push(read_section(notes, section, table, known));
        }
    }
    sections
}

fn expect_table<'t, 'i>(
    notes: &mut Notes<'_>,
    value: &'t Spanned<DeValue<'i>>,
    path: &str,
    fix: String,
) -> Option<&'t DeTable<'i>> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        // The value itself is not repeated: a secret is often typed where its source belongs.
        let found = kind_of(value.get_ref());
        notes.problem(&value.span(), path, Some(found), Fault::new("a table belongs here", fix));
    }
    table
}

fn kind_of(value: &DeValue<'_>) -> String {
    match value.type_str() {
        "string" => "a text".into(),
        "integer" => "an integer".into(),
        "array" => "a list".into(),
        other => format!("a {other}"),
    }
}

/// What may be shown of a wrong value: nothing, where it may be a secret.
fn found(path: &str, value: &DeValue<'_>) -> Option<String> {
    let shown = show(value);
    let secret = may_hold_a_secret(path) || may_hold_a_secret(&shown);
    (!secret).then_some(shown)
}

/// Names from other tools, and what they are called here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("max_retries", "attempts_max"),
    ("max_attempts", "attempts_max"),
    ("retries", "retry"),
    ("circuit_breaker", "breaker"),
    ("base_url", "url"),
    ("address", "url"),
    ("timeout", "attempt_timeout"),
    ("max_concurrency", "in_flight_max"),
    ("concurrency", "in_flight_max"),
    ("max_in_flight", "in_flight_max"),
    ("rate_limit", "quotas"),
    ("port", "listen"),
];

fn unknown(notes: &mut Notes<'_>, table: &str, key: &str, span: &Span, known: &'static [Setting]) {
    let names = || known.iter().map(|setting| setting.name);
    let inner_table = |name: &str| {
        known.iter().find(|inner| {
            matches!(inner.kind, Kind::Table(entries) if spec::find(entries, name).is_some())
        })
    };
    let renamed = ELSEWHERE.into_iter().find(|(theirs, _)| *theirs == key).map(|(_, ours)| ours);
    let name = renamed.unwrap_or(key);
    let fix = if spec::find(known, name).is_some() {
        format!("Here it is called {name}.")
    } else if let Some(inner) = inner_table(name) {
        format!("Write {name} below [{}].", join(table, inner.name))
    } else if let Some(near) = nearest(key, names()) {
        format!("Did you mean {near}?")
    } else if spec::find(spec::UPSTREAM, name).is_some() {
        format!("{name} belongs to one upstream: write it below [upstreams.NAME].")
    } else {
        format!("Possible here: {}.", names().collect::<Vec<_>>().join(", "))
    };
    notes.problem(span, &join(table, key), None, Fault::new("there is no such setting", fix));
}

fn example(setting: &Setting) -> String {
    let value = match setting.name {
        "url" => r#""https://api.example.com""#,
        "listen" => r#""0.0.0.0:9464""#,
        "match" => r#""GET /search/*""#,
        "per" => r#""1h""#,
        "name" => r#""search""#,
        "requests" => "5000",
        _ => "1",
    };
    format!("{} = {value}", setting.name)
}

/// A path as it would be typed: names that are no bare keys are quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
