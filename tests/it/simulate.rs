//! `forbear simulate`: the same seed is the same bytes, figures are what theory says, and a ledger
//! that a real run wrote is replayed as it was.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forbear::demo::api::FakeApi;
use forbear::demo::hints::Hints;
use forbear::demo::limiter::Limiter;
use forbear::demo::settings::ApiSettings;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::binary::{Binary, command, err, folder_with, out};

const ONE: &str = "[upstreams.api]\nurl = \"http://api.example\"\n";

async fn run(folder: &Path, arguments: &[&str]) -> std::process::Output {
    command(["simulate"]).args(arguments).current_dir(folder).output().await.unwrap()
}

async fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{}", err(&output));
    serde_json::from_str(&out(&output)).unwrap()
}

fn figures(all: &Value, run: usize) -> &Value {
    &all["runs"][run]["figures"]
}

fn number(figures: &Value, name: &str) -> f64 {
    figures[name].as_f64().unwrap_or_else(|| panic!("no {name} in {figures}"))
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bytes_and_another_one_another_history() {
    let (folder, _) = folder_with(ONE);
    let of = |seed: &'static str| {
        let folder = folder.path();
        async move {
            out(&run(
                folder,
                &["--limit", "50/5s", "--requests", "400", "--outage", "7s..12s", "--seed", seed],
            )
            .await)
        }
    };
    let first = of("7").await;
    assert!(first.contains("breaker, config.toml") && !first.contains('\u{1b}'), "{first}");
    assert_eq!(first, of("7").await);
    assert_ne!(first, of("8").await);
}

#[tokio::test]
async fn a_thousand_requests_through_a_hundred_per_ten_seconds_take_ninety_seconds() {
    let (folder, _) = folder_with(ONE);
    for kind in ["window", "sliding"] {
        let job = ["--limit", "100/10s", "--requests", "1000", "--clients", "32"];
        let all = json(folder.path(), &[&job[..], &["--limit-kind", kind]].concat()).await;
        let figures = figures(&all, 0);
        let seconds = number(figures, "seconds");
        assert!((90.0..99.0).contains(&seconds), "{kind}: {seconds} s");
        assert_eq!(number(figures, "ok"), 1000.0, "{kind}: nothing is lost");
        assert_eq!(number(figures, "api_429"), 0.0, "{kind}: the quota is described");
    }
    let slow = ["--limit", "1000/1s", "--requests", "600", "--rate", "20/s", "--latency", "50ms"];
    let seconds = number(figures(&json(folder.path(), &slow).await, 0), "seconds");
    assert!((29.5..31.0).contains(&seconds), "600 at 20 per second took {seconds} s");
}

#[tokio::test]
async fn two_configurations_differ_as_their_settings_do() {
    let (folder, _) = folder_with(&format!("{ONE}max_wait = \"15m\"\n"));
    let other = |name: &str, rest: &str| {
        std::fs::write(folder.path().join(name), format!("{ONE}{rest}")).unwrap();
    };
    other("impatient.toml", "max_wait = \"1s\"\n");
    other("once.toml", "max_wait = \"15m\"\n[upstreams.api.retry]\nattempts_max = 1\n");
    other(
        "unbroken.toml",
        "max_wait = \"15m\"\n[upstreams.api.breaker]\nconsecutive_failures = 0\nfailure_rate = 1.0\nsamples_min = 1000000\n",
    );

    let limited = ["--limit", "20/10s", "--requests", "100", "--against", "impatient.toml"];
    let all = json(folder.path(), &limited).await;
    assert_eq!(number(figures(&all, 0), "ok"), 100.0);
    let refused = &figures(&all, 1)["rejected"];
    let refused: u64 = refused.as_object().unwrap().values().map(|it| it.as_u64().unwrap()).sum();
    assert!(refused > 50, "{all}");

    let down = ["--limit", "1000/1s", "--requests", "200", "--outage", "0s..5s", "--against"];
    let all = json(folder.path(), &[&down[..], &["once.toml"]].concat()).await;
    // A breaker spares most of them; the retry budget, the rest of those that may be repeated.
    let failed = |run| number(figures(&all, run), "failed");
    assert!(failed(1) >= 4.0 * failed(0) && failed(1) > 0.0, "{all}");

    let all = json(folder.path(), &[&down[..], &["unbroken.toml"]].concat()).await;
    let failures = |run| number(figures(&all, run), "api_failures");
    assert!(!figures(&all, 0)["breaker"].as_array().unwrap().is_empty(), "{all}");
    assert!(figures(&all, 1)["breaker"].as_array().unwrap().is_empty(), "{all}");
    assert!(failures(1) > failures(0), "a breaker spares the API: {all}");
}

