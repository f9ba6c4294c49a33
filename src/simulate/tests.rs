//! Models against the reader of responses, and inference against limits that are known.

use super::figures::Counter;
use super::infer::{Quota, Seen, Word, model};
use super::model::{Hints, Limiter, Model, QuotaFields, Told, owner};
use super::past;
use super::workload::{Api, Typed, Workload, api_of, world};
use crate::config::load_str;
use crate::config::settings::Settings;
use crate::policy::classify::answered;
use crate::policy::hints::Response;
use crate::policy::line::{BucketId, FlowId};
use crate::policy::outcome::Class;
use crate::policy::time::{MonoTime, WallTime};
use crate::profiles;
use http::Method;
use std::time::Duration;

const START: WallTime = WallTime { unix_ms: 1_768_471_200_000 };

fn job() -> Workload {
    Workload {
        clients: 8,
        requests: 40,
        rate: None,
        latency: Duration::from_millis(20),
        method: Method::GET,
        path: "/".to_owned(),
        outage: None,
    }
}

#[test]
fn every_profile_reads_the_refusal_of_its_model_and_waits_as_long_as_is_needed() {
    for profile in profiles::known() {
        let text = format!(
            "[upstreams.api]\nurl = \"https://api.example\"\nprofile = \"{}\"\n",
            profile.name
        );
        let loaded = load_str(&text, "test.toml", &|_| None).unwrap();
        let api = api_of(profile, &loaded.settings.upstreams[0], &job());
        let window = Duration::from_secs(10);
        let mut model = Model::new(Limiter::Fixed { max: 1, window }, api.hints, window);
        model.fields = api.fields;
        let mut rng = fastrand::Rng::with_seed(1);
        let now = MonoTime::from_nanos(3_500_000_000);
        model.receive(now, Told::default(), &mut rng);
        let (status, headers) = model.receive(now, Told::default(), &mut rng).result.unwrap();
        let response =
            Response { status, headers: &headers, body: None, received: START, server: None };
        let outcome = answered(response, &profile.dialect).0;
        assert_eq!(outcome.class, Class::Throttled, "{}: {headers:?}", profile.name);
        let wait = outcome.reading.hint.expect("a wait is told").wait;
        let range = Duration::from_millis(6_500)..=Duration::from_secs(70);
        assert!(range.contains(&wait), "{}: {wait:?} from {headers:?}", profile.name);
    }
}

#[test]
fn every_profile_s_documented_limit_can_be_simulated() {
    for profile in profiles::known() {
        let text = format!(
            "[upstreams.api]\nurl = \"https://api.example\"\nprofile = \"{}\"\n",
            profile.name
        );
        let loaded = load_str(&text, "test.toml", &|_| None).unwrap();
        let api = api_of(profile, &loaded.settings.upstreams[0], &job());
        let mut world = world(&loaded.settings, 0, &job(), &api, 1).unwrap();
        world.run();
        let figures = world.watch.figures();
        assert_eq!(figures.requests, 40, "{}", profile.name);
        let rejected: u64 = figures.rejected.values().sum();
        let all = figures.ok + figures.failed + figures.throttled + rejected;
        assert_eq!(all, 40, "{}: {figures:?}", profile.name);
    }
}

/// What a client sees that sends every `step` seconds, and after a refusal waits as it is told.
fn history(limiter: Limiter, hints: Hints, step: f64, lasts: f64) -> Vec<Seen> {
    let mut api = Model::new(limiter, hints, Duration::from_millis(20));
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut at, mut seen) = (0.0, Vec::new());
    while at < lasts {
        let now = MonoTime::ZERO + Duration::from_secs_f64(at);
        let reply = api.receive(now, Told::default(), &mut rng);
        api.done();
        let took = reply.after.as_secs_f64();
        let (status, headers) = reply.result.unwrap();
        let response =
            Response { status, headers: &headers, body: None, received: START, server: None };
        let outcome = answered(response, &crate::policy::profile::GENERIC).0;
        let hint = outcome.reading.hint.as_ref();
        let told = hint.map(|hint| hint.wait.as_secs_f64());
        let word = if status == 429 {
            Word::Refused { hint: told, source: hint.map(|hint| hint.source.name().to_owned()) }
        } else {
            Word::Good
        };
        let quota = outcome.reading.quotas.first().map(|quota| Quota {
            limit: quota.limit.and_then(|limit| usize::try_from(limit).ok()),
            remaining: quota.remaining as f64,
            reset: quota.reset.map(|reset| reset.as_secs_f64()),
        });
        seen.push(Seen { at, took, word, weight: 1, whose: "".into(), quota });
        at += told.filter(|_| status == 429).map_or(step, |told| told + took);
    }
    seen
}

