//! `forbear interpret` and `forbear profile`, as they are typed.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::binary::{command, err, folder_with, forbear, out};

const REFUSAL: &[u8] = b"HTTP/2 429 \r\nx-ratelimit-limit: 100\r\nx-ratelimit-remaining: 0\r\n\
    x-ratelimit-reset: 600\r\nretry-after: 1500\r\n\r\n{\"error\":\"slow down\"}";

async fn interpret(input: &[u8], arguments: &[&str]) -> Output {
    let mut typed = vec!["interpret"];
    typed.extend_from_slice(arguments);
    let mut child = command(&typed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn a_captured_response_is_read_as_one_object() {
    let output = interpret(REFUSAL, &["--json", "--retry-after-unit", "ms"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let named = ["limited", "class", "wait_ms", "limit", "remaining", "reset_ms", "source"];
    let found: Vec<_> = named.iter().map(|name| said[name].clone()).collect();
    assert_eq!(json!(found), json!([true, "rate_limited", 1500, 100, 0, 600_000, "retry-after"]));
}

#[tokio::test]
async fn the_moment_of_receipt_and_the_units_can_be_told() {
    let input = b"HTTP/1.1 429 x\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1768471230\n\n";
    let output = interpret(input, &["--json", "--now", "2026-01-15T10:00:00Z"]).await;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["wait_ms"], 30_000);
    let input = b"HTTP/1.1 429 x\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 600\n\n";
    let output = interpret(input, &["--json", "--reset-unit", "ms"]).await;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["wait_ms"], 600);
}

#[tokio::test]
async fn any_input_is_answered_and_only_wrong_typing_is_a_mistake() {
    for input in [&b""[..], b"\xff\xfe\x00", b"hello\n\n", b"HTTP/1.1 9999 x\n"] {
        let output = interpret(input, &[]).await;
        assert_eq!(output.status.code(), Some(0), "{input:?}: {}", err(&output));
        assert!(out(&output).contains("unread"), "{input:?}: {}", out(&output));
    }
    let output = interpret(b"", &["--profile", "githup"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("Did you mean \"github\"?"), "{}", err(&output));
}

#[tokio::test]
async fn a_profile_of_ones_own_is_tried_before_it_is_used() {
    let (_folder, file) = folder_with("placeholder = 1\n");
    let own = file.with_file_name("my-api.toml");
    let shown = forbear(["profile", "show", "slack", "--toml"]).await;
    std::fs::write(&own, &shown.stdout).unwrap();
    let own = own.to_str().unwrap();
    let tested = forbear(["profile", "test", own]).await;
    assert_eq!(tested.status.code(), Some(0), "{}", out(&tested));
    let broken = out(&shown).replacen("wait = \"30s\"", "wait = \"31s\"", 1);
    std::fs::write(own, broken).unwrap();
    let tested = forbear(["profile", "test", own]).await;
    assert_eq!(tested.status.code(), Some(1), "{}", out(&tested));
    assert!(out(&tested).contains("is read as"), "{}", out(&tested));
    let said = interpret(b"HTTP/1.1 200 OK\n\n{}", &["--profile", own]).await;
    assert_eq!(said.status.code(), Some(0), "{}", err(&said));
    assert!(out(&forbear(["profile", "list"]).await).contains("api.github.com"));
}
