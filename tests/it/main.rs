//! The integration tests: one binary, real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod binary;
    pub(crate) mod forbear;
    pub(crate) mod process;
    pub(crate) mod raw;
    pub(crate) mod world;

    pub(crate) mod frames;
    pub(crate) mod strict;
}

/// Chunked request bodies.
mod chunking;
/// `Expect: 100-continue`.
mod expect;
/// Peers that fail, on both sides.
mod faults;
/// Message framing and syntax of HTTP/1.1 requests.
mod framing;
/// Fields of one connection, forbear's own fields, loops.
mod hop_by_hop;
/// HTTP/2 from the downstream side, frame by frame.
mod http2;
/// The happy path, per protocol pair.
mod life;

/// Many of everything, and the bounds.
mod scale;

/// What can be typed.
mod cli;

/// The end in good order.
mod drain;

/// All or nothing, with nothing lost.
mod reload;

/// A command behind forbear.
mod run_command;

/// Many clients against APIs that limit and fail.
mod policies;

/// The cases that forbear was made for.
mod seeds;

/// What the next request on a connection is.
mod reuse;
/// Where a request goes, and that nothing in it chooses an address.
mod targets;
/// Upstreams behind TLS.
mod tls;
/// Other protocols after a 101.
mod upgrade;

/// What a refusal says, against what is so.
mod truth;
