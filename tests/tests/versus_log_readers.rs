//! What reads postscreen's log reads the screener's as well: fail2ban with its filter for Postfix, and log parsers.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::versus::lab::Lab;
use screener_tests::versus::readers::{Kinds, fail2ban_matches, texts};
use screener_tests::versus::scripts;
use screener_tests::versus::setting::{PROGRAM, Setting};

/// Transcripts that both sides log alike, with every kind of line among them.
const PLAYED: [&str; 22] = [
    "one-mail",
    "pregreet",
    "pregreet-ipv6",
    "gone-after-the-first-line",
    "gone-after-the-first-line-ipv6",
    "gone-after-ehlo",
    "listed",
    "listed-ipv6",
    "permitted",
    "backup",
    "commands-over-a-tight-limit",
    "unknown-commands-over-a-tight-limit",
    "time-after-the-greeting",
    "time-after-ehlo",
    "connections-over-the-limit",
    "a-line-without-end",
    "data-before-rcpt",
    "pipelining-after-mail",
    "non-smtp-after-mail",
    "bare-newline-ehlo",
    "bare-newline-rcpt",
    "rcpt-many",
];

const SETTINGS: [Setting; 3] = [Setting::Enforce, Setting::Deep, Setting::Limits];

#[test]
fn what_reads_postscreens_log_finds_the_same_in_the_screeners() {
    cell::test("what_reads_postscreens_log_finds_the_same_in_the_screeners", || {
        let lab = Lab::build(&SETTINGS)?;
        let scripts: Vec<_> = scripts::all().filter(|script| PLAYED.contains(&script.name)).collect();
        ensure!(scripts.len() == PLAYED.len(), "{} of {} transcripts are there", scripts.len(), PLAYED.len());
        lab.play(&scripts)?;
        fail2ban(&lab)?;
        parsers(&lab)
    });
}

fn fail2ban(lab: &Lab) -> Result<()> {
    // In each mode, what must be among the offences.
    let modes: [(&str, &[&str]); 3] = [
        ("more", &["NOQUEUE: reject: RCPT from [203.0.113.17]: 550 5.7.1"]),
        (
            "ddos",
            &[
                "PREGREET 13 after T from [2001:db8:a:",
                "HANGUP after T from [198.51.100.",
                "COMMAND TIME LIMIT",
                "COMMAND COUNT LIMIT",
                "COMMAND LENGTH LIMIT",
            ],
        ),
        ("aggressive", &["PREGREET", "HANGUP", "NOQUEUE: reject: RCPT"]),
    ];
    for (mode, expected) in modes {
        let mut seen = String::new();
        for setting in SETTINGS {
            let (postscreen, screener) = lab.logs(setting)?;
            let offences = |log: &str, program: &str| -> Result<Vec<String>> {
                let own: String = log
                    .lines()
                    .filter(|line| line.contains(&format!(" {program}[")))
                    .map(|line| format!("{line}\n"))
                    .collect();
                let matches = fail2ban_matches(lab.internet(), mode, &own)?;
                let mut offences = texts(matches.iter().map(String::as_str), program);
                offences.sort();
                Ok(offences)
            };
            let theirs = offences(&postscreen, &format!("{}/postscreen", setting.log_name()))?;
            let ours = offences(&screener, PROGRAM)?;
            ensure!(theirs == ours, "mode {mode}, setting {}:\n{theirs:#?}\n{ours:#?}", setting.name());
            seen += &ours.join("\n");
        }
        for part in expected {
            ensure!(seen.contains(part), "fail2ban in mode {mode} sees no {part:?} in:\n{seen}");
        }
    }
    Ok(())
}

fn parsers(lab: &Lab) -> Result<()> {
    let kinds = Kinds::default();
    let mut met = BTreeSet::new();
    for setting in SETTINGS {
        let (postscreen, screener) = lab.logs(setting)?;
        for (log, program) in [(&postscreen, format!("{}/postscreen", setting.log_name())), (&screener, PROGRAM.into())]
        {
            for (text, kind) in kinds.of_log(log, &program) {
                ensure!(kind.is_some(), "no parser knows this line of {program}: {text}");
                if program == PROGRAM {
                    met.extend(kind);
                }
            }
        }
    }
    let unmet: Vec<_> = kinds.all().filter(|kind| !met.contains(kind)).collect();
    ensure!(unmet.is_empty(), "no line of this kind was logged: {unmet:?}");
    Ok(())
}
