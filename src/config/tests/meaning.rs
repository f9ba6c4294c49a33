//! Right files, and what they mean.

use std::time::Duration;

use proptest::prelude::*;

use super::super::reload::diff;
use super::super::settings::{RouteConfig, RouteMatch, Scheme, UpstreamConfig};
use super::*;
use crate::policy::settings::{BackoffFamily, Mode};

fn upstream(text: &str) -> UpstreamConfig {
    good(text).settings.upstreams.into_iter().next().unwrap()
}

fn origin_of(loaded: &Loaded, path: &str) -> (String, String) {
    let value = loaded.effective.iter().find(|value| value.path == path).unwrap();
    (value.value.clone(), value.origin.clone())
}

#[test]
fn the_smallest_file_means_the_documented_defaults() {
    let settings = good(SMALL).settings;
    assert_eq!(settings.proxy.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert!((1..=4).contains(&settings.proxy.workers));
    assert_eq!(settings.proxy.drain_idle, Duration::from_secs(1));
    assert_eq!(settings.metrics_listen, None);
    assert_eq!(settings.state.ledger_rows_max, 200_000);
    assert_eq!(settings.limits.replay_memory_max, 64 << 20);
    let upstream = &settings.upstreams[0];
    assert_eq!((upstream.origin.scheme, upstream.origin.port), (Scheme::Https, 443));
    assert_eq!((upstream.prefix.as_str(), upstream.base_path.as_str()), ("/a", ""));
    assert_eq!(upstream.replay_body_max, 1 << 20);
    let policy = &upstream.policy;
    assert_eq!((policy.in_flight_max, policy.queue_max), (16, 1_000));
    assert_eq!((policy.breaker.consecutive_failures, policy.breaker.slow_after), (5, None));
    let route = &policy.routes[0];
    assert_eq!((&*route.name, route.in_flight_max, route.mode), ("default", None, Mode::Enforce));
    assert_eq!((route.max_wait, route.retry.attempts_max.get()), (Duration::from_secs(50), 4));
    assert_eq!(route.retry.backoff.family, BackoffFamily::FullJitter);
    assert_eq!(route.retry.backoff.base, Duration::from_millis(500));
}

#[test]
fn a_route_inherits_from_its_upstream_then_from_the_defaults_then_from_what_is_built_in() {
    let loaded = good(
        "[defaults]\nmax_wait = \"15m\"\nidle_timeout = \"5m\"\nretry = { backoff = \"linear\", attempts_max = 9 }\n\
         [upstreams.a]\nurl = \"https://a.example\"\nmax_wait = \"2m\"\nretry.attempts_max = 2\n\
         [[upstreams.a.routes]]\nname = \"x\"\nmatch = \"GET /x/**\"\nmode = \"shadow\"\nretry.backoff_base = \"1s\"\n",
    );
    let upstream = &loaded.settings.upstreams[0];
    let (config, policy) = (&upstream.routes[1], &upstream.policy.routes[1]);
    assert_eq!(
        config.matcher,
        Some(RouteMatch { method: Some("GET".into()), path: "/x/**".into() })
    );
    assert_eq!(
        (policy.max_wait, config.idle_timeout),
        (Duration::from_secs(120), Duration::from_secs(300))
    );
    assert_eq!((policy.retry.attempts_max.get(), policy.mode), (2, Mode::Shadow));
    assert_eq!(
        (&policy.retry.backoff.family, policy.retry.backoff.base),
        (&BackoffFamily::Linear, Duration::from_secs(1))
    );
    assert_eq!(policy.breaker, None);
    let text = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(
        origin_of(&loaded, "upstreams.a.routes.x.max_wait"),
        text("\"2m\"", "[upstreams.a] config.toml:7:12")
    );
    assert_eq!(
        origin_of(&loaded, "upstreams.a.routes.x.idle_timeout"),
        text("\"5m\"", "[defaults] config.toml:3:16")
    );
    assert_eq!(
        origin_of(&loaded, "upstreams.a.routes.x.attempt_timeout"),
        text("\"60s\"", "default")
    );
    assert_eq!(
        origin_of(&loaded, "upstreams.a.routes.x.mode"),
        text("\"shadow\"", "config.toml:12:8")
    );
}

#[test]
fn a_breaker_table_gives_a_route_a_breaker_of_its_own() {
    let upstream = upstream(&format!(
        "{SMALL}breaker.open_for = \"7s\"\n[[upstreams.a.routes]]\nname = \"x\"\nmatch = \"/x\"\nbreaker = {{ window = \"10s\" }}\n"
    ));
    let own = upstream.policy.routes[1].breaker.as_ref().unwrap();
    assert_eq!((own.open_for, own.window), (Duration::from_secs(7), Duration::from_secs(10)));
    assert_eq!(upstream.policy.breaker.window, Duration::from_secs(60));
}

#[test]
fn the_nearer_of_steps_and_backoff_decides() {
    for (defaults, own, expected) in [
        (
            "",
            "steps = [\"1s\", \"5s\"]",
            BackoffFamily::Steps(vec![Duration::from_secs(1), Duration::from_secs(5)]),
        ),
        ("steps = [\"1s\"]", "", BackoffFamily::Steps(vec![Duration::from_secs(1)])),
        ("steps = [\"1s\"]", "backoff = \"fixed\"", BackoffFamily::Fixed),
        (
            "backoff = \"fixed\"",
            "steps = [\"1s\"]",
            BackoffFamily::Steps(vec![Duration::from_secs(1)]),
        ),
        ("", "backoff = \"uniform\"", BackoffFamily::Uniform),
        ("", "backoff = \"exponential\"", BackoffFamily::Exponential),
        ("", "backoff = \"decorrelated_jitter\"", BackoffFamily::DecorrelatedJitter),
    ] {
        let text = format!("[defaults.retry]\n{defaults}\n{SMALL}[upstreams.a.retry]\n{own}\n");
        assert_eq!(upstream(&text).policy.routes[0].retry.backoff.family, expected, "{text}");
    }
}

#[test]
fn an_address_is_taken_apart() {
    for (url, host, port, base) in [
        ("https://API.Example.com", "api.example.com", 443, ""),
        ("http://127.0.0.1:9/", "127.0.0.1", 9, ""),
        ("HTTP://[::1]:80/v1/", "::1", 80, "/v1"),
        ("https://[2001:db8:0::1]/a/b%20c", "2001:db8::1", 443, "/a/b%20c"),
    ] {
        let upstream = upstream(&format!("[upstreams.a]\nurl = \"{url}\"\n"));
        let found =
            (upstream.origin.host.as_str(), upstream.origin.port, upstream.base_path.as_str());
        assert_eq!(found, (host, port, base));
    }
}

#[test]
fn a_key_may_be_one_that_a_pattern_declares() {
    let keys = "[keys.\"tenant:*\"]\nin_flight_max = 2\n";
    assert_eq!(
        upstream(&format!("{keys}{SMALL}key = \"tenant:acme\"\n")).key.as_deref(),
        Some("tenant:acme")
    );
    assert!(problems(&format!("{keys}{SMALL}key = \"tenant:\"\n")).contains("no key of that name"));
    assert!(
        problems(&format!("{keys}{SMALL}key = \"tenant:*\"\n")).contains("no key of that name")
    );
}

#[test]
fn an_ordered_key_admits_one_whether_that_is_written_or_not() {
    for typed in ["ordered = true\n", "ordered = true\nin_flight_max = 1\n"] {
        let key = &good(&format!("[keys.\"tenant:*\"]\n{typed}{SMALL}")).settings.limits.keys[0];
        assert_eq!((key.in_flight_max, key.ordered), (1, true));
    }
    let key = &good(&format!("[keys.one]\nin_flight_max = 3\n{SMALL}")).settings.limits.keys[0];
    assert_eq!((key.in_flight_max, key.ordered), (3, false));
}

#[test]
fn listeners_on_port_zero_do_not_collide() {
    good(&format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n{SMALL}"
    ));
}

