//! STARTTLS that the daemon terminates: what its clients meet, and what comes of it at the MTA.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::version::{TLS12, TLS13};

use screener_tests::cell;
use screener_tests::certificate::Certificate;
use screener_tests::client::{Client, Trouble};
use screener_tests::mta::{BOB, Door, PASSED, RELAY};
use screener_tests::net::Family;
use screener_tests::sender::{Route, Sender};
use screener_tests::tls::{PLACE, Rig, mail};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn both_versions_of_tls_bring_a_mail_to_the_mailbox() {
    cell::test("both_versions_of_tls_bring_a_mail_to_the_mailbox", || {
        let mut rig = Rig::new()?;
        let versions =
            [("198.51.100.40", &TLS12, "TLSv1_2", "TLSv1.2"), ("198.51.100.41", &TLS13, "TLSv1_3", "TLSv1.3")];
        for (number, (source, version, spoken, logged)) in versions.into_iter().enumerate() {
            let mut client = rig.before_handshake(source)?;
            client.start_tls_in(&rig.certificate, &[version])?;
            ensure!(client.tls_protocol().as_deref() == Some(spoken));
            mail(&mut client, logged)?;
            let mails = rig.mta.wait_for_mail(number + 1, SOON)?;
            ensure!(mails[number].body == format!("{logged}\n"), "{mails:?}");
            let address: IpAddr = source.parse()?;
            ensure!(mails[number].was_received_from(address), "{mails:?}");
            rig.mta.wait_until_seen(RELAY, address, SOON)?;
            let name = client.log_name();
            let line =
                rig.screener.wait_for_log(&format!("Anonymous TLS connection established from {name}: "), SOON)?;
            ensure!(line.contains(&format!("{logged} with cipher ")), "{line}");
            ensure!(rig.screener.has_pass(address)?, "no pass");
        }
        Ok(())
    });
}

#[test]
fn plain_text_behind_starttls_is_never_heard_under_tls_and_costs_the_client_its_pass() {
    cell::test("plain_text_behind_starttls_is_never_heard_under_tls_and_costs_the_client_its_pass", || {
        let mut rig = Rig::new()?;
        let mut client = Client::connect(&rig.internet, "198.51.100.42".parse()?, rig.server()?)?;
        client.expect(220)?;
        client.ask("EHLO sender.example.net", 250)?;
        client.send_raw(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")?;
        client.expect(220)?;
        client.start_tls(&rig.certificate)?;
        client.silent_for(Duration::from_millis(500))?;
        let refused = client.begin_mail(550)?;
        ensure!(refused.contains("550 5.5.1 Protocol error"), "{}", refused.text());
        client.ask("QUIT", 221)?;
        let line = format!("COMMAND PIPELINING from {} after STARTTLS: MAIL FROM", client.log_name());
        rig.screener.wait_for_log(&line, SOON)?;
        ensure!(!rig.screener.has_pass(client.local().ip())?, "a pass");
        Ok(())
    });
}

#[test]
fn starttls_is_refused_under_tls_and_the_session_goes_on() {
    cell::test("starttls_is_refused_under_tls_and_the_session_goes_on", || {
        let rig = Rig::new()?;
        let mut client = rig.under_tls("198.51.100.43")?;
        let refused = client.ask("STARTTLS", 554)?;
        ensure!(refused.contains("554 5.5.1 Error: TLS already active"), "{}", refused.text());
        mail(&mut client, "once")
    });
}

#[test]
fn a_real_sending_postfix_that_insists_on_tls_delivers_20_megabytes_bit_by_bit() {
    cell::test("a_real_sending_postfix_that_insists_on_tls_delivers_20_megabytes_bit_by_bit", || {
        let unlimited = "message_size_limit = 0\nmailbox_size_limit = 0\nvirtual_mailbox_limit = 0\n";
        let mut rig = Rig::with(unlimited, "")?;
        let source: IpAddr = "198.51.100.44".parse()?;
        let from = "alice@example.net".to_owned();
        let route = Route { from: from.clone(), source, server: rig.mx.address(Family::V4)? };
        let insist = "smtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1\nmessage_size_limit = 0\n";
        let sender = Sender::start_with(&rig.internet, [(&route, String::new())], insist)?;
        let body = noise(20 << 20);
        let id = sender.send(&from, BOB, &body)?;
        sender.wait_for_sent(&id, Duration::from_secs(60))?;
        ensure!(sender.postfix().log().contains("TLS connection established to 192.0.2.10"), "in plain text");
        let arrived = rig.mta.wait_for_message(&id, SOON)?;
        ensure!(arrived.body.len() == body.len() + 1, "{} bytes of {}", arrived.body.len(), body.len() + 1);
        ensure!(arrived.body.strip_suffix('\n') == Some(&body), "the same length and another content");
        ensure!(arrived.was_received_from(source));
        rig.screener.wait_for_log("Anonymous TLS connection established from [198.51.100.44]:", SOON)?;
        Ok(())
    });
}

/// So many bytes in lines that nobody changes.
fn noise(length: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        for _ in 0..70 {
            // Xorshift: as good as random, and the same each time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(char::from(b'a' + u8::try_from(state % 26).unwrap_or(0)));
        }
        text.push('\n');
    }
    text.push_str("end");
    text
}

