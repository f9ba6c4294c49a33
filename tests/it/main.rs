//! The integration tests: one binary, real sockets.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test looks at clocks and ends when something is not as it should be"
)]

mod support {
    pub(crate) mod binary;
    pub(crate) mod exposition;
    pub(crate) mod forbear;
    pub(crate) mod frames;
    pub(crate) mod process;
    pub(crate) mod raw;
    pub(crate) mod strict;
    pub(crate) mod surroundings;
    pub(crate) mod world;
}

// The main job.

/// Secrets that are renewed, and credentials that are locked.
mod credentials;
/// Deadlines, waits and the upstream's own times.
mod deadlines;
/// What single APIs say, in bodies and in fields of their own.
mod dialects;
/// Whose turn it is in the queue.
mod fairness;
/// The happy path, per protocol pair.
mod life;
/// Pages and redirects that must not lead past forbear.
mod links;
/// Shadow mode, and breakers set by hand.
mod overrides;
/// Permits, queue places and requests whose answer was lost.
mod permits;
/// Many clients against APIs that limit and fail.
mod policies;
mod preflight;
/// forbear's own words, and the upstream's last one.
mod refusals;
/// What is sent again, and what never.
mod retries;
/// The cases that forbear was made for.
mod seeds;
/// What a refusal says, against what is so.
mod truth;

// What goes wrong with proxies.

/// Chunked request bodies.
mod chunking;
/// `Expect: 100-continue`.
mod expect;
/// Peers that fail, on both sides.
mod faults;
/// Disks and clocks that go wrong under the state file.
mod faults_state;
/// Message framing and syntax of HTTP/1.1 requests.
mod framing;
/// Fields of one connection, forbear's own fields, loops.
mod hop_by_hop;
/// HTTP/2 from the downstream side, frame by frame.
mod http2;
/// What the next request on a connection is.
mod reuse;
/// Many of everything, and the bounds.
mod scale;
/// What would have happened, against what did.
mod simulate;
/// Where a request goes, and that nothing in it chooses an address.
mod targets;
/// Upstreams behind TLS.
mod tls;
/// Other protocols after a 101.
mod upgrade;

// The binary and its surroundings.

/// What is counted, who is trusted, what is never told.
mod admin;
/// What can be typed.
mod cli;
/// The end in good order.
mod drain;
/// A response that somebody pastes, and profiles.
mod interpret;
/// That the story of an exchange leaves no time out.
mod intervals;
/// What is kept, and how it is asked for.
mod kills;
mod ledger;
/// All or nothing, with nothing lost.
mod reload;
/// What of it is about those who wait, and what they may still spend.
mod reload_state;
/// A command behind forbear.
mod run_command;
/// An end by itself, and a last word to Prometheus.
mod short_jobs;
/// Spans, and the collector that they go to.
#[cfg(feature = "otlp")]
mod traces;

// The house.

/// What no compiler checks.
mod architecture;
/// What people read.
mod docs;
/// The README against the program.
mod readme;
