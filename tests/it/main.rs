//! The integration tests: one binary, real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod binary;
    pub(crate) mod exposition;
    pub(crate) mod forbear;
    pub(crate) mod raw;
}

/// The happy path, per protocol pair.
mod life;

/// What is counted, who is trusted, what is never told.
mod admin;

/// What no compiler checks.
mod architecture;

/// What can be typed.
mod cli;

/// What people read.
mod docs;

/// The end in good order.
mod drain;

/// All or nothing, with nothing lost.
mod reload;

/// A command behind forbear.
mod run_command;
