//! Opening the one file: whose it is, which version it has, and what to do when it cannot be used.
//!
//! Nothing here ever stops traffic. A file that is ours and broken is moved aside and a new one is
//! begun; a file that is not ours is left alone; and where there is no file to be had, forbear
//! goes on in memory and says so. One process has the file at a time: a lock on a file beside it,
//! which the system releases however the process ends, keeps the second one out, by whatever link it
//! comes; a lock that somebody removed is taken again. (A lock on the
//! database file itself would be lost with `SQLite`'s own, because POSIX locks belong to the process.)

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::schema;

/// The path that means "no file".
pub const IN_MEMORY: &str = ":memory:";
/// "fbr1": marks a database as forbear's (`PRAGMA application_id`).
pub(super) const APPLICATION_ID: u32 = 0x6662_7231;
/// Somebody with a shell may hold the write lock for a moment.
const BUSY_TIME_MAX: Duration = Duration::from_millis(500);
/// What the file that is locked is called, after the name of the database.
const LOCK_END: &str = "-lock";
/// Links that lead to no file are followed so far; Linux follows 40 that do.
const LINKS_MAX: u32 = 40;
/// A header of `SQLite` (file format, section 1.3).
const HEADER_BYTES: usize = 100;

/// Why there is no file; a sentence with the way out.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Another process has it.
    #[error(
        "state.path = {path:?} belongs to another running forbear (process {owner}); this one keeps \
         its state in memory and looks again every half minute. Give each forbear a path of its own"
    )]
    Taken {
        /// As configured, with all links followed.
        path: PathBuf,
        /// Its process id, as far as it told.
        owner: String,
    },
    /// It is not forbear's.
    #[error(
        "state.path = {path:?} is {what} and is left alone; state is kept in memory. Choose another \
         path, or move that file away"
    )]
    Foreign {
        /// As configured, with all links followed.
        path: PathBuf,
        /// What it seems to be.
        what: &'static str,
    },
    /// A newer forbear wrote it.
    #[error(
        "state.path = {path:?} has version {found}, and this forbear knows versions up to {known}; the \
         file is left alone and state is kept in memory. Run the newer forbear, or choose another path"
    )]
    Newer {
        /// As configured, with all links followed.
        path: PathBuf,
        /// Version of the file.
        found: u32,
        /// Version of this program.
        known: u32,
    },
    /// The system or the database says no.
    #[error(
        "state.path = {path:?} cannot be used ({problem}); state is kept in memory, and it is looked \
         again every half minute. forbear must be able to write the file and its folder"
    )]
    Unusable {
        /// As configured, with all links followed.
        path: PathBuf,
        /// In the system's words.
        problem: String,
    },
}

/// A database that can be written to.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// `None` in memory.
    pub(super) file: Option<OwnFile>,
    /// Where a broken file went.
    pub(super) moved_aside: Option<PathBuf>,
}

/// The file and the right to it.
pub(super) struct OwnFile {
    path: PathBuf,
    inode: u64,
    /// Released when it is closed, however that comes.
    lock: File,
}

/// A database in memory, which can only fail for want of memory.
pub(super) fn in_memory() -> rusqlite::Result<Opened> {
    let mut connection = Connection::open_in_memory()?;
    schema::migrate(&mut connection)?;
    Ok(Opened { connection, file: None, moved_aside: None })
}