#[test]
fn posttls_finger_and_openssl_see_the_certificate_in_both_versions() {
    cell::test("posttls_finger_and_openssl_see_the_certificate_in_both_versions", || {
        let rig = Rig::new()?;
        rig.internet.write("/etc/ssl/mx.pem", rig.certificate.chain())?;
        rig.internet.write("/etc/postfix/main.cf", "compatibility_level = 3.6\n")?;
        let finger = ["-c", "-Lsummary", "-lsecure", "-F/etc/ssl/mx.pem", "[192.0.2.10]:25", "mx.example.com"];
        let said = rig.internet.run(rig.internet.command("posttls-finger").args(finger))?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(said.contains("Verified TLS connection established to 192.0.2.10"), "{said}");
        for (option, spoken) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let client =
                ["s_client", "-starttls", "smtp", "-connect", "192.0.2.10:25", "-brief", "-verify_return_error"];
            let trust = ["-CAfile", "/etc/ssl/mx.pem", "-verify_hostname", "mx.example.com", option];
            let output = rig.internet.run(rig.internet.command("openssl").args(client).args(trust))?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            ensure!(
                said.contains(&format!("Protocol version: {spoken}")) && said.contains("Verification: OK"),
                "{said}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_handshake_that_fails_is_logged_with_its_reason_and_held_against_nobody() {
    cell::test("a_handshake_that_fails_is_logged_with_its_reason_and_held_against_nobody", || {
        let mut rig = Rig::new()?;
        // Plain text.
        let mut client = rig.before_handshake("198.51.100.45")?;
        client.send_line("EHLO what.tls")?;
        client.read_all()?;
        failed(&mut rig, &client, "what it sent is no TLS")?;
        // Goes away.
        let client = rig.before_handshake("198.51.100.46")?;
        let name = client.log_name();
        drop(client);
        rig.screener
            .wait_for_log(&format!("TLS handshake failed for service=smtpd peer={name}: lost connection"), SOON)?;
        rig.screener.wait_for_log(&format!("DISCONNECT {name}"), SOON)?;
        // Does not trust the certificate, and says so.
        let mut client = rig.before_handshake("198.51.100.47")?;
        ensure!(client.start_tls(&Certificate::new("mx.example.com")?).is_err(), "it trusted a stranger");
        failed(&mut rig, &client, "alert from the client: ")?;
        // Is too old: OpenSSL is told to be.
        let old = ["-starttls", "smtp", "-connect", "192.0.2.10:25", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"];
        let output = rig.internet.run(rig.internet.command("openssl").arg("s_client").args(old))?;
        ensure!(!output.status.success(), "TLS 1.1 was spoken");
        rig.screener.wait_for_log("unsupported protocol: it speaks neither TLSv1.2 nor TLSv1.3", SOON)?;
        let metrics = rig.metrics()?;
        ensure!(metrics.contains("screener_tls_handshakes_total{result=\"failed\"} 4"), "{metrics}");
        // All of them may come again, in plain text or under TLS.
        mail(&mut rig.under_tls("198.51.100.45")?, "again")?;
        let told = rig.screener.explain("198.51.100.45".parse()?)?;
        ensure!(told["events"].to_string().contains("tls_failed"), "{told}");
        Ok(())
    });
}

fn failed(rig: &mut Rig, client: &Client, why: &str) -> Result<()> {
    let name = client.log_name();
    rig.screener.wait_for_log(&format!("TLS handshake failed for service=smtpd peer={name}: {why}"), SOON)?;
    rig.screener.wait_for_log("HANGUP after ", SOON)?;
    rig.screener.wait_for_log(&format!("DISCONNECT {name}"), SOON)?;
    Ok(())
}

#[test]
fn a_client_that_stalls_in_the_handshake_is_let_go_and_holds_up_nobody() {
    cell::test("a_client_that_stalls_in_the_handshake_is_let_go_and_holds_up_nobody", || {
        let mut rig = Rig::with("", "[limits]\ncommand_time = \"3s\"\n")?;
        let mut silent = rig.before_handshake("198.51.100.48")?;
        let mut halting = rig.before_handshake("198.51.100.49")?;
        // The beginning of a ClientHello, and no more.
        halting.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01")?;
        mail(&mut rig.under_tls("198.51.100.50")?, "meanwhile")?;
        for client in [&mut silent, &mut halting] {
            let (heard, _) = client.read_all()?;
            ensure!(heard.is_empty(), "{}", heard.escape_ascii());
            let name = client.log_name();
            let line = format!("TLS handshake failed for service=smtpd peer={name}: not finished within 3 s");
            rig.screener.wait_for_log(&line, SOON)?;
            rig.screener.wait_for_log(&format!("COMMAND TIME LIMIT from {name} after STARTTLS"), SOON)?;
        }
        Ok(())
    });
}

#[test]
fn an_end_without_close_notify_is_an_end_like_any_other() {
    cell::test("an_end_without_close_notify_is_an_end_like_any_other", || {
        let mut rig = Rig::new()?;
        // In the dialogue.
        let mut client = rig.under_tls("198.51.100.51")?;
        client.ask("EHLO sender.example.net", 250)?;
        let name = client.log_name();
        client.tcp().shutdown(Shutdown::Both)?;
        rig.screener.wait_for_log(&format!("from {name} in tests after SMTP handshake"), SOON)?;
        // In the relay, within a message: nobody takes half of it for the whole.
        let mut client = rig.under_tls("198.51.100.52")?;
        client.begin_mail(250)?;
        client.ask("DATA", 354)?;
        client.send_line("Subject: half\r\n\r\nhalf of a")?;
        client.tcp().shutdown(Shutdown::Write)?;
        rig.mta.postfix().wait_for_log(&["lost connection after DATA", "198.51.100.52"], SOON)?;
        // And in good order.
        let mut client = rig.under_tls("198.51.100.53")?;
        mail(&mut client, "whole")?;
        ensure!(matches!(client.read_all()?, (_, Trouble::Closed)), "no close_notify from us");
        let mails = rig.mta.wait_for_mail(1, SOON)?;
        ensure!(mails.len() == 1 && mails[0].body == "whole\n", "{mails:?}");
        Ok(())
    });
}

#[test]
fn a_refused_client_hears_its_refusal_under_tls() {
    cell::test("a_refused_client_hears_its_refusal_under_tls", || {
        let mut rig = Rig::new()?;
        let (source, early) = ("198.51.100.54".parse()?, b"EHLO sender.example.net\r\n");
        let mut client = Client::connect_saying(&rig.internet, source, rig.server()?, early)?;
        client.expect(220)?;
        client.expect(250)?;
        client.ask("STARTTLS", 220)?;
        client.start_tls(&rig.certificate)?;
        client.begin_mail(550)?;
        let name = client.log_name();
        rig.screener.wait_for_log(&format!("NOQUEUE: reject: RCPT from {name}: 550 5.5.1"), SOON)?;
        ensure!(!rig.mta.has_seen(RELAY, client.local().ip()), "the MTA has seen it");
        Ok(())
    });
}

#[test]
fn commands_sent_ahead_in_records_of_their_own_are_pipelining() {
    cell::test("commands_sent_ahead_in_records_of_their_own_are_pipelining", || {
        let mut rig = Rig::new()?;
        let mut client = rig.under_tls("198.51.100.55")?;
        client.cork(true)?;
        client.send_line("EHLO sender.example.net")?;
        client.send_line("MAIL FROM:<a@example.net>")?;
        client.cork(false)?;
        client.expect(250)?;
        client.expect(250)?;
        client.ask(&format!("RCPT TO:<{BOB}>"), 550)?;
        let name = client.log_name();
        rig.screener.wait_for_log(&format!("COMMAND PIPELINING from {name} after EHLO: MAIL FROM"), SOON)?;
        Ok(())
    });
}

#[test]
fn in_front_mode_a_client_with_a_pass_has_tls_though_the_mta_has_none() {
    cell::test("in_front_mode_a_client_with_a_pass_has_tls_though_the_mta_has_none", || {
        let front = "[listen]\nmode = \"front\"\naddresses = [\"0.0.0.0:2525\"]\n";
        let mut rig = Rig::with("", front)?;
        let server = SocketAddr::new(rig.mx.address(Family::V4)?, 2525);
        let source: IpAddr = "198.51.100.56".parse()?;
        for teaser in [true, false] {
            let mut client = Client::connect(&rig.internet, source, server)?;
            let greeting = client.expect(220)?;
            ensure!((greeting.lines.len() == 2) == teaser, "{}", greeting.text());
            client.ask("EHLO sender.example.net", 250)?;
            client.ask("STARTTLS", 220)?;
            client.start_tls(&rig.certificate)?;
            mail(&mut client, "under TLS")?;
        }
        ensure!(rig.mta.wait_for_mail(2, SOON)?.len() == 2);
        rig.screener.wait_for_log(&format!("PASS OLD [{source}]:"), SOON)?;
        Ok(())
    });
}

#[test]
fn an_mta_that_demands_tls_of_what_we_hand_over_costs_no_mail_and_is_told_of() {
    cell::test("an_mta_that_demands_tls_of_what_we_hand_over_costs_no_mail_and_is_told_of", || {
        let (mta, own) = (Certificate::new("mta.example.com")?, "smtpd_tls_security_level = encrypt\n");
        let rig = Rig::with(own, "")?;
        rig.mx.write("/etc/postfix/tls.pem", &(mta.key().to_owned() + mta.chain()))?;
        rig.mx.ask("postconf", &["-e", "smtpd_tls_chain_files = /etc/postfix/tls.pem"])?;
        rig.mx.ask("postfix", &["reload"])?;
        let mut client = rig.under_tls("198.51.100.57")?;
        let reply = client.begin_mail(451)?;
        ensure!(reply.contains("4.3.0"), "{}", reply.text());
        rig.screener.wait_for_degraded("smtpd_tls_security_level=none", true)?;
        let (code, said) = screener_tests::cli::run(&rig.mx, &["doctor"])?;
        ensure!(code == 1 && said.contains("the MTA demands TLS of what is handed to it"), "{said}");
        Ok(())
    });
}

#[test]
fn the_mta_is_told_of_tls_in_the_proxy_header() {
    cell::test("the_mta_is_told_of_tls_in_the_proxy_header", || {
        let rig = Rig::with("", "[backend]\naddress = \"127.0.0.1:10026\"\n")?;
        let listener = rig.mx.in_ns(|| Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 10026))?))?;
        let (told, header) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let told = told.clone();
                std::thread::spawn(move || mta_of_headers(stream, &told));
            }
        });
        let mut client = rig.under_tls("198.51.100.58")?;
        client.begin_mail(250)?;
        // Other headers are those of the daemon's own questions.
        let header = loop {
            let header: Vec<u8> = header.recv_timeout(SOON).context("the header of the client")?;
            if header[12] == 0x21 {
                break header;
            }
        };
        let tlvs = &header[28..];
        ensure!(tlvs.starts_with(&[0x20]), "no SSL TLV in {}", header.escape_ascii());
        ensure!(tlvs[3..8] == [1, 0, 0, 0, 1], "{}", tlvs.escape_ascii());
        let text = String::from_utf8_lossy(tlvs);
        ensure!(text.contains("TLSv1.3") && text.contains("TLS_"), "{text}");
        Ok(())
    });
}

