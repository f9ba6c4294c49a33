//! An attempt's body seen from the side of its response.
//!
//! A response may come, and an attempt may end, before the request body has been sent whole; who
//! reads the response must know that, and the end of the attempt must end its body.

use std::task::Waker;

use super::{BodyFault, Replay};

/// Watches an attempt's body from the side of the response, and ends it with the attempt: what
/// nobody waits for any more is not sent, and the client's body is free for the next attempt.
pub(in crate::transport) struct Upload {
    pub(super) replay: Replay,
    pub(super) attempt: u64,
}

impl Upload {
    pub(in crate::transport) fn is_complete(&self) -> bool {
        let inner = self.replay.lock();
        inner.attempt == self.attempt && inner.is_complete()
    }

    pub(in crate::transport) fn fault(&self) -> Option<BodyFault> {
        self.replay.fault()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let reader = {
            let mut inner = self.replay.lock();
            if inner.attempt != self.attempt || inner.is_complete() {
                return;
            }
            if inner.discarding {
                inner.lose();
            }
            inner.begin()
        };
        reader.into_iter().for_each(Waker::wake);
    }
}
