//! What happens when something fails: mail goes on, nothing is lost, and `status` says so.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Mta, RELAY};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::until;

const SOON: Duration = Duration::from_secs(20);

fn port_25(mx: &Host) -> Result<SocketAddr> {
    Ok(SocketAddr::new(mx.address(Family::V4)?, 25))
}

#[test]
fn with_the_mta_away_a_client_hears_451_keeps_its_pass_and_can_go_on() {
    cell::test("with_the_mta_away_a_client_hears_451_keeps_its_pass_and_can_go_on", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mut mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, USUAL)?;
        screener.wait_for_degraded("does not accept connections", false)?;
        mta.stop()?;
        let source: IpAddr = "198.51.100.20".parse()?;
        let mut client = Client::connect(&internet, source, port_25(&mx)?)?;
        client.expect(220)?;
        let reply = client.begin_mail(451)?;
        ensure!(reply.contains("4.3.0"), "{}", reply.text());
        screener.wait_for_degraded("does not accept connections", true)?;
        ensure!(screener.has_pass(source)?, "the pass is lost");
        mta.resume()?;
        let reply = client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
        ensure!(reply.contains("2.1.5"), "the MTA's own answer: {}", reply.text());
        client.ask("QUIT", 221)?;
        screener.wait_for_degraded("does not accept connections", false)
    });
}

#[test]
fn the_mtas_refusals_reach_the_client_in_its_own_words() {
    cell::test("the_mtas_refusals_reach_the_client_in_its_own_words", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let refuse = "smtpd_sender_restrictions = check_sender_access inline:{ {bad@example.net = REJECT go away} }\n";
        let _mta = Mta::start(&mx, &format!("smtpd_delay_reject = no\n{refuse}"))?;
        let _screener = Screener::start(&mx, USUAL)?;
        let mut client = Client::connect(&internet, "198.51.100.21".parse()?, port_25(&mx)?)?;
        client.expect(220)?;
        client.ask("EHLO sender.example.net", 250)?;
        client.ask("MAIL FROM:<bad@example.net>", 250)?;
        let reply = client.ask(&format!("RCPT TO:<{BOB}>"), 554)?;
        ensure!(reply.contains("go away"), "the refusal of MAIL surfaces at RCPT: {}", reply.text());
        client.ask("RSET", 250)?;
        client.ask("MAIL FROM:<good@example.net>", 250)?;
        let reply = client.ask("RCPT TO:<nobody@example.com>", 550)?;
        ensure!(reply.contains("5.1.1"), "{}", reply.text());
        client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
        client.ask("QUIT", 221)?;
        Ok(())
    });
}

#[test]
fn a_stop_tells_clients_to_come_again_and_lets_a_mail_finish() {
    cell::test("a_stop_tells_clients_to_come_again_and_lets_a_mail_finish", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let mut sending = Client::connect(&internet, "198.51.100.22".parse()?, port_25(&mx)?)?;
        sending.expect(220)?;
        sending.begin_mail(250)?;
        sending.ask("DATA", 354)?;
        let mut waiting = Client::connect(&internet, "198.51.100.23".parse()?, port_25(&mx)?)?;
        until("both to be counted", SOON, || (screener.sessions().ok()? == 2).then_some(()))?;
        std::thread::scope(|scope| -> Result<()> {
            let stop = scope.spawn(|| screener.stop());
            let (heard, _) = waiting.read_all()?;
            let heard = String::from_utf8_lossy(&heard).into_owned();
            ensure!(heard.contains("\r\n421 4.3.2 Service is going down"), "{heard}");
            sending.send_line("Subject: last\r\n\r\nword\r\n.")?;
            sending.expect(250)?;
            sending.ask("QUIT", 221)?;
            match stop.join() {
                Ok(stopped) => stopped,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        ensure!(mta.wait_for_mail(1, SOON)?[0].body == "word\n");
        Ok(())
    });
}

#[test]
fn a_damaged_ledger_is_set_aside_and_screening_goes_on() {
    cell::test("a_damaged_ledger_is_set_aside_and_screening_goes_on", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        mx.write("/var/lib/screener/ledger.redb", "this is no database")?;
        let screener = Screener::start(&mx, USUAL)?;
        screener.wait_for_degraded("/var/lib/screener/ledger.redb", true)?;
        let files = mx.ask("ls", &["/var/lib/screener"])?;
        ensure!(files.lines().count() >= 2, "the damaged file is gone: {files}");
        let mut client = Client::connect(&internet, "198.51.100.24".parse()?, port_25(&mx)?)?;
        ensure!(client.expect(220)?.lines.len() == 2, "screened");
        Ok(())
    });
}

#[test]
fn in_front_mode_the_daemon_owns_the_port_and_relays() {
    cell::test("in_front_mode_the_daemon_owns_the_port_and_relays", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let front = USUAL.to_owned() + "[listen]\nmode = \"front\"\naddresses = [\"0.0.0.0:2525\", \"[::]:2525\"]\n";
        let screener = Screener::start(&mx, &front)?;
        screener.tell(&["deny", "add", "198.51.100.64/26"])?;
        screener.tell(&["deny", "add", "2001:db8:a:7::/64", "--action", "tag"])?;
        for (family, source) in [(Family::V4, "198.51.100.25"), (Family::V6, "2001:db8:a:7::1")] {
            let source: IpAddr = source.parse()?;
            let server = SocketAddr::new(mx.address(family)?, 2525);
            let mut client = Client::connect(&internet, source, server)?;
            ensure!(client.expect(220)?.lines.len() == 2, "screened");
            client.begin_mail(250)?;
            client.ask("QUIT", 221)?;
            mta.wait_until_seen(RELAY, source, SOON)?;
            // The second time it has a pass: no teaser, the MTA's own greeting. The tagged one has none, and is screened.
            let mut again = Client::connect(&internet, source, server)?;
            let greeting = again.expect(220)?;
            let expected = if family == Family::V4 { 1 } else { 2 };
            ensure!(greeting.lines.len() == expected, "{}", greeting.text());
            again.ask("QUIT", 221)?;
        }
        ensure!(screener.tagged_sessions()? == 2, "looked up in the daemon");
        let mut denied =
            Client::connect(&internet, "198.51.100.70".parse()?, SocketAddr::new(mx.address(Family::V4)?, 2525))?;
        ensure!(denied.read_reply()?.text().starts_with("521 5.3.2"), "{}", denied.transcript());
        Ok(())
    });
}

