//! The demo's clock: time since a start, and the wall time that goes with it.
//!
//! The demo measures real clients against a real socket, so it needs a real clock; it is read
//! here and handed on as a value. It follows tokio's clock, and so stands still where a test
//! pauses that.

use std::time::{Duration, SystemTime};

/// A moment on both clocks, from which later moments are counted.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    started: tokio::time::Instant,
    started_wall: SystemTime,
}

impl Stopwatch {
    /// Starts counting now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the demo and its fake API stand outside the gateway, whose clock this is not"
    )]
    pub fn start() -> Self {
        Self { started: tokio::time::Instant::now(), started_wall: SystemTime::now() }
    }

    /// Time since the start; never goes back.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the wall clock shows `elapsed` after the start.
    pub fn wall(&self, elapsed: Duration) -> SystemTime {
        self.started_wall + elapsed
    }
}
