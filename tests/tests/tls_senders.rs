//! Real senders that insist on TLS, before a daemon that terminates it: three libraries, and seven ways of using them.

use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::correspondence::{Correspondence, Setting, envelope};
use screener_tests::letter::{Letter, large_body};
use screener_tests::mailer::Kind;
use screener_tests::mta::{BOB, CAROL, Door, NOBODY, RELAY};

const SOON: Duration = Duration::from_secs(20);

/// More than a story takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

macro_rules! stories {
    ($($name:ident: $kind:ident;)*) => {$(
        #[test]
        fn $name() {
            cell::test_within(stringify!($name), LIMIT, || story(Kind::$kind));
        }
    )*};
}

stories! {
    postfix_brings_its_letters_under_our_tls: Postfix;
    exim_brings_its_letters_under_our_tls: Exim;
    opensmtpd_brings_its_letters_under_our_tls: OpenSmtpd;
    sendmail_brings_its_letters_under_our_tls: Sendmail;
    msmtp_brings_its_letters_under_our_tls: Msmtp;
    swaks_brings_its_letters_under_our_tls: Swaks;
    smtplib_brings_its_letters_under_our_tls: Smtplib;
}

fn story(kind: Kind) -> Result<()> {
    let setting = Setting { kind, tls: true, mode: "steer", door: Door::Relay, own_tls: true };
    let mut all = Correspondence::start(setting, "")?;

    let large = Letter::new(&envelope(1, false), &[BOB]).with_body(large_body(3_000_000));
    all.deliver(std::slice::from_ref(&large))?;
    let mail = all.received(&large, BOB)?;
    ensure!(mail.bytes == large.body, "{} bytes arrived, {} were sent", mail.bytes.len(), large.body.len());
    let source = setting.source(1);
    ensure!(mail.was_received_from(source), "{:?}", mail.headers);
    let line = all.screener.wait_for_log(&format!("Anonymous TLS connection established from [{source}]:"), SOON)?;
    ensure!(line.contains("TLSv1.3 with cipher ") || line.contains("TLSv1.2 with cipher "), "{line}");
    all.screener.wait_for_log(&format!("PASS NEW [{source}]:"), SOON)?;
    ensure!(all.connections(RELAY, 1) == 1, "{}", all.mta.log());

    let several = [(); 3].map(|()| Letter::new(&envelope(2, false), &[BOB, CAROL]));
    all.deliver(&several)?;
    for letter in &several {
        ensure!(all.received(letter, BOB)?.bytes == letter.body && all.received(letter, CAROL)?.bytes == letter.body);
    }
    // The MTA itself never did TLS with it, and heard its EHLO once.
    let counted = all.commands(RELAY, 2)?.join("\n");
    ensure!(counted.contains("ehlo=1") && !counted.contains("starttls"), "{counted}");

    let refused = Letter::new(&envelope(3, false), &[NOBODY]);
    let fates = all.send(std::slice::from_ref(&refused))?;
    ensure!(fates.iter().flatten().all(|fate| !fate.accepted && fate.said.contains("5.1.1")), "{fates:?}");
    all.balance()
}
