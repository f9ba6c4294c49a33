//! Connections that wait for their next request, one pool per worker thread.
//!
//! A worker is one thread, so the pool needs no lock; it is touched only in short closures and
//! never across an await, so that every future stays `Send`. An HTTP/1 connection is in the pool
//! or in use; an HTTP/2 connection is shared and stays. The most recently used one goes first:
//! it is the likeliest to be alive, and the others can expire.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::Target;
use super::http::{Connection, Http1, Http2};
use super::timer;

/// An idle connection is closed after this long: below the 60 s after which common servers and
/// load balancers close theirs, so that it is rarely the peer who closes first.
const IDLE_MAX: Duration = Duration::from_secs(50);
/// How often idle connections are looked at, for the expired and for those that their peer has
/// closed while nobody drove them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Idle HTTP/1 connections per upstream and worker: more than the clients of one job keep busy side
/// by side, and they expire by themselves; the rest is closed.
const IDLE_PER_TARGET_MAX: usize = 128;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    targets: BTreeMap<u64, Idle>,
    is_swept: bool,
}

struct Idle {
    target: Weak<Target>,
    /// The most recently used one last.
    http1: Vec<(Http1, Instant)>,
    http2: Option<(Http2, Instant)>,
}

/// A connection that seems alive, if there is one. Should it have been closed meanwhile, it gives
/// its request back untouched; to look first would cost every request, and not be sure either.
pub(super) fn take(target: &Target, now: Instant) -> Option<Connection> {
    let mut dead = None;
    let taken = with(|pool| {
        let idle = pool.targets.get_mut(&target.id())?;
        if let Some((connection, used)) = idle.http2.as_mut().filter(|(it, _)| !it.is_closed()) {
            *used = now;
            return Some(Connection::Http2(connection.clone()));
        }
        while let Some((connection, used)) = idle.http1.pop() {
            if !is_expired(used, now) && connection.seems_ready() {
                return Some(Connection::Http1(connection));
            }
            dead.get_or_insert_with(Vec::new).push(connection);
        }
        None
    });
    // Closed outside the borrow.
    drop(dead);
    taken.flatten()
}

/// Puts an HTTP/1 connection back whose request and response are both over. One that is still
/// writing the end of its request, or was closed, is closed for good.
pub(super) fn put_back(target: &Arc<Target>, mut connection: Http1) {
    connection.rest();
    if !connection.seems_ready() && !connection.is_ready() {
        return;
    }
    insert(target, |idle| {
        idle.http1.push((connection, timer::now()));
        // The oldest makes room.
        (idle.http1.len() > IDLE_PER_TARGET_MAX).then(|| idle.http1.remove(0))
    });
}

/// Makes an HTTP/2 connection known to later requests, unless there is one already.
pub(super) fn share(target: &Arc<Target>, connection: &Http2) {
    insert(target, |idle| {
        let is_new = idle.http2.as_ref().is_none_or(|(known, _)| known.is_closed());
        if is_new { idle.http2.replace((connection.clone(), timer::now())) } else { None }
    });
}

/// Closes this thread's idle connections to an upstream that was removed. Other threads close
/// theirs at their next sweep, because nobody holds the target any more.
pub fn forget(target_id: u64) {
    drop(with(|pool| pool.targets.remove(&target_id)));
}

fn insert<T>(target: &Arc<Target>, change: impl FnOnce(&mut Idle) -> T) {
    // Without a runtime, as in the last moments of a process, there is nothing to keep alive for.
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let outcome = with(|pool| {
        let idle = pool.targets.entry(target.id()).or_insert_with(|| Idle {
            target: Arc::downgrade(target),
            http1: Vec::new(),
            http2: None,
        });
        (change(idle), std::mem::replace(&mut pool.is_swept, true))
    });
    // What `change` threw out is dropped here, outside the borrow.
    if let Some((_thrown_out, is_swept)) = outcome
        && !is_swept
    {
        runtime.spawn(sweep());
    }
}

/// One task per worker, while its pool is not empty.
async fn sweep() {
    let _end = Swept;
    loop {
        sleep(SWEEP_INTERVAL).await;
        let now = timer::now();
        let is_empty = with(|pool| {
            pool.targets.retain(|_, idle| {
                idle.discard_dead(now);
                let is_used = !idle.http1.is_empty() || idle.http2.is_some();
                is_used && idle.target.strong_count() > 0
            });
            pool.targets.is_empty()
        });
        if is_empty.unwrap_or(true) {
            return;
        }
    }
}

struct Swept;

impl Drop for Swept {
    fn drop(&mut self) {
        with(|pool| pool.is_swept = false);
    }
}

/// `None` while the thread ends.
fn with<T>(action: impl FnOnce(&mut Pool) -> T) -> Option<T> {
    POOL.try_with(|pool| action(&mut pool.borrow_mut())).ok()
}

impl Idle {
    fn discard_dead(&mut self, now: Instant) {
        self.http1
            .retain_mut(|(connection, used)| !is_expired(*used, now) && connection.is_ready());
        self.http2.take_if(|(connection, used)| {
            connection.is_closed() || (connection.is_idle() && is_expired(*used, now))
        });
    }
}

fn is_expired(used: Instant, now: Instant) -> bool {
    now.saturating_duration_since(used) >= IDLE_MAX
}

#[cfg(test)]
pub(super) fn idle_count(target: &Target) -> usize {
    with(|pool| {
        let idle = pool.targets.get_mut(&target.id())?;
        idle.discard_dead(timer::now());
        Some(idle.http1.len())
    })
    .flatten()
    .unwrap_or(0)
}
