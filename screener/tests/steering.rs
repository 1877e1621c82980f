//! `steer` on real sockets: who reaches the MTA, who the daemon, who nobody. Each test in a cell of its own, whose only
//! host has the clients' addresses too.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use screener::client::{ClientKey, Ipv6KeyLength};
use screener::clock::Now;
use screener::feed::{DenyAction, StaticAction};
use screener::kernel::{Class, Family, Kernel, KernelError, Options, StaticKind, XdpPolicy, detach, pinned_status};
use screener_tests::cell;
use screener_tests::client::{Trouble, open};
use screener_tests::listener::{listener, port_25};
use screener_tests::net::{MX, ip, switch};
use screener_tests::wait::until;

const DENY: fn(DenyAction) -> StaticAction = StaticAction::Deny;
const SOON: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);
/// The clients' networks, IPv4 and IPv6; a test takes addresses out of them.
const CLIENTS: [&str; 2] = ["198.51.100.0/24", "2001:db8:a::/48"];

fn options() -> Options {
    Options { xdp: XdpPolicy::Off, ..Options::default() }
}

/// Port 25 and the daemon's listeners, as they stand on a host; IPv4 and IPv6 each.
struct Host {
    mta: [TcpListener; 2],
    plain: [TcpListener; 2],
    tagged: [TcpListener; 2],
}

/// Who took a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taker {
    Mta,
    Plain,
    Tagged,
    /// A RST.
    Refused,
}

impl Host {
    fn new() -> Result<Self> {
        let mut batch = String::from("link set lo up\n");
        for address in MX.addresses {
            let length = if address.contains(':') { 128 } else { 32 };
            batch += &format!("addr add {address}/{length} dev lo\n");
        }
        for network in CLIENTS {
            batch += &format!("route add local {network} dev lo\n");
        }
        ip(&batch)?;
        switch("net/ipv6/ip_nonlocal_bind", "1")?;
        Ok(Self { mta: asked_often(port_25()?)?, plain: behind()?, tagged: behind()? })
    }

    /// Puts the daemon's listeners in.
    fn serve(&self, kernel: &Kernel) -> Result<()> {
        for (number, family) in Family::ALL.into_iter().enumerate() {
            kernel.set_listener(Class::Plain, family, &self.plain[number])?;
            kernel.set_listener(Class::Tagged, family, &self.tagged[number])?;
        }
        Ok(())
    }

    /// Connects from an address to the server's port 25 of its family, and finds who took the connection.
    fn connect(&self, client: &str) -> Result<Taker> {
        let client: IpAddr = client.parse()?;
        self.connect_to(client, MX.addresses[usize::from(client.is_ipv6())].parse()?)
    }

    fn connect_to(&self, client: IpAddr, server: IpAddr) -> Result<Taker> {
        let stream = match open(client, SocketAddr::new(server, 25), SOON) {
            Ok(stream) => stream,
            Err(Trouble::Refused) => return Ok(Taker::Refused),
            Err(other) => return Err(other).with_context(|| format!("from {client}")),
        };
        let local = stream.local_addr()?;
        let listeners = [(Taker::Mta, &self.mta), (Taker::Plain, &self.plain), (Taker::Tagged, &self.tagged)];
        until("the connection to be accepted", SOON, || {
            listeners.into_iter().find_map(|(taker, pair)| pair.iter().any(|one| took(one, local)).then_some(taker))
        })
    }
}

/// Where the daemon listens.
fn behind() -> Result<[TcpListener; 2]> {
    asked_often([listener("127.0.0.1:0")?, listener("[::1]:0")?])
}

/// Listeners that are asked for a connection when there may be none.
fn asked_often(pair: [TcpListener; 2]) -> Result<[TcpListener; 2]> {
    for one in &pair {
        one.set_nonblocking(true)?;
    }
    Ok(pair)
}

fn took(listener: &TcpListener, client: SocketAddr) -> bool {
    listener.accept().is_ok_and(|(_, peer)| peer == client)
}

fn key(client: &str) -> Result<ClientKey> {
    Ok(ClientKey::of(client.parse()?, Ipv6KeyLength::default()))
}

fn net(prefix: &str) -> Result<IpNet> {
    Ok(prefix.parse()?)
}

