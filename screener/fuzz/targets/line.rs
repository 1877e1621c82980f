//! Command lines out of bytes: nothing is lost or invented, and the pieces in which they come make no difference.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screener::session::simulation::lines;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, input)) = input.split_first() else { return };
    lines(input, 512, usize::from(piece));
});
