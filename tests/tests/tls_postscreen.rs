//! STARTTLS of Debian's postscreen, with its tlsproxy, and of the screener side by side: the same clients hear the same from
//! both, and both logs say the same.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::certificate::Certificate;
use screener_tests::client::{Client, Reply};
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Mta};
use screener_tests::net::{Family, INTERNET, Net, Plan};
use screener_tests::postfix::Postfix;
use screener_tests::screener::{Screener, USUAL};
use screener_tests::tls::{PLACE, SECTION};

const SOON: Duration = Duration::from_secs(20);

const POSTSCREEN: &str = "\
myhostname = mx.example.com
smtpd_banner = $myhostname ESMTP
mynetworks = 127.0.0.0/8
postscreen_greet_wait = 1s
postscreen_greet_action = enforce
postscreen_pipelining_enable = yes
postscreen_pipelining_action = enforce
postscreen_non_smtp_command_enable = yes
postscreen_bare_newline_enable = yes
postscreen_bare_newline_action = enforce
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
smtpd_tls_chain_files = /etc/postfix/tls.pem
";

const SERVICES: &str = "\
smtp inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
";

/// Both of them, with one certificate.
struct Both {
    internet: Host,
    postfix: Postfix,
    screener: Screener,
    servers: [SocketAddr; 2],
    certificate: Certificate,
    _mta: Mta,
}

/// What one side made of a client.
struct Side {
    heard: Vec<Reply>,
    /// Its name in the log.
    name: String,
}

impl Both {
    fn start() -> Result<Self> {
        let net = Net::new()?;
        let internet = net.host(&INTERNET)?;
        let theirs = net.host(&Plan { name: "theirs", addresses: &["192.0.2.20"], prefixes: &[] })?;
        let ours = net.host(&Plan { name: "ours", addresses: &["192.0.2.21"], prefixes: &[] })?;
        let certificate = Certificate::new("mx.example.com")?;
        theirs.write("/etc/postfix/tls.pem", &(certificate.key().to_owned() + certificate.chain()))?;
        let postfix = Postfix::start(&theirs, POSTSCREEN, SERVICES)?;
        let mta = Mta::start(&ours, "")?;
        certificate.install(&ours, PLACE)?;
        let screener = Screener::start(&ours, &format!("{USUAL}{SECTION}[backend]\nafter_tests = \"defer\"\n"))?;
        let at = |host: &Host| Ok::<_, anyhow::Error>(SocketAddr::new(host.address(Family::V4)?, 25));
        let servers = [at(&theirs)?, at(&ours)?];
        Ok(Self { internet, postfix, screener, servers, certificate, _mta: mta })
    }

    /// Plays a client to both.
    fn play(&self, source: &str, client: fn(&mut Client, &Certificate) -> Result<Vec<Reply>>) -> Result<[Side; 2]> {
        let source: IpAddr = source.parse()?;
        let play = |server| -> Result<Side> {
            let mut connection = Client::connect(&self.internet, source, server)?;
            let greeting = connection.expect(220)?;
            let name = connection.log_name();
            let mut heard = vec![greeting];
            let played = client(&mut connection, &self.certificate);
            heard.extend(played.with_context(|| format!("with {server}"))?);
            Ok(Side { heard, name })
        };
        let [theirs, ours] = self.servers;
        let (theirs, ours) = (play(theirs)?, play(ours)?);
        ensure!(theirs.heard.len() == ours.heard.len());
        for (theirs, ours) in theirs.heard.iter().zip(&ours.heard) {
            // A refusal carries the session's name here, and what EHLO offers is the MTA's.
            let ours_without = ours.text().split("; session=").next().unwrap_or_default().to_owned();
            let offer = theirs.contains("ENHANCEDSTATUSCODES");
            let same = if offer {
                theirs.code == ours.code && theirs.contains("STARTTLS") == ours.contains("STARTTLS")
            } else {
                theirs.text() == ours_without
            };
            ensure!(same, "postscreen: {}\nscreener: {}", theirs.text(), ours.text());
        }
        Ok([theirs, ours])
    }