/// Opens the file for this process alone, and makes it if there is none.
pub(super) fn open(path: &Path) -> Result<Opened, Trouble> {
    let unusable = |problem: String| Trouble::Unusable { path: path.to_owned(), problem };
    // The lock is beside the file itself, whatever name leads there.
    let path = &real_path(path, LINKS_MAX).map_err(|error| unusable(error.to_string()))?;
    let unusable = |problem: String| Trouble::Unusable { path: path.to_owned(), problem };
    let lock = lock(path)?;
    let mut moved_aside = None;
    match look(path).map_err(|error| unusable(error.to_string()))? {
        Found::Ours => {}
        Found::Foreign(what) => return Err(Trouble::Foreign { path: path.to_owned(), what }),
        Found::Nothing => create(path).map_err(|error| unusable(error.to_string()))?,
        Found::Broken => moved_aside = Some(begin_anew(path).map_err(|e| unusable(e.to_string()))?),
    }
    let connection = match connect(path) {
        Err(error) if is_broken(&error) && moved_aside.is_none() => {
            moved_aside = Some(begin_anew(path).map_err(|error| unusable(error.to_string()))?);
            connect(path)
        }
        result => result,
    };
    let mut connection = connection.map_err(|error| unusable(error.to_string()))?;
    let found = schema::version(&connection).map_err(|error| unusable(error.to_string()))?;
    if found > schema::VERSION {
        let (path, known) = (path.to_owned(), schema::VERSION);
        return Err(Trouble::Newer { path, found, known });
    }
    if let Err(error) = schema::migrate(&mut connection) {
        if !is_broken(&error) || moved_aside.is_some() {
            return Err(unusable(error.to_string()));
        }
        drop(connection);
        moved_aside = Some(begin_anew(path).map_err(|error| unusable(error.to_string()))?);
        connection = connect(path).map_err(|error| unusable(error.to_string()))?;
        schema::migrate(&mut connection).map_err(|error| unusable(error.to_string()))?;
    }
    let inode = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?.ino();
    let file = OwnFile { path: path.to_owned(), inode, lock };
    Ok(Opened { connection, file: Some(file), moved_aside })
}

/// Opens the file as [`open`] does, and has `load` read from it what is needed at the start. A file
/// where that cannot be read is as good as broken and moved aside too: else breakers and overrides
/// would be lost without a word.
pub(super) fn open_and<T>(
    path: &Path,
    load: impl Fn(&Connection) -> rusqlite::Result<T>,
) -> Result<(Opened, T), Trouble> {
    let unusable = |problem: String| Trouble::Unusable { path: path.to_owned(), problem };
    let opened = open(path)?;
    let error = match load(&opened.connection) {
        Ok(loaded) => return Ok((opened, loaded)),
        Err(error) if is_unreadable(&error) => error,
        Err(error) => return Err(unusable(error.to_string())),
    };
    tracing::error!(%error, path = %path.display(), "the state in the file cannot be read");
    let Opened { connection, file, .. } = opened;
    // The lock is held until the broken file is out of the way; only the new one is asked for anew.
    drop(connection);
    let aside = move_aside(path).map_err(|error| unusable(error.to_string()))?;
    drop(file);
    let opened = Opened { moved_aside: Some(aside), ..open(path)? };
    let loaded = load(&opened.connection).map_err(|error| unusable(error.to_string()))?;
    Ok((opened, loaded))
}

/// Opens a forbear database to read it, whoever writes it meanwhile.
///
/// # Errors
/// A sentence: there is none, it is not forbear's, or it cannot be read.
pub fn open_to_read(path: &Path) -> Result<Connection, String> {
    let shown = path.display();
    match look(path) {
        Ok(Found::Ours) => {}
        Ok(Found::Nothing) => return Err(format!("there is no ledger at {shown}")),
        Ok(Found::Broken) => return Err(format!("{shown} is broken")),
        Ok(Found::Foreign(what)) => return Err(format!("{shown} is {what}, not a ledger")),
        Err(error) => return Err(format!("{shown} cannot be read: {error}")),
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags);
    let ready = connection.and_then(|connection| {
        connection.busy_timeout(BUSY_TIME_MAX)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")?;
        let found = schema::version(&connection)?;
        Ok((connection, found))
    });
    match ready {
        Ok((connection, schema::VERSION)) => Ok(connection),
        Ok((_, found)) => Err(format!(
            "{shown} has version {found}, and this forbear reads version {}: run the forbear that \
             writes it, or start this one on it once",
            schema::VERSION
        )),
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    }
}

impl OwnFile {
    /// Bytes on disk, what waits in the write-ahead log included.
    pub(super) fn bytes(&self) -> u64 {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        size(&self.path) + size(&beside(&self.path, "-wal"))
    }

