//! Passes are timed in batches; the smallest batch says what the step costs, the median how quiet
//! the machine was.

use std::time::{Duration, Instant};

/// One step at one size: each call is a pass.
pub(super) type Pass = Box<dyn FnMut()>;

/// A step that is measured.
#[derive(Clone, Copy)]
pub(super) struct Case {
    /// `module/step-size`.
    pub(super) name: &'static str,
    /// What a pass does, and what its size is.
    pub(super) what: &'static str,
    /// Ascending.
    pub(super) sizes: &'static [usize],
    /// Everything that a pass does not pay for.
    pub(super) setup: fn(usize) -> Pass,
}

/// Long enough that reading the clock does not count.
const BATCH: Duration = Duration::from_millis(4);
const BATCHES: usize = 15;
/// However slow a pass is, a batch has this many.
const PASSES_MIN: u32 = 3;
/// Passes before the first batch, so that tables have their sizes and caches their lines.
const WARM_UP: u32 = 100;

impl Case {
    /// Exactly so many passes.
    pub(super) fn once(&self, size: usize, passes: u64) -> crate::Outcome {
        let mut pass = (self.setup)(size);
        for _ in 0..passes {
            pass();
        }
        Ok(())
    }

    fn measure(&self, size: usize) -> Figures {
        let mut pass = (self.setup)(size);
        let began = Instant::now();
        let mut warmed = 0;
        while warmed < PASSES_MIN || (warmed < WARM_UP && began.elapsed() < BATCH) {
            pass();
            warmed += 1;
        }
        let mut passes = PASSES_MIN;
        while time(&mut pass, passes) < BATCH {
            passes = passes.saturating_mul(2);
        }
        let mut batches: Vec<f64> = (0..BATCHES)
            .map(|_| time(&mut pass, passes).as_secs_f64() * 1e9 / f64::from(passes))
            .collect();
        batches.sort_by(f64::total_cmp);
        Figures { least: batches[0], median: batches[BATCHES / 2] }
    }
}

fn time(pass: &mut Pass, passes: u32) -> Duration {
    let began = Instant::now();
    for _ in 0..passes {
        pass();
    }
    began.elapsed()
}

/// Nanoseconds per pass.
struct Figures {
    least: f64,
    median: f64,
}

/// Measures the cases and prints a table in Markdown as it goes.
pub(super) fn table(cases: &[Case]) {
    println!("| step | size | least, ns | median, ns | × smallest size |");
    println!("|---|---:|---:|---:|---:|");
    for case in cases {
        let mut smallest = None;
        for &size in case.sizes {
            let Figures { least, median } = case.measure(size);
            let ratio = least / *smallest.get_or_insert(least);
            println!("| {} | {size} | {least:.0} | {median:.0} | {ratio:.2} |", case.name);
        }
    }
}
