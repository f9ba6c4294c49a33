//! The integration tests: one binary, real sockets.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test looks at clocks and ends when something is not as it should be"
)]

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

/// Permits, queue places and requests whose answer was lost.
mod permits;

/// Deadlines, waits and the upstream's own times.
mod deadlines;

/// What is sent again, and what never.
mod retries;

/// forbear's own words, and the upstream's last one.
mod refusals;

/// Shadow mode, and breakers set by hand.
mod overrides;
