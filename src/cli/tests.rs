//! The command line as it is typed and read, against the real admin listener with a fake behind it.

use std::time::Duration;

use anstream::adapter::strip_str;
use clap::CommandFactory;

use super::client::{Client, ClientError};
use super::control::{self, Failure};
use super::quotas::Bars;
use super::*;
use crate::admin::tests::{Fake, Served, TOKEN};
use crate::policy::time::WallTime;
use crate::telemetry::view::{
    BreakerState, BreakerView, CooldownView, KeyView, LockView, Moment, QuotaView, UpstreamView,
};

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_that_is_shown_has_an_example() {
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{}", command.get_name());
        assert!(help.contains(&format!("forbear {}", command.get_name())), "{help}");
    }
}

#[test]
fn what_comes_after_two_dashes_is_the_command_to_run() {
    let Ok(Command::Run(args)) = parse("forbear run -c a.toml -- python -c x") else { panic!() };
    assert_eq!(args.config, PathBuf::from("a.toml"));
    assert_eq!(args.command, ["python", "-c", "x"]);
}

#[test]
fn a_breaker_is_not_overridden_without_a_reason() {
    let error = parse("forbear breaker open github").unwrap_err();
    assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
    assert!(error.to_string().contains("--reason"), "{error}");
}

#[test]
fn a_list_of_no_exchanges_is_refused_with_the_least_that_can_be_asked_for() {
    let said = parse("forbear explain --last 0").unwrap_err().to_string();
    assert!(said.contains("--last") && said.contains("0 is not in 1.."), "{said}");
    assert!(parse("forbear explain --last 1").is_ok());
}

#[test]
fn a_misspelt_command_gets_a_suggestion() {
    let error = parse("forbear statsu").unwrap_err();
    assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
    assert!(error.to_string().contains("status"), "{error}");
}

fn admin(address: &str, token_file: Option<PathBuf>) -> AdminArgs {
    AdminArgs { url: format!("http://{address}"), token_file }
}

fn client(address: &str) -> Client {
    Client::new(&admin(address, None)).unwrap()
}

#[tokio::test]
async fn an_override_typed_is_an_override_made() {
    let fake = Fake::new();
    let served = Served::open(&fake);
    let client = client(&served.address.to_string());
    let line = "forbear breaker close github --reason tested --for 2h --route search";
    let Ok(Command::Breaker(args)) = parse(line) else { panic!() };

    control::breaker(&client, &args).await.unwrap();
    control::quit(&client).await.unwrap();

    let expected = [
        r#"github ForceBreaker { state: Closed, reason: "tested", for_: 7200s, route: Some("search") }"#,
        "quit",
    ];
    assert_eq!(fake.asked(), expected);
}

#[tokio::test]
async fn a_refusal_is_told_in_the_words_of_the_api() {
    let served = Served::open(&Fake::new());
    let client = client(&served.address.to_string());
    let Ok(Command::Breaker(args)) = parse("forbear breaker open git/lab --reason x") else {
        panic!()
    };
    let failure = control::breaker(&client, &args).await.unwrap_err();
    assert_eq!(failure.to_string(), "There is no upstream git/lab. Configured: github, jira.");
}

#[tokio::test]
async fn the_token_comes_from_a_file_and_is_never_shown() {
    let fake = Fake::new();
    let served = Served::with(&fake, Some(TOKEN), true);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let address = served.address.to_string();

    let with = Client::new(&admin(&address, Some(file))).unwrap();
    control::quit(&with).await.unwrap();
    let without = control::quit(&client(&address)).await.unwrap_err();

    assert_eq!(fake.asked(), ["quit"]);
    assert!(without.to_string().contains("--token-file"), "{without}");
    assert!(!format!("{with:?}").contains(TOKEN));
}

#[tokio::test]
async fn where_nobody_listens_the_error_says_what_to_do() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = client(&port.to_string());
    let expected = format!(
        "nothing listens on {port}: is forbear running? \
         Start it with `forbear run`, or name another address with --admin"
    );
    assert_eq!(control::health(&client, false).await.unwrap_err().to_string(), expected);

    let failure = control::wait(&client, Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(&failure, Failure::No(said) if said.contains("was not ready")), "{failure}");
}

#[tokio::test]
async fn health_and_wait_are_content_with_a_forbear_that_is_ready() {
    let served = Served::open(&Fake::new());
    let client = client(&served.address.to_string());
    control::health(&client, true).await.unwrap();
    control::wait(&client, Duration::from_secs(60)).await.unwrap();
    status::run(&client, false, true).await.unwrap();
}