#[test]
fn a_secret_is_read_trimmed_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(folder.path().join("secret"), format!("{CANARY}\r\n")).unwrap();
    std::fs::write(
        &path,
        format!("[admin]\ntoken.env = \"TOKEN\"\n{SMALL}credential = {{ prefix = \"Bearer \", file = \"secret\" }}\n"),
    )
    .unwrap();
    let loaded = load(&path, &|_| Some(CANARY.into())).unwrap();
    let credential = loaded.settings.upstreams[0].credential.as_ref().unwrap();
    assert_eq!(credential.value.reveal(), format!("Bearer {CANARY}"));
    assert_eq!(
        (credential.header.as_str(), credential.source.as_str()),
        ("authorization", "file secret")
    );
    assert_eq!(loaded.settings.watched_files, [folder.path().join("secret")]);
    assert_eq!(loaded.settings.admin.token.as_ref().unwrap().reveal(), CANARY);
    let shown = format!("{loaded:?}{}", serde_json::to_string(&loaded.effective).unwrap());
    assert!(!shown.contains(CANARY), "{shown}");
}

#[test]
fn a_reload_says_what_changes_and_what_needs_a_restart() {
    let old = good(&format!("{SMALL}credential.env = \"TOKEN\"\n[keys.one]\nin_flight_max = 1\n"));
    let new = load_str(
        "[proxy]\nlisten = \"127.0.0.1:9000\"\n[upstreams.a]\nurl = \"https://a.example\"\nin_flight_max = 8\n\
         credential.env = \"TOKEN\"\n[upstreams.b]\nurl = \"https://b.example\"\nlisten = \"127.0.0.1:9001\"\n",
        "config.toml",
        &|_| Some("another".into()),
    )
    .unwrap();
    let changes = diff(&old.settings, &new.settings);
    assert_eq!(
        changes.lines,
        [
            "keys.one: removed",
            "proxy.listen: 127.0.0.1:8080 → 127.0.0.1:9000",
            "upstreams.a.credential: changed",
            "upstreams.a.in_flight_max: 16 → 8",
            "upstreams.b.listen: not set → 127.0.0.1:9001",
            "upstreams.b: added",
        ]
    );
    assert_eq!(
        changes.restart_needed,
        [
            "proxy.listen: 127.0.0.1:8080 → 127.0.0.1:9000",
            "upstreams.b.listen: not set → 127.0.0.1:9001"
        ]
    );
}

