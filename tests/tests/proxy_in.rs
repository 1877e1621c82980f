//! Clients that come by way of a proxy: its PROXY header says who they are, however it arrives, and everything goes by that.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::client::{Client, Reply};
use screener_tests::haproxy::Haproxy;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Mta, RELAY};
use screener_tests::net::{Family, INTERNET, MX, Net, Plan};
use screener_tests::screener::{Screener, USUAL};

const SOON: Duration = Duration::from_secs(20);
/// The load balancer's own addresses.
const PROXY: &str = "198.51.100.200";
const PROXY_6: &str = "2001:db8:a:200::1";
const LISTEN: &str = r#"
[listen]
proxy_from = ["198.51.100.200", "2001:db8:a:200::/64"]
"#;

fn front() -> String {
    format!("{USUAL}{LISTEN}mode = \"front\"\naddresses = [\"0.0.0.0:2525\", \"[::]:2525\"]\n")
}

/// A version 1 header of a client that came to our public address.
fn line(client: &str, port: u16) -> String {
    let (family, server) = if client.contains(':') { ("TCP6", "2001:db8:25::10") } else { ("TCP4", "192.0.2.10") };
    format!("PROXY {family} {client} {server} {port} 25\r\n")
}

/// The same as version 2, with TLVs behind the addresses.
fn binary(client: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".to_vec();
    header.push(u8::try_from(12 + tlvs.len()).expect("a short header"));
    header.extend(client);
    header.extend([192, 0, 2, 10, 0x12, 0x34, 0, 25]);
    header.extend(tlvs);
    header
}

fn connect(internet: &Host, mx: &Host, source: &str, port: u16) -> Result<Client> {
    let source: IpAddr = source.parse()?;
    let mut client = Client::connect(internet, source, SocketAddr::new(mx.address(Family::of(source))?, port))?;
    client.set_patience(SOON);
    Ok(client)
}

/// A mail as far as the recipient, where the MTA answers.
fn mail(client: &mut Client) -> Result<()> {
    client.begin_mail(250)?;
    client.ask("QUIT", 221)?;
    Ok(())
}

#[test]
fn a_header_in_pieces_names_the_client_to_everything_that_follows() {
    cell::test("a_header_in_pieces_names_the_client_to_everything_that_follows", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &front())?;
        // A noop and a name that the proxy gave to the connection.
        let tlvs = b"\x04\0\x02\0\0\x05\0\x04name";
        let v4: (&str, Vec<u8>) = ("203.0.113.30", binary([203, 0, 113, 30], tlvs));
        let v6 = ("2001:db8:b:31::1", line("2001:db8:b:31::1", 4660).into_bytes());
        for ((source, header), proxy) in [v4, v6].into_iter().zip([PROXY, PROXY_6]) {
            let source: IpAddr = source.parse()?;
            let mut client = connect(&internet, &mx, proxy, 2525)?;
            for byte in &header {
                client.send_raw(&[*byte])?;
                // Each in a segment of its own, and taken before the next one comes.
                sleep(Duration::from_millis(2));
            }
            ensure!(client.expect(220)?.lines.len() == 2, "screened:\n{}", client.transcript());
            mail(&mut client)?;
            let server = mx.address(Family::of(source))?;
            let shown = |end: IpAddr, port: u16| format!("[{end}]:{port}");
            screener.wait_for_log(&format!("CONNECT from {} to {}", shown(source, 4660), shown(server, 25)), SOON)?;
            mta.wait_until_seen(RELAY, source, SOON)?;
            ensure!(screener.has_pass(source)?, "the client has no pass");
            ensure!(!screener.has_pass(proxy.parse()?)?, "the proxy got the client's pass");
        }
        // The second time the pass counts, header and all in one segment.
        let mut again = connect(&internet, &mx, PROXY, 2525)?;
        again.send_raw(&binary([203, 0, 113, 30], b""))?;
        ensure!(again.expect(220)?.lines.len() == 1, "the MTA's own greeting:\n{}", again.transcript());
        again.ask("QUIT", 221)?;
        Ok(())
    });
}

#[test]
fn what_stands_behind_the_header_is_speaking_before_the_greeting() {
    cell::test("what_stands_behind_the_header_is_speaking_before_the_greeting", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &front())?;
        let mut client = connect(&internet, &mx, PROXY, 2525)?;
        client.send_raw(format!("{}EHLO early.example.net\r\n", line("203.0.113.32", 1000)).as_bytes())?;
        client.expect(220)?;
        let logged = screener.wait_for_log("PREGREET 24 after ", SOON)?;
        ensure!(logged.ends_with("from [203.0.113.32]:1000: EHLO early.example.net\\r\\n"), "{logged}");
        client.expect(250)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        let refusal = client.ask(&format!("RCPT TO:<{BOB}>"), 550)?;
        ensure!(refusal.contains("5.5.1 Protocol error"), "{}", refusal.text());
        Ok(())
    });
}

