//! An MTA that fails at any step of a handoff: the client hears why or that it may come again, keeps its pass, and nothing
//! hangs; and what a relay does when one side is slow or half gone.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::client::{Client, Trouble, open};
use screener_tests::host::Host;
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::scripted_mta::{Act, ScriptedMta};
use screener_tests::wait::until;

const SOON: Duration = Duration::from_secs(20);
const DOOR: &str = "127.0.0.1:10025";
/// The steps of a handoff, by what the MTA has heard; at the first it has heard nothing.
const STEPS: [&str; 4] = ["", "EHLO", "MAIL", "RCPT"];

fn connect(internet: &Host, mx: &Host, source: &str) -> Result<Client> {
    Ok(Client::connect(internet, source.parse()?, SocketAddr::new(mx.address(Family::V4)?, 25))?)
}

/// As far as the sender.
fn begin(client: &mut Client) -> Result<()> {
    client.expect(220)?;
    client.ask("EHLO sender.example.net", 250)?;
    client.ask("MAIL FROM:<a@example.net>", 250)?;
    Ok(())
}

/// Does something at a step and is polite elsewhere.
fn at(step: &'static str, act: Act) -> impl FnMut(&str) -> Act + Send + 'static {
    move |line| if line.split(' ').next() == Some(step) { act } else { Act::Polite }
}

#[test]
fn an_mta_that_breaks_off_at_any_step_costs_a_client_451_and_nothing_else() {
    cell::test("an_mta_that_breaks_off_at_any_step_costs_a_client_451_and_nothing_else", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = ScriptedMta::start(&mx, DOOR, |_| Act::Polite)?;
        let screener = Screener::start(&mx, USUAL)?;
        for (number, step) in STEPS.into_iter().enumerate() {
            let source = format!("198.51.100.{}", 50 + number);
            let mut client = connect(&internet, &mx, &source)?;
            begin(&mut client)?;
            for act in
                [Act::Close, Act::Reset, Act::Say("what do you want?\r\n"), Act::SayAndClose("250-unfinished\r\n")]
            {
                mta.script(at(step, act));
                let reply =
                    client.ask("RCPT TO:<bob@example.com>", 451).with_context(|| format!("{act:?} at {step:?}"))?;
                ensure!(reply.contains("4.3.0"), "{}", reply.text());
                ensure!(screener.has_pass(source.parse()?)?, "{act:?} at {step:?} cost the client its pass");
            }
            screener.wait_for_degraded("does not answer", true)?;
            mta.script(|_| Act::Polite);
            client.ask("RCPT TO:<bob@example.com>", 250)?;
            screener.wait_for_degraded("does not answer", false)?;
            client.ask("QUIT", 221)?;
        }
        Ok(())
    });
}

#[test]
fn a_refusal_of_any_step_reaches_the_client_at_its_recipient_with_all_its_lines() {
    cell::test("a_refusal_of_any_step_reaches_the_client_at_its_recipient_with_all_its_lines", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = ScriptedMta::start(&mx, DOOR, |_| Act::Polite)?;
        let _screener = Screener::start(&mx, USUAL)?;
        for (number, step) in STEPS.into_iter().enumerate() {
            let mut client = connect(&internet, &mx, &format!("198.51.100.{}", 60 + number))?;
            begin(&mut client)?;
            mta.script(at(step, Act::Say("550-5.7.1 not you,\r\n550-5.7.1 not here,\r\n550 5.7.1 not now\r\n")));
            let reply = client.ask("RCPT TO:<bob@example.com>", 550).with_context(|| format!("at {step:?}"))?;
            ensure!(
                reply.lines == ["550-5.7.1 not you,", "550-5.7.1 not here,", "550 5.7.1 not now"],
                "{}",
                reply.text()
            );
            // A refusal of the recipient is the MTA's, which goes on; of an earlier step, ours, and we start again.
            mta.script(|_| Act::Polite);
            client.ask("RCPT TO:<carol@example.com>", 250)?;
        }
        let heard = mta.heard();
        let recipients = heard.iter().filter(|line| line.starts_with("RCPT TO:<carol@example.com>")).count();
        ensure!(recipients == STEPS.len(), "{heard:?}");
        Ok(())
    });
}

