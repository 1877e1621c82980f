//! Clients given to an unmodified Postfix by descriptor: their own socket where they need no dialogue, one end of a socket
//! pair where the daemon has spoken for the MTA.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::certificate::Certificate;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Door, Mta, PASSED};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::until;

const SOON: Duration = Duration::from_secs(20);
const FRONT: &str = "[listen]\nmode = \"front\"\naddresses = [\"0.0.0.0:2525\", \"[::]:2525\"]\n";

fn front() -> String {
    format!("{USUAL}{}{FRONT}", Door::Passed.backend())
}

fn connect(internet: &Host, mx: &Host, source: &str) -> Result<Client> {
    let source: IpAddr = source.parse()?;
    let mut client = Client::connect(internet, source, SocketAddr::new(mx.address(Family::of(source))?, 2525))?;
    client.set_patience(SOON);
    Ok(client)
}

/// Sends a mail as far as its end; `n` makes its Message-ID.
fn mail(client: &mut Client, n: usize) -> Result<()> {
    client.begin_mail(250)?;
    client.ask("DATA", 354)?;
    client.send_line(&format!("Message-ID: <{n}@example.net>\r\nSubject: hello\r\n\r\nHello Bob.\r\n."))?;
    client.expect(250)?;
    client.ask("QUIT", 221)?;
    Ok(())
}

#[test]
fn both_forms_deliver_with_the_clients_true_address_and_learn_what_the_mta_offers() {
    cell::test("both_forms_deliver_with_the_clients_true_address_and_learn_what_the_mta_offers", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, &front())?;
        let mut sent = 0;
        for source in ["198.51.100.40", "2001:db8:a:40::1"] {
            // First by way of the daemon, then, with the pass, the socket itself.
            for lines in [2, 1] {
                let mut client = connect(&internet, &mx, source)?;
                ensure!(client.expect(220)?.lines.len() == lines, "{}", client.transcript());
                sent += 1;
                mail(&mut client, sent)?;
                let source: IpAddr = source.parse()?;
                let mail = mta.wait_for_message(&format!("{sent}@example.net"), SOON)?;
                ensure!(mail.was_received_from(source), "{mail:?}");
                mta.wait_until_seen(PASSED, source, SOON)?;
            }
        }
        let mut client = connect(&internet, &mx, "198.51.100.41")?;
        client.expect(220)?;
        let offer = client.ask("EHLO sender.example.net", 250)?;
        ensure!(offer.contains("DSN") && offer.contains("SIZE") && !offer.contains("PIPELINING"), "{}", offer.text());
        ensure!(screener.json(&["status", "--json"])?["sessions"]["handed_off"] == 4);
        Ok(())
    });
}

#[test]
fn a_socket_that_was_given_away_is_out_of_the_daemons_hands() {
    cell::test("a_socket_that_was_given_away_is_out_of_the_daemons_hands", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &front())?;
        screener.tell(&["permit", "add", "198.51.100.42"])?;
        let mut client = connect(&internet, &mx, "198.51.100.42")?;
        // What it says before the greeting is the MTA's to hear: it is permitted.
        client.send_line("EHLO sender.example.net")?;
        ensure!(client.expect(220)?.lines.len() == 1, "{}", client.transcript());
        client.expect(250)?;
        until("the daemon to be rid of it", SOON, || {
            let status = screener.json(&["status", "--json"]).ok()?;
            (status["sessions"]["active"] == 0).then_some(())
        })?;
        screener.kill9()?;
        mail(&mut client, 1)?;
        ensure!(mta.wait_for_message("1@example.net", SOON)?.was_received_from("198.51.100.42".parse()?));
        Ok(())
    });
}

