//! What may not grow: instructions per pass of cases of `bench micro`, at two sizes.
//!
//! Each case makes few and many passes at each size, under callgrind. The difference is what passes cost,
//! without what was set up for them, which does grow.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{Result, callgrind, counted};

/// Passes of the two runs.
const PASSES: [u64; 2] = [100, 1_100];

/// How much dearer a pass may be at the larger size. Twice is what caches and deeper trees explain; a
/// search through everything is dearer by as much as there is more.
const GROWTH_MAX: f64 = 2.0;

/// A case whose passes may not become dearer.
#[derive(Deserialize)]
pub(super) struct Growth {
    case: String,
    /// The smaller and the larger.
    sizes: [usize; 2],
}

/// Measures all, prints them, and says which grow.
pub(super) fn check(all: &[Growth], folder: &Path) -> Result<Vec<String>> {
    println!(
        "\n| Case | Sizes | Instructions per pass | Growth | at most |\n|---|---|---|--:|--:|"
    );
    let mut too_much = Vec::new();
    for growth in all {
        let [small, large] = growth.sizes;
        let at = [growth.per_pass(small, folder)?, growth.per_pass(large, folder)?];
        let times = at[1] / at[0];
        println!(
            "| {} | {small}, {large} | {:.0}, {:.0} | {times:.2} | {GROWTH_MAX:.2} |",
            growth.case, at[0], at[1]
        );
        if times > GROWTH_MAX {
            too_much.push(format!(
                "{}: a pass at {large} costs {times:.1} times one at {small}, and at most {GROWTH_MAX:.1}; \
                 look with: callgrind_annotate --inclusive=yes {}",
                growth.case,
                growth.file(large, PASSES[1], folder).display()
            ));
        }
    }
    Ok(too_much)
}

impl Growth {
    fn file(&self, size: usize, passes: u64, folder: &Path) -> std::path::PathBuf {
        folder.join(format!("{}-{size}-{passes}.callgrind", self.case.replace('/', "-")))
    }

    fn per_pass(&self, size: usize, folder: &Path) -> Result<f64> {
        let [few, many] = PASSES;
        let [small, large] = [self.total(size, few, folder)?, self.total(size, many, folder)?];
        Ok((large - small) / (many - few) as f64)
    }

    /// Instructions of a whole run with so many passes.
    fn total(&self, size: usize, passes: u64, folder: &Path) -> Result<f64> {
        eprintln!("{} at {size}, {passes} passes", self.case);
        let file = self.file(size, passes, folder);
        let words = callgrind(&file);
        let [program, arguments @ ..] = words.as_slice() else { return Err("no command".into()) };
        let status = Command::new(program)
            .args(arguments)
            .arg(std::env::current_exe()?)
            .args(["micro", "--once", &self.case, &size.to_string(), &passes.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("bench micro --once {} ended with {status}", self.case).into());
        }
        Ok(counted(&std::fs::read_to_string(&file)?)?.instructions)
    }
}
