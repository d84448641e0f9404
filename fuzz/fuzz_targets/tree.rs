//! libFuzzer on the target `tree` of berth-fuzz-targets.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| berth_fuzz_targets::feed("tree", input));
