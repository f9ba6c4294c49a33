//! What was typed becomes what is meant.

pub mod secret;
pub mod settings;