#[test]
fn equal_configurations_do_not_differ() {
    let text =
        format!("{SMALL}[[upstreams.a.routes]]\nname = \"x\"\nmatch = \"/x\"\nbreaker = {{}}\n");
    assert_eq!(diff(&good(&text).settings, &good(&text).settings), reload::Changes::default());
}

#[test]
fn the_hash_follows_the_text() {
    assert_eq!(good(SMALL).content_hash, good(SMALL).content_hash);
    assert_ne!(good(SMALL).content_hash, good(&format!("{SMALL}\n")).content_hash);
}

/// Pieces of which mostly wrong files are made.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,8}",
        "[\\[\\]{}=\"'#.,:0-9a-z\\n ]{0,12}",
        prop::sample::select(vec![
            "[upstreams.a]\n",
            "[[upstreams.a.routes]]\n",
            "[upstreams.a.retry]\n",
            "[keys.\"x:*\"]\n",
            "url = ",
            "\"https://a.example\"\n",
            "name = \"x\"\n",
            "match = \"/é*\"\n",
            "listen = [",
            "max_wait = 1",
            "in_flight_max = -1\n",
            "credential = { env = \"TOKEN\" }\n",
            "failure_rate = nan\n",
            "backoff_base = \"1m30s\"\n",
            "\"\"\"",
            "\r\n",
            "\u{feff}",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn no_text_panics_and_every_position_is_in_the_file(pieces in prop::collection::vec(piece(), 0..12)) {
        let text = pieces.concat();
        if let Err(Problems(problems)) = load_with(&text) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(problem.line <= text.matches('\n').count() + 1);
                prop_assert!(problem.column <= text.chars().count() + 1);
                problem.render(problem::Severity::Error);
            }
        }
    }
}

#[test]
fn a_profile_is_found_by_the_host_and_can_be_named_instead() {
    let profile = |text: &str| upstream(text).profile.map(|name| name.to_string());
    assert_eq!(
        profile("[upstreams.x]\nurl = \"https://api.github.com\"\n").as_deref(),
        Some("github")
    );
    let enterprise = "[upstreams.x]\nurl = \"https://git.example\"\n";
    assert_eq!(profile(enterprise), None);
    let named = format!("{enterprise}profile = \"github\"\n");
    assert_eq!(profile(&named).as_deref(), Some("github"));
    assert!(!upstream(&named).dialect.signatures.is_empty());
    let found = good("[upstreams.x]\nurl = \"https://api.github.com\"\n");
    assert_eq!(
        origin_of(&found, "upstreams.x.profile"),
        ("\"github\"".to_owned(), "host of url".to_owned())
    );
}