#[test]
fn an_address_that_is_none_is_refused_before_anything_is_sent() {
    for url in ["", "https://127.0.0.1:1", "127.0.0.1:1/x", "http://a@b:1", "ftp://x", "http://x/y"]
    {
        let error = Client::new(&AdminArgs { url: url.to_owned(), token_file: None }).unwrap_err();
        assert!(matches!(error, ClientError::Address(_)), "{url}: {error}");
    }
    for (url, authority) in [
        ("http://127.0.0.1:8081", "127.0.0.1:8081"),
        ("http://[::1]:8081/", "[::1]:8081"),
        ("localhost:8081", "localhost:8081"),
        ("http://forbear.localhost", "forbear.localhost:80"),
    ] {
        let client = Client::new(&AdminArgs { url: url.to_owned(), token_file: None }).unwrap();
        assert_eq!(client.authority(), authority);
    }
}

#[test]
fn a_thousand_quotas_do_not_push_the_status_table_off_the_screen() {
    let quota = QuotaView {
        scope: "route default".to_owned(),
        name: None,
        bucket: "default".to_owned(),
        is_told: true,
        limit: None,
        remaining: 1,
        reset_at: None,
        reset_in_ms: None,
    };
    let busy = UpstreamView { quotas: vec![quota; 1000], ..UpstreamView::default() };
    let table = status::table(&[busy], &[], Bars::Ascii);
    assert!(table.contains("and 992 more; see --json"), "{table}");
    assert!(table.lines().count() < 20, "{table}");
}

#[test]
fn the_status_table_reads_at_a_glance() {
    let later = Moment(WallTime { unix_ms: 0 });
    let breaker =
        |scope: &str, state, open_remaining_ms, forced_reason: Option<&str>| BreakerView {
            scope: scope.to_owned(),
            state,
            open_until: None,
            open_remaining_ms,
            failure_ratio: 0.0,
            forced_reason: forced_reason.map(str::to_owned),
            forced_until: None,
        };
    let github = UpstreamView {
        name: "github".to_owned(),
        breaker: vec![
            breaker("upstream", BreakerState::Closed, None, None),
            breaker(
                "route search",
                BreakerState::ForcedOpen,
                Some(3_599_001),
                Some("vendor\u{1b}"),
            ),
        ],
        cooldowns: vec![CooldownView {
            scope: "route search".to_owned(),
            until: later,
            remaining_ms: 4001,
            source: "retry-after".to_owned(),
            raw: Some("retry-after: 4".to_owned()),
        }],
        locks: vec![LockView {
            credential: "credential 5f0c1e".to_owned(),
            until: later,
            remaining_ms: 46_100,
        }],
        quotas: vec![
            QuotaView {
                scope: "bucket core, credential 5f0c1e".to_owned(),
                name: None,
                bucket: "core".to_owned(),
                is_told: true,
                limit: Some(5000),
                remaining: 4321,
                reset_at: Some(later),
                reset_in_ms: Some(125_000),
            },
            QuotaView {
                scope: "bucket core, credential 77a012".to_owned(),
                name: Some("minute".to_owned()),
                bucket: "core".to_owned(),
                is_told: false,
                limit: None,
                remaining: 0,
                reset_at: None,
                reset_in_ms: None,
            },
        ],
        in_flight: 3,
        in_flight_max: 16,
        adaptive_limit: Some(8),
        queued: 12,
        queued_by_band: Default::default(),
        queue_max: 1000,
        retry_budget_remaining_ratio: 0.85,
        ..UpstreamView::default()
    };
    let jira = UpstreamView {
        name: "jira-cloud".to_owned(),
        breaker: vec![breaker("upstream", BreakerState::Open, Some(1), None)],
        in_flight_max: 16,
        queue_max: 1000,
        ..UpstreamView::default()
    };
    let key = KeyView {
        key: "ingestion".to_owned(),
        pattern: "ingestion".to_owned(),
        in_flight_max: 1,
        in_flight: 1,
        waiting: 7,
    };

    let table = status::table(&[github, jira], &[key], Bars::Blocks);

    let plain = strip_str(&table).to_string();
    assert_eq!(plain, "\
UPSTREAM    BREAKER                                    IN FLIGHT      QUEUED   COOLDOWN                        RETRY BUDGET
github      closed                                     3/8 (learned)  12/1000  credential 5f0c1e 47s (locked)  85 %
            route search: forced_open 1h00m (vendor\u{fffd})                          route search 5s (retry-after)
jira-cloud  open 1s                                    0/16           0/1000   -                               0 %

UPSTREAM  QUOTA               LEFT
github    core 5f0c1e         ████████░░  4,321/5,000  resets in 2m05s
          core minute 77a012              0            as configured

KEY        IN FLIGHT  WAITING
ingestion  1/1        7
", "{plain}");
    assert!(table.contains("\u{1b}[31mopen 1s"), "an open breaker is red");
    assert_eq!(
        strip_str(&status::table(&[], &[], Bars::Ascii)).to_string().lines().last(),
        Some("No upstream is configured.")
    );
}
