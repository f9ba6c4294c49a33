//! What is known of one connection, shared by the gate below hyper and the exchanges above it.
//!
//! hyper sits between the two and passes no side information, so they meet here. The central fact is a
//! pair of counts: messages *taken* in by the gate, and exchanges *finished*. While they differ, the
//! gate lets no byte of a later message through: so answers stay in order, a disconnect is noticed
//! although a client pipelines, and bytes behind an upgrade request stay uninterpreted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::task::Waker;

use super::{ListenerId, Protocol, Violation};

/// One downstream connection.
#[derive(Debug)]
pub struct Connection {
    peer: SocketAddr,
    local: SocketAddr,
    listener: ListenerId,
    protocol: OnceLock<Protocol>,
    /// Heads that went through the gate, the made-up one of a refusal included.
    taken: AtomicU64,
    /// Exchanges whose response has been handed over completely, or was given up.
    finished: AtomicU64,
    reading: AtomicU8,
    upgrade: AtomicU8,
    head_late: AtomicBool,
    lingering: AtomicBool,
    closing: AtomicBool,
    http10: AtomicBool,
    write_blocked: AtomicBool,
    /// Response bodies of which hyper took a piece and has not come back for the next.
    bodies_blocked: AtomicUsize,
    /// Counts everything that shows the peer reads: bytes written, pieces of bodies taken.
    progress: AtomicU64,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    violation: Option<Violation>,
    reader: Option<Waker>,
}

/// Where in the stream of a connection the gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Between two messages.
    Boundary = 0,
    /// A head has begun.
    Head = 1,
    /// A body has not ended.
    Body = 2,
}

/// How far an upgrade has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    None = 0,
    Asked = 1,
    Accepted = 2,
}

/// What a connection is doing, as far as its own time limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has never said anything.
    Silent,
    /// A head has begun and is not whole.
    Head,
    /// An exchange is under way, or its body is; their own limits count.
    Busy,
    /// Between two exchanges.
    Idle,
    /// The peer does not read what is written.
    Stalled,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, local: SocketAddr, listener: ListenerId) -> Self {
        Self {
            peer,
            local,
            listener,
            protocol: OnceLock::new(),
            taken: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            reading: AtomicU8::new(Reading::Boundary as u8),
            upgrade: AtomicU8::new(Upgrade::None as u8),
            head_late: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            http10: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
            bodies_blocked: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            noted: Mutex::default(),
        }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end: the address that the peer dialled.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The listener that it came through.
    pub fn listener(&self) -> &ListenerId {
        &self.listener
    }

    /// What is spoken on it.
    pub fn protocol(&self) -> Protocol {
        self.protocol.get().copied().unwrap_or(Protocol::Http1)
    }

    /// Why reading a request body failed, if it was the peer's fault. Only a closed connection can
    /// follow, so the violation stays.
    pub fn violation(&self) -> Option<Violation> {
        self.noted().violation.clone()
    }

    /// Whether the upgrade that the current request asks for takes place. Accepted, everything behind
    /// the request belongs to the new protocol and passes untouched; declined, it is HTTP as before.
    /// Answering 101, or anything else, says the same; without such a request it does nothing.
    pub fn upgrade_settled(&self, accepted: bool) {
        let settled = if accepted { Upgrade::Accepted } else { Upgrade::None } as u8;
        let asked = Upgrade::Asked as u8;
        if self
            .upgrade
            .compare_exchange(asked, settled, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            self.wake_reader();
        }
    }

    /// The exchange under way is the last one of this connection.
    pub fn close_after(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn speaks(&self, protocol: Protocol) {
        // It is decided once, by the first bytes.
        let _ = self.protocol.set(protocol);
    }

    /// A message begins to pass the gate.
    pub(super) fn take(&self) {
        self.taken.fetch_add(1, Ordering::AcqRel);
    }

    /// Its exchange is over, whatever became of it.
    pub(super) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::AcqRel);
        self.wake_reader();
    }

    /// Whether no exchange is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.finished.load(Ordering::Acquire) == self.taken.load(Ordering::Acquire)
    }

    /// Wakes the gate's reader at the next [`Self::finish`] or settled upgrade. Check again after it.
    pub(super) fn park_reader(&self, waker: &Waker) {
        self.noted().reader = Some(waker.clone());
    }

    pub(super) fn note_violation(&self, violation: Violation) {
        self.noted().violation = Some(violation);
    }

    pub(super) fn note_reading(&self, reading: Reading) {
        self.reading.store(reading as u8, Ordering::Release);
    }

    /// The head under way took too long; the gate refuses it when it is polled next.
    pub(super) fn head_is_late(&self) {
        self.head_late.store(true, Ordering::Release);
    }

    pub(super) fn was_head_late(&self) -> bool {
        self.head_late.load(Ordering::Acquire)
    }

    pub(super) fn note_request(&self, version: http::Version, asks_upgrade: bool) {
        self.http10.store(version == http::Version::HTTP_10, Ordering::Release);
        let upgrade = if asks_upgrade { Upgrade::Asked } else { Upgrade::None };
        self.upgrade.store(upgrade as u8, Ordering::Release);
    }

    pub(super) fn is_http10(&self) -> bool {
        self.http10.load(Ordering::Acquire)
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgrade.load(Ordering::Acquire) == Upgrade::Accepted as u8
    }

    pub(super) fn note_linger(&self) {
        self.lingering.store(true, Ordering::Release);
    }

    /// The socket took no bytes, or `written` of them.
    pub(super) fn note_write(&self, written: Option<usize>) {
        self.write_blocked.store(written.is_none(), Ordering::Release);
        self.progress.fetch_add(written.unwrap_or(0) as u64, Ordering::AcqRel);
    }

    /// hyper took a piece of a response body (`true`), or came back for the next.
    pub(super) fn note_body_taken(&self, taken: bool) {
        if taken {
            self.bodies_blocked.fetch_add(1, Ordering::AcqRel);
        } else {
            self.bodies_blocked.fetch_sub(1, Ordering::AcqRel);
            self.progress.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What the connection is doing, and a number that changes whenever a time limit begins anew.
    pub(super) fn phase(&self) -> (Phase, u64) {
        let finished = self.finished.load(Ordering::Acquire);
        let reading = self.reading.load(Ordering::Acquire);
        if self.lingering.load(Ordering::Acquire) {
            (Phase::Busy, 0)
        } else if self.write_blocked.load(Ordering::Acquire)
            || self.bodies_blocked.load(Ordering::Acquire) > 0
        {
            (Phase::Stalled, self.progress.load(Ordering::Acquire))
        } else if !self.is_quiet() || reading == Reading::Body as u8 {
            (Phase::Busy, 0)
        } else if reading == Reading::Head as u8 {
            (Phase::Head, finished)
        } else if finished == 0 {
            (Phase::Silent, 0)
        } else {
            (Phase::Idle, finished)
        }
    }

    fn wake_reader(&self) {
        let reader = self.noted().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