#[test]
fn a_window_is_inferred_from_its_refusals_with_its_size_and_length() {
    for (max, window, step) in [(40, 1, 0.01), (100, 10, 0.03), (60, 60, 0.2)] {
        for hints in [Hints::Millis, Hints::Seconds, Hints::Quota] {
            let window = Duration::from_secs(window);
            let limiter = Limiter::Fixed { max, window };
            let seen = history(limiter, hints, step, window.as_secs_f64() * 5.0);
            let inferred = model(&seen, WallTime { unix_ms: 0 });
            let says = format!("{max} per {window:?}, in windows of the clock");
            assert!(inferred.said[0].starts_with(&says), "{hints:?}: {:?}", inferred.said);
        }
    }
}

#[test]
fn a_limit_is_found_however_many_go_before_it_is_met() {
    let hour = Limiter::Fixed { max: 12_000, window: Duration::from_secs(3_600) };
    let seen = history(hour, Hints::Seconds, 0.1, 8_000.0);
    let inferred = model(&seen, WallTime { unix_ms: 0 });
    assert!(inferred.said[0].starts_with("12000 per 3600s"), "{:?}", inferred.said);
}

/// The histories of several credentials as one, in order; each has an API's limit of its own, or all
/// share one.
fn of_two(limits: &[(&str, u32)], is_shared: bool) -> Vec<Seen> {
    let window = Duration::from_secs(10);
    let most = limits.iter().map(|(_, max)| *max).max().unwrap();
    let mut seen = Vec::new();
    if is_shared {
        let one = history(Limiter::Fixed { max: most, window }, Hints::Millis, 0.02, 50.0);
        let mut rng = fastrand::Rng::with_seed(7);
        seen.extend(one.into_iter().map(|it| {
            let (whose, _) = limits[rng.usize(0..limits.len())];
            Seen { whose: whose.into(), ..it }
        }));
    } else {
        for (whose, max) in limits {
            let own = history(Limiter::Fixed { max: *max, window }, Hints::Millis, 0.02, 50.0);
            seen.extend(own.into_iter().map(|it| Seen { whose: (*whose).into(), ..it }));
        }
    }
    seen.sort_by(|a, b| a.at.total_cmp(&b.at));
    seen
}

#[test]
fn each_credential_has_its_own_limit_unless_they_share_one() {
    let start = WallTime { unix_ms: 0 };
    let own = model(&of_two(&[("credential a", 100), ("credential b", 30)], false), start);
    let says = |name: &str, limit: &str| {
        own.said.iter().any(|line| line.starts_with(&format!("{name}: {limit} per 10s")))
    };
    assert!(says("credential a", "100") && says("credential b", "30"), "{:?}", own.said);
    let shared = model(&of_two(&[("credential a", 100), ("credential b", 100)], true), start);
    assert!(shared.said[0].starts_with("100 per 10s"), "{:?}", shared.said);
    assert!(shared.said[0].ends_with("by all credentials together"), "{:?}", shared.said);

    let mut model = own.model;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut let_through = |name: &str| {
        let told = Told { whose: owner(name), ..Told::default() };
        let all = (0..200).map(|_| model.receive(MonoTime::ZERO, told, &mut rng));
        all.filter(|reply| matches!(&reply.result, Ok((200, _)))).count()
    };
    let counts = ["credential a", "credential b", "credential new"].map(&mut let_through);
    assert_eq!(&counts[..2], [100, 30]);
    assert!([100, 30].contains(&counts[2]), "one that was never at its limit: {counts:?}");
}

/// Good answers to `whose`, one each `step` seconds.
fn served(whose: &str, count: u32, step: f64) -> Vec<Seen> {
    let good = |n| Seen {
        at: f64::from(n) * step,
        took: 0.02,
        word: Word::Good,
        weight: 1,
        whose: whose.into(),
        quota: None,
    };
    (0..count).map(good).collect()
}

/// How many of those that were let through, sent as they were, the model lets through.
fn let_through_again(model: &mut Model, seen: &[Seen]) -> usize {
    let mut rng = fastrand::Rng::with_seed(1);
    let good = seen.iter().filter(|it| it.word == Word::Good);
    let again = good.filter(|it| {
        let told = Told { whose: owner(&it.whose), ..Told::default() };
        let at = MonoTime::from_nanos(1) + Duration::from_secs_f64(it.at);
        let reply = model.receive(at, told, &mut rng);
        model.done();
        matches!(reply.result, Ok((200, _)))
    });
    again.count()
}

