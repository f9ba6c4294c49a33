//! `[metrics.push]` and `proxy.idle_exit`: what is typed, and what is refused.

use std::time::Duration;

use super::super::reload::diff;
use super::super::settings::PushSettings;
use super::*;

const PUSH: &str = "[metrics.push]\nurl = \"https://push.example/metrics/job/nightly/\"\n";

fn push(table: &str) -> PushSettings {
    good(&format!("{table}{SMALL}")).settings.metrics_push.unwrap()
}

#[test]
fn the_address_is_taken_as_it_is_typed_and_a_listener_is_not_needed() {
    let PushSettings { origin, path, instance, headers } = push(PUSH);
    assert_eq!((origin.host.as_str(), origin.port), ("push.example", 443));
    assert_eq!((path.as_str(), instance, headers.len()), ("/metrics/job/nightly", false, 0));
    assert!(push(&format!("{PUSH}instance = true\n")).instance);
    let both = format!("[metrics]\nlisten = \"127.0.0.1:9464\"\n{PUSH}{SMALL}");
    let settings = good(&both).settings;
    assert!(settings.metrics_listen.is_some() && settings.metrics_push.is_some());
    assert_eq!(good(&format!("{PUSH}{SMALL}")).settings.metrics_listen, None);
}

#[test]
fn without_a_path_nobody_could_tell_whose_metrics_they_are() {
    for url in ["http://pushgateway:9091", "http://pushgateway:9091/"] {
        let told = problems(&format!("[metrics.push]\nurl = \"{url}\"\n{SMALL}"));
        assert!(told.contains("config.toml:2:7: metrics.push.url"), "{told}");
        assert!(told.contains("/metrics/job/nightly"), "{told}");
    }
}

#[test]
fn an_empty_table_says_what_is_missing() {
    let told = problems(&format!("[metrics.push]\n{SMALL}"));
    assert!(told.contains("metrics.push.url: it is missing"), "{told}");
    let told = problems(&format!("[metrics]\n{SMALL}"));
    assert!(told.contains("metrics.listen: it is missing"), "{told}");
}

#[test]
fn a_field_has_its_secret_and_nobody_shows_it() {
    let header = "[metrics.push.headers.authorization]\nprefix = \"Basic \"\nenv = \"TOKEN\"\n";
    let loaded = good(&format!("{PUSH}{header}{SMALL}"));
    assert!(!format!("{loaded:?}").contains(CANARY), "{loaded:?}");
    assert!(!format!("{:?}", loaded.effective).contains("Basic"), "{:?}", loaded.effective);
    let [(name, value)] = &loaded.settings.metrics_push.unwrap().headers[..] else { panic!("one") };
    assert_eq!((&**name, value.reveal()), ("authorization", &*format!("Basic {CANARY}")));
}

#[test]
fn idle_exit_is_off_unless_it_is_set_and_not_zero() {
    let idle_exit = |text: &str| good(&format!("{text}{SMALL}")).settings.proxy.idle_exit;
    assert_eq!(idle_exit(""), None);
    assert_eq!(idle_exit("[proxy]\nidle_exit = \"10m\"\n"), Some(Duration::from_secs(600)));
    let zero = problems(&format!("[proxy]\nidle_exit = \"0s\"\n{SMALL}"));
    assert!(zero.contains("proxy.idle_exit"), "{zero}");
}

#[test]
fn a_reload_says_what_changed_and_needs_no_restart() {
    let settings = |text: &str| good(&format!("{text}{SMALL}")).settings;
    let on = format!("[proxy]\nidle_exit = \"10m\"\n{PUSH}");
    let changes = diff(&settings(""), &settings(&on));
    assert_eq!(changes.lines, ["metrics.push: added", "proxy.idle_exit: not set → 10m"]);
    assert!(changes.restart_needed.is_empty());
}