#[test]
fn each_kind_of_client_reaches_whom_it_should() {
    cell::test("each_kind_of_client_reaches_whom_it_should", || {
        let host = Host::new()?;
        let kernel = Kernel::start(&options())?;
        host.serve(&kernel)?;
        for (prefix, action) in [
            ("198.51.100.16/28", DENY(DenyAction::Drop)),
            ("198.51.100.32/28", DENY(DenyAction::Reject)),
            ("198.51.100.48/28", DENY(DenyAction::Tag)),
            ("198.51.100.64/28", DENY(DenyAction::Count)),
            ("198.51.100.20/32", StaticAction::Permit),
            ("2001:db8:a:10::/64", DENY(DenyAction::Drop)),
            ("2001:db8:a:20::/64", DENY(DenyAction::Reject)),
            ("2001:db8:a:30::/64", DENY(DenyAction::Tag)),
            ("2001:db8:a:40::/64", DENY(DenyAction::Count)),
            ("2001:db8:a:10::4/128", StaticAction::Permit),
        ] {
            kernel.put_static(net(prefix)?, action)?;
        }
        // The last two are denied: no pass helps against that.
        for client in ["198.51.100.2", "2001:db8:a:2::1", "198.51.100.34", "198.51.100.50"] {
            kernel.put_pass(key(client)?, Now::read().plus(HOUR).unix)?;
        }
        // Under SYN cookies the program is asked again on the ACK, and must say the same.
        for cookies in ["0", "2"] {
            switch("net/ipv4/tcp_syncookies", cookies)?;
            for (client, expected) in [
                ("198.51.100.1", Taker::Plain),
                ("198.51.100.2", Taker::Mta),
                ("198.51.100.17", Taker::Refused),
                ("198.51.100.20", Taker::Mta),
                ("198.51.100.33", Taker::Refused),
                ("198.51.100.34", Taker::Refused),
                ("198.51.100.49", Taker::Tagged),
                ("198.51.100.50", Taker::Tagged),
                ("198.51.100.65", Taker::Plain),
                ("2001:db8:a:1::1", Taker::Plain),
                ("2001:db8:a:2::1", Taker::Mta),
                ("2001:db8:a:2:ffff::9", Taker::Mta),
                ("2001:db8:a:10::1", Taker::Refused),
                ("2001:db8:a:10::4", Taker::Mta),
                ("2001:db8:a:20::1", Taker::Refused),
                ("2001:db8:a:30::1", Taker::Tagged),
                ("2001:db8:a:40::1", Taker::Plain),
            ] {
                let taker = host.connect(client)?;
                ensure!(taker == expected, "{client}: {taker:?} instead of {expected:?} (tcp_syncookies={cookies})");
            }
        }
        ensure!(kernel.pass_last_used(key("198.51.100.2")?)?.is_some(), "the use of a pass is noted");
        ensure!(kernel.pass_last_used(key("198.51.100.50")?)?.is_none());
        Ok(())
    });
}

#[test]
fn loopback_and_own_addresses_reach_the_mta() {
    cell::test("loopback_and_own_addresses_reach_the_mta", || {
        let host = Host::new()?;
        let kernel = Kernel::start(&options())?;
        host.serve(&kernel)?;
        for (client, server) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", MX.addresses[0]),
            (MX.addresses[0], MX.addresses[0]),
            ("::1", "::1"),
            ("::1", MX.addresses[1]),
            (MX.addresses[1], MX.addresses[1]),
        ] {
            ensure!(host.connect_to(client.parse()?, server.parse()?)? == Taker::Mta, "{client} to {server}");
        }
        Ok(())
    });
}

#[test]
fn a_pass_ends_at_its_time_and_when_it_is_taken_away() {
    cell::test("a_pass_ends_at_its_time_and_when_it_is_taken_away", || {
        let host = Host::new()?;
        let kernel = Kernel::start(&options())?;
        host.serve(&kernel)?;
        let client = "198.51.100.2";
        kernel.put_pass(key(client)?, Now::read().plus(Duration::from_secs(2)).unix)?;
        ensure!(host.connect(client)? == Taker::Mta);
        until("the pass to expire", SOON, || (host.connect(client).ok()? == Taker::Plain).then_some(()))?;
        kernel.put_pass(key(client)?, Now::read().plus(HOUR).unix)?;
        ensure!(host.connect(client)? == Taker::Mta);
        ensure!(kernel.del_pass(key(client)?)?);
        ensure!(host.connect(client)? == Taker::Plain);
        ensure!(!kernel.del_pass(key(client)?)?);
        Ok(())
    });
}

#[test]
fn without_a_listener_everybody_reaches_the_mta() {
    cell::test("without_a_listener_everybody_reaches_the_mta", || {
        let mut host = Host::new()?;
        let kernel = Kernel::start(&options())?;
        kernel.put_static(net("198.51.100.48/28")?, DENY(DenyAction::Tag))?;
        ensure!(host.connect("198.51.100.1")? == Taker::Mta, "no listener yet");
        host.serve(&kernel)?;
        ensure!(host.connect("198.51.100.1")? == Taker::Plain);
        // The daemon dies: its sockets close, and leave the map by themselves.
        (host.plain, host.tagged) = (behind()?, behind()?);
        for client in ["198.51.100.1", "198.51.100.49", "2001:db8:a:1::1"] {
            ensure!(host.connect(client)? == Taker::Mta, "{client}");
        }
        kernel.put_static(net("198.51.100.16/28")?, DENY(DenyAction::Reject))?;
        ensure!(host.connect("198.51.100.17")? == Taker::Refused, "denies hold without a daemon");
        Ok(())
    });
}

