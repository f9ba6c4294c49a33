//! What does not depend on the clock.

use clap::Args;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {}

/// Measures and prints.
pub(crate) fn run(_options: Options) -> crate::Outcome {
    Ok(())
}