#[test]
fn nobody_outside_can_relay_in_either_form() {
    cell::test("nobody_outside_can_relay_in_either_form", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let _screener = Screener::start(&mx, &front())?;
        // With a pass from the second round on: by the pair, by the socket itself, and the same in IPv6.
        for source in ["198.51.100.43", "198.51.100.43", "2001:db8:a:43::1", "2001:db8:a:43::1"] {
            let mut client = connect(&internet, &mx, source)?;
            client.expect(220)?;
            client.ask("EHLO localhost", 250)?;
            client.ask("MAIL FROM:<a@example.net>", 250)?;
            let refusal = client.ask("RCPT TO:<victim@example.org>", 554)?;
            ensure!(refusal.contains("5.7.1") && refusal.contains("Relay access denied"), "{}", refusal.text());
            client.ask("QUIT", 221)?;
        }
        let log = mta.log();
        let logged = |who: &str| log.lines().any(|line| line.contains(PASSED) && line.contains(who));
        ensure!(logged(": connect from unknown[198.51.100.43]") && logged(": connect from unknown[2001:db8:a:43::1]"));
        // The daemon itself, which only asks what the MTA offers, is the one caller from here.
        let local = log.lines().filter(|line| line.contains(PASSED) && line.contains("disconnect from localhost"));
        for line in local {
            ensure!(line.contains("ehlo=1") && !line.contains("mail="), "somebody was taken for localhost: {line}");
        }
        Ok(())
    });
}

#[test]
fn with_postfix_away_a_client_with_a_pass_hears_421_and_one_in_a_dialogue_451_and_both_come_through_later() {
    cell::test(
        "with_postfix_away_a_client_with_a_pass_hears_421_and_one_in_a_dialogue_451_and_both_come_through_later",
        || {
            let (mx, internet) = Net::mx_and_internet()?;
            let mut mta = Mta::start(&mx, "")?;
            let screener = Screener::start(&mx, &front())?;
            screener.tell(&["pass", "add", "198.51.100.44"])?;
            let mut unknown = connect(&internet, &mx, "198.51.100.45")?;
            unknown.expect(220)?;
            mta.stop()?;
            let mut known = connect(&internet, &mx, "198.51.100.44")?;
            known.expect(421)?;
            unknown.begin_mail(451)?;
            screener.wait_for_degraded(
                "does not accept connections: Connection refused (os error 111); the MTA does not run",
                true,
            )?;
            mta.resume()?;
            unknown.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
            let mut known = connect(&internet, &mx, "198.51.100.44")?;
            known.expect(220)?;
            mail(&mut known, 1)?;
            screener.wait_for_degraded("does not accept connections", false)
        },
    );
}

#[test]
fn a_postfix_without_the_service_or_out_of_reach_is_told_of_with_what_to_do() {
    cell::test("a_postfix_without_the_service_or_out_of_reach_is_told_of_with_what_to_do", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let elsewhere = front().replace("private/smtpd", "private/nothing");
        let mut screener = Screener::start(&mx, &elsewhere)?;
        screener.wait_for_degraded("master.cf needs `smtpd pass - - n - - smtpd`", true)?;
        screener.stop()?;
        // A socket that does not take descriptors, and speaks at once: here, mail that goes out.
        let wrong = front().replace("private/smtpd", "private/smtp");
        let mut screener = Screener::start(&mx, &wrong)?;
        screener.wait_for_degraded("does not take what was passed to it", true)?;
        screener.stop()?;
        let unprivileged = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
        let screener = Screener::start_under(&mx, &front(), &unprivileged)?;
        screener.wait_for_degraded("run the daemon as root, or give it CAP_DAC_OVERRIDE", true)?;
        screener.tell(&["pass", "add", "198.51.100.46"])?;
        connect(&internet, &mx, "198.51.100.46")?.expect(421)?;
        Ok(())
    });
}

#[test]
fn a_postfix_whose_processes_are_all_busy_keeps_clients_waiting_and_serves_them_in_the_end() {
    cell::test("a_postfix_whose_processes_are_all_busy_keeps_clients_waiting_and_serves_them_in_the_end", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "default_process_limit = 2\n")?;
        let screener = Screener::start(&mx, &front())?;
        screener.tell(&["pass", "add", "198.51.100.47"])?;
        let mut busy = Vec::new();
        for _ in 0..2 {
            let mut client = connect(&internet, &mx, "198.51.100.47")?;
            client.expect(220)?;
            busy.push(client);
        }
        let mut waiting = connect(&internet, &mx, "198.51.100.47")?;
        let mut unknown = connect(&internet, &mx, "198.51.100.48")?;
        unknown.expect(220)?;
        unknown.ask("EHLO sender.example.net", 250)?;
        unknown.ask("MAIL FROM:<a@example.net>", 250)?;
        unknown.send_line(&format!("RCPT TO:<{BOB}>"))?;
        waiting.silent_for(Duration::from_millis(500))?;
        for client in &mut busy {
            client.ask("QUIT", 221)?;
        }
        waiting.expect(220)?;
        unknown.expect(250)?;
        ensure!(!mta.log().contains("fatal"), "{}", mta.log());
        Ok(())
    });
}

