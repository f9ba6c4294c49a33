//! To be written.

pub mod path;
pub mod route;
