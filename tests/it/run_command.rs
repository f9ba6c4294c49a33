//! `forbear run -- CMD`: one command lives behind forbear, and forbear ends as it ends.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use rustix::process::Signal;

use crate::support::binary::{Binary, err, folder_with, forbear, out};
use crate::support::forbear::with_free_ports;

const SMALL: &str =
    "[proxy]\ndrain_idle = \"10ms\"\n[upstreams.api]\nurl = \"http://127.0.0.1:9\"\n";

async fn start(script: &str) -> Binary {
    let (folder, file) = folder_with(SMALL);
    std::fs::write(file, with_free_ports(SMALL)).unwrap();
    Binary::start_in(folder, &["sh", "-c", script]).await
}

/// Whether that process is there and not merely unburied.
fn lives(id: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn the_exit_code_of_the_command_is_kept() {
    for (script, expected) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -KILL $$", 137), ("kill $$", 143)]
    {
        let status = start(script).await.ended().await;
        assert_eq!(status.code(), Some(expected), "{script}: {status}, {:?}", status.signal());
    }
}

#[tokio::test]
async fn the_command_is_told_where_forbear_listens() {
    let binary = start("echo url $FORBEAR_URL; exec sleep 1000").await;
    let url = format!("url http://{}", binary.proxy());
    binary.until_printed("the address", |line| line == url).await;
}

#[tokio::test]
async fn signals_go_to_the_command_which_may_take_its_time() {
    for (signal, name, code) in [
        (Signal::TERM, "TERM", 5),
        (Signal::INT, "INT", 6),
        (Signal::HUP, "HUP", 7),
        (Signal::USR1, "USR1", 8),
        (Signal::USR2, "USR2", 9),
    ] {
        let script = format!(
            "trap 'echo told; exit {code}' {name}; echo trapped; while :; do sleep 0.05; done"
        );
        let mut binary = start(&script).await;
        binary.until_printed("the trap", |line| line == "trapped").await;
        binary.signal(signal);
        assert_eq!(binary.ended().await.code(), Some(code), "{name}");
        binary.until_printed("the command's last word", |line| line == "told").await;
    }
}

#[tokio::test]
async fn a_second_signal_is_the_commands_too_and_forbear_serves_until_it_ends() {
    let script = "n=0; trap 'n=$((n + 1)); echo told $n' TERM; echo trapped
        while [ $n -lt 2 ]; do sleep 0.05; done; exit 4";
    let mut binary = start(script).await;
    binary.until_printed("the trap", |line| line == "trapped").await;
    binary.signal(Signal::TERM);
    binary.until_printed("the first", |line| line == "told 1").await;
    assert_eq!(binary.admin_get("/readyz").await.status, 200);
    binary.signal(Signal::TERM);
    assert_eq!(binary.ended().await.code(), Some(4));
}

#[tokio::test]
async fn quitting_through_the_admin_api_ends_the_command_first() {
    let mut binary = start("trap 'exit 9' TERM; echo trapped; while :; do sleep 0.05; done").await;
    binary.until_printed("the trap", |line| line == "trapped").await;
    assert_eq!(binary.post("/api/v1/quit", "{}").await.status, 202);
    assert_eq!(binary.ended().await.code(), Some(9));
}

#[tokio::test]
async fn no_process_is_left_behind() {
    let mut binary = start("echo child $$; exec sleep 1000").await;
    binary.until_printed("its id", |line| line.starts_with("child ")).await;
    let lines = binary.lines();
    let id = lines.iter().find_map(|line| line.strip_prefix("child ")).unwrap();
    assert!(lives(id));
    binary.signal(Signal::TERM);
    assert_eq!(binary.ended().await.code(), Some(143));
    assert!(!lives(id), "{id} is still there");
}

#[tokio::test]
async fn standard_output_is_the_commands_alone() {
    let (_folder, file) = folder_with(&with_free_ports(SMALL));
    let arguments = ["run".as_ref(), "-c".as_ref(), file.as_os_str()];
    let tail = ["--", "echo", "result"].map(AsRef::as_ref);
    let output = forbear(arguments.into_iter().chain(tail)).await;
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(0), "result\n"));
    assert!(err(&output).contains("ready"), "{}", err(&output));
}

#[tokio::test]
async fn a_command_is_not_started_beside_a_forbear_that_is_not() {
    let (folder, file) = folder_with("[upstreams.api]\nurl = \"nowhere\"\n");
    let started = folder.path().join("started");
    let arguments = ["run".as_ref(), "-c".as_ref(), file.as_os_str()];
    let tail = ["--".as_ref(), "touch".as_ref(), started.as_os_str()];
    let output = forbear(arguments.into_iter().chain(tail)).await;
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(!started.exists(), "the command ran");
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_named() {
    let (_folder, file) = folder_with(&with_free_ports(SMALL));
    let arguments = ["run".as_ref(), "-c".as_ref(), file.as_os_str()];
    let output = forbear(arguments.into_iter().chain(["--".as_ref(), "no-such-program".as_ref()]));
    let output = output.await;
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("no-such-program"), "{}", err(&output));
}
