//! One attempt's bytes; knows nothing of policy.

pub mod body;
pub mod error;