#[test]
fn whoever_was_never_refused_is_not_held_to_less_than_it_was_served() {
    for (step, refused_at) in [(0.1, 0.0), (0.1, 10.0), (0.02, 2.0), (1.0, 100.0)] {
        for hint in [None, Some(20.0)] {
            let mut seen = served("", 200, step);
            let word = Word::Refused { hint, source: hint.map(|_| "retry-after".to_owned()) };
            let one =
                Seen { at: refused_at, word, whose: "credential a".into(), ..seen[0].clone() };
            seen.push(one);
            seen.sort_by(|a, b| a.at.total_cmp(&b.at));
            let mut inferred = model(&seen, WallTime { unix_ms: 0 });
            let said = inferred.said.join("\n");
            let again = let_through_again(&mut inferred.model, &seen);
            assert_eq!(again, 200, "step {step}, refused at {refused_at}: {said}");
            assert!(said.contains("a guess from 1 recorded refusal"), "{said}");
            assert!(!said.contains('%'), "{said}");
        }
    }
}

#[test]
fn whoever_was_served_less_than_the_limit_of_another_has_that_limit() {
    let window = Duration::from_secs(10);
    let mut seen = history(Limiter::Fixed { max: 30, window }, Hints::Millis, 0.02, 50.0);
    seen.iter_mut().for_each(|it| it.whose = "credential a".into());
    // Slow enough for any phase, and too fast for it.
    seen.extend(served("credential slow", 40, 1.0));
    seen.extend(served("credential fast", 400, 0.1));
    seen.sort_by(|a, b| a.at.total_cmp(&b.at));
    let inferred = model(&seen, WallTime { unix_ms: 0 });
    let mut model = inferred.model;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut at_once = |name: &str| {
        let told = Told { whose: owner(name), ..Told::default() };
        let all = (0..200).map(|_| model.receive(MonoTime::ZERO, told, &mut rng));
        all.filter(|reply| matches!(&reply.result, Ok((200, _)))).count()
    };
    let counts = ["credential a", "credential slow", "credential fast"].map(&mut at_once);
    assert_eq!(counts, [30, 30, 200], "{:?}", inferred.said);
    assert!(inferred.said.iter().any(|line| line.ends_with("than that: 1")), "{:?}", inferred.said);
}

#[test]
fn what_never_refused_has_no_limit_unless_it_described_one() {
    let seen = history(Limiter::Open, Hints::None, 0.1, 30.0);
    let open = model(&seen, START);
    assert!(open.said[0].contains("no limit"), "{:?}", open.said);
    let hour = Limiter::Fixed { max: 5000, window: Duration::from_secs(3600) };
    let described = model(&history(hour, Hints::Quota, 0.1, 30.0), WallTime { unix_ms: 0 });
    assert!(described.said[0].starts_with("5000 per 3600s"), "{:?}", described.said);
}

#[test]
fn failures_in_a_row_are_an_outage_and_single_ones_are_not() {
    let seen = |at: f64, fails: bool| Seen {
        at,
        took: 0.02,
        word: if fails { Word::Failed { status: Some(500), error: None } } else { Word::Good },
        weight: 1,
        whose: "".into(),
        quota: None,
    };
    let history: Vec<Seen> =
        (0..100).map(|n| seen(f64::from(n), (40..50).contains(&n) || n == 70)).collect();
    let inferred = model(&history, START);
    assert_eq!(inferred.model.outages.len(), 1, "{:?}", inferred.said);
    assert!(inferred.said.iter().any(|line| line.contains("down from 40.0 s to 49.0 s")));
    assert!(inferred.said.iter().any(|line| line.ends_with("not replayed: 1")));
}

#[test]
fn a_limit_is_typed_with_its_time() {
    let typed = |text: &str| text.parse::<Typed>();
    assert_eq!(typed("100/10s").unwrap(), Typed { max: 100, per: Some(Duration::from_secs(10)) });
    assert_eq!(typed("5000/h").unwrap(), Typed { max: 5000, per: Some(Duration::from_secs(3600)) });
    assert_eq!(typed("8").unwrap(), Typed { max: 8, per: None });
    for wrong in ["", "0/1s", "ten/1s", "5/x", "-1"] {
        assert!(typed(wrong).unwrap_err().contains("100/10s"), "{wrong}");
    }
}

#[test]
fn nothing_is_kept_of_exchanges_that_are_over() {
    let text = "[upstreams.api]\nurl = \"https://api.example\"\nprofile = \"github\"\n";
    let loaded = load_str(text, "test.toml", &|_| None).unwrap();
    let work = Workload { requests: 3_000, ..job() };
    let github = profiles::find("github").unwrap();
    let api = api_of(github, &loaded.settings.upstreams[0], &work);
    let mut world: super::world::World<Counter> =
        world(&loaded.settings, 0, &work, &api, 1).unwrap();
    let mut most = 0;
    while world.step() {
        most = most.max(world.exchanges.len());
    }
    assert!(most <= 8, "{most} exchanges at once of 8 clients");
    assert_eq!(world.watch.requests(), 3_000);
}

