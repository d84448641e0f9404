//! libFuzzer on the target `edge-table` of berth-fuzz-targets.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| berth_fuzz_targets::feed("edge-table", input));
