//! Writes log lines on a thread of its own, so that a terminal, pipe or disk that blocks cannot
//! delay a request.
//!
//! What waits to be written is bounded. When it is full, lines are dropped and counted: a log with
//! a gap that says so is better than a proxy that stands still. A queue under a mutex rather than
//! a channel, because the end of the process must be able to wait for the last line, but not for
//! ever.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait to be written at most; as much again may be on its way to the sink.
/// At about 500 bytes a line this is eight thousand exchanges.
pub const BACKLOG_BYTES_MAX: usize = 4 << 20;

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
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
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
    pub fn line(&self, line: Vec<u8>) {
        let mut backlog = self.0.lock();
        if backlog.bytes.saturating_add(line.len()) > BACKLOG_BYTES_MAX {
            drop(backlog);
            self.0.dropped.inc();
            return;
        }
        backlog.bytes += line.len();
        backlog.lines.push_back(line);
        drop(backlog);
        self.0.more.notify_one();
    }

    /// Waits until everything handed over was written, at most `limit`. True if it was.
    pub fn flush(&self, limit: Duration) -> bool {
        let busy = |backlog: &mut Backlog| backlog.writing || !backlog.lines.is_empty();
        let waited = self.0.idle.wait_timeout_while(self.0.lock(), limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut sink: impl Write) {
        loop {
            let waited = self.more.wait_while(self.lock(), |backlog| backlog.lines.is_empty());
            let mut backlog = waited.unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut backlog.lines);
            backlog.bytes = 0;
            backlog.writing = true;
            drop(backlog);

            // There is nobody left to tell that a line could not be written, except the counter.
            for line in lines {
                if sink.write_all(&line).is_err() {
                    self.dropped.inc();
                }
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
            self.writer.line(std::mem::take(&mut self.text));
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

        writer.line(line.clone());
        has_begun.recv().unwrap();
        for _ in 0..6 {
            writer.line(line.clone());
        }

        assert_eq!(dropped.get(), 2, "four lines fit beside the one that is being written");
        assert!(!writer.flush(Duration::from_millis(1)), "a blocked sink cannot be flushed");
        drop(let_go);
        assert!(writer.flush(Duration::from_secs(60)));
        assert_eq!(written.lock().unwrap().len(), 5 * line.len());
    }
}
