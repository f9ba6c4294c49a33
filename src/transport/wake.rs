//! Whom a connection without a task of its own calls.
//!
//! hyper's parts wake each other: whoever sends a request wakes the connection, and the connection
//! wakes whoever waits for the response. Here one task polls them all, one after the other, so such
//! a call would only make the runtime poll that task again, for nothing; and a connection from the
//! pool would wake whoever had it last. So a connection has a waker of its own, which passes a call on
//! to its present user, unless that user is just at it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The waker of one connection.
pub(super) struct Bell {
    wires: Arc<Wires>,
    waker: Waker,
}

struct Wires {
    state: AtomicU8,
    user: Mutex<Option<Waker>>,
}

/// Calls go to the user.
const OPEN: u8 = 0;
/// The user is at it.
const ATTENDED: u8 = 1;
/// The user is at it, and there was a call.
const CALLED: u8 = 2;

impl Bell {
    pub(super) fn new() -> Self {
        let wires = Arc::new(Wires { state: AtomicU8::new(OPEN), user: Mutex::default() });
        Self { waker: Waker::from(wires.clone()), wires }
    }

    /// Polls parts of the connection for the user of `cx`, who gets its calls from then on. A call
    /// during the poll counts only if nothing came of it: who got something comes back for more.
    pub(super) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &mut *self.wires.user() {
            Some(known) => known.clone_from(cx.waker()),
            nobody @ None => *nobody = Some(cx.waker().clone()),
        }
        self.attend();
        let outcome = poll(&mut Context::from_waker(&self.waker));
        let before = self.wires.state.swap(OPEN, Ordering::AcqRel);
        if outcome.is_pending() && before == CALLED {
            self.wires.call();
        }
        outcome
    }

    /// Forgets calls until now, and notes those to come: the user is about to poll, or to go on.
    pub(super) fn attend(&self) {
        self.wires.state.store(ATTENDED, Ordering::Release);
    }

    /// For a look at parts of the connection that nobody waits for.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Nobody uses the connection any more, so nobody is called.
    pub(super) fn detach(&self) {
        *self.wires.user() = None;
    }
}

impl Wires {
    fn user(&self) -> MutexGuard<'_, Option<Waker>> {
        self.user.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) {
        let user = self.user().clone();
        if let Some(user) = user {
            user.wake();
        }
    }
}

impl Wake for Wires {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // One step with the look at it, so that no call falls between the user's last poll and its end.
        let note = |state| (state != OPEN).then_some(CALLED);
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, note).is_err() {
            self.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct User(AtomicU32);

    impl Wake for User {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl User {
        fn calls(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll(bell: &Bell, user: &Arc<User>, outcome: Poll<()>, is_called: bool) {
        let waker = Waker::from(user.clone());
        let polled = bell.poll(&mut Context::from_waker(&waker), |cx| {
            if is_called {
                cx.waker().wake_by_ref();
            }
            outcome
        });
        assert_eq!(polled, outcome);
    }

    #[test]
    fn the_last_user_is_called_once_it_is_no_longer_at_it() {
        let (bell, first, second) = (Bell::new(), Arc::default(), Arc::default());
        poll(&bell, &first, Poll::Pending, false);
        poll(&bell, &second, Poll::Pending, false);
        assert_eq!((first.calls(), second.calls()), (0, 0));
        bell.waker.wake_by_ref();
        bell.waker.wake_by_ref();
        assert_eq!((first.calls(), second.calls()), (0, 2));
    }

    #[test]
    fn a_call_during_a_poll_counts_only_if_nothing_came_of_it() {
        let (bell, user) = (Bell::new(), Arc::default());
        poll(&bell, &user, Poll::Ready(()), true);
        assert_eq!(user.calls(), 0);
        poll(&bell, &user, Poll::Pending, true);
        assert_eq!(user.calls(), 1);
    }

    #[test]
    fn nobody_is_called_for_what_the_user_is_about_to_poll_or_has_left() {
        let (bell, user) = (Bell::new(), Arc::default());
        poll(&bell, &user, Poll::Pending, false);
        bell.attend();
        bell.waker.wake_by_ref();
        poll(&bell, &user, Poll::Pending, false);
        assert_eq!(user.calls(), 0);
        bell.detach();
        bell.waker.wake_by_ref();
        assert_eq!(user.calls(), 0);
    }
}
