//! `forbear`: see the library for what it is, and `forbear --help` for what can be typed.

use std::process::ExitCode;

fn main() -> ExitCode {
    forbear::cli::main()
}
