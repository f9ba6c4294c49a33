//! forbear on a disk of its own, which a test can fill, and under a wall clock of its own, which a
//! test can set.
//!
//! The disk is a tmpfs in a user and mount namespace that ends with the process (`unshare`, of
//! util-linux); the clock is libfaketime's, and only the wall's: the monotonic clock is the
//! machine's. Where either is not to be had, [`can_mount`] and [`can_set_the_clock`] print why.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::binary::{Binary, command};

/// Where the disk is, in the folder of its forbear.
pub(crate) const DISK: &str = "disk";
/// What the clock is to show, in the folder of its forbear.
const CLOCK: &str = "clock";
/// Where Debian and its likes put it; the one for threads first.
const LIBRARIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
    "/opt/homebrew/lib/faketime/libfaketimeMT.1.dylib",
];

/// Whether this user may mount in a namespace of its own; prints why not.
pub(crate) async fn can_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut tried = Command::new("unshare");
    tried.args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(folder.path());
    let why = match tried.output().await {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped: nothing can be mounted here: {why}");
    false
}

/// Starts the binary for the `config.toml` of this folder. `disk/` in it is a disk of so many bytes,
/// on which this shell command has been carried out.
pub(crate) async fn start_on_disk(folder: TempDir, bytes: u32, before: &str) -> Binary {
    std::fs::create_dir_all(folder.path().join(DISK)).unwrap();
    let script =
        format!("mount -t tmpfs -o size={bytes},mode=700 none {DISK} && {before} && exec \"$@\"");
    let forbear = command(["run", "-c", "config.toml"]);
    let forbear = forbear.as_std();
    let mut wrapped = Command::new("unshare");
    wrapped.args(["-rm", "/bin/sh", "-c", &script, "sh"]).arg(forbear.get_program());
    wrapped.args(forbear.get_args()).env_remove("FORBEAR_CONFIG").kill_on_drop(true);
    Binary::start_command(folder, wrapped).await
}

/// The disk, as this process can reach it while that one runs.
pub(crate) fn disk_of(binary: &Binary) -> PathBuf {
    let folder = binary.folder().join(DISK);
    Path::new(&format!("/proc/{}/root", binary.id())).join(folder.strip_prefix("/").unwrap())
}

/// Leaves no block of the disk free.
pub(crate) fn fill(disk: &Path) {
    let mut file = File::create(disk.join("filler")).unwrap();
    let why = loop {
        match file.write_all(&[0; 4096]) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(why.kind(), std::io::ErrorKind::StorageFull, "{why}");
}

/// Takes that back.
pub(crate) fn make_room(disk: &Path) {
    std::fs::remove_file(disk.join("filler")).unwrap();
}

/// Whether libfaketime is there; prints if it is not.
pub(crate) fn can_set_the_clock() -> bool {
    let is_there = library().is_some();
    if !is_there {
        println!("skipped: there is no libfaketime on this machine (apt install faketime)");
    }
    is_there
}

fn library() -> Option<&'static str> {
    LIBRARIES.into_iter().find(|path| Path::new(path).exists())
}

/// Starts the binary for the `config.toml` of this folder, under a wall clock that is so many
/// seconds ahead of the machine's, or behind.
pub(crate) async fn start_with_clock(folder: TempDir, ahead_s: i64) -> Binary {
    set_clock_in(folder.path(), ahead_s);
    let mut command = command(["run", "-c", "config.toml"]);
    command.env("LD_PRELOAD", library().expect("the test asked before"));
    command.env("FAKETIME_TIMESTAMP_FILE", folder.path().join(CLOCK));
    // Read again each time it is asked; and intervals are the machine's.
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.env("DONT_FAKE_MONOTONIC", "1");
    Binary::start_command(folder, command).await
}

/// Sets its wall clock so many seconds ahead of the machine's, or behind.
pub(crate) fn set_clock(binary: &Binary, ahead_s: i64) {
    set_clock_in(binary.folder(), ahead_s);
}

fn set_clock_in(folder: &Path, ahead_s: i64) {
    let new = folder.join("clock.new");
    std::fs::write(&new, format!("{ahead_s:+}\n")).unwrap();
    std::fs::rename(new, folder.join(CLOCK)).unwrap();
}

/// Writes over the file from there on, as a disk does that fails.
pub(crate) fn spoil(file: &Path, from: u64) {
    let length = std::fs::metadata(file).unwrap().len();
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length - from).unwrap()]).unwrap();
}
