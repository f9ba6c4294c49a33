//! The integration tests: one binary, real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod binary;
    pub(crate) mod forbear;
    pub(crate) mod process;
    pub(crate) mod raw;
    pub(crate) mod world;
}

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
