//! SMTP smuggling: a server and the one behind it must never disagree about where a message ends. The screener has no
//! opinion: what a client sends behind DATA reaches the MTA byte for byte, or the client never got that far.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::letter::large_body;
use screener_tests::mailbox::Mailbox;
use screener_tests::mta::{BOB, DIRECT, Mta, RELAY};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::sink::Sink;

const SOON: Duration = Duration::from_secs(20);

/// Ends of data that some server takes for one and another does not, and the one that all do.
const ENDS: [&[u8]; 20] = [
    b"\r\n.\r\n",
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\n.\r",
    b"\n\n.\n\n",
    b"\n\n.\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n\0.\0\r\n",
    b"\r\0\n.\r\0\n",
    b"\r\n.\r\0\n",
    b"\r\n..\r\n",
    b"\r\n\x85.\x85",
];

/// A message in the middle of which one of them stands, with a second envelope behind it, as a smuggler sends it.
fn message(end: &[u8], number: usize) -> Vec<u8> {
    let mut bytes = format!("Message-ID: <outer{number}@example.net>\r\nSubject: outer\r\n\r\nbefore").into_bytes();
    bytes.extend_from_slice(end);
    let inner = format!(
        "MAIL FROM:<admin@example.com>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n\
         Message-ID: <inner{number}@example.net>\r\nSubject: inner\r\n\r\nsmuggled\r\n.\r\n"
    );
    bytes.extend_from_slice(inner.as_bytes());
    bytes
}

/// An address for each client.
fn source(number: usize) -> IpAddr {
    let octet = u8::try_from(number).unwrap_or(u8::MAX);
    [203, 0, 113, octet].into()
}

/// Connects a client for each number, all of them before any is greeted, so that they wait together.
fn connect(internet: &Host, mx: &Host, numbers: impl Iterator<Item = usize>) -> Result<Vec<Client>> {
    let server = SocketAddr::new(mx.address(Family::V4)?, 25);
    numbers.map(|number| Ok(Client::connect(internet, source(number), server)?)).collect()
}

/// Takes a client as far as the reply to DATA.
fn up_to_data(client: &mut Client, helo: &str) -> Result<()> {
    client.expect(220)?;
    client.ask(&format!("EHLO {helo}"), 250)?;
    client.ask("MAIL FROM:<eve@example.net>", 250)?;
    client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
    client.ask("DATA", 354)?;
    Ok(())
}

#[test]
fn every_end_of_data_reaches_the_mta_as_it_was_sent() {
    cell::test("every_end_of_data_reaches_the_mta_as_it_was_sent", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let sink = Sink::start(&mx, "127.0.0.1:10025")?;
        let _screener = Screener::start(&mx, USUAL)?;
        let mut clients = connect(&internet, &mx, 1..=ENDS.len())?;
        for (number, (client, end)) in clients.iter_mut().zip(ENDS).enumerate() {
            let helo = format!("client{number}.example.net");
            up_to_data(client, &helo)?;
            let message = message(end, number);
            // In one piece, and cut within the end, where a relay that looks for it would have to remember.
            for piece in [&message[..], &message[..message.len() / 2], &message[message.len() / 2..]] {
                client.send_raw(piece)?;
            }
            client.half_close()?;
            let seen = sink.wait_for(&format!("EHLO {helo}"), SOON)?;
            let expected = [&message[..], &message[..]].concat();
            ensure!(seen.data == expected, "{}: {}", end.escape_ascii(), seen.data.escape_ascii());
        }
        ensure!(sink.seen().len() == ENDS.len());
        Ok(())
    });
}