#[test]
fn a_client_over_its_ceiling_is_told_and_others_are_served() {
    cell::test("a_client_over_its_ceiling_is_told_and_others_are_served", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &(USUAL.to_owned() + "[limits]\nper_client = 2\n"))?;
        let greedy: IpAddr = "198.51.100.26".parse()?;
        let _held =
            [Client::connect(&internet, greedy, port_25(&mx)?)?, Client::connect(&internet, greedy, port_25(&mx)?)?];
        until("both to be counted", SOON, || (screener.sessions().ok()? == 2).then_some(()))?;
        let mut third = Client::connect(&internet, greedy, port_25(&mx)?)?;
        ensure!(third.expect(421)?.contains("4.7.0 Error: too many connections"));
        screener
            .wait_for_log(&format!("NOQUEUE: reject: CONNECT from {}: too many connections", third.log_name()), SOON)?;
        let mut other = Client::connect(&internet, "198.51.100.27".parse()?, port_25(&mx)?)?;
        other.expect(220)?;
        Ok(())
    });
}

#[test]
fn the_mta_restarts_while_the_daemon_holds_sessions() {
    cell::test("the_mta_restarts_while_the_daemon_holds_sessions", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mut mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, USUAL)?;
        let mut held = Client::connect(&internet, "198.51.100.28".parse()?, port_25(&mx)?)?;
        until("the session to be counted", SOON, || (screener.sessions().ok()? == 1).then_some(()))?;
        // Its socket stands in port 25's bind bucket: without SO_REUSEADDR the MTA could not bind again.
        mta.restart()?;
        held.expect(220)?;
        held.begin_mail(250)?;
        held.ask("QUIT", 221)?;
        Ok(())
    });
}

#[test]
fn without_bpf_the_daemon_stands_in_front_and_says_so() {
    cell::test("without_bpf_the_daemon_stands_in_front_and_says_so", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let unprivileged = ["setpriv", "--bounding-set", "-bpf,-sys_admin,-net_admin,-perfmon"];
        let front = USUAL.replace("[kernel]", "[kernel]\nports = [2525]")
            + "[listen]\naddresses = [\"0.0.0.0:2525\", \"[::]:2525\"]\n";
        let mut screener = Screener::start_under(&mx, &front, &unprivileged)?;
        screener.wait_for_degraded(
            "in front mode, every connection goes through the daemon, because: no permission",
            true,
        )?;
        screener.wait_for_log("warning: in front mode", SOON)?;
        ensure!(screener.json(&["status", "--json"])?["mode"] == "front");
        let mut client =
            Client::connect(&internet, "198.51.100.29".parse()?, SocketAddr::new(mx.address(Family::V4)?, 2525))?;
        ensure!(client.expect(220)?.lines.len() == 2, "screened");
        Ok(())
    });
}