#[test]
fn static_entries_and_ceilings_go_by_the_client_and_not_by_the_proxy() {
    cell::test("static_entries_and_ceilings_go_by_the_client_and_not_by_the_proxy", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, &(front() + "[limits]\nper_client = 1\n"))?;
        screener.tell(&["deny", "add", "203.0.113.64/26"])?;
        screener.tell(&["permit", "add", "203.0.113.128/26"])?;
        let come = |client: &str| -> Result<Client> {
            let mut proxied = connect(&internet, &mx, PROXY, 2525)?;
            proxied.send_raw(line(client, 1000).as_bytes())?;
            Ok(proxied)
        };
        let mut denied = come("203.0.113.70")?;
        ensure!(denied.read_reply()?.text().starts_with("521 5.3.2"), "{}", denied.transcript());
        let mut permitted = come("203.0.113.130")?;
        ensure!(permitted.expect(220)?.lines.len() == 1, "{}", permitted.transcript());
        mta.wait_until_seen(RELAY, "203.0.113.130".parse()?, SOON)?;
        // One session each is all that is allowed, and each has one, though all come from one address.
        let mut held = come("203.0.113.33")?;
        held.expect(220)?;
        let mut other = come("203.0.113.34")?;
        other.expect(220)?;
        let mut second = come("203.0.113.33")?;
        second.expect(421)?;
        Ok(())
    });
}

#[test]
fn a_health_check_is_greeted_at_once_and_told_when_the_mta_is_away() {
    cell::test("a_health_check_is_greeted_at_once_and_told_when_the_mta_is_away", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mut mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &front())?;
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        for header in [&local[..], b"PROXY UNKNOWN\r\n"] {
            let mut check = connect(&internet, &mx, PROXY, 2525)?;
            check.send_raw(header)?;
            // Who is made to wait hears `220-` first.
            ensure!(check.expect(220)?.lines.len() == 1, "{}", check.transcript());
            check.ask("HELO lb.example.com", 250)?;
            check.ask("MAIL FROM:<a@example.net>", 250)?;
            check.ask(&format!("RCPT TO:<{BOB}>"), 450)?;
            check.ask("QUIT", 221)?;
        }
        // A look whether the port is open needs no header.
        drop(connect(&internet, &mx, PROXY, 2525)?);
        mta.stop()?;
        // Somebody has to notice.
        let mut sender = connect(&internet, &mx, "198.51.100.35", 2525)?;
        sender.expect(220)?;
        sender.begin_mail(451)?;
        let mut check = connect(&internet, &mx, PROXY, 2525)?;
        check.send_raw(local)?;
        check.expect(421)?;
        screener.wait_for_log("CONNECT from [198.51.100.35]", SOON)?;
        ensure!(!screener.log().contains(&format!("CONNECT from [{PROXY}]")), "health checks fill the log");
        ensure!(!screener.log().contains("haproxy read"), "{}", screener.log());
        Ok(())
    });
}

#[test]
fn without_a_lawful_header_a_proxy_is_turned_away_and_the_log_says_what_to_do() {
    cell::test("without_a_lawful_header_a_proxy_is_turned_away_and_the_log_says_what_to_do", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &front())?;
        let mut silent = connect(&internet, &mx, PROXY, 2525)?;
        let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", &[0; 40][..]].concat();
        let damaged = binary([203, 0, 113, 36], b"\x03\0\x04\0\0\0\0");
        for (sent, said) in [
            (&b"EHLO nobody\r\n"[..], "unrecognized protocol header (it began with \"EHLO nobody\\r\\n\")"),
            (b"PROXY TCP4 nobody\r\n", "bad or missing address: "),
            (&long, "let it send fewer TLVs"),
            (&damaged, "bad checksum in protocol header"),
        ] {
            let mut proxy = connect(&internet, &mx, PROXY_6, 2525)?;
            proxy.send_raw(sent)?;
            let (heard, _) = proxy.read_all()?;
            ensure!(heard == b"421 4.3.2 No system resources\r\n", "{}", proxy.transcript());
            let logged = screener.wait_for_log(said, SOON)?;
            ensure!(
                logged.contains("warning: haproxy read: ") && logged.contains("is in listen.proxy_from"),
                "{logged}"
            );
        }
        let (heard, _) = silent.read_all()?;
        ensure!(heard == b"421 4.3.2 No system resources\r\n", "{}", silent.transcript());
        screener.wait_for_log("haproxy read: time limit exceeded: ", SOON)?;
        screener.wait_for_degraded("is in listen.proxy_from", true)?;
        // Nobody else may say who he is.
        let (source, server) = ("198.51.100.36".parse()?, SocketAddr::new(mx.address(Family::V4)?, 2525));
        let header = line("203.0.113.37", 1000);
        let mut stranger = Client::connect_saying(&internet, source, server, header.as_bytes())?;
        stranger.expect(220)?;
        let logged = screener.wait_for_log("PREGREET ", SOON)?;
        ensure!(logged.contains("from [198.51.100.36]:") && logged.contains("PROXY TCP4 203.0.113.37"), "{logged}");
        Ok(())
    });
}

