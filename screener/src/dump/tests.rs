//! The forms: what is written comes back, what others wrote is understood, and nothing that a file may hold does harm.

use proptest::prelude::*;

use super::*;
use crate::ledger::Origin;
use crate::pass::{Stamps, Test};

const NOW: UnixTime = UnixTime(1_795_490_000);

fn read(text: &str) -> Result<Vec<Line>, String> {
    let mut reader = Reader::new(None, NOW);
    let lines = text.lines().map(|line| reader.read(line)).collect::<Result<Vec<_>, _>>()?;
    reader.end()?;
    Ok(lines.into_iter().filter(|line| *line != Line::Nothing).collect())
}

fn dumped(passes: &[(IpAddr, Pass)], ipv6_key: Ipv6KeyLength) -> String {
    let mut text = format!("{}\n", Header { ipv6_key });
    for (client, pass) in passes {
        text += &(line(*client, pass) + "\n");
    }
    text + &footer(passes.len() as u64) + "\n"
}

prop_compose! {
    fn any_pass()(
        until in prop::array::uniform5(prop::option::of(any::<u64>())),
        created in any::<u64>(),
        origin in prop::sample::select(Origin::ALL.to_vec()),
        comment in prop::option::of(any::<String>()),
    ) -> Pass {
        let mut stamps = Stamps::default();
        for (test, until) in Test::ALL.into_iter().zip(until) {
            stamps.set(test, until.map(UnixTime));
        }
        Pass { stamps, created: UnixTime(created), origin, comment }
    }
}

proptest! {
    #[test]
    fn what_is_dumped_comes_back(passes in prop::collection::vec((any::<IpAddr>(), any_pass()), 0..20), bits in 32..=128_u8) {
        let key = Ipv6KeyLength::try_from(bits).unwrap();
        let passes: Vec<_> = passes.into_iter().map(|(client, pass)| (client.to_canonical(), pass)).collect();
        let back = read(&dumped(&passes, key)).unwrap();
        let there: Vec<_> = passes.into_iter().map(|(client, pass)| Line::Pass(client, pass)).collect();
        prop_assert_eq!(back, there);
    }

    #[test]
    fn no_line_does_harm(lines in prop::collection::vec(any::<String>(), 0..5), format in 0..4_usize) {
        let mut reader = Reader::new(Format::ALL.get(format).copied(), NOW);
        for line in &lines {
            let _ = reader.read(line);
        }
        let _ = reader.end();
    }

    #[test]
    fn no_line_that_is_nearly_right_does_harm(at in any::<prop::sample::Index>(), byte in any::<char>(), which in 0..4_usize) {
        let right = [
            "192.0.2.1\tcreated=2026-11-24T04:30:00Z\torigin=manual\tdnsbl=@7\tcomment=\"by phone\"",
            "203.0.113.30\t1795572274;1;1795485934;1798077874;1798077874",
            "WHITE|192.0.2.7|||1795400000|1795400900|1798510900|3|41",
            "screener-passes 1 ipv6_prefix=64",
        ][which];
        let mut letters: Vec<char> = right.chars().collect();
        let at = at.index(letters.len());
        letters[at] = byte;
        let mut reader = Reader::new(None, NOW);
        let _ = reader.read(&letters.into_iter().collect::<String>());
    }
}