#[test]
fn the_next_daemon_takes_over_what_is_pinned() {
    cell::test("the_next_daemon_takes_over_what_is_pinned", || {
        let host = Host::new()?;
        let first = Kernel::start(&options())?;
        host.serve(&first)?;
        first.put_static(net("198.51.100.16/28")?, DENY(DenyAction::Reject))?;
        first.put_pass(key("198.51.100.2")?, Now::read().plus(HOUR).unix)?;
        match Kernel::start(&options()) {
            Err(KernelError::Busy { .. }) => {}
            Err(other) => bail!("{other}"),
            Ok(_) => bail!("two daemons hold one pin directory"),
        }
        drop(first);
        ensure!(host.connect("198.51.100.17")? == Taker::Refused, "between two daemons");
        ensure!(host.connect("198.51.100.1")? == Taker::Plain, "the listeners are still open here");
        let second = Kernel::start(&options())?;
        ensure!(host.connect("198.51.100.17")? == Taker::Refused, "the deny is still there");
        ensure!(host.connect("198.51.100.2")? == Taker::Mta, "the pass is still there");
        // What the second one does not know of is gone once it has said what there is.
        let report = second.sync_statics([(net("198.51.100.32/28")?, DENY(DenyAction::Reject))])?;
        ensure!((report.added, report.removed) == (1, 1), "{report:?}");
        second.sync_passes([])?;
        ensure!(host.connect("198.51.100.17")? == Taker::Plain);
        ensure!(host.connect("198.51.100.33")? == Taker::Refused);
        ensure!(host.connect("198.51.100.2")? == Taker::Plain);
        ensure!(second.del_static(net("198.51.100.32/28")?, StaticKind::Deny)?);
        ensure!(host.connect("198.51.100.33")? == Taker::Plain);
        Ok(())
    });
}

#[test]
fn detach_leaves_nothing_and_needs_no_daemon() {
    cell::test("detach_leaves_nothing_and_needs_no_daemon", || {
        let host = Host::new()?;
        let kernel = Kernel::start(&options())?;
        host.serve(&kernel)?;
        kernel.put_static(net("198.51.100.16/28")?, DENY(DenyAction::Reject))?;
        drop(kernel);
        let pin = &options().pin;
        ensure!(pinned_status(pin)?.attached);
        let report = detach(pin)?;
        ensure!(!report.detached.is_empty() && report.maps > 0, "{report:?}");
        ensure!(!Path::new(pin).exists(), "{} is still there", pin.display());
        ensure!(!pinned_status(pin)?.attached);
        ensure!(host.connect("198.51.100.1")? == Taker::Mta);
        ensure!(host.connect("198.51.100.17")? == Taker::Mta);
        Ok(())
    });
}

#[test]
fn a_denied_client_is_told_by_an_event() {
    cell::test("a_denied_client_is_told_by_an_event", || {
        let host = Host::new()?;
        let kernel = Kernel::start(&options())?;
        host.serve(&kernel)?;
        kernel.put_static(net("198.51.100.16/28")?, DENY(DenyAction::Reject))?;
        kernel.put_static(net("198.51.100.48/28")?, DENY(DenyAction::Tag))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut events = kernel.events()?;
            for client in ["198.51.100.1", "198.51.100.17", "198.51.100.49"] {
                host.connect(client)?;
            }
            for (client, action) in [("198.51.100.17", DenyAction::Reject), ("198.51.100.49", DenyAction::Tag)] {
                let event = tokio::time::timeout(SOON, events.next()).await?.context("no event")?;
                ensure!(event.address == client.parse::<IpAddr>()?, "{event:?}");
                ensure!(event.action == Some(DENY(action)) && event.port == 25 && event.weight == 1, "{event:?}");
            }
            ensure!(kernel.events().is_err(), "there is one reader");
            Ok(())
        })
    });
}

#[test]
fn an_unknown_interface_and_a_wrong_pin_directory_are_named() {
    cell::test("an_unknown_interface_and_a_wrong_pin_directory_are_named", || {
        let wrong = Options { steer: false, interfaces: vec!["eth7".to_owned()], ..Options::default() };
        let Err(error) = Kernel::start(&wrong) else { bail!("attached to nothing") };
        ensure!(error.to_string().contains("there is no interface eth7"), "{error}");
        ensure!(!Path::new(&wrong.pin).exists(), "it leaves nothing behind");
        let elsewhere = Options { pin: "/run/screener-pins".into(), ..options() };
        let Err(error) = Kernel::start(&elsewhere) else { bail!("pinned to a tmpfs") };
        ensure!(error.to_string().contains("is not on a BPF file system"), "{error}");
        Ok(())
    });
}
