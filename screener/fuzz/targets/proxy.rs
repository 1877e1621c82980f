//! PROXY headers: no input panics; a verdict never changes when more arrives behind it; what was read is written so that the
//! same is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screener::proxy::{Header, parse};

fuzz_target!(|input: &[u8]| {
    let whole = parse(input);
    for end in 0..input.len() {
        match parse(&input[..end]) {
            Ok(None) => {}
            early => {
                assert_eq!(early, whole, "the verdict after {end} bytes is not the last one");
                break;
            }
        }
    }
    if let Ok(Some((header, used))) = whole {
        assert!(used <= input.len());
        let plain = Header { tlvs: Vec::new(), ..header.clone() };
        assert_eq!(reread(&plain.v2()).origin, header.origin);
        if header.origin != screener::proxy::Origin::Local {
            assert_eq!(reread(&plain.v1()).origin, header.origin);
        }
        reread(&header.v2());
    }
});

fn reread(wire: &[u8]) -> Header {
    let (header, used) = parse(wire).expect("a header of ours").expect("a whole one");
    assert_eq!(used, wire.len());
    header
}
