//! `config.toml` and the declarations say the same.

use std::collections::BTreeSet;

use super::super::problem::Notes;
use super::super::read::{Section, read};
use super::super::spec::{self, Setting};
use super::super::value::Value;
use super::*;

const REFERENCE: &str = include_str!("../../../config.toml");

/// The reference with every setting switched on, the examples, too.
fn uncommented() -> String {
    let setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let switch_on = |line: &str| {
        if setting(line) { line[1..].to_owned() } else { line.to_owned() }
    };
    REFERENCE.lines().map(|line| switch_on(line) + "\n").collect()
}

/// Every declared value, as `upstreams.*.retry.backoff`.
fn declared() -> BTreeSet<String> {
    fn collect(at: &str, settings: &[Setting], paths: &mut BTreeSet<String>) {
        for setting in settings {
            let path = format!("{at}{}", setting.name);
            if setting.entries().is_empty() {
                assert!(paths.insert(path.clone()), "{path} is declared twice");
            } else if matches!(setting.kind, kind::Kind::Table(_)) {
                collect(&format!("{path}."), setting.entries(), paths);
            } else {
                collect(&format!("{path}.*."), setting.entries(), paths);
            }
        }
    }
    let mut paths = BTreeSet::new();
    collect("", spec::ROOT, &mut paths);
    paths
}

/// Every value of a file by its path, with names of the user's choice as `*`.
fn typed(section: &Section, at: &str, found: &mut Vec<(String, Value)>) {
    for (name, given) in &section.values {
        found.push((format!("{at}{name}"), given.value.clone().unwrap()));
    }
    for (name, inner) in &section.tables {
        typed(inner, &format!("{at}{name}."), found);
    }
    for (name, inner) in &section.named {
        inner.iter().for_each(|(_, inner)| typed(inner, &format!("{at}{name}.*."), found));
    }
    for (name, inner) in &section.lists {
        inner.iter().for_each(|inner| typed(inner, &format!("{at}{name}.*."), found));
    }
}

fn reference_values() -> Vec<(String, Value)> {
    let text = uncommented();
    let mut notes = Notes::new("config.toml", &text);
    let root = read(&text, &mut notes);
    if let Err(problems) = notes.finish() {
        panic!("{problems}");
    }
    let mut found = Vec::new();
    typed(&root, "", &mut found);
    found
}

fn setting_at(path: &str) -> &'static Setting {
    let mut settings = spec::ROOT;
    let mut found = None;
    for name in path.split('.').filter(|name| *name != "*") {
        let setting = spec::find(settings, name).unwrap();
        settings = setting.entries();
        found = Some(setting);
    }
    found.unwrap()
}

#[test]
fn the_reference_itself_loads_without_a_problem_or_a_warning() {
    assert_eq!(good(REFERENCE).warnings, []);
}

#[test]
fn the_reference_means_the_same_as_its_two_active_lines() {
    let two_lines = "[upstreams.github]\nurl = \"https://api.github.com\"\n";
    assert_eq!(good(REFERENCE).settings, good(two_lines).settings);
}

#[test]
fn every_declared_setting_stands_in_the_reference() {
    let typed: BTreeSet<String> = reference_values().into_iter().map(|(path, _)| path).collect();
    // What [defaults] takes is explained where it stands for an upstream.
    let missing: Vec<String> = declared()
        .into_iter()
        .filter(|path| match path.strip_prefix("defaults.") {
            Some(inherited) => !declared().contains(&format!("upstreams.*.{inherited}")),
            None => !typed.contains(path),
        })
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_default_in_the_reference_is_the_one_in_force() {
    // Settings whose default is worth an example beside it.
    let examples = [
        "upstreams.*.credential.prefix",
        "tracing.headers.*.prefix",
        "metrics.push.headers.*.prefix",
    ];
    let mut compared = 0;
    for (path, value) in reference_values() {
        let setting = setting_at(&path);
        if let Some(default) = setting.default.filter(|_| !examples.contains(&path.as_str())) {
            assert_eq!(Ok(value), setting.kind.read_default(default), "{path}");
            compared += 1;
        }
    }
    let with_default = declared().into_iter().filter(|path| {
        !path.starts_with("defaults.")
            && !examples.contains(&path.as_str())
            && setting_at(path).default.is_some()
    });
    assert_eq!(compared, with_default.count());
}

#[test]
fn every_built_in_default_is_a_legal_value() {
    for path in declared() {
        let setting = setting_at(&path);
        if let Some(default) = setting.default {
            let value = setting
                .kind
                .read_default(default)
                .unwrap_or_else(|fault| panic!("{path}: {fault:?}"));
            // What is printed can be typed.
            let typed =
                toml::de::DeValue::parse(Box::leak(value.print().into_boxed_str())).unwrap();
            assert_eq!(setting.kind.read(typed.get_ref()), Ok(value), "{path}");
        }
    }
}

#[test]
fn the_schema_describes_every_declared_setting_and_no_other() {
    fn collect(at: &str, schema: &serde_json::Value, paths: &mut BTreeSet<String>) {
        for (name, property) in schema["properties"].as_object().unwrap() {
            let path = format!("{at}{name}");
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 3), "{path}");
            if property.get("properties").is_some() {
                collect(&format!("{path}."), property, paths);
            } else if property["additionalProperties"].is_object() {
                collect(&format!("{path}.*."), &property["additionalProperties"], paths);
            } else if property["items"].get("properties").is_some() {
                collect(&format!("{path}.*."), &property["items"], paths);
            } else {
                paths.insert(path);
            }
        }
    }
    let mut paths = BTreeSet::new();
    collect("", &schema::schema(), &mut paths);
    assert_eq!(paths, declared());
}

#[test]
fn everything_in_force_is_listed_with_its_origin() {
    let text = uncommented()
        .lines()
        .filter(|line| !line.contains("/run/") && !line.contains("/etc/"))
        .filter(|line| !line.starts_with("steps") && !line.starts_with("credential_from"))
        .collect::<Vec<_>>()
        .join("\n");
    let text = text
        .replace("\"FORBEAR_ADMIN_TOKEN\"", "\"TOKEN\"")
        .replace("\"GITHUB_TOKEN\"", "\"TOKEN\"")
        .replace("\"PUSHGATEWAY_TOKEN\"", "\"TOKEN\"")
        .replace("\"COLLECTOR_TOKEN\"", "\"TOKEN\"");
    let shared = text.find("[state.shared]").unwrap()..text.find("[log]").unwrap();
    let mut text = text;
    text.replace_range(shared, "");
    let effective = good(&text).effective;
    assert!(effective.is_sorted_by(|a, b| a.path < b.path), "something is listed twice");
    let listed: BTreeSet<String> = effective
        .into_iter()
        .map(|value| {
            let path = value
                .path
                .replace("keys.ingestion", "keys.*")
                .replace("keys.\"tenant:*\"", "keys.*");
            path.replace(".github.", ".*.")
                .replace("headers.authorization.", "headers.*.")
                .replace("quotas.core.", "quotas.*.")
                .replace("routes.search.", "routes.*.")
        })
        .collect();
    // Inherited, not available, only from files, or given in the other form.
    let absent = [
        "defaults.",
        "state.shared.",
        "upstreams.*.c",
        "upstreams.*.credential.file",
        "admin.token.file",
        "tracing.headers.*.file",
        "metrics.push.headers.*.file",
    ];
    for path in declared() {
        let excused =
            absent.iter().any(|start| path.starts_with(start)) || path.ends_with(".steps");
        assert!(excused || listed.contains(&path), "{path} is not listed");
    }
}
