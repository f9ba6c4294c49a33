//! `[tracing]`: what is typed, what the environment says instead, and what is refused.
#![cfg(feature = "otlp")]

use super::super::reload::diff;
use super::super::settings::TracingSettings;
use super::*;

const VARIABLES: [(&str, &str); 3] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example/otlp"),
    ("OTEL_SERVICE_NAME", "nightly"),
    ("TOKEN", CANARY),
];

fn load_in(environment: &[(&str, &str)], table: &str) -> Result<Loaded, Problems> {
    let variable = |name: &str| {
        let found = environment.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    load_str(&format!("{table}\n{SMALL}"), "config.toml", &variable)
}

fn tracing(environment: &[(&str, &str)], table: &str) -> TracingSettings {
    let loaded = load_in(environment, table).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.settings.tracing.unwrap()
}

fn told(environment: &[(&str, &str)], table: &str) -> String {
    load_in(environment, table).unwrap_err().to_string()
}

#[test]
fn without_the_table_nothing_is_exported_whatever_the_environment_says() {
    assert_eq!(load_in(&VARIABLES, "").unwrap().settings.tracing, None);
}

#[test]
fn an_empty_table_means_a_collector_beside_and_every_trace() {
    let tracing = tracing(&[], "[tracing]");
    assert_eq!((tracing.origin.host.as_str(), tracing.origin.port), ("127.0.0.1", 4318));
    assert_eq!((tracing.base_path.as_str(), tracing.service_name.as_str()), ("", "forbear"));
    assert_eq!((tracing.sample, tracing.headers.len()), (1.0, 0));
}

#[test]
fn the_environment_comes_before_the_default_and_after_what_is_typed() {
    let from_environment = tracing(&VARIABLES, "[tracing]");
    assert_eq!(from_environment.origin.host, "collector.example");
    assert_eq!((from_environment.origin.port, &*from_environment.base_path), (443, "/otlp"));
    assert_eq!(from_environment.service_name, "nightly");
    let typed = "[tracing]\nendpoint = \"http://c:4318/\"\nservice_name = \"mine\"\nsample = 0.1";
    let typed = tracing(&VARIABLES, typed);
    assert_eq!((&*typed.origin.host, &*typed.base_path), ("c", ""));
    assert_eq!((&*typed.service_name, typed.sample), ("mine", 0.1));
    assert_eq!(tracing(&[("OTEL_SERVICE_NAME", "")], "[tracing]").service_name, "forbear");

    let effective = load_in(&VARIABLES, "[tracing]").unwrap().effective;
    let origin = |path: &str| {
        let value = effective.iter().find(|value| value.path == path).unwrap();
        (value.value.clone(), value.origin.clone())
    };
    let (value, from) = origin("tracing.service_name");
    assert_eq!((&*value, &*from), ("\"nightly\"", "env OTEL_SERVICE_NAME"));
    assert_eq!(origin("tracing.sample").1, "default");
}

#[test]
fn a_field_for_the_collector_has_its_secret_and_nobody_shows_it() {
    let table = "[tracing.headers.authorization]\nprefix = \"Bearer \"\nenv = \"TOKEN\"";
    let loaded = load_in(&VARIABLES, table).unwrap();
    assert!(!format!("{loaded:?}").contains(CANARY), "{loaded:?}");
    assert!(!format!("{:?}", loaded.effective).contains("Bearer"), "{:?}", loaded.effective);
    let [(name, value)] = &loaded.settings.tracing.unwrap().headers[..] else { panic!("one") };
    assert_eq!((&**name, value.reveal()), ("authorization", &*format!("Bearer {CANARY}")));
}

#[test]
fn what_cannot_be_is_told_with_its_place() {
    let framing = told(&VARIABLES, "[tracing.headers.content-length]\nenv = \"TOKEN\"");
    assert!(framing.contains("tracing.headers.content-length"), "{framing}");
    let missing = told(&[], "[tracing.headers.x-key]\nenv = \"TOKEN\"");
    assert!(missing.contains("tracing.headers.x-key.env"), "{missing}");
    assert!(told(&[], "[tracing]\nsample = 1.5").contains("a share from 0 to 1"));
    let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:s3cr3t-canary@collector")];
    let wrong = told(&wrong, "[tracing]");
    assert!(wrong.contains("OTEL_EXPORTER_OTLP_ENDPOINT is no address"), "{wrong}");
    assert!(!wrong.contains(CANARY), "{wrong}");
}

#[test]
fn a_reload_says_what_changed_and_needs_no_restart() {
    let settings = |table: &str| load_in(&VARIABLES, table).unwrap().settings;
    let (off, on) = (settings(""), settings("[tracing]"));
    assert_eq!(diff(&off, &on).lines, ["tracing: added"]);
    assert_eq!(diff(&on, &off).lines, ["tracing: removed"]);
    let header = "[tracing.headers.x-key]\nenv = \"TOKEN\"\n";
    let prefixed = format!("{header}prefix = \"a\"\n[tracing]\nsample = 0.5");
    let changes = diff(&settings(header), &settings(&prefixed));
    assert_eq!(changes.lines, ["tracing.headers.x-key: changed", "tracing.sample: 1 → 0.5"]);
    assert!(changes.restart_needed.is_empty());
}
