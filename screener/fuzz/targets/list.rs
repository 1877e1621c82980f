//! Lists of prefixes, in each form: no input panics, and what was read is in order, each prefix once and with nothing behind
//! its length, so that it is read again as a plain list.

#![no_main]

use libfuzzer_sys::fuzz_target;
use screener::clock::UnixTime;
use screener::feed::{Format, List, SpamdConf};

const NOW: UnixTime = UnixTime(1_795_490_000);

fuzz_target!(|input: &[u8]| {
    let Some((&which, input)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(input);
    if let Ok(conf) = SpamdConf::read(&text) {
        // Its lists are what comes behind it.
        conf.lists(&mut |_| Ok(text.lines().skip(4).collect::<Vec<_>>().join("\n"))).iter().for_each(reread);
    }
    if let Some(format) = Format::ALL.get(usize::from(which)) {
        format.read(&text, NOW, &mut |_| ()).iter().for_each(reread);
    }
});

fn reread(list: &List) {
    let text: String = list.prefixes.iter().map(|net| format!("{net}\n")).collect();
    let again = Format::Cidr.read(&text, NOW, &mut |_| ()).expect("a list of ours");
    assert_eq!((&again.prefixes, again.repeated), (&list.prefixes, 0));
}
