//! The integration tests: one binary, real sockets.

mod support {
    pub(crate) mod forbear;
    pub(crate) mod raw;
    pub(crate) mod world;
}

/// The happy path, per protocol pair.
mod life;

/// Many clients against APIs that limit and fail.
mod policies;

/// The cases that forbear was made for.
mod seeds;