/// The settings of one upstream with this profile, and more lines for it.
fn settings_with(profile: &str, rest: &str) -> Settings {
    let text =
        format!("[upstreams.api]\nurl = \"https://api.example\"\nprofile = \"{profile}\"\n{rest}");
    load_str(&text, "test.toml", &|_| None).unwrap().settings
}

#[test]
fn a_request_spends_the_bucket_and_the_units_that_its_profile_names() {
    let settings = settings_with("bluesky", "");
    let asked = |path: &str| {
        let work = Workload { method: Method::POST, path: path.to_owned(), ..job() };
        let bluesky = profiles::find("bluesky").unwrap();
        let api = api_of(bluesky, &settings.upstreams[0], &work);
        let mut world = world(&settings, 0, &work, &api, 1).unwrap();
        let request = world.clients[0].request.clone();
        assert_eq!(request.cost, api.units, "what it knows is what the API counts");
        world.run();
        assert_eq!(world.watch.figures().ok, 40);
        (request.bucket, request.cost)
    };
    let (create, cost) = asked("/xrpc/com.atproto.repo.createRecord");
    let (put, _) = asked("/xrpc/com.atproto.repo.putRecord");
    let (other, _) = asked("/xrpc/com.atproto.other");
    assert_eq!((create, cost), (put, 3));
    assert!(matches!(create, Some(BucketId::Named(_))), "{create:?}");
    assert!(matches!(other, Some(BucketId::Route(_))), "{other:?}");
}

#[test]
fn a_configured_quota_limits_its_bucket_and_no_other() {
    let quota = "max_wait = \"15m\"\n[[upstreams.api.quotas]]\nname = \"search\"\nrequests = 10\nper = \"30s\"\n";
    let settings = settings_with("github", quota);
    let seconds = |path: &str| {
        let work = Workload { path: path.to_owned(), ..job() };
        // The API itself would let all of them through.
        let api = Api {
            limiters: vec![Limiter::Open],
            units: 1,
            hints: Hints::None,
            fields: QuotaFields::default(),
            said: Vec::new(),
        };
        let mut world = world(&settings, 0, &work, &api, 1).unwrap();
        world.run();
        world.watch.figures().seconds
    };
    let search = seconds("/search/issues");
    assert!((90.0..95.0).contains(&search), "{search} s for 40 at 10 per 30 s");
    assert!(seconds("/repos/o/r") < 5.0, "nothing limits these");
}

#[test]
fn a_recorded_flow_and_else_the_run_is_whose_share_is_used() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch(include_str!("../store/schema_1.sql")).unwrap();
    connection.execute_batch(include_str!("../store/schema_2.sql")).unwrap();
    for (flow, run) in
        [("'a'", "'r'"), ("'a'", "NULL"), ("NULL", "'r'"), ("NULL", "'a'"), ("NULL", "NULL")]
    {
        let sql = format!(
            "INSERT INTO exchange (id, started_ms, took_ms, upstream, method, path, flow, run, status, outcome, \
             decision, attempts, queue_ms, pacing_ms, cooldown_ms, backoff_ms, breaker_ms, sending_ms, \
             streamed_ms, own_ms, bytes_up, bytes_down, weight) VALUES ('x', 1, 1, 'api', 'GET', \
             '/api/search/issues', {flow}, {run}, 200, 'ok', 'passed', 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)"
        );
        connection.execute_batch(&sql).unwrap();
    }
    let past = past::read(&connection, &past::Part::default()).unwrap();
    let settings = settings_with("github", "");
    let (world, _) = past.world(&settings, None, 1).unwrap();
    let requests: Vec<_> = world.watch.arrivals.iter().map(|(_, request)| request).collect();
    let flows: Vec<FlowId> = requests.iter().map(|request| request.flow).collect();
    assert_eq!((flows[0], flows[3]), (flows[1], flows[1]), "one name is one flow");
    assert_ne!(flows[0], flows[2]);
    assert_eq!(flows[4], FlowId::default());
    assert!(matches!(requests[0].bucket, Some(BucketId::Named(_))), "as the profile has it");
    let one_run = past::Part { run: Some("r".to_owned()), ..past::Part::default() };
    assert_eq!(past::read(&connection, &one_run).unwrap().real.rows, 2);
}
