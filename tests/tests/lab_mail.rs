//! Mail flows between two real Postfixes without any screener, and the MTA's second door believes a PROXY header.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::client::{Client, Trouble};
use screener_tests::mta::{BOB, DIRECT, Mta, RELAY};
use screener_tests::net::{Family, Net};
use screener_tests::sender::{Route, Sender};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_sending_postfix_delivers_to_the_mta_over_both_families() {
    cell::test("a_sending_postfix_delivers_to_the_mta_over_both_families", || {
        let (mx, out) = Net::mx_and_internet()?;
        let sources: [IpAddr; 3] = ["198.51.100.10".parse()?, "198.51.100.77".parse()?, "2001:db8:a:77::1".parse()?];
        let route = |(number, source): (usize, &IpAddr)| -> Result<Route> {
            Ok(Route {
                from: format!("alice{number}@example.net"),
                source: *source,
                server: mx.address(Family::of(*source))?,
            })
        };
        let routes: Vec<Route> = sources.iter().enumerate().map(route).collect::<Result<_>>()?;
        let mta = Mta::start(&mx, "")?;
        let sender = Sender::start(&out, &routes)?;
        for route in &routes {
            let id = sender.send(&route.from, BOB, "Hello Bob")?;
            let line = sender.wait_for_sent(&id, SOON)?;
            ensure!(line.dsn.starts_with("2."), "{line:?}");
            ensure!(sender.attempts(&id).len() == 1);
            let mail = mta.wait_for_message(&id, SOON)?;
            ensure!(mail.body == "Hello Bob\n", "{mail:?}");
            ensure!(mail.was_received_from(route.source), "{mail:?}");
            mta.wait_until_seen(DIRECT, route.source, SOON)?;
            ensure!(!mta.has_seen(RELAY, route.source));
        }
        ensure!(mta.wait_for_mail(3, SOON)?.len() == 3);
        Ok(())
    });
}

#[test]
fn the_mta_believes_a_proxy_header_at_its_second_door_only() {
    cell::test("the_mta_believes_a_proxy_header_at_its_second_door_only", || {
        let (mx, out) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let relay: SocketAddr = "127.0.0.1:10025".parse()?;
        for announced in ["203.0.113.7:1234", "[2001:db8:b::7]:1234"] {
            let announced: SocketAddr = announced.parse()?;
            let mut client = Client::connect(&mx, relay.ip(), relay)?;
            client.send_raw(&proxy_v2(announced))?;
            client.expect(220)?;
            client.ask("EHLO there", 250)?;
            client.ask("QUIT", 221)?;
            mta.wait_until_seen(RELAY, announced.ip(), SOON)?;
        }
        let door = SocketAddr::new(mx.address(Family::V4)?, 10025);
        let outside = Client::connect(&out, out.address(Family::V4)?, door);
        ensure!(matches!(outside, Err(Trouble::Refused)), "{outside:?}");
        Ok(())
    });
}

#[test]
fn an_mta_comes_back_after_a_restart_and_refuses_in_between() {
    cell::test("an_mta_comes_back_after_a_restart_and_refuses_in_between", || {
        let (mx, out) = Net::mx_and_internet()?;
        let mut mta = Mta::start(&mx, "smtpd_banner = $myhostname ESMTP extra")?;
        for family in Family::BOTH {
            let source = out.address(family)?;
            let server = SocketAddr::new(mx.address(family)?, 25);
            let mut client = Client::connect(&out, source, server)?;
            ensure!(client.expect(220)?.contains("mx.example.com ESMTP extra"));
            client.silent_for(Duration::from_millis(100))?;
            client.ask("QUIT", 221)?;
            ensure!(matches!(client.read_all()?, (_, Trouble::Closed)));
            mta.stop()?;
            let refused = Client::connect(&out, source, server);
            ensure!(matches!(refused, Err(Trouble::Refused)), "{refused:?}");
            mta.resume()?;
            Client::connect(&out, source, server)?.expect(220)?;
            mta.restart()?;
            Client::connect(&out, source, server)?.expect(220)?;
        }
        Ok(())
    });
}

#[test]
fn a_client_tells_silence_from_refusal() {
    cell::test("a_client_tells_silence_from_refusal", || {
        let (mx, out) = Net::mx_and_internet()?;
        let source = out.address(Family::V4)?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let refused = Client::connect(&out, source, server);
        ensure!(matches!(refused, Err(Trouble::Refused)), "{refused:?}");
        mx.ask("ip", &["link", "set", "eth0", "down"])?;
        let silent = Client::connect_within(&out, source, server, Duration::from_millis(300));
        ensure!(matches!(silent, Err(Trouble::Silence(_))), "{silent:?}");
        Ok(())
    });
}

/// A PROXY header, version 2, that announces a client.
fn proxy_v2(client: SocketAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match client.ip() {
        IpAddr::V4(address) => {
            header.extend([0x11, 0, 12]);
            header.extend(address.octets());
            header.extend([192, 0, 2, 10]);
        }
        IpAddr::V6(address) => {
            header.extend([0x21, 0, 36]);
            header.extend(address.octets());
            header.extend([0x20, 1, 0x0d, 0xb8, 0, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(25u16.to_be_bytes());
    header
}