/// Says yes to everything, and tells the header that came first.
fn mta_of_headers(stream: std::io::Result<std::net::TcpStream>, told: &std::sync::mpsc::Sender<Vec<u8>>) -> Option<()> {
    let mut stream = stream.ok()?;
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).ok()?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
    stream.read_exact(&mut rest).ok()?;
    header.extend(rest);
    told.send(header).ok()?;
    stream.write_all(b"220 mta\r\n").ok()?;
    let mut line = [0; 1024];
    while stream.read(&mut line).ok()? > 0 {
        stream.write_all(b"250 ok\r\n").ok()?;
    }
    Some(())
}

#[test]
fn a_session_under_tls_goes_to_postfix_by_a_socket_pair() {
    cell::test("a_session_under_tls_goes_to_postfix_by_a_socket_pair", || {
        let pass = Door::Passed.backend();
        let front = "[listen]\nmode = \"front\"\naddresses = [\"0.0.0.0:2525\"]\n";
        let rig = Rig::with("", &format!("{pass}{front}"))?;
        let source: IpAddr = "198.51.100.59".parse()?;
        // Also with a pass: the MTA has no TLS, so that it is not given the socket itself.
        for number in 1..=2 {
            let mut client =
                Client::connect(&rig.internet, source, SocketAddr::new(rig.mx.address(Family::V4)?, 2525))?;
            client.expect(220)?;
            client.ask("EHLO sender.example.net", 250)?;
            client.ask("STARTTLS", 220)?;
            client.start_tls(&rig.certificate)?;
            mail(&mut client, "by a pair")?;
            let mails = rig.mta.wait_for_mail(number, SOON)?;
            ensure!(mails.iter().all(|mail| mail.was_received_from(source)), "{mails:?}");
        }
        rig.mta.wait_until_seen(PASSED, source, SOON)?;
        Ok(())
    });
}