#[test]
fn every_byte_value_and_a_flood_of_bytes_reach_the_mta_as_they_were_sent() {
    cell::test("every_byte_value_and_a_flood_of_bytes_reach_the_mta_as_they_were_sent", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let sink = Sink::start(&mx, "127.0.0.1:10025")?;
        let _screener = Screener::start(&mx, USUAL)?;
        let pairs = (0..=u8::MAX).flat_map(|first| [first, b'\r', first, b'\n', first, b'.', first, 0]);
        let bytes: Vec<u8> = pairs.chain(large_body(3_000_000)).chain(ENDS.concat()).collect();
        for client in &mut connect(&internet, &mx, 1..=1)? {
            up_to_data(client, "flood.example.net")?;
            // The log of what was said would be as large.
            client.send_raw(&bytes)?;
            client.half_close()?;
        }
        let seen = sink.wait_for("EHLO flood.example.net", SOON)?;
        let differs = seen.data.iter().zip(&bytes).position(|(is, was)| is != was);
        ensure!(seen.data == bytes, "{} of {} bytes, the first other one is {differs:?}", seen.data.len(), bytes.len());
        Ok(())
    });
}

/// What a client sends behind the recipient without waiting fails the pipelining test; if the operator lets it through, it
/// is the MTA's first input, unchanged.
#[test]
fn a_message_sent_ahead_of_the_handoff_is_refused_or_reaches_the_mta_as_it_was_sent() {
    cell::test("a_message_sent_ahead_of_the_handoff_is_refused_or_reaches_the_mta_as_it_was_sent", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let sink = Sink::start(&mx, "127.0.0.1:10025")?;
        for (offset, action, refused) in [(0, "enforce", true), (100, "ignore", false)] {
            let config = format!("{USUAL}[tests.pipelining]\naction = \"{action}\"\n");
            let mut screener = Screener::start(&mx, &config)?;
            let numbers = offset + 1..=offset + ENDS.len();
            let mut clients = connect(&internet, &mx, numbers.clone())?;
            for (number, (client, end)) in numbers.zip(clients.iter_mut().zip(ENDS)) {
                client.expect(220)?;
                let helo = format!("client{number}.example.net");
                client.ask(&format!("EHLO {helo}"), 250)?;
                client.ask("MAIL FROM:<eve@example.net>", 250)?;
                let message = message(end, number);
                let ahead = [format!("RCPT TO:<{BOB}>\r\nDATA\r\n").as_bytes(), &message].concat();
                client.send_raw(&ahead)?;
                client.half_close()?;
                if refused {
                    let refusal = client.read_reply()?;
                    ensure!(refusal.code == 550 && refusal.contains("5.5.1 Protocol error"), "{}", refusal.text());
                } else {
                    client.expect(250)?;
                    let seen = sink.wait_for(&format!("EHLO {helo}"), SOON)?;
                    ensure!(seen.data == message, "{}: {}", end.escape_ascii(), seen.data.escape_ascii());
                }
            }
            screener.stop()?;
            ensure!(sink.seen().len() == if refused { 0 } else { ENDS.len() });
        }
        Ok(())
    });
}