fn pass(line: &str) -> (IpAddr, Pass) {
    match read(line).unwrap_or_else(|error| panic!("{line}: {error}")).pop() {
        Some(Line::Pass(client, pass)) => (client, pass),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_record_of_postscreens_cache_is_a_pass_of_what_was_tested() {
    // From a real cache: dnsbl was not done.
    let (client, found) = pass("203.0.113.30\t1795572274;1;1795485934;1798077874;1798077874");
    assert_eq!(client.to_string(), "203.0.113.30");
    let until = Test::ALL.map(|test| found.stamps.get(test).map(|until| until.0));
    assert_eq!(until, [Some(1_795_572_274), None, Some(1_795_485_934), Some(1_798_077_874), Some(1_798_077_874)]);
    assert_eq!((found.created, found.origin, found.comment), (NOW, Origin::Screened, None));
    // Of an older version, with fewer tests; 0: never passed.
    let (_, found) = pass("2001:db8::25 0;1795572274");
    assert_eq!(found.stamps.get(Test::Pregreet), None);
    assert_eq!(found.stamps.get(Test::Dnsbl), Some(UnixTime(1_795_572_274)));
    assert_eq!(found.stamps.get(Test::Pipelining), None);
    let text = "_LAST_CACHE_CLEANUP_COMPLETED_\t1795485934\n192.0.2.1\t1;1;1;1;1\n";
    assert!(matches!(read(text).as_deref(), Ok([Line::Other(_), Line::Pass(..)])));
}

#[test]
fn a_white_line_of_spamdb_is_a_pass_and_the_others_are_not() {
    let (client, found) = pass("WHITE|192.0.2.7|||1795400000|1795400900|1798510900|3|41");
    assert_eq!((client.to_string().as_str(), found.created), ("192.0.2.7", UnixTime(1_795_400_000)));
    assert_eq!(found.stamps, Stamps::all_until(UnixTime(1_798_510_900)));
    let text = "GREY|198.51.100.9|mail.example|<a@example.net>|<b@example.com>|1|2|3|1|0\n\
                TRAPPED|198.51.100.10|1795572274\nSPAMTRAP|trap@example.com\n";
    assert_eq!(read(text).unwrap(), [Line::Other("GREY"), Line::Other("TRAPPED"), Line::Other("SPAMTRAP")]);
}

#[test]
fn what_is_wrong_is_said() {
    for (text, complaint) in [
        ("mx.example.com\n", "begins no dump that is known"),
        ("192.0.2.1\t1;2;3;4;5;6", "more than five tests"),
        ("192.0.2.1\t1;;3", "'' is no time in seconds since 1970"),
        ("192.0.2.1\t1\n192.0.2\t1", "'192.0.2' is no IP address"),
        ("192.0.2.1\t1\n192.0.2.2\t99999999999999", "is no time in seconds"),
        ("WHITE|192.0.2.7|||1|2|3|4", "has 9 fields, and this one 8"),
        ("WHITE|192.0.2.7|||1|2|3|4|5\nBLACK|192.0.2.7", "it begins with WHITE"),
        ("screener-passes 2\n", "of version '2', and this screener reads 1"),
        ("screener-passes 1\n", "\"end 0\", is missing, so this is not the whole dump"),
        ("screener-passes 1\n192.0.2.1\torigin=manual\nend 1", "created= is missing"),
        ("screener-passes 1\n192.0.2.1\tcreated=@1\torigin=god\nend 1", "'god' is no origin of a pass"),
        ("screener-passes 1\n192.0.2.1\tcreated=@1\torigin=manual\tgreylist=@2\nend 1", "greylist"),
        ("screener-passes 1\n192.0.2.1\tcreated=@1\torigin=manual\tdnsbl=@2\tdnsbl=@3\nend 1", "stands there twice"),
        ("screener-passes 1\n192.0.2.1\tcreated=@1\torigin=manual\tcomment=x\nend 1", "no JSON string"),
        ("screener-passes 1\n192.0.2.1\tcreated=@1\torigin=manual\nend 2", "there are 2 passes, and there are 1"),
        ("screener-passes 1\nend 0\nscreener-passes 1\nend 0\n", "two dumps in one"),
        ("screener-passes 1\nend\n", "the last line is \"end\" and how many passes there are"),
    ] {
        match read(text) {
            Err(said) => assert!(said.contains(complaint), "{text:?}: {said}"),
            Ok(lines) => panic!("{text:?}: {lines:?}"),
        }
    }
}

#[test]
fn a_comment_may_hold_what_a_line_may_not() {
    let comment = Some("two\nlines\tand comment=\"x\" \u{7f}\u{2028}".to_owned());
    let stamps = Stamps::all_until(UnixTime(5));
    let there = Pass { stamps, created: UnixTime(1), origin: Origin::Manual, comment };
    let client = "192.0.2.1".parse().unwrap();
    let text = line(client, &there);
    assert_eq!(text.lines().count(), 1);
    assert_eq!(super::ours::read(&text), Ok((client, there)));
}
