//! The life of one exchange.

pub mod directives;
pub mod head;
pub mod problem;
pub mod reject;
pub mod response_head;
pub mod target;
