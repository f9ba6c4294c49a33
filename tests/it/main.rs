//! The integration tests: one binary, real sockets.

mod support {
    pub(crate) mod forbear;
    pub(crate) mod process;
    pub(crate) mod raw;
}

/// The happy path, per protocol pair.
mod life;

/// Many of everything, and the bounds.
mod scale;
