//! What can be typed: exit codes, and sentences that help whoever typed it.

use std::process::Output;

use serde_json::Value;

use crate::support::binary::{Binary, command, err, folder_with, forbear, out};

const SMALL: &str = "[upstreams.api]\nurl = \"http://127.0.0.1:9\"\n";

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}: {}", output.status, err(output)))
}

/// Runs it against a forbear that is there, or not.
async fn ask(admin: &str, arguments: &[&str]) -> Output {
    let output = command(arguments).env("FORBEAR_ADMIN", admin).output();
    output.await.unwrap()
}

/// An address where nobody listens: bound once, and given back.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_good_file_is_fine_and_the_exit_code_says_so() {
    let (_folder, file) = folder_with(SMALL);
    let output = forbear(["check".as_ref(), file.as_os_str()]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("fine. 1 upstream"), "{}", out(&output));
}

#[tokio::test]
async fn all_mistakes_of_a_file_are_told_at_once_each_with_its_place() {
    let (_folder, file) = folder_with(
        "[proxy]\nlisten = \"127.0.0.1\"\n[upstreams.a]\nurl = \"https://a.example\"\n\
         max_wiat = \"3s\"\nin_flight_max = 0\nattempt_timeout = 5\n",
    );
    let output = forbear(["check".as_ref(), file.as_os_str()]).await;
    assert_eq!(code(&output), 2);
    let text = out(&output);
    for place in [":2:10: proxy.listen", ":5:1: ", ":6:17: ", ":7:19: "] {
        assert!(text.contains(place), "{place} is missing in:\n{text}");
    }
    assert!(text.contains("max_wait"), "a suggestion for the misspelt name is missing:\n{text}");
    assert!(text.ends_with("4 problems.\n"), "{text}");
}

#[tokio::test]
async fn machines_get_the_same_problems_as_json() {
    let (_folder, file) = folder_with("[upstreams.a]\nurl = \"https://a.example\"\nkye = \"x\"\n");
    let output = forbear(["check".as_ref(), "--json".as_ref(), file.as_os_str()]).await;
    assert_eq!(code(&output), 2);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["ok"], &value["problems"][0]["line"]), (&false.into(), &3.into()));
}

#[tokio::test]
async fn effective_values_tell_where_each_comes_from() {
    let (_folder, file) = folder_with(&format!("{SMALL}max_wait = \"7s\"\n"));
    let output = forbear(["check".as_ref(), file.as_os_str(), "--effective".as_ref()]).await;
    let text = out(&output);
    let line = |path: &str| text.lines().find(|line| line.starts_with(path)).unwrap_or_default();
    assert!(line("upstreams.api.max_wait").contains("\"7s\""), "{text}");
    assert!(line("upstreams.api.max_wait").ends_with("config.toml:3:12"), "{text}");
    assert!(line("proxy.drain_timeout").ends_with("# default"), "{text}");
    let output =
        forbear(["check".as_ref(), "--json".as_ref(), "--effective".as_ref(), file.as_os_str()]);
    let value: Value = serde_json::from_slice(&output.await.stdout).unwrap();
    assert!(value["effective"].as_array().is_some_and(|values| values.len() > 20));
}