#[tokio::test]
async fn a_configured_quota_takes_effect_in_its_own_column_alone() {
    let patient = format!("{ONE}max_wait = \"15m\"\n");
    let (folder, _) = folder_with(&patient);
    let quota = "[[upstreams.api.quotas]]\nname = \"known\"\nrequests = 10\nper = \"5s\"\n";
    std::fs::write(folder.path().join("quota.toml"), format!("{patient}{quota}")).unwrap();
    let job = ["--limit", "10/5s", "--clients", "32", "--requests", "100"];
    let all = json(folder.path(), &[&job[..], &["--against", "quota.toml"]].concat()).await;
    let refused = |run| number(figures(&all, run), "api_429");
    assert!(refused(0) > 0.0, "the first burst knows nothing: {all}");
    assert_eq!(refused(1), 0.0, "{all}");
    assert_eq!((number(figures(&all, 0), "ok"), number(figures(&all, 1), "ok")), (100.0, 100.0));
}

#[tokio::test]
async fn what_a_real_run_recorded_is_replayed_as_it_was() {
    const REQUESTS: usize = 70;
    let api = FakeApi::start(ApiSettings {
        limiter: Limiter::FixedWindow { limit: 20, window: Duration::from_secs(2) },
        hints: Hints::RetryAfterMs,
        latency: Duration::from_millis(5),
        ..ApiSettings::default()
    })
    .await
    .unwrap();
    // One at a time: how many are refused at the end of a window is then no matter of luck.
    let text = format!(
        "[upstreams.api]\nurl = \"{}\"\nin_flight_max = 1\n[state]\npath = \"forbear.db\"\n\
         ledger_successes_per_second = 100000\n",
        api.url()
    );
    let mut binary = Binary::start(&text).await;
    let all = (0..REQUESTS).map(|n| format!("/api/items/{n}"));
    let all: Vec<_> = all
        .map(|path| {
            let address = binary.proxy();
            tokio::spawn(async move { patient_get(address, &path).await })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), "HTTP/1.1 200");
    }
    binary.signal(Signal::TERM);
    assert!(binary.ended().await.success());

    let replay = ["--ledger", "forbear.db"];
    let told = json(binary.folder(), &replay).await;
    let (real, simulated) = (&told["recorded"], figures(&told, 0));
    let refused = api.counters().refused;
    assert_eq!(number(real, "api_429"), f64::from(refused), "{told}");
    assert!(refused > 0, "the limit was reached");
    // A share of the attempts: of two or three refusals, one more or less is a matter of luck.
    let off = (number(real, "api_429") - number(simulated, "api_429")).abs();
    assert!(off <= 0.05 * (REQUESTS as f64 + f64::from(refused)), "{told}");
    assert_eq!(number(simulated, "ok"), REQUESTS as f64, "{told}");
    let ratio = number(simulated, "seconds") / number(real, "seconds");
    assert!((0.95..=1.05).contains(&ratio), "{ratio}: {told}");
    let notes = told["notes"].to_string();
    // What is sent as a window ends may be counted in either.
    let near = (19..=21).any(|limit| notes.contains(&format!("api: {limit} per 2s")));
    assert!(near && notes.contains("inferred from"), "{notes}");

    // Twice as much at once changes nothing for an API with windows, but one that allows more does.
    let more = json(binary.folder(), &[&replay[..], &["--limit", "1000/1s"]].concat()).await;
    assert!(number(figures(&more, 0), "seconds") < number(real, "seconds") * 0.8, "{more}");
    assert_eq!(number(figures(&more, 0), "api_429"), 0.0, "{more}");

    // A quota that the operator writes down spares the API what it refused.
    let quota = "[[upstreams.api.quotas]]\nname = \"known\"\nrequests = 18\nper = \"2s\"\n";
    std::fs::write(binary.folder().join("quota.toml"), format!("{ONE}{quota}")).unwrap();
    let both = json(binary.folder(), &[&replay[..], &["--against", "quota.toml"]].concat()).await;
    let refused = |run| number(figures(&both, run), "api_429");
    assert!(refused(0) > 0.0 && refused(1) == 0.0, "{both}");

    let none = run(binary.folder(), &[&replay[..], &["--run", "nightly-7"]].concat()).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(err(&none).contains("none of --run nightly-7"), "{}", err(&none));
}

