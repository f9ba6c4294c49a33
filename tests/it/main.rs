//! The integration tests: one binary, real sockets.

mod support {
    pub(crate) mod binary;
    pub(crate) mod forbear;
    pub(crate) mod raw;
}

/// The happy path, per protocol pair.
mod life;

/// What can be typed.
mod cli;

/// The end in good order.
mod drain;

/// A command behind forbear.
mod run_command;
