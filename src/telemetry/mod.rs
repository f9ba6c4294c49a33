//! What people and machines see of it: metrics, logs, stories.

pub mod story;
