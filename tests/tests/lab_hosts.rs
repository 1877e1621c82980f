//! Hosts reach each other with true addresses, and keep their places to themselves.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::host::Host;
use screener_tests::net::{Family, Net, Plan};

#[test]
fn two_hosts_reach_each_other_with_their_true_addresses() {
    cell::test("two_hosts_reach_each_other_with_their_true_addresses", || {
        let (left, right) = pair()?;
        for family in Family::BOTH {
            let from = left.address(family)?;
            let to = SocketAddr::new(right.address(family)?, 25);
            let listener = right.in_ns(|| Ok(TcpListener::bind(to)?))?;
            let mut stream = left.in_ns(|| Ok(TcpStream::connect(to)?))?;
            let (mut accepted, peer) = listener.accept()?;
            ensure!(peer.ip() == from, "{peer} came, not {from}");
            stream.write_all(b"hello")?;
            let mut bytes = [0; 5];
            accepted.read_exact(&mut bytes)?;
            ensure!(&bytes == b"hello");
        }
        Ok(())
    });
}

#[test]
fn a_host_with_a_prefix_answers_on_every_address_in_it() {
    cell::test("a_host_with_a_prefix_answers_on_every_address_in_it", || {
        let (left, right) = pair()?;
        for address in ["203.0.113.77", "2001:db8:b:4711::1"] {
            let to = SocketAddr::new(address.parse::<IpAddr>()?, 2525);
            let listener = right.in_ns(|| Ok(TcpListener::bind(to)?))?;
            left.in_ns(|| TcpStream::connect(to).with_context(|| to.to_string()))?;
            listener.accept()?;
        }
        Ok(())
    });
}

#[test]
fn a_host_has_private_places_and_a_read_only_rest() {
    cell::test("a_host_has_private_places_and_a_read_only_rest", || {
        let (left, right) = pair()?;
        for path in [
            "/etc/postfix/main.cf",
            "/etc/resolv.conf",
            "/etc/hosts",
            "/etc/screener/screener.toml",
            "/run/mark",
            "/tmp/mark",
            "/var/lib/screener/mark",
            "/var/log/maillog",
            "/var/mail/mark",
            "/var/spool/postfix/mark",
        ] {
            left.ask("sh", &["-c", &format!("echo left > {path}")])?;
            ensure!(left.read(path)? == "left\n");
            let other = right.read(path).unwrap_or_default();
            ensure!(other != "left\n", "{path} is shared between hosts");
        }
        let rest = left.run(left.command("touch").arg("/usr/mark"))?;
        ensure!(!rest.status.success(), "/usr can be written in a cell");
        Ok(())
    });
}

#[test]
fn a_host_has_its_own_name_interfaces_and_bpf_pins() {
    cell::test("a_host_has_its_own_name_interfaces_and_bpf_pins", || {
        let (left, right) = pair()?;
        ensure!(left.ask("uname", &["-n"])? == "left\n");
        ensure!(left.ask("ls", &["/sys/class/net"])? == "eth0\nlo\n");
        left.ask("mkdir", &["/sys/fs/bpf/mine"])?;
        let other = right.ask("ls", &["/sys/fs/bpf"])?;
        ensure!(!other.contains("mine"), "pins are shared: {other}");
        Ok(())
    });
}

fn pair() -> Result<(Host, Host)> {
    let net = Net::new()?;
    let left = net.host(&Plan { name: "left", addresses: &["192.0.2.10", "2001:db8:25::10"], prefixes: &[] })?;
    let right = net.host(&Plan {
        name: "right",
        addresses: &["203.0.113.1", "2001:db8:b::1"],
        prefixes: &["203.0.113.0/24", "2001:db8:b::/48"],
    })?;
    Ok((left, right))
}
