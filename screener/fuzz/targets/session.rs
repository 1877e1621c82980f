//! A whole session in the simulated world of the engine's tests, with the fuzzer's bytes as its choices.

#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use screener::session::simulation::{Entropy, run};

fuzz_target!(|input: &[u8]| {
    run(Entropy::Bytes(input), Instant::now());
});
