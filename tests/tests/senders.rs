//! Real senders, through the screener, to a mailbox: nothing is lost, nothing is changed, nothing comes twice.
//!
//! Each test plays one story with one sender, in steer mode: a large letter of a new client, letters of a client with a
//! pass, recipients that the MTA refuses, several letters by one connection, what EHLO offers.

use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::correspondence::{Correspondence, Setting, envelope};
use screener_tests::letter::{Letter, large_body};
use screener_tests::mailer::Kind;
use screener_tests::mta::{BOB, CAROL, DIRECT, JOERG, NOBODY, RELAY};

const SOON: Duration = Duration::from_secs(20);

/// More than a story takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The MTA takes letters a little larger than the largest that must arrive.
const SIZE_LIMIT: usize = 26_000_000;
const LARGE: usize = 20_000_000;
const TOO_LARGE: usize = 27_000_000;

macro_rules! stories {
    ($($name:ident: $kind:ident, $tls:literal;)*) => {$(
        #[test]
        fn $name() {
            cell::test_within(stringify!($name), LIMIT, || story(Kind::$kind, $tls));
        }
    )*};
}

stories! {
    letters_of_postfix_arrive: Postfix, false;
    letters_of_postfix_arrive_by_tls: Postfix, true;
    letters_of_exim_arrive: Exim, false;
    letters_of_exim_arrive_by_tls: Exim, true;
    letters_of_opensmtpd_arrive: OpenSmtpd, false;
    letters_of_opensmtpd_arrive_by_tls: OpenSmtpd, true;
    letters_of_sendmail_arrive: Sendmail, false;
    letters_of_sendmail_arrive_by_tls: Sendmail, true;
    letters_of_msmtp_arrive: Msmtp, false;
    letters_of_msmtp_arrive_by_tls: Msmtp, true;
    letters_of_swaks_arrive: Swaks, false;
    letters_of_swaks_arrive_by_tls: Swaks, true;
    letters_of_smtplib_arrive: Smtplib, false;
    letters_of_smtplib_arrive_by_tls: Smtplib, true;
}

fn story(kind: Kind, tls: bool) -> Result<()> {
    let setting = Setting { kind, tls, mode: "steer", screener: "" };
    let mut all = Correspondence::start(setting, &format!("message_size_limit = {SIZE_LIMIT}"))?;
    a_large_letter_of_a_new_client(&mut all)?;
    letters_of_a_client_with_a_pass(&mut all)?;
    refused_recipients(&mut all)?;
    several_letters_of_a_new_client(&mut all)?;
    what_ehlo_offers(&mut all)?;
    a_letter_that_is_too_large(&mut all)?;
    all.balance()
}

fn a_large_letter_of_a_new_client(all: &mut Correspondence) -> Result<()> {
    let source = all.setting().source(1);
    let letter = Letter::new(&envelope(1, false), &[BOB]).with_body(large_body(LARGE));
    all.deliver(std::slice::from_ref(&letter))?;
    let mail = all.received(&letter, BOB)?;
    ensure!(mail.bytes == letter.body, "{} bytes arrived, {} were sent", mail.bytes.len(), letter.body.len());
    ensure!(mail.was_received_from(source), "{:?}", mail.headers);
    all.screener.wait_for_log(&format!("PASS NEW [{source}]:"), SOON)?;
    ensure!(all.connections(RELAY, 1) == 1 && all.connections(DIRECT, 1) == 0, "{}", all.mta.log());
    Ok(())
}

fn letters_of_a_client_with_a_pass(all: &mut Correspondence) -> Result<()> {
    let sessions = all.screener.sessions()?;
    let letters = [(); 3].map(|()| Letter::new(&envelope(1, true), &[BOB]));
    all.deliver(&letters)?;
    for letter in &letters {
        let mail = all.received(letter, BOB)?;
        ensure!(mail.bytes == letter.body && mail.was_received_from(all.setting().source(1)), "{mail:?}");
    }
    ensure!(all.screener.sessions()? == sessions, "the daemon saw a client with a pass");
    let expected = if all.setting().keeps_connections() { 1 } else { 3 };
    ensure!(all.connections(DIRECT, 1) == expected, "{} connections", all.connections(DIRECT, 1));
    Ok(())
}

