//! The store against real files.