#[test]
fn an_rsa_certificate_from_openssl_serves_both_versions() {
    cell::test("an_rsa_certificate_from_openssl_serves_both_versions", || {
        let mut rig = Rig::new()?;
        let made = "openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=rsa.example.com \
                    -addext subjectAltName=DNS:rsa.example.com -keyout key.new -out cert.new && mv cert.new cert.pem && \
                    mv key.new key.pem";
        rig.mx.ask("sh", &["-c", &format!("cd {PLACE} && {made}")])?;
        rig.screener.wait_for_log("STARTTLS with the certificate for rsa.example.com", SOON)?;
        rig.internet.write("/etc/ssl/mx.pem", &rig.mx.read(&format!("{PLACE}/cert.pem"))?)?;
        for (option, cipher) in [("-tls1_2", "ECDHE-RSA-AES256-GCM-SHA384"), ("-tls1_3", "TLS_AES_256_GCM_SHA384")] {
            let client =
                ["s_client", "-starttls", "smtp", "-connect", "192.0.2.10:25", "-brief", "-verify_return_error"];
            let trust = ["-CAfile", "/etc/ssl/mx.pem", "-verify_hostname", "rsa.example.com", option];
            let output = rig.internet.run(rig.internet.command("openssl").args(client).args(trust))?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            ensure!(said.contains(&format!("Ciphersuite: {cipher}")) && said.contains("Verification: OK"), "{said}");
            rig.screener.wait_for_log(&format!("with cipher {cipher} (256/256 bits)"), SOON)?;
        }
        Ok(())
    });
}