#[test]
fn a_421_of_the_mta_ends_the_session_as_it_says_and_the_pass_stays() {
    cell::test("a_421_of_the_mta_ends_the_session_as_it_says_and_the_pass_stays", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = ScriptedMta::start(&mx, DOOR, |_| Act::Polite)?;
        let screener = Screener::start(&mx, USUAL)?;
        for (number, step) in STEPS.into_iter().enumerate() {
            let source = format!("198.51.100.{}", 70 + number);
            let mut client = connect(&internet, &mx, &source)?;
            begin(&mut client)?;
            mta.script(at(step, Act::SayAndClose("421 4.7.0 mta.example.com too many of you\r\n")));
            let reply = client.ask("RCPT TO:<bob@example.com>", 421)?;
            ensure!(reply.contains("too many of you"), "{}", reply.text());
            let (rest, end) = client.read_all()?;
            ensure!(rest.is_empty() && matches!(end, Trouble::Closed), "{}", client.transcript());
            ensure!(screener.has_pass(source.parse()?)?);
        }
        Ok(())
    });
}

#[test]
fn every_address_of_the_mtas_name_is_tried() {
    cell::test("every_address_of_the_mtas_name_is_tried", || {
        let (mx, internet) = Net::mx_and_internet()?;
        // One that swallows packets, one that refuses, one that answers.
        mx.ask("ip", &["route", "add", "192.0.2.77/32", "dev", "eth0"])?;
        mx.ask(
            "ip",
            &["neigh", "add", "192.0.2.77", "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent"],
        )?;
        let names = "127.0.0.1 localhost\n192.0.2.77 mta.example\n192.0.2.10 mta.example\n127.0.0.1 mta.example\n";
        mx.write("/etc/hosts", names)?;
        let _mta = ScriptedMta::start(&mx, DOOR, |_| Act::Polite)?;
        let config = USUAL.to_owned() + "[backend]\naddress = \"mta.example:10025\"\n";
        let _screener = Screener::start(&mx, &config)?;
        let mut client = connect(&internet, &mx, "198.51.100.80")?;
        begin(&mut client)?;
        client.ask("RCPT TO:<bob@example.com>", 250)?;
        Ok(())
    });
}

/// Bytes that show a loss, a repetition or a change of order.
fn flood(size: u32) -> Vec<u8> {
    (0..size / 4).flat_map(u32::to_be_bytes).collect()
}

/// A client in its relay, and the MTA's end of it.
fn relayed(internet: &Host, mx: &Host, mta: &ScriptedMta, source: IpAddr) -> Result<(TcpStream, TcpStream)> {
    let server = SocketAddr::new(mx.address(Family::V4)?, 25);
    let mut client = internet.in_ns(|| Ok(open(source, server, SOON)?))?;
    client.set_read_timeout(Some(SOON))?;
    expect(&mut client, b"220 ")?;
    for (line, reply) in [("EHLO sender.example.net", &b"250 "[..]), ("MAIL FROM:<a@example.net>", b"250 ")] {
        client.write_all(format!("{line}\r\n").as_bytes())?;
        expect(&mut client, reply)?;
    }
    client.write_all(b"RCPT TO:<bob@example.com>\r\n")?;
    expect(&mut client, b"250 2.0.0 ok\r\n")?;
    let far = mta.taken(SOON)?;
    far.set_read_timeout(Some(SOON))?;
    Ok((client, far))
}

/// Reads lines as far as the first that begins so; byte by byte, so that nothing behind it is taken.
fn expect(stream: &mut TcpStream, beginning: &[u8]) -> Result<()> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).with_context(|| line.escape_ascii().to_string())?;
        line.push(byte[0]);
        if byte == *b"\n" {
            if line.starts_with(beginning) {
                return Ok(());
            }
            line.clear();
        }
    }
}

/// Writes until nothing more is taken for a while; how much was.
fn write_until_stuck(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    stream.set_write_timeout(None)?;
    Ok(taken)
}

