//! Dumps of passes, in each form: no input panics, and a pass that was read is written so that the same is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screener::clock::UnixTime;
use screener::dump::{Format, Line, Reader, line};

fuzz_target!(|input: &[u8]| {
    let Some((&which, input)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(input);
    let mut reader = Reader::new(Format::ALL.get(usize::from(which)).copied(), UnixTime(1_795_490_000));
    for given in text.lines() {
        let Ok(Line::Pass(client, pass)) = reader.read(given) else { continue };
        let mut again = Reader::new(Some(Format::Screener), UnixTime(0));
        again.read("screener-passes 1").expect("a header");
        let back = again.read(&line(client, &pass)).expect("a line of ours");
        assert_eq!(back, Line::Pass(client, pass));
    }
    let _ = reader.end();
});
