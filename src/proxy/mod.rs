//! The life of one exchange.

pub mod reject;
