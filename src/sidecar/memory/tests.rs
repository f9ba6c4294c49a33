//! What is kept is found again, and no clock makes a pause longer.

use super::*;
use crate::config;
use crate::gateway::Common;
use crate::gateway::clock::Clock;
use crate::telemetry::access::AccessLogger;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tests::logged;
use crate::telemetry::writer::LogWriter;

pub(super) const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

/// With one upstream, whose breaker stays open for five minutes at most.
pub(super) fn gateway() -> Gateway {
    let text = "[upstreams.api]\nurl = \"http://a.example\"\nbreaker.open_for_max = \"5m\"\n";
    let settings = Arc::new(config::load_str(text, "test.toml", &|_| None).unwrap().settings);
    let metrics = Arc::new(Metrics::new());
    let log = LogWriter::start(std::io::sink(), metrics.log_lines_dropped.clone()).unwrap();
    let common = Common::new(Clock::pinned(NOW), metrics, &settings);
    let access = AccessLogger::new(settings.log, log);
    Gateway::build(settings, access, &common, None).unwrap()
}

#[test]
fn whatever_is_not_restored_as_it_was_is_named_once() {
    let gateway = gateway();
    let until = Some(WallTime { unix_ms: NOW.unix_ms + 4_000_000_000_000 });
    let row = |kind: &str, scope: &str, origin: &str, data| {
        let (upstream, scope) = ("api".to_owned(), scope.to_owned());
        let value = StateValue { origin: origin.to_owned(), since: Some(NOW), until, data };
        (StateKey { upstream, kind: kind.to_owned(), scope }, value)
    };
    let held = json!({ "state": "forced_open", "reason": "maintenance" });
    let cooldown = json!({ "wait_ms": 1_000, "credential": null });
    let saved = StateRows::from([
        row(BREAKER, "upstream", "http://a.example", held.clone()),
        row(BREAKER, "route search", "http://b.example", held),
        row(COOLDOWN, "credential 1f", "http://a.example", json!({})),
        row(COOLDOWN, "upstream", "http://a.example", cooldown),
    ]);

    let ((), said) = logged(|| restore(&gateway, &saved));

    for (scope, message, times) in [
        ("scope=\"upstream\"", "longer than anybody can have meant", 2),
        ("scope=\"credential 1f\"", "not understood", 1),
        ("scope=\"route search\"", "not held any more", 1),
    ] {
        let lines = said.lines().filter(|line| line.contains(scope) && line.contains(message));
        assert_eq!(lines.count(), times, "{scope} {message}\n{said}");
    }
    let kept = gateway.upstreams[0].state.with(|policy, cx| policy.saved(cx.now));
    assert_eq!((kept.breakers.len(), kept.cooldowns.len()), (1, 1));
    let month = MonoTime::ZERO + Duration::from_secs(32 * 86_400);
    assert!(kept.cooldowns[0].1.until < month);
}

#[test]
fn whatever_named_a_time_is_told_apart_after_a_restart() {
    for source in SOURCES {
        let found = SOURCES.into_iter().find(|it| source_word(*it) == source_word(source));
        assert_eq!(found, Some(source));
    }
}

fn anchor() -> TimeAnchor {
    TimeAnchor { mono: MonoTime::from_nanos(5_000_000_000), wall: NOW }
}

/// Begun and to end so many milliseconds from now.
fn told(since: i64, until: i64) -> (StateKey, StateValue) {
    let at = |ms: i64| Some(WallTime { unix_ms: NOW.unix_ms + ms });
    let (upstream, kind) = ("github".to_owned(), COOLDOWN.to_owned());
    let key = StateKey { upstream, kind, scope: "upstream".to_owned() };
    let origin = "https://api.example".to_owned();
    (key, StateValue { origin, since: at(since), until: at(until), data: json!({}) })
}

#[test]
fn nothing_ends_earlier_than_told_and_nothing_lasts_longer_than_it_did() {
    let day = 86_400_000;
    let text = "[upstreams.github]\nurl = \"https://api.example\"\n";
    let loaded = config::load_str(text, "test.toml", &|_| None).unwrap();
    let settings = &loaded.settings.upstreams[0].policy;
    for (since, until, left) in [
        (-10_000, 50_000, 50_000),
        (-60_000, -1, 0),
        // The clock was set back a day, and forward a year.
        (day - 10_000, day + 50_000, 60_000),
        (-365 * day, -365 * day + 60_000, 0),
    ] {
        let (key, value) = told(since, until);
        let ends = remaining(&key, &value, value.until.unwrap(), anchor(), settings);
        let expected = Duration::from_millis(left + 1);
        assert_eq!(ends.since(anchor().mono), expected, "{since} to {until}");
    }
}

#[test]
fn a_scope_is_found_again_by_its_row() {
    for scope in [
        SavedScope::Whole,
        SavedScope::Credential(CredentialId(7)),
        SavedScope::Credential(CredentialId::default()),
        SavedScope::Route("search".into(), CredentialId::default()),
        SavedScope::Route("search".into(), CredentialId(u64::MAX)),
        SavedScope::Bucket("core".into(), CredentialId(7)),
    ] {
        assert_eq!(scope_of(&of_scope(&scope, json!({}))), Some(scope));
    }
}

#[test]
fn a_breaker_is_open_since_it_opened_also_while_it_is_tried_again() {
    let (_, mut old) = told(-60_000, -30_000);
    old.data = json!({ "state": "open" });
    let since = |state: &str, until| began(Some(&old), &json!({ "state": state }), until, NOW);
    assert_eq!(since("open", old.until), old.since.unwrap());
    assert_eq!(since("half_open", None), old.since.unwrap());
    assert_eq!(since("open", Some(NOW)), NOW);
    assert_eq!(since("forced_open", old.until), NOW);
}

#[test]
fn what_refusals_taught_is_read_as_it_was_written_or_not_at_all() {
    let until = Some(MonoTime::from_nanos(7));
    let read = |kind: &str, data: Value| {
        let (_, value) = told(0, 1);
        learned(kind, &StateValue { data, ..value }, until)
    };
    let cycle = json!({
        "burst": 10, "length_ms": 1_000, "served": 12, "failed_tries": 2,
        "route": "search", "bucket": null, "credential": null,
    });
    let expected = SavedCycle {
        burst: 10,
        length: Duration::from_secs(1),
        served: 12,
        failed_tries: 2,
        until: MonoTime::from_nanos(7),
    };
    let scope = SavedScope::Route("search".into(), CredentialId::default());
    assert_eq!(read(CYCLE, cycle.clone()), Some((scope, Learned::Cycle(expected))));
    assert_eq!(read(LIMIT, cycle), None);
    let limit = json!({ "limit": 3, "refused_at": null, "failed_tries": 0, "credential": null });
    let Some((SavedScope::Whole, Learned::Limit(limit))) = read(LIMIT, limit) else {
        panic!("it is a limit of the whole upstream");
    };
    assert_eq!((limit.limit, limit.refused_at), (3, None));
    let wild = json!({ "limit": -3, "refused_at": 1e300, "failed_tries": 0, "credential": null });
    assert_eq!(read(LIMIT, wild), None);
}
