//! The integration tests: one binary, real sockets.

mod support {
    pub(crate) mod forbear;
    pub(crate) mod raw;
}

/// The happy path, per protocol pair.
mod life;

/// What a refusal says, against what is so.
mod truth;