#[tokio::test]
async fn what_is_missing_is_named_with_the_way_out() {
    let (folder, _) = folder_with(ONE);
    for (arguments, code, says) in [
        (&["--config", "no.toml"][..], 2, "there is no such file"),
        (&[], 2, "--limit 100/10s"),
        (&["--limit", "ten"], 2, "100/10s"),
        (&["--upstream", "other", "--limit", "1/1s"], 2, "it has api"),
        (&["--profile", "githup"], 2, "Did you mean"),
        (&["--ledger", "none.db"], 1, "state.path"),
        (&["--ledger", "forbear.db", "--clients", "3"], 2, "--clients"),
    ] {
        let output = run(folder.path(), arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains(says), "{arguments:?}: {}", err(&output));
    }
}

/// A run of 32 clients through forbear against an API that lets 20 go in 2 seconds: what was
/// recorded, and how many the API refused.
async fn crowd(hints: Hints, requests: usize) -> (Binary, u32) {
    let api = FakeApi::start(ApiSettings {
        limiter: Limiter::FixedWindow { limit: 20, window: Duration::from_secs(2) },
        hints,
        latency: Duration::from_millis(20),
        ..ApiSettings::default()
    })
    .await
    .unwrap();
    let text = format!(
        "[upstreams.api]\nurl = \"{}\"\n[state]\npath = \"forbear.db\"\n\
         ledger_successes_per_second = 100000\n",
        api.url()
    );
    let mut binary = Binary::start(&text).await;
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (next, proxy) = (next.clone(), binary.proxy());
        clients.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < requests {
                assert_eq!(patient_get(proxy, "/api/items/1").await, "HTTP/1.1 200");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    binary.signal(Signal::TERM);
    assert!(binary.ended().await.success());
    (binary, api.counters().refused)
}

/// The beginning of the answer, however long forbear holds the request.
async fn patient_get(proxy: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let whole = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(55), whole).await.expect("max_wait is 50s").unwrap();
    answer.chars().take(12).collect()
}

/// Time and 429s of the replay, as shares of what was recorded: of the time, and of all attempts.
async fn replayed(binary: &Binary, refused: u32, seed: u32) -> (f64, f64, Value) {
    let seed = seed.to_string();
    let told = json(binary.folder(), &["--ledger", "forbear.db", "--seed", &seed]).await;
    let (real, simulated) = (&told["recorded"], figures(&told, 0));
    assert_eq!(number(real, "api_429"), f64::from(refused), "{told}");
    assert_eq!(number(simulated, "ok"), number(real, "requests"), "{told}");
    let attempts = number(real, "requests") + number(real, "api_429");
    let time = number(simulated, "seconds") / number(real, "seconds");
    let refusals = (number(simulated, "api_429") - number(real, "api_429")) / attempts;
    (time, refusals, told)
}

#[tokio::test]
async fn what_a_crowd_met_is_replayed_where_the_api_tells_of_its_limit() {
    // Long enough that a second more or less, by which a time rounded up to seconds may be wrong, is
    // no matter. In milliseconds, since what a refusal names in seconds may be half a window late.
    let (fields, waits) =
        tokio::join!(crowd(Hints::RateLimitFields, 270), crowd(Hints::RetryAfterMs, 150));
    for (binary, refused) in [fields, waits] {
        let (time, refusals, told) = replayed(&binary, refused, 1).await;
        assert!(told["notes"].to_string().contains("api: 20 per 2s"), "{told}");
        assert!((0.95..=1.05).contains(&time), "{time}: {told}");
        // The first crowd, sixteen of 170, is refused as a whole or not: on a busy machine that is luck.
        assert!(refusals.abs() <= 0.1, "{refusals}: {told}");
    }
}

#[tokio::test]
async fn what_a_crowd_met_is_one_of_the_histories_where_the_api_tells_nothing() {
    // forbear draws its pauses by lot then, so two real runs differ as two seeds do.
    let (binary, refused) = crowd(Hints::None, 100).await;
    let mut all = Vec::new();
    for seed in 1..=20 {
        all.push(replayed(&binary, refused, seed).await);
    }
    let of = |part: fn(&(f64, f64, Value)) -> f64| {
        let values = all.iter().map(part);
        values.fold((f64::MAX, f64::MIN), |(low, high), it| (low.min(it), high.max(it)))
    };
    let ((fast, slow), (few, many)) = (of(|it| it.0), of(|it| it.1));
    let told = &all[0].2;
    assert!(fast <= 1.25 && slow >= 0.75, "{fast} to {slow}: {told}");
    // How many of the first crowd are on their way before the first refusal is back is the machine's
    // matter.
    assert!(few <= 0.1 && many >= -0.1, "{few} to {many}: {told}");
}
