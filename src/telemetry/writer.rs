//! Writes log lines on a thread of its own, so that a terminal, pipe or disk that blocks cannot
//! delay a request.
//!
//! What waits to be written is bounded. When it is full, lines are dropped and counted: a log with
//! a gap that says so is better than a proxy that stands still. A queue under a mutex rather than
//! a channel, because the end of the process must be able to wait for the last line, but not for
//! ever.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait to be written at most; as much again may be on its way to the sink.
/// At about 500 bytes a line this is eight thousand exchanges.
pub const BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Lines are collected for this long before they are written, and no longer than until there are so
/// many bytes. One write and one wake-up per line cost more than the exchange that the line is about.
const COLLECT_TIME_MAX: Duration = Duration::from_millis(5);
const COLLECT_BYTES_MAX: usize = 64 << 10;

/// How long the end of the process waits for the last lines. A kubelet may grant two seconds.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// A cheap handle; all clones write to the same sink.
#[derive(Clone)]
pub struct LogWriter(Arc<Shared>);

struct Shared {
    backlog: Mutex<Backlog>,
    /// Told when there is something to write.
    more: Condvar,
    /// Told when everything was written.
    idle: Condvar,
    dropped: IntCounter,
}

#[derive(Default)]
struct Backlog {
    text: Vec<u8>,
    lines: u64,
    /// Somebody waits for everything to be written.
    flushing: bool,
    /// Lines were taken from the backlog and are not yet written.
    writing: bool,
}

impl LogWriter {
    /// Starts the thread. It ends with the process.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start(sink: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            backlog: Mutex::default(),
            more: Condvar::new(),
            idle: Condvar::new(),
            dropped,
        });
        let writer = Self(Arc::clone(&shared));
        std::thread::Builder::new().name("log".into()).spawn(move || shared.write_to(sink))?;
        Ok(writer)
    }

    /// Hands over a line, its end included. Never blocks on the sink.
    pub fn line(&self, line: &[u8]) {
        let mut backlog = self.0.lock();
        let before = backlog.text.len();
        let after = before.saturating_add(line.len());
        if after > BACKLOG_BYTES_MAX {
            drop(backlog);
            self.0.dropped.inc();
            return;
        }
        backlog.text.extend_from_slice(line);
        backlog.lines += 1;
        drop(backlog);
        // In between, the writer only collects, and need not be told.
        if before == 0 || (before < COLLECT_BYTES_MAX && after >= COLLECT_BYTES_MAX) {
            self.0.more.notify_one();
        }
    }

    /// Waits until everything handed over was written, at most `limit`. True if it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let busy = |backlog: &mut Backlog| backlog.writing || !backlog.text.is_empty();
        let mut backlog = self.0.lock();
        backlog.flushing = true;
        self.0.more.notify_one();
        let waited = self.0.idle.wait_timeout_while(backlog, limit, busy);
        let (mut backlog, wait) = waited.unwrap_or_else(PoisonError::into_inner);
        backlog.flushing = false;
        !wait.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut sink: impl Write) {
        loop {
            let some = self.more.wait_while(self.lock(), |backlog| backlog.text.is_empty());
            let some = some.unwrap_or_else(PoisonError::into_inner);
            let collects =
                |backlog: &mut Backlog| !backlog.flushing && backlog.text.len() < COLLECT_BYTES_MAX;
            let waited = self.more.wait_timeout_while(some, COLLECT_TIME_MAX, collects);
            let mut backlog = waited.unwrap_or_else(PoisonError::into_inner).0;
            let text = std::mem::take(&mut backlog.text);
            let lines = std::mem::take(&mut backlog.lines);
            backlog.writing = true;
            drop(backlog);

            // There is nobody left to tell that lines could not be written, except the counter.
            if sink.write_all(&text).is_err() {
                self.dropped.inc_by(lines);
            }
            let _ = sink.flush();

            let mut backlog = self.lock();
            backlog.writing = false;
            drop(backlog);
            self.idle.notify_all();
        }
    }
}

/// Collects one event's text, and hands it over when the event is complete.
pub struct OneLine<'a> {
    writer: &'a LogWriter,
    text: Vec<u8>,
}

impl Write for OneLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.writer.line(&self.text);
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine { writer: self, text: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Tells when a write begins and waits to be let go.
    struct Blocked {
        begun: mpsc::SyncSender<()>,
        go: mpsc::Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.try_send(());
            // An error means that the test let go for good.
            let _ = self.go.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_sink_drops_and_counts_lines_and_loses_nothing_else() {
        let (begun, has_begun) = mpsc::sync_channel(1);
        let (let_go, go) = mpsc::sync_channel(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
        let sink = Blocked { begun, go, written: Arc::clone(&written) };
        let writer = LogWriter::start(sink, dropped.clone()).unwrap();
        let line = vec![b'x'; BACKLOG_BYTES_MAX / 4];

        writer.line(&line);
        has_begun.recv().unwrap();
        for _ in 0..6 {
            writer.line(&line);
        }

        assert_eq!(dropped.get(), 2, "four lines fit beside the one that is being written");
        assert!(!writer.flush(Duration::from_millis(1)), "a blocked sink cannot be flushed");
        drop(let_go);
        assert!(writer.flush(Duration::from_secs(60)));
        assert_eq!(written.lock().unwrap().len(), 5 * line.len());
    }
    #[test]
    fn lines_that_wait_are_written_together() {
        let (begun, has_begun) = mpsc::sync_channel(1);
        let (let_go, go) = mpsc::sync_channel(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
        let sink = Blocked { begun, go, written: Arc::clone(&written) };
        let writer = LogWriter::start(sink, dropped).unwrap();

        writer.line(b"first\n");
        has_begun.recv().unwrap();
        for _ in 0..100 {
            writer.line(b"later\n");
        }
        let_go.send(()).unwrap();
        let_go.send(()).unwrap();

        assert!(writer.flush(Duration::from_secs(60)), "two writes were enough");
        assert_eq!(written.lock().unwrap().len(), 101 * b"first\n".len());
    }
}
