//! A profile's file: it must not panic, and one that is accepted must be able to test itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        if let Ok(profile) = forbear::profiles::parse(text, "fuzzed.toml") {
            let _ = profile.test();
        }
    }
});