#[test]
fn what_was_read_before_the_greeting_reaches_the_mta() {
    cell::test("what_was_read_before_the_greeting_reaches_the_mta", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let deep_off = "[tests.pipelining]\nenable = false\n[tests.non_smtp_command]\nenable = false\n\
                        [tests.bare_newline]\nenable = false\n";
        let lenient = front().replace("wait = \"1s\"", "wait = \"1s\"\naction = \"ignore\"") + deep_off;
        let mut screener = Screener::start(&mx, &lenient)?;
        let (source, server) = ("198.51.100.49".parse()?, SocketAddr::new(mx.address(Family::V4)?, 2525));
        let mut client = Client::connect_saying(&internet, source, server, b"EHLO early.example.net\r\n")?;
        screener.wait_for_log("PREGREET ", SOON)?;
        ensure!(client.expect(220)?.lines.len() == 2, "{}", client.transcript());
        client.expect(250)?;
        mta.wait_until_seen(PASSED, source, SOON)?;
        Ok(())
    });
}

#[test]
fn a_reload_of_postfix_turns_nobody_away() {
    cell::test("a_reload_of_postfix_turns_nobody_away", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, &front())?;
        screener.tell(&["pass", "add", "198.51.100.39"])?;
        for round in 1..=5 {
            mx.ask("postfix", &["reload"])?;
            let mut client = connect(&internet, &mx, "198.51.100.39")?;
            client.expect(220)?;
            mail(&mut client, round)?;
        }
        mta.wait_for_mail(5, SOON)?;
        Ok(())
    });
}

#[test]
fn under_tls_that_the_daemon_terminates_postfix_gets_a_pair_and_the_true_address() {
    cell::test("under_tls_that_the_daemon_terminates_postfix_gets_a_pair_and_the_true_address", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let certificate = Certificate::new("mx.example.com")?;
        certificate.install(&mx, "/etc/screener/tls")?;
        let tls = "[tls]\ncertificate = \"/etc/screener/tls/cert.pem\"\nkey = \"/etc/screener/tls/key.pem\"\n";
        let _screener = Screener::start(&mx, &(front() + tls))?;
        let mut client = connect(&internet, &mx, "198.51.100.38")?;
        client.expect(220)?;
        client.ask("EHLO sender.example.net", 250)?;
        client.ask("STARTTLS", 220)?;
        client.start_tls(&certificate)?;
        mail(&mut client, 1)?;
        ensure!(mta.wait_for_message("1@example.net", SOON)?.was_received_from("198.51.100.38".parse()?));
        mta.wait_until_seen(PASSED, "198.51.100.38".parse()?, SOON)?;
        Ok(())
    });
}

#[test]
fn short_of_descriptors_a_client_hears_451_and_the_log_says_what_to_raise() {
    cell::test("short_of_descriptors_a_client_hears_451_and_the_log_says_what_to_raise", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let without_kernel = front().replace("[kernel]", "[kernel]\nxdp = \"off\"");
        let mut screener = Screener::start_under(&mx, &without_kernel, &["prlimit", "--nofile=64:64"])?;
        let mut first = connect(&internet, &mx, "198.51.100.37")?;
        first.expect(220)?;
        first.ask("EHLO sender.example.net", 250)?;
        first.ask("MAIL FROM:<a@example.net>", 250)?;
        let mut others = Vec::new();
        for number in 128..208 {
            others.push(connect(&internet, &mx, &format!("198.51.100.{number}"))?);
        }
        screener.wait_for_log("raise LimitNOFILE", SOON)?;
        first.ask(&format!("RCPT TO:<{BOB}>"), 451)?;
        screener.wait_for_log("descriptors are short", SOON)?;
        drop(others);
        until("the others to be gone", SOON, || {
            let status = screener.json(&["status", "--json"]).ok()?;
            (status["sessions"]["active"] == 1).then_some(())
        })?;
        first.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
        Ok(())
    });
}