    /// Waits until both logs hold a line with the client's name between these parts, and gives what follows in each.
    fn both_log(&mut self, [theirs, ours]: &[Side; 2], before: &str, after: &str) -> Result<[String; 2]> {
        let parts = |side: &Side| format!("{before}{}{after}", side.name);
        let (their_part, our_part) = (parts(theirs), parts(ours));
        let their_line = self.postfix.wait_for_log(&[&their_part], SOON)?;
        let our_line = self.screener.wait_for_log(&our_part, SOON)?;
        let rest = |line: &str, part: &str| line.split_once(part).map_or_else(String::new, |(_, rest)| rest.to_owned());
        Ok([rest(&their_line, &their_part), rest(&our_line, &our_part)])
    }
}

/// All goes well, up to the recipient, who is put off; STARTTLS is tried twice.
fn in_good_order(client: &mut Client, certificate: &Certificate) -> Result<Vec<Reply>> {
    let mut heard = vec![client.ask("EHLO sender.example.net", 250)?, client.ask("STARTTLS", 220)?];
    client.start_tls(certificate)?;
    for (line, code) in [
        ("EHLO sender.example.net", 250),
        ("STARTTLS", 554),
        ("MAIL FROM:<a@example.net>", 250),
        (&format!("RCPT TO:<{BOB}>"), 450),
        ("QUIT", 221),
    ] {
        heard.push(client.ask(line, code)?);
    }
    Ok(heard)
}

/// Sends a command in plain text behind STARTTLS.
fn injecting(client: &mut Client, certificate: &Certificate) -> Result<Vec<Reply>> {
    let mut heard = vec![client.ask("EHLO sender.example.net", 250)?];
    client.send_raw(b"STARTTLS\r\nRSET\r\n")?;
    heard.push(client.expect(220)?);
    client.start_tls(certificate)?;
    client.silent_for(Duration::from_millis(500))?;
    for (line, code) in [
        ("EHLO sender.example.net", 250),
        ("MAIL FROM:<a@example.net>", 250),
        (&format!("RCPT TO:<{BOB}>"), 550),
        ("QUIT", 221),
    ] {
        heard.push(client.ask(line, code)?);
    }
    Ok(heard)
}

/// Speaks plain text where the handshake should be.
fn without_a_handshake(client: &mut Client, _: &Certificate) -> Result<Vec<Reply>> {
    let heard = vec![client.ask("EHLO sender.example.net", 250)?, client.ask("STARTTLS", 220)?];
    client.send_line("EHLO what.tls")?;
    client.read_all()?;
    Ok(heard)
}

#[test]
fn clients_hear_the_same_and_the_logs_say_the_same() {
    cell::test("clients_hear_the_same_and_the_logs_say_the_same", || {
        let mut both = Both::start()?;

        let sides = both.play("198.51.100.80", in_good_order)?;
        let [theirs, ours] = both.both_log(&sides, "Anonymous TLS connection established from ", ": ")?;
        ensure!(theirs.starts_with(&ours), "postscreen's: {theirs}\nscreener's: {ours}");
        both.both_log(&sides, "PASS NEW ", "")?;
        both.both_log(&sides, "NOQUEUE: reject: RCPT from ", ": 450 4.3.2 Service currently unavailable")?;

        let sides = both.play("198.51.100.81", injecting)?;
        let said = both.both_log(&sides, "COMMAND PIPELINING from ", " after STARTTLS: ")?;
        ensure!(said[0] == said[1] && said[0] == "RSET\\r\\n", "{said:?}");

        let sides = both.play("198.51.100.82", without_a_handshake)?;
        both.both_log(&sides, "TLS handshake failed for service=smtpd peer=", "")?;
        both.both_log(&sides, " from ", " in tests after SMTP handshake")?;
        both.both_log(&sides, "DISCONNECT ", "")?;
        Ok(())
    });
}
