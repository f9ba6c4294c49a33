//! A captured response, read with every profile: it must not panic, and a wait must be bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    forbear::cli::interpret::check_any(input);
});
