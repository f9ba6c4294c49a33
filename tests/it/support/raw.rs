//! Raw sockets for what no HTTP library would send: half heads, garbage, resets, slow writers.
//!
//! [`RawOrigin`] plays a script of byte answers and records every byte that it receives, so a test
//! compares what really went over the wire. [`RawClient`] sends any bytes in any pieces and reads
//! answers by their framing. Nothing here sleeps on its own; each wait has a deadline of ten
//! seconds and panics with what it waited for, and so fails the test.
#![allow(dead_code, unused_imports, reason = "each test uses the part that it needs")]

mod client;
mod origin;

use std::time::Duration;

pub(crate) use client::{RawClient, RawResponse, parse_fields};
pub(crate) use origin::{Move, RawOrigin};

/// Longest wait for anything: enough for a busy machine, short enough to be noticed.
const DEADLINE: Duration = Duration::from_secs(10);

/// How the peer ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN.
    Eof,
    /// RST, or any other error.
    Reset,
}

pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited {DEADLINE:?} in vain for {what}"))
}

pub(crate) fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len().max(1)).position(|window| window == text)
}

#[cfg(test)]
mod tests;
