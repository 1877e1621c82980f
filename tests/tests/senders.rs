//! Real senders, through the screener, to a mailbox: nothing is lost, nothing is changed, nothing comes twice.
//!
//! Each test plays one story with one sender and one way to stand there (steer mode, PROXY v2 and no TLS, unless its name
//! says otherwise; more of the screener's own TLS in `tls_senders.rs`): a large letter of a new client, letters of a client with a
//! pass, recipients that the MTA refuses, several letters by one connection, what EHLO offers.

use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::correspondence::{Correspondence, Setting, envelope};
use screener_tests::letter::{Letter, large_body};
use screener_tests::mailer::Kind;
use screener_tests::mta::{BOB, CAROL, DIRECT, Door, JOERG, NOBODY};

const SOON: Duration = Duration::from_secs(20);

/// More than a story takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The MTA takes letters a little larger than the largest that must arrive.
const SIZE_LIMIT: usize = 26_000_000;
const LARGE: usize = 20_000_000;
const TOO_LARGE: usize = 27_000_000;

macro_rules! stories {
    ($($name:ident: $kind:ident $($word:literal)*;)*) => {$(
        #[test]
        fn $name() {
            cell::test_within(stringify!($name), LIMIT, || story(setting(Kind::$kind, &[$($word),*])));
        }
    )*};
}

stories! {
    letters_of_postfix_arrive: Postfix;
    letters_of_postfix_arrive_by_tls: Postfix "tls";
    letters_of_exim_arrive: Exim;
    letters_of_exim_arrive_by_tls: Exim "tls";
    letters_of_opensmtpd_arrive: OpenSmtpd;
    letters_of_opensmtpd_arrive_by_tls: OpenSmtpd "tls";
    letters_of_sendmail_arrive: Sendmail;
    letters_of_sendmail_arrive_by_tls: Sendmail "tls";
    letters_of_msmtp_arrive: Msmtp;
    letters_of_msmtp_arrive_by_tls: Msmtp "tls";
    letters_of_swaks_arrive: Swaks;
    letters_of_swaks_arrive_by_tls: Swaks "tls";
    letters_of_smtplib_arrive: Smtplib;
    letters_of_smtplib_arrive_by_tls: Smtplib "tls";

    letters_of_postfix_arrive_in_front_mode: Postfix "front";
    letters_of_exim_arrive_in_front_mode_by_tls: Exim "front" "tls";
    letters_of_smtplib_arrive_in_front_mode_by_postfix_pass: Smtplib "front" "postfix-pass";
    letters_of_sendmail_arrive_by_postfix_pass: Sendmail "postfix-pass";
    letters_of_postfix_arrive_by_postfix_pass_and_tls: Postfix "postfix-pass" "tls";

    letters_of_smtplib_arrive_by_a_unix_socket: Smtplib "unix-socket";
    letters_of_postfix_arrive_in_front_mode_by_a_unix_socket_and_tls: Postfix "front" "unix-socket" "tls";

    letters_of_smtplib_arrive_in_front_mode_by_the_screeners_own_tls_and_postfix_pass:
        Smtplib "front" "tls" "own" "postfix-pass";
}

fn setting(kind: Kind, words: &[&str]) -> Setting {
    let has = |word| words.contains(&word);
    Setting {
        kind,
        tls: has("tls"),
        mode: if has("front") { "front" } else { "steer" },
        door: match () {
            () if has("postfix-pass") => Door::Passed,
            () if has("unix-socket") => Door::Socket,
            () => Door::Relay,
        },
        own_tls: has("own"),
    }
}

fn story(setting: Setting) -> Result<()> {
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
    all.came_by(all.setting().screened_door(), 1, 1)?;
    Ok(())
}

fn letters_of_a_client_with_a_pass(all: &mut Correspondence) -> Result<()> {
    all.screener.wait_for_kernel_pass(all.setting().source(1))?;
    let sessions = all.screener.sessions()?;
    let letters = [(); 3].map(|()| Letter::new(&envelope(1, true), &[BOB]));
    all.deliver(&letters)?;
    for letter in &letters {
        let mail = all.received(letter, BOB)?;
        ensure!(mail.bytes == letter.body && mail.was_received_from(all.setting().source(1)), "{mail:?}");
    }
    let connections = if all.setting().keeps_connections() { 1 } else { 3 };
    if all.setting().mode == "steer" {
        ensure!(all.screener.sessions()? == sessions, "the daemon saw a client with a pass");
        return all.came_by(DIRECT, 1, connections);
    }
    // One more: the large letter's.
    all.came_by(all.setting().screened_door(), 1, 1 + connections)
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
        all.came_by(all.setting().screened_door(), client, 1)?;
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
    let door = all.setting().screened_door();
    if all.setting().keeps_connections() {
        all.came_by(door, 4, 1)?;
        ensure!(all.mails(door, 4) == 4, "{}", all.mta.log());
    } else if all.setting().mode == "front" {
        all.came_by(door, 4, 4)?;
    } else {
        // After the first it has a pass, which the kernel knows a moment later.
        let (screened, direct) = (all.connections(door, 4), all.connections(DIRECT, 4));
        ensure!(screened >= 1 && screened + direct == 4, "{screened} and {direct} times:\n{}", all.logs());
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
    // Only the EHLO behind the MTA's own STARTTLS is answered by the MTA. The screener offers no CHUNKING: until the handoff it
    // could not take a chunk.
    let by_mta = all.setting().tls && !all.setting().own_tls;
    let received = mail.header("Received").unwrap_or_default();
    ensure!(received.contains("using TLS") == by_mta, "{received}");
    if kind.chunks() {
        let counted = all.commands(all.setting().screened_door(), 5)?.join("");
        ensure!(counted.contains("bdat=") == by_mta, "{counted}");
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