#[tokio::test]
async fn what_is_printed_to_a_pipe_has_no_colours() {
    let (_folder, file) = folder_with("[upstreams.a]\n");
    let output = forbear(["check".as_ref(), file.as_os_str()]).await;
    assert!(!out(&output).contains('\x1b'), "{:?}", out(&output));
    let output = forbear(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert!(!err(&output).contains('\x1b'), "{:?}", err(&output));
}

#[tokio::test]
async fn the_schema_is_json_and_knows_the_tables() {
    let output = forbear(["schema"]).await;
    assert_eq!(code(&output), 0);
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    for table in ["proxy", "admin", "metrics", "log", "limits", "keys", "defaults", "upstreams"] {
        assert!(schema["properties"][table].is_object(), "{table} is missing");
    }
}

#[tokio::test]
async fn the_help_of_each_command_has_a_sentence_and_an_example() {
    const COMMANDS: [&str; 9] =
        ["run", "demo", "check", "status", "breaker", "health", "wait", "quit", "schema"];
    let all = out(&forbear(["--help"]).await);
    for name in COMMANDS {
        assert!(all.contains(&format!("\n  {name} ")), "{name} is not in:\n{all}");
        let output = forbear([name, "--help"]).await;
        let text = out(&output);
        assert_eq!(code(&output), 0, "{name}");
        assert!(text.contains("Example"), "{name} has no example:\n{text}");
        assert!(text.contains(&format!("forbear {name}")), "{name} is not shown:\n{text}");
    }
}

#[tokio::test]
async fn a_mistake_in_typing_ends_with_2_and_an_explanation() {
    for (arguments, hint) in [
        (&["staus"][..], "status"),
        (&["run", "--cofnig", "x"], "--config"),
        (&["breaker", "open", "api"], "--reason"),
        (&["breaker", "shut", "api", "--reason", "x"], "close"),
        (&["wait", "--timeout", "5"], "unit"),
        (&["status", "--admin", "https://127.0.0.1:1"], "http://HOST:PORT"),
        (&["status", "--token-file", "absent"], "absent"),
        (&[], "Usage"),
    ] {
        let output = forbear(arguments).await;
        assert_eq!(code(&output), 2, "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains(hint), "{arguments:?}: {}", err(&output));
    }
}

#[tokio::test]
async fn forbear_does_not_start_with_a_file_that_is_wrong_or_missing() {
    let (folder, file) = folder_with("[upstreams.a]\nurl = \"ftp://a\"\n");
    let output = forbear(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("config.toml:2:7: upstreams.a.url"), "{}", err(&output));
    let absent = folder.path().join("absent.toml");
    let output = forbear(["run".as_ref(), "-c".as_ref(), absent.as_os_str()]).await;
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("absent.toml"), "{}", err(&output));
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_setting_and_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "listen = \"127.0.0.1:0\"\n";
    let listen = format!("listen = \"{address}\"\n");
    for (setting, configuration) in [
        ("proxy.listen", format!("[proxy]\n{listen}[admin]\n{free}{SMALL}")),
        ("admin.listen", format!("[proxy]\n{free}[admin]\n{listen}{SMALL}")),
        ("metrics.listen", format!("[proxy]\n{free}[admin]\n{free}[metrics]\n{listen}{SMALL}")),
        ("upstreams.api.listen", format!("[proxy]\n{free}[admin]\n{free}{SMALL}{listen}")),
    ] {
        let (_folder, file) = folder_with(&configuration);
        let output = forbear(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
        assert_eq!(code(&output), 2, "{setting}: {}", err(&output));
        for part in [setting, address.as_str(), "another"] {
            assert!(err(&output).contains(part), "{part} is missing: {}", err(&output));
        }
        assert!(!out(&output).contains("ready"), "{setting}: {}", out(&output));
    }
}

#[tokio::test]
async fn an_admin_listener_that_others_reach_needs_a_token() {
    let (_folder, file) = folder_with(&format!("[admin]\nlisten = \"0.0.0.0:0\"\n{SMALL}"));
    let output = forbear(["run".as_ref(), "-c".as_ref(), file.as_os_str()]).await;
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("admin.") && err(&output).contains("token"), "{}", err(&output));
}

#[tokio::test]
async fn a_running_forbear_is_asked_and_ordered_from_the_command_line() {
    let mut binary = Binary::start(SMALL).await;
    let admin = binary.admin_url();
    for (arguments, expected) in [
        (&["health"][..], "is alive"),
        (&["health", "--ready"], "is ready"),
        (&["wait", "--timeout", "5s"], "is ready"),
        (&["status"], "api"),
        (&["status", "--json"], "\"upstreams\""),
        (&["breaker", "open", "api", "--reason", "a test", "--for", "5m"], "held open"),
        (&["status"], "a test"),
        (&["breaker", "close", "api", "--reason", "a test"], "held closed"),
        (&["breaker", "auto", "api", "--reason", "done"], "left to itself"),
    ] {
        let output = ask(&admin, arguments).await;
        assert_eq!(code(&output), 0, "{arguments:?}: {}", err(&output));
        assert!(out(&output).contains(expected), "{arguments:?}: {}", out(&output));
    }
    let output = ask(&admin, &["breaker", "open", "nobody", "--reason", "x"]).await;
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("nobody") && err(&output).contains("api"), "{}", err(&output));
    let output = ask(&admin, &["quit"]).await;
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(binary.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_breaker_forced_open_refuses_and_gives_way_when_told() {
    let binary = Binary::start(SMALL).await;
    let admin = binary.admin_url();
    ask(&admin, &["breaker", "open", "api", "--reason", "maintenance", "--for", "1h"]).await;
    let answer = binary.get("/api/").await;
    assert_eq!(answer.status, 503, "{}", answer.head);
    assert!(answer.text().contains("\"code\":\"breaker_open\""), "{}", answer.text());
    assert_eq!(binary.view("api").await["breaker"][0]["state"], "forced_open");
    ask(&admin, &["breaker", "auto", "api", "--reason", "over"]).await;
    assert_eq!(binary.view("api").await["breaker"][0]["state"], "closed");
}

#[tokio::test]
async fn where_nobody_listens_each_command_ends_with_1_and_says_what_to_do() {
    let admin = nobody();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["breaker", "open", "api", "--reason", "x"],
        &["health"],
        &["wait", "--timeout", "300ms"],
        &["quit"],
    ] {
        let output = ask(&admin, arguments).await;
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(err(&output).contains("forbear run"), "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains("--admin"), "{arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{arguments:?}");
    }
}
