//! postscreen beside a screener whose configuration was imported from postscreen's: the transcripts of `versus_postscreen`, alike.
//!
//! In a file of its own: both have a machine's worth of processes, and run one after the other.

use std::time::Duration;

use screener_tests::cell;
use screener_tests::versus::differences::Difference;
use screener_tests::versus::lab::Lab;
use screener_tests::versus::setting::Setting;
use screener_tests::versus::{Ledger, differences, scripts};

/// Most of it is the machine's other work.
const LIMIT: Duration = Duration::from_secs(240);

/// Under each of these both sides differ in other settings.
const IMPORTED: [Setting; 5] = [Setting::Enforce, Setting::Ignore, Setting::Early, Setting::DeepDrop, Setting::Limits];

#[test]
fn what_was_imported_from_postscreens_configuration_behaves_as_postscreen_does() {
    cell::test_within("what_was_imported_from_postscreens_configuration_behaves_as_postscreen_does", LIMIT, || {
        let lab = Lab::build_imported(&IMPORTED)?;
        let scripts: Vec<_> = scripts::all().collect();
        let mut wanted = differences::all();
        // What postscreen ignores is a dry run here, and no line says so.
        wanted.push(Difference {
            reason: "denied-is-counted",
            within: &["ignore/denied-and-gone"],
            postscreen: &["log: DENYLISTED CLIENT#1"],
            screener: &[],
        });
        Ledger::new(&wanted).compare_all(&lab.play(&scripts)?)
    });
}
