//! The integration tests: one binary, real sockets.

mod support {
    pub(crate) mod forbear;
    pub(crate) mod raw;
}

/// The happy path, per protocol pair.
mod life;

/// The README against the program.
mod readme;
