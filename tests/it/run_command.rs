//! `forbear run -- CMD`: one command lives behind forbear, and forbear ends as it ends.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

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
    let binary = start("echo urls $FORBEAR_URL $FORBEAR_ADMIN; exec sleep 1000").await;
    let urls = format!("urls http://{} http://{}", binary.proxy(), binary.admin());
    binary.until_printed("the addresses", |line| line == urls).await;
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
async fn a_forbear_that_is_killed_takes_the_command_with_it() {
    let mut binary =
        start("trap 'echo told; exit 0' TERM; echo child $$; while :; do sleep 0.05; done").await;
    binary.until_printed("its id", |line| line.starts_with("child ")).await;
    let lines = binary.lines();
    let id = lines.iter().find_map(|line| line.strip_prefix("child ")).unwrap();
    binary.signal(Signal::KILL);
    assert_eq!(binary.ended().await.signal(), Some(9));
    binary.until_printed("that it was told", |line| line == "told").await;
    for _ in 0..1_000 {
        if !lives(id) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} is still there");
}

/// Waits for SIGINT and tells each one, with who sent it; ends on SIGUSR1, with their number and 40.
/// It waits for signals as such, so that no two of them become one, and for no longer than 20 s.
const COUNTS: &str = "
import signal
watched = {signal.SIGINT, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, watched)
signal.alarm(20)
print('waiting', flush=True)
count = 0
while (info := signal.sigwaitinfo(watched)).si_signo == signal.SIGINT:
    count += 1
    print('told', count, 'code', info.si_code, flush=True)
raise SystemExit(40 + count)
";

#[test]
fn a_terminals_interrupt_reaches_the_command_exactly_once() {
    let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    if !has("python3") || !has("setsid") {
        eprintln!("skipped: needs python3 and setsid");
        return;
    }
    let (folder, file) = folder_with(&with_free_ports(SMALL));
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let terminal = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
    // The terminal's only session, so that Ctrl-C goes to all of its foreground: forbear and the command.
    let mut child = Command::new("setsid")
        .args(["--ctty", env!("CARGO_BIN_EXE_forbear"), "run", "-c"])
        .arg(&file)
        .args(["--", "python3", "-c", COUNTS])
        .current_dir(folder.path())
        .stdin(Stdio::from(terminal()))
        .stdout(Stdio::from(terminal()))
        .stderr(Stdio::from(terminal()))
        .spawn()
        .unwrap();
    let mut master = File::from(master);
    let mut lines = BufReader::new(master.try_clone().unwrap()).lines();
    let mut until = |what: &str| {
        let mut told = Vec::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if line.contains(what) {
                return line;
            }
            told.push(line);
        }
        panic!("no {what} in:\n{}", told.join("\n"));
    };
    until("waiting");
    for count in 1..=3 {
        master.write_all(b"\x03").unwrap();
        let line = until("told");
        assert!(line.contains(&format!("told {count} code 128")), "not from the terminal: {line}");
    }
    let id = Pid::from_child(&child);
    kill_process(id, Signal::USR1).unwrap();
    // Its last lines must be read, or it could not write them.
    while lines.by_ref().next().is_some_and(|line| line.is_ok()) {}
    assert_eq!(child.wait().unwrap().code(), Some(43), "three times, and no more");
}

/// `unshare` as it may make a namespace of processes here; `None` where it may not.
fn unshare() -> Option<Vec<&'static str>> {
    let own = vec!["--pid", "--fork", "--mount-proc", "--kill-child"];
    let mapped = [vec!["--map-root-user"], own.clone()].concat();
    let works = |arguments: &Vec<&str>| {
        let tried = Command::new("unshare").args(arguments).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    };
    [own, mapped].into_iter().find(works)
}

#[tokio::test]
async fn as_the_first_process_it_buries_orphans_and_keeps_the_commands_code() {
    let Some(unshare) = unshare() else {
        eprintln!("skipped: no namespace of processes can be made here");
        return;
    };
    // Its parent is gone at once, so that forbear inherits it; unburied, it would stay in /proc.
    let script = "(sleep 0.2 & echo $! >orphan); id=$(cat orphan); ls -d /proc/$id >found
        for n in $(seq 200); do [ -e /proc/$id ] || exit 7; sleep 0.05; done; exit 1";
    let (folder, file) = folder_with(&with_free_ports(SMALL));
    let mut command = tokio::process::Command::new("unshare");
    command.args(unshare).arg(env!("CARGO_BIN_EXE_forbear")).args(["run", "-c"]).arg(&file);
    command.args(["--", "sh", "-c", script]).current_dir(folder.path()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
    let output = output.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", err(&output));
    let found = std::fs::read_to_string(folder.path().join("found")).unwrap();
    assert!(found.starts_with("/proc/"), "there was no orphan: {found}");
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
async fn an_announced_command_that_is_missing_is_no_reason_to_serve_for_ever() {
    let (_folder, file) = folder_with(&with_free_ports(SMALL));
    let arguments = ["run".as_ref(), "-c".as_ref(), file.as_os_str(), "--".as_ref()];
    let output = forbear(arguments).await;
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
    assert!(err(&output).contains("no command behind --"), "{}", err(&output));
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
