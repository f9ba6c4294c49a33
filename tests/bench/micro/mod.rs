//! Single steps and how they grow.
//!
//! A step is measured alone, in one thread, with a clock of its own making and fixed seeds, at
//! several sizes of whatever it might grow with. What matters is the last column: how much dearer
//! one pass is at the largest size than at the smallest. `--once` makes exactly so many passes and
//! ends, for callgrind: the difference between two runs with different numbers of passes is the
//! passes alone.
#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    reason = "it measures and prints, and fails by panicking"
)]

use clap::Args;

mod gateway;

mod harness;

mod heads;

mod policy;

mod queue;

mod world;

use self::harness::Case;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Only cases whose name contains this
    #[arg(long, value_name = "PART")]
    only: Option<String>,
    /// Sizes above this are left out
    #[arg(long, value_name = "SIZE")]
    up_to: Option<usize>,
    /// Names every case and its sizes, and measures nothing
    #[arg(long)]
    list: bool,
    /// Sets CASE up at SIZE, makes exactly PASSES passes and ends
    #[arg(long, num_args = 3, value_names = ["CASE", "SIZE", "PASSES"])]
    once: Option<Vec<String>>,
}

/// Measures and prints.
pub(crate) fn run(options: Options) -> crate::Outcome {
    let cases = [policy::CASES, queue::CASES, gateway::CASES, heads::CASES].concat();
    if let Some(once) = options.once {
        let [name, size, passes] = <[String; 3]>::try_from(once).expect("clap counts them");
        let case = cases.iter().find(|case| case.name == name);
        let case = case.ok_or_else(|| format!("there is no case {name}; see --list"))?;
        return case.once(size.parse()?, passes.parse()?);
    }
    let mut chosen: Vec<Case> = cases
        .into_iter()
        .filter(|case| options.only.as_ref().is_none_or(|part| case.name.contains(part.as_str())))
        .collect();
    if options.list {
        for case in chosen {
            println!("{:<28}{:?}  {}", case.name, case.sizes, case.what);
        }
        return Ok(());
    }
    for case in &mut chosen {
        let most = options.up_to.unwrap_or(usize::MAX);
        let fitting = case.sizes.iter().take_while(|size| **size <= most).count();
        case.sizes = &case.sizes[..fitting];
    }
    harness::table(&chosen);
    Ok(())
}
