//! `forbear`: see the library for what it is, and `forbear --help` for what can be typed.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    forbear::cli::main()
}
