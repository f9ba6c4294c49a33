//! What ends connections, and how one knows that they have ended.
//!
//! The orders only ever go one way: serve; drain (each connection closes behind its last response, idle
//! ones at once, HTTP/2 ones with GOAWAY, while new ones are still accepted and answered); accept
//! nothing more; abort. When to give which is policy, and decided by whoever runs the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::Timeouts;

/// What every connection and every accept loop watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) accept: Accept,
    pub(super) connections: Connections,
    /// For connections that begin from now on.
    pub(super) timeouts: Timeouts,
}

/// Whether new connections are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accept {
    Yes,
    No,
}

/// What connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connections {
    Keep,
    Close,
    Abort,
}

/// How much is going on, counted where it happens; gauges are read from here.
#[derive(Debug)]
pub struct Load {
    /// In the order of [`super::worker::Bound::addresses`].
    connections: Vec<AtomicI64>,
    exchanges: AtomicI64,
    exchanges_begun: AtomicU64,
    accept_errors: AtomicU64,
    changed: Notify,
}

impl Load {
    pub(super) fn new(listeners: usize) -> Self {
        Self {
            connections: (0..listeners).map(|_| AtomicI64::new(0)).collect(),
            exchanges: AtomicI64::new(0),
            exchanges_begun: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// Open connections of one listener, upgraded ones included.
    pub fn connections_of(&self, listener: usize) -> i64 {
        self.connections.get(listener).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Open connections of all listeners.
    pub fn connections(&self) -> i64 {
        self.connections.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    /// Exchanges whose response is not handed over yet.
    pub fn exchanges(&self) -> i64 {
        self.exchanges.load(Ordering::Acquire)
    }

    /// Exchanges since the start.
    pub fn exchanges_begun(&self) -> u64 {
        self.exchanges_begun.load(Ordering::Relaxed)
    }

    /// Failed accepts since the start, for want of file descriptors above all.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// Until no exchange is under way.
    pub async fn without_exchanges(&self) {
        self.until(|load| load.exchanges() == 0).await;
    }

    /// Until no connection is open.
    pub async fn without_connections(&self) {
        self.until(|load| load.connections() == 0).await;
    }

    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Listen before looking, or a change in between is missed.
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn exchange_began(&self) {
        self.exchanges.fetch_add(1, Ordering::AcqRel);
        self.exchanges_begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn exchange_ended(&self) {
        if self.exchanges.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }
}

/// The place of one connection; gives it back when the socket is closed.
#[derive(Debug)]
pub(super) struct Seat {
    load: Arc<Load>,
    listener: usize,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    pub(super) fn take(load: &Arc<Load>, listener: usize, permit: OwnedSemaphorePermit) -> Self {
        if let Some(count) = load.connections.get(listener) {
            count.fetch_add(1, Ordering::AcqRel);
            load.changed.notify_waiters();
        }
        Self { load: Arc::clone(load), listener, _permit: permit }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(count) = self.load.connections.get(self.listener) {
            count.fetch_sub(1, Ordering::AcqRel);
            self.load.changed.notify_waiters();
        }
    }
}