    /// Of those, what waits to be taken over into the file itself.
    pub(super) fn wal_bytes(&self) -> u64 {
        std::fs::metadata(beside(&self.path, "-wal")).map_or(0, |meta| meta.len())
    }

    /// Whether somebody removed or replaced it, or the file that is locked: without that, the next
    /// process would not see that this one is here.
    pub(super) fn is_gone(&self) -> bool {
        let is_other = |path: &Path, inode: u64| {
            std::fs::metadata(path).map_or(true, |meta| meta.ino() != inode)
        };
        let lock_inode = self.lock.metadata().map_or(0, |meta| meta.ino());
        is_other(&self.path, self.inode) || is_other(&beside(&self.path, LOCK_END), lock_inode)
    }
}

/// Whether an error means that the file is damaged, or no database at all.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether an error of a statement that is sound means that the file is damaged, or that a table of
/// it is missing or another one (`SQLITE_ERROR`).
pub(super) fn is_unreadable(error: &rusqlite::Error) -> bool {
    is_broken(error)
        || matches!(error, rusqlite::Error::SqlInputError { .. })
        || error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

/// Whether an error means that somebody else writes just now.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Moves a broken file out of the way. The newest one is kept to be looked at.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    // The file, and not a link to it.
    let path = &real_path(path, LINKS_MAX)?;
    let aside = beside(path, ".corrupt");
    std::fs::rename(path, &aside)?;
    // What belongs to it must not be taken for the new file's.
    for end in ["-wal", "-shm"] {
        match std::fs::rename(beside(path, end), beside(&aside, end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

/// Where the file is or will be made, with all links followed.
fn real_path(path: &Path, links_left: u32) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        result => return result,
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::canonicalize(folder.unwrap_or(Path::new(".")))?;
    match std::fs::read_link(path) {
        Ok(target) if links_left > 0 => real_path(&folder.join(target), links_left - 1),
        Ok(_) | Err(_) => Ok(folder.join(path.file_name().unwrap_or_default())),
    }
}

enum Found {
    Nothing,
    Ours,
    /// A header of nothing but zeros, as a machine that lost power may leave behind.
    Broken,
    Foreign(&'static str),
}

/// Whose file it is. The application id is written before anything else, so it is always in the
/// file itself and never only in the write-ahead log.
fn look(path: &Path) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(Found::Foreign("no file"));
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    (&file).take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(Found::Nothing);
    }
    if header.iter().all(|byte| *byte == 0) {
        return Ok(Found::Broken);
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Ok(Found::Foreign("no SQLite database"));
    }
    let ours = APPLICATION_ID.to_be_bytes();
    Ok(match header.get(68..72) {
        Some(id) if id == ours.as_slice() => Found::Ours,
        Some(_) => Found::Foreign("another program's SQLite database"),
        None => Found::Broken,
    })
}

/// Nobody else on this machine may read which paths were asked for.
fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Ok(())
}

fn begin_anew(path: &Path) -> io::Result<PathBuf> {
    let aside = move_aside(path)?;
    create(path)?;
    Ok(aside)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIME_MAX)?;
    // For a file that is made now: half as many system calls as with the usual 4096.
    connection.execute_batch("PRAGMA page_size = 8192")?;
    let id: u32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id != APPLICATION_ID {
        connection.execute_batch(&format!("PRAGMA application_id = {APPLICATION_ID}"))?;
    }
    // With NORMAL a power failure may lose the last second, and never breaks the file.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 16777216; \
         PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(connection)
}

fn lock(path: &Path) -> Result<File, Trouble> {
    let unusable =
        |error: io::Error| Trouble::Unusable { path: path.to_owned(), problem: error.to_string() };
    let lock_path = beside(path, LOCK_END);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock_path)
        .map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => {
            // Only for the sentence that the second one says.
            let _ = lock.set_len(0);
            let _ = write!(lock, "{}", std::process::id());
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = lock.take(20).read_to_string(&mut owner);
            Err(Trouble::Taken { path: path.to_owned(), owner })
        }
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// A file that belongs to the one at `path`, such as its write-ahead log (`-wal`).
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