#[test]
fn a_slow_reader_holds_up_its_peer_in_both_directions_and_the_daemon_does_not_grow() {
    cell::test("a_slow_reader_holds_up_its_peer_in_both_directions_and_the_daemon_does_not_grow", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = ScriptedMta::start(&mx, DOOR, at("RCPT", Act::Give))?;
        let screener = Screener::start(&mx, USUAL)?;
        let bytes = flood(64 << 20);
        let mut relays = Vec::new();
        for number in 0..8_u8 {
            relays.push(relayed(&internet, &mx, &mta, [198, 51, 100, 90 + number].into())?);
        }
        let before = screener.memory()?;
        let mut stuck = Vec::new();
        for (client, far) in &mut relays {
            stuck.push((write_until_stuck(client, &bytes)?, write_until_stuck(far, &bytes)?));
        }
        ensure!(
            stuck.iter().all(|&(up, down)| up < bytes.len() && down < bytes.len()),
            "nobody was held up: {stuck:?}"
        );
        let grown = screener.memory()?.saturating_sub(before);
        // A piece of at most 64 KiB waits for each direction of each relay. The allocator keeps half a MiB for each size of a
        // piece and each thread: a dozen sizes and two threads of that, and still a small part of one direction's 64 MiB.
        const MOST: u64 = 16 << 20;
        ensure!(grown < MOST, "the daemon grew by {grown} bytes while eight relays stood still");
        // Then both sides read, and every byte is there.
        let (mut client, far) = relays.swap_remove(0);
        let (up, down) = stuck[0];
        let bytes = &bytes;
        let check = |mut stream: TcpStream, length: usize| -> Result<()> {
            let mut heard = vec![0; length];
            stream.read_exact(&mut heard)?;
            ensure!(heard == bytes[..length], "the bytes changed on their way");
            Ok(())
        };
        thread::scope(|scope| -> Result<()> {
            let (client_reads, far_reads) = (client.try_clone()?, far.try_clone()?);
            let all = bytes.len();
            let to_far = scope.spawn(move || check(far_reads, all));
            let to_client = scope.spawn(move || check(client_reads, down));
            client.write_all(&bytes[up..])?;
            for reader in [to_far, to_client] {
                reader.join().map_err(|_| anyhow::anyhow!("a reader broke"))??;
            }
            Ok(())
        })?;
        let grown = screener.memory()?.saturating_sub(before);
        ensure!(grown < MOST, "the daemon grew by {grown} bytes over 64 MiB");
        Ok(())
    });
}

#[test]
fn a_half_close_is_told_on_and_leaves_the_other_half() {
    cell::test("a_half_close_is_told_on_and_leaves_the_other_half", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = ScriptedMta::start(&mx, DOOR, at("RCPT", Act::Give))?;
        let screener = Screener::start(&mx, USUAL)?;
        let (mut client, mut far) = relayed(&internet, &mx, &mta, "198.51.100.100".parse()?)?;
        client.write_all(b"DATA\r\n")?;
        client.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        far.read_to_string(&mut heard)?;
        ensure!(heard == "DATA\r\n", "{heard:?}");
        far.write_all(b"354 go\r\n421 gone\r\n")?;
        drop(far);
        let mut heard = String::new();
        client.read_to_string(&mut heard)?;
        ensure!(heard == "354 go\r\n421 gone\r\n", "{heard:?}");

        let (mut client, mut far) = relayed(&internet, &mx, &mta, "198.51.100.101".parse()?)?;
        far.write_all(b"421 closing\r\n")?;
        far.shutdown(Shutdown::Write)?;
        expect(&mut client, b"421 closing\r\n")?;
        client.write_all(b"QUIT\r\n")?;
        client.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        far.read_to_string(&mut heard)?;
        ensure!(heard == "QUIT\r\n", "{heard:?}");

        // A client that stays when the MTA has gone does not hold the session.
        let (client, far) = relayed(&internet, &mx, &mta, "198.51.100.102".parse()?)?;
        drop(far);
        let began = Instant::now();
        until("the session to end", SOON, || {
            let status = screener.json(&["status", "--json"]).ok()?;
            (status["sessions"]["active"] == 0).then_some(())
        })?;
        ensure!(began.elapsed() < Duration::from_secs(12), "it took {:?}", began.elapsed());
        drop(client);
        Ok(())
    });
}

#[test]
fn a_client_that_resets_while_the_mta_is_silent_leaves_nothing_behind() {
    cell::test("a_client_that_resets_while_the_mta_is_silent_leaves_nothing_behind", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = ScriptedMta::start(&mx, DOOR, at("MAIL", Act::Silence))?;
        let screener = Screener::start(&mx, USUAL)?;
        let mut client = connect(&internet, &mx, "198.51.100.110")?;
        begin(&mut client)?;
        client.send_line("RCPT TO:<bob@example.com>")?;
        until("the MTA to hear of it", SOON, || mta.heard().iter().any(|line| line.starts_with("MAIL")).then_some(()))?;
        client.reset()?;
        until("the session to end", SOON, || {
            let status = screener.json(&["status", "--json"]).ok()?;
            (status["sessions"]["active"] == 0).then_some(())
        })?;
        ensure!(screener.has_pass("198.51.100.110".parse()?)?, "it passed, whatever became of its mail");
        Ok(())
    });
}