#[test]
fn in_steer_mode_a_proxy_reaches_the_daemon_whatever_passes_there_are() {
    cell::test("in_steer_mode_a_proxy_reaches_the_daemon_whatever_passes_there_are", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, &format!("{USUAL}{LISTEN}mode = \"steer\"\n"))?;
        // The proxy's own pass, and that of a client that shares its /64: neither is for the kernel.
        screener.tell(&["pass", "add", PROXY])?;
        screener.tell(&["pass", "add", "2001:db8:a:200::7"])?;
        for (proxy, client) in [(PROXY, "203.0.113.38"), (PROXY_6, "2001:db8:b:38::1")] {
            let mut proxied = connect(&internet, &mx, proxy, 25)?;
            proxied.send_raw(line(client, 1000).as_bytes())?;
            ensure!(proxied.expect(220)?.lines.len() == 2, "screened:\n{}", proxied.transcript());
            mail(&mut proxied)?;
            mta.wait_until_seen(RELAY, client.parse()?, SOON)?;
        }
        let explained = screener.explain(PROXY.parse()?)?;
        ensure!(
            explained["summary"].as_str().is_some_and(|text| text.contains("a proxy of listen.proxy_from")),
            "{explained}"
        );
        let refused = screener.cli(&["permit", "add", "198.51.100.192/26"])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && said.contains("meets listen.proxy_from"), "{said}");
        Ok(())
    });
}

/// The greeting of a client that came by way of a balancer; if there is none, both say why.
fn greeting(client: &mut Client, haproxy: &Haproxy, screener: &Screener) -> Result<Reply> {
    let said = || format!("haproxy:\n{}\nscreener:\n{}", haproxy.log(), screener.log());
    client.expect(220).with_context(said)
}

#[test]
fn a_real_load_balancer_is_understood_and_takes_the_host_out_while_the_mta_is_away() {
    cell::test("a_real_load_balancer_is_understood_and_takes_the_host_out_while_the_mta_is_away", || {
        let net = Net::new()?;
        let (mx, internet) = (net.host(&MX)?, net.host(&INTERNET)?);
        let balancer =
            net.host(&Plan { name: "lb", addresses: &["192.0.2.200", "2001:db8:25::200"], prefixes: &[] })?;
        let mut mta = Mta::start(&mx, "")?;
        let proxies = front().replace("\"198.51.100.200\", \"2001:db8:a:200::/64\"", "\"192.0.2.200\"");
        let mut screener = Screener::start(&mx, &proxies)?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 2525);
        let connect = |source: &str| -> Result<Client> {
            let source: IpAddr = source.parse()?;
            let door = SocketAddr::new(balancer.address(Family::of(source))?, 25);
            Ok(Client::connect(&internet, source, door)?)
        };
        let check = "check inter 200ms fall 2 rise 2";
        for (number, header) in ["send-proxy", "send-proxy-v2 proxy-v2-options crc32c,unique-id"].iter().enumerate() {
            let mut haproxy = Haproxy::start(&balancer, server, &format!("{header} {check}"))?;
            for source in [format!("198.51.100.{}", 60 + number), format!("2001:db8:a:{}::1", 60 + number)] {
                let mut client = connect(&source)?;
                ensure!(
                    greeting(&mut client, &haproxy, &screener)?.lines.len() == 2,
                    "screened:\n{}",
                    client.transcript()
                );
                mail(&mut client)?;
                let source: IpAddr = source.parse()?;
                mta.wait_until_seen(RELAY, source, SOON)?;
                let door = balancer.address(Family::of(source))?;
                screener.wait_for_log(&format!("CONNECT from {} to [{door}]:25", client.log_name()), SOON)?;
            }
            // It comes before that, for the balancer's next check may find out, and then it lets nobody in.
            let mut client = connect(&format!("198.51.100.{}", 70 + number))?;
            greeting(&mut client, &haproxy, &screener)?;
            mta.stop()?;
            // If it is the first to find out, the daemon asks by itself from then on whether the MTA is back.
            client.begin_mail(451)?;
            haproxy.wait_until_server_is("DOWN")?;
            mta.resume()?;
            haproxy.wait_until_server_is("UP")?;
        }
        ensure!(!screener.log().contains("haproxy read"), "{}", screener.log());
        Ok(())
    });
}