/// The refused one first, so that the handoff begins with the MTA's refusal; and last, when the MTA has the session.
fn refused_recipients(all: &mut Correspondence) -> Result<()> {
    for (client, to) in [(2, [NOBODY, BOB, CAROL]), (3, [BOB, CAROL, NOBODY])] {
        let letter = Letter::new(&envelope(client, false), &to);
        let fates = all.send(std::slice::from_ref(&letter))?;
        for fate in fates.iter().flatten() {
            if fate.to == NOBODY {
                let words = "User unknown in virtual mailbox table";
                ensure!(!fate.accepted && fate.said.contains(words), "{fate:?}");
                ensure!(fate.said.contains("5.1.1"), "{fate:?}");
            } else {
                let kind = all.setting().kind;
                ensure!(fate.accepted == kind.delivers_to_the_others(), "{fate:?}\n{}", all.screener.log());
            }
        }
        ensure!(all.connections(RELAY, client) == 1 && all.connections(DIRECT, client) == 0, "{}", all.mta.log());
    }
    Ok(())
}

fn several_letters_of_a_new_client(all: &mut Correspondence) -> Result<()> {
    let letters = [(); 4].map(|()| Letter::new(&envelope(4, false), &[BOB, CAROL]));
    all.deliver(&letters)?;
    for letter in &letters {
        ensure!(all.received(letter, BOB)?.bytes == letter.body);
        ensure!(all.received(letter, CAROL)?.bytes == letter.body);
    }
    ensure!(all.connections(RELAY, 4) == 1, "{}", all.mta.log());
    if all.setting().keeps_connections() {
        ensure!(all.connections(DIRECT, 4) == 0, "{}", all.mta.log());
        let counted = all.commands(RELAY, 4)?.join("");
        ensure!(counted.contains("mail=4 "), "{counted}");
    }
    Ok(())
}

/// 8BITMIME, DSN, SMTPUTF8 and CHUNKING, as far as the sender uses them.
fn what_ehlo_offers(all: &mut Correspondence) -> Result<()> {
    let kind = all.setting().kind;
    let mut body = "Gr\u{fc}\u{df}e, \u{5b57}, and bytes that are no UTF-8: ".as_bytes().to_vec();
    body.extend((0x80..=0xff_u8).chain(*b"\n"));
    let mut letter = Letter::new(&envelope(5, false), &[BOB]).with_body(body);
    if kind.asks_for_notifications() {
        letter = letter.with_notification();
    }
    all.deliver(std::slice::from_ref(&letter))?;
    let mail = all.received(&letter, BOB)?;
    ensure!(mail.bytes == letter.body, "8 bits did not survive: {}", mail.bytes.escape_ascii());
    if kind.asks_for_notifications() {
        let notified = ["sender delivery status notification"];
        all.mta.postfix().wait_for_log(&notified, SOON)?;
    }
    if kind.speaks_utf8() {
        let letter = Letter::new(&envelope(6, false), &[JOERG]);
        all.deliver(std::slice::from_ref(&letter))?;
        let mail = all.received(&letter, JOERG)?;
        let received = mail.header("Received").unwrap_or_default();
        ensure!(mail.bytes == letter.body && received.contains("with UTF8SMTP"), "{mail:?}");
    }
    if kind.chunks() {
        let counted = all.commands(RELAY, 5)?.join("");
        // Without TLS the one EHLO is answered by the screener, which cannot say whether chunks may come at once.
        ensure!(counted.contains("bdat=") == all.setting().tls, "{counted}");
    }
    Ok(())
}

fn a_letter_that_is_too_large(all: &mut Correspondence) -> Result<()> {
    let letter = Letter::new(&envelope(7, false), &[BOB]).with_body(large_body(TOO_LARGE));
    let fates = all.send(&[letter])?;
    for fate in fates.iter().flatten() {
        let named = ["size", "too large"].iter().any(|word| fate.said.to_lowercase().contains(word));
        ensure!(!fate.accepted && named, "{fate:?}\n{}", all.logs());
    }
    Ok(())
}