/// The MTA's judgement of each message is its own: the same replies and the same mails, with the screener and without.
#[test]
fn postfix_judges_each_message_as_it_does_without_a_screener() {
    cell::test_within("postfix_judges_each_message_as_it_does_without_a_screener", Duration::from_secs(240), || {
        let (mx, internet) = Net::mx_and_internet()?;
        // Each message on its own merits, not by how many errors came before it.
        let mta = Mta::start(&mx, "smtpd_error_sleep_time = 0")?;
        let straight = talk(&internet, &mx, 0)?;
        ensure!(!mta.log().contains(RELAY), "{}", mta.log());
        let _screener = Screener::start(&mx, USUAL)?;
        let screened = talk(&internet, &mx, 100)?;
        let clients = (101..=100 + ENDS.len()).filter(|&number| mta.has_seen(RELAY, source(number))).count();
        ensure!(clients == ENDS.len(), "{clients} of {} came through the screener", ENDS.len());
        let mailbox = Mailbox::of(&mx, BOB);
        for (number, end) in ENDS.iter().enumerate() {
            let name = end.escape_ascii();
            ensure!(straight[number] == screened[number], "{name}: {:?}, {:?}", straight[number], screened[number]);
            for which in ["outer", "inner"] {
                let mails = [1, 101].map(|offset| format!("{which}{}@example.net", offset + number));
                // Whatever the MTA accepted with 250 is to arrive.
                let mut found = [Vec::new(), Vec::new()];
                for (id, bodies) in mails.iter().zip(&mut found) {
                    let all = mailbox.mails()?;
                    bodies.extend(all.into_iter().filter(|mail| mail.has_id(id)).map(|mail| mail.bytes));
                }
                let [first, second] = found;
                ensure!(first.len() == second.len(), "{name}, {which}: {} and {} mails", first.len(), second.len());
                let plain = |bodies: Vec<Vec<u8>>, offset: usize| -> Vec<String> {
                    let number = (offset + number).to_string();
                    let text = |body: Vec<u8>| body.escape_ascii().to_string().replace(&format!("{number}@"), "N@");
                    bodies.into_iter().map(text).collect()
                };
                let (first, second) = (plain(first, 1), plain(second, 101));
                ensure!(first == second, "{name}, {which}: {first:?} and {second:?}");
            }
        }
        ensure!(!mta.log().contains("fatal:") && mta.log().contains(DIRECT));
        Ok(())
    });
}

/// Sends every message and gives the codes of the replies to each, once the mails of all have arrived.
fn talk(internet: &Host, mx: &Host, offset: usize) -> Result<Vec<String>> {
    let numbers = offset + 1..=offset + ENDS.len();
    let mut clients = connect(internet, mx, numbers.clone())?;
    let mut all = Vec::new();
    let mut accepted = 0;
    for (number, (client, end)) in numbers.zip(clients.iter_mut().zip(ENDS)) {
        up_to_data(client, "eve.example.net")?;
        client.send_raw(&message(end, number))?;
        client.send_line("QUIT")?;
        client.half_close()?;
        let (said, _) = client.read_all()?;
        let said = String::from_utf8_lossy(&said).into_owned();
        accepted += said.matches("queued as").count();
        let codes: Vec<&str> = said.lines().map(|line| line.get(..9).unwrap_or(line)).collect();
        all.push(codes.join(", "));
    }
    let mailbox = Mailbox::of(mx, BOB);
    let before = if offset == 0 { 0 } else { mailbox.mails()?.len() };
    // Mails of the first round are there already when the second begins.
    let expected = if offset == 0 { accepted } else { before.max(accepted) };
    mailbox.wait_for_mail(expected, SOON, String::new)?;
    Ok(all)
}

#[test]
fn bare_newlines_in_commands_are_seen_before_the_handoff() {
    cell::test("bare_newlines_in_commands_are_seen_before_the_handoff", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let sink = Sink::start(&mx, "127.0.0.1:10025")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let odd: [&[u8]; 5] = [
            b"EHLO client.example.net\n",
            b"EHLO client.example.net\r\r\n",
            b"EHLO client\rMAIL FROM:<x@example.net>\r\n",
            b"EHLO client.example.net\0\r\n",
            b"EHLO client\0.example.net\n",
        ];
        let mut clients = connect(&internet, &mx, 1..=odd.len())?;
        for (client, line) in clients.iter_mut().zip(odd) {
            client.expect(220)?;
            client.send_raw(line)?;
            // Whatever it is answered: the test has failed.
            client.read_reply()?;
            client.ask("EHLO client.example.net", 250)?;
            client.ask("MAIL FROM:<eve@example.net>", 250)?;
            let refusal = client.ask(&format!("RCPT TO:<{BOB}>"), 550)?;
            ensure!(refusal.contains("5.5.1 Protocol error"), "{}", refusal.text());
            let log = screener.wait_for_log(&format!("BARE NEWLINE from {} ", client.log_name()), SOON)?;
            ensure!(log.contains("after"), "{log}");
        }
        ensure!(sink.seen().is_empty());
        Ok(())
    });
}
