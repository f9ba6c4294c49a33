//! `forbear`: see the library for what it is, and `forbear --help` for what can be typed.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    give_memory_back_soon();
    forbear::cli::main()
}

/// With a shorter pause than the second that mimalloc makes before it gives freed memory back. It looks
/// only when more is freed, so that after a burst of connections there may be no second look: a thousand
/// that have gone quiet leave 28 MiB resident, and 13 like this. Below some milliseconds the pages of
/// one request would be taken from the next: without any pause a request costs 1.9 × the CPU time.
#[expect(
    unsafe_code,
    reason = "the allocator is set up by C functions only, or by its environment"
)]
fn give_memory_back_soon() {
    /// `mi_option_purge_delay`, and what it is in milliseconds in the version that was looked at.
    const PURGE_DELAY: (libmimalloc_sys::mi_option_t, std::ffi::c_long) = (15, 1000);
    const MILLISECONDS: std::ffi::c_long = 25;
    let (option, usual) = PURGE_DELAY;
    // SAFETY: both calls read or write one integer of the allocator's own table of options, for any
    // option that exists; no other thread runs yet.
    unsafe {
        // What somebody chose stays, and so does an option that has moved to another number.
        if libmimalloc_sys::mi_option_get(option) == usual {
            libmimalloc_sys::mi_option_set(option, MILLISECONDS);
        }
    }
}
