//! The integration tests: one binary, real sockets.

mod support {
    pub(crate) mod raw;
}
