//! What is kept is found again, and no clock makes a pause longer.

use super::*;

const NOW: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

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
    let loaded = crate::config::load_str(text, "test.toml", &|_| None).unwrap();
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
