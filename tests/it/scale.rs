//! Many of everything: connections, waiting exchanges, bytes; and that each stays within its bound.
//!
//! forbear runs as a process of its own here, so that its memory is its own. The figures are printed
//! (`cargo test --test it scale -- --nocapture`), and the bounds are wide enough for a build without
//! optimisation on a busy machine. One test runs at a time: they would measure one another.
#![allow(clippy::disallowed_methods, reason = "latency is measured here")]

mod bodies;
mod connections;
mod origin;
mod queue;

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::support::raw::RawClient;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Any GET, that forbear or the origin answers at once.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// One GET over this connection, which must succeed, and how long it took.
async fn timed_get(client: &mut RawClient) -> Duration {
    let began = Instant::now();
    let response = client.ask(get("/api/hello")).await;
    assert_eq!(response.status, 200, "{}", response.text());
    began.elapsed()
}