#[test]
fn units_of_an_upstream_beat_those_of_its_profile() {
    use crate::policy::profile::Unit;
    let units = |more: &str| {
        let text = format!("[upstreams.x]\nurl = \"https://api.kucoin.com\"\n{more}");
        let dialect = upstream(&text).dialect;
        (dialect.retry_after_unit, dialect.reset_unit)
    };
    assert_eq!(units(""), (None, Some(Unit::Millis)));
    let both = "reset_unit = \"s\"\nretry_after_unit = \"ms\"\n";
    assert_eq!(units(both), (Some(Unit::Millis), Some(Unit::Seconds)));
}

#[test]
fn time_outs_that_an_api_needs_hold_where_nothing_else_was_typed() {
    let times = |more: &str| {
        let route = "[[upstreams.x.routes]]\nname = \"r\"\nmatch = \"GET /r\"\n";
        let text = format!("[upstreams.x]\nurl = \"https://api.anthropic.com\"\n{more}{route}");
        let routes = upstream(&text).routes;
        let seconds =
            |route: &RouteConfig| (route.attempt_timeout.as_secs(), route.idle_timeout.as_secs());
        (seconds(&routes[0]), seconds(&routes[1]))
    };
    assert_eq!(times(""), ((600, 300), (600, 300)));
    assert_eq!(times("attempt_timeout = \"9s\"\n"), ((9, 300), (9, 300)));
    assert_eq!(times("[defaults]\nidle_timeout = \"9s\"\n"), ((600, 9), (600, 9)));
    let found = good("[upstreams.x]\nurl = \"https://api.anthropic.com\"\n");
    assert_eq!(
        origin_of(&found, "upstreams.x.attempt_timeout"),
        ("\"10m\"".to_owned(), "profile anthropic".to_owned())
    );
}

#[test]
fn the_field_of_a_profile_makes_a_request_repeatable() {
    let key = |url: &str| upstream(&format!("[upstreams.x]\nurl = \"{url}\"\n")).idempotency_key;
    assert_eq!(key("https://api.stripe.com").unwrap(), "idempotency-key");
    assert_eq!(key("https://api.github.com"), None);
}

#[test]
fn idempotency_keys_are_made_where_that_is_typed_or_the_api_is_known_to_honour_them() {
    let makes = |host: &str, more: &str| {
        let text = format!("[upstreams.x]\nurl = \"https://{host}\"\n{more}");
        upstream(&text).makes_idempotency_key
    };
    let typed = |word: &str| format!("[upstreams.x.retry]\nidempotency_key = \"{word}\"\n");
    assert!(!makes("a.example", "") && !makes("api.openai.com", ""));
    assert!(makes("a.example", &typed("generate")));
    assert!(makes("api.stripe.com", ""));
    assert!(!makes("api.stripe.com", &typed("forward")));
    let everywhere = "[defaults.retry]\nidempotency_key = \"forward\"\n";
    assert!(!makes("api.stripe.com", everywhere));
    let found = good("[upstreams.x]\nurl = \"https://api.stripe.com\"\n");
    assert_eq!(
        origin_of(&found, "upstreams.x.retry.idempotency_key"),
        ("\"generate\"".to_owned(), "profile stripe".to_owned())
    );
}

#[test]
fn a_profile_can_be_a_file_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("mine.toml", "extends = \"github\"\nreset_unit = \"ms\"\n");
    write("config.toml", "[upstreams.x]\nurl = \"https://a.example\"\nprofile = \"mine.toml\"\n");
    let settings = load(&folder.path().join("config.toml"), &|_| None).unwrap().settings;
    assert_eq!(settings.upstreams[0].profile.as_deref(), Some("mine"));
    assert!(!settings.upstreams[0].dialect.signatures.is_empty());
    assert_eq!(settings.watched_files, [folder.path().join("mine.toml")]);
    write("mine.toml", "colour = 1\n");
    let problems = load(&folder.path().join("config.toml"), &|_| None).unwrap_err();
    assert!(problems.to_string().contains("unknown field `colour`"), "{problems}");
}

#[test]
fn a_misspelt_profile_is_a_problem_with_a_suggestion() {
    let text = "[upstreams.x]\nurl = \"https://a.example\"\nprofile = \"githup\"\n";
    let problems = load_str(text, "config.toml", &|_| None).unwrap_err();
    assert!(problems.to_string().contains("Did you mean \"github\"?"), "{problems}");
    assert!(!problems.to_string().contains(".."), "one full stop is enough: {problems}");
}
