//! `screen` on real interfaces: refusals that arrive at once, jumbo frames, and whether it and the kernel's own parser
//! agree about what a SYN is. Each test in a cell whose own network is the server's; the client is a host on a veth.

mod differential;
mod mutant;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use screener::feed::{DenyAction, StaticAction};
use screener::kernel::{Feature, Kernel, Mode, Options, Settings, XdpPolicy, features};
use screener_tests::cell;
use screener_tests::client::{Client, Trouble};
use screener_tests::frames::{Reads, socket};
use screener_tests::host::Host;
use screener_tests::listener::port_25;
use screener_tests::net::{MX, Net, TO_INTERNET, ip};
use screener_tests::wait::until;
use screener_tests::xdp::take_frames_back;
use socket2::Socket;

fn options(xdp: XdpPolicy) -> Options {
    Options { interfaces: vec![TO_INTERNET.to_owned()], xdp, ..Options::default() }
}

fn deny(kernel: &Kernel, prefix: &str, action: DenyAction) -> Result<()> {
    Ok(kernel.put_static(prefix.parse()?, StaticAction::Deny(action))?)
}

/// Gives the server's end of the wire the address to which frames are made.
fn take_known_mac() -> Result<()> {
    let address = mutant::SERVER_MAC.map(|byte| format!("{byte:02x}")).join(":");
    ip(&format!("link set {TO_INTERNET} address {address}\n"))
}

/// How many packets a hook has counted under a name, in both families.
fn counted(kernel: &Kernel, hook: &str, name: &str) -> Result<u64> {
    let counters = kernel.counters()?;
    Ok(counters.iter().filter(|counter| counter.hook == hook && counter.name == name).map(|one| one.packets).sum())
}

fn server(client: IpAddr) -> Result<SocketAddr> {
    Ok(SocketAddr::new(MX.addresses[usize::from(client.is_ipv6())].parse()?, 25))
}

/// Connects, which must be refused, and sooner than a SYN is repeated.
fn is_refused(internet: &Host, client: &str) -> Result<()> {
    let client = client.parse()?;
    let start = Instant::now();
    match Client::connect(internet, client, server(client)?) {
        Err(Trouble::Refused) => {}
        Err(other) => bail!("{client}: {other} instead of a refusal"),
        Ok(_) => bail!("{client} was let in"),
    }
    ensure!(start.elapsed() < Duration::from_millis(900), "{client} waited {:?}", start.elapsed());
    Ok(())
}

#[test]
fn a_client_under_reject_is_refused_at_once_by_xdp_and_where_that_cannot_be_by_the_stack() {
    cell::test("a_client_under_reject_is_refused_at_once_by_xdp_and_where_that_cannot_be_by_the_stack", || {
        let internet = Net::internet_and_mx_here()?;
        let _mta = port_25()?;
        for (policy, mode) in [(XdpPolicy::Native, Mode::Native), (XdpPolicy::Generic, Mode::Generic)] {
            let kernel = Kernel::start(&options(policy))?;
            let status = kernel.status()?;
            ensure!(status.interfaces.iter().all(|interface| interface.mode == mode), "{status:?}");
            deny(&kernel, "198.51.100.32/28", DenyAction::Reject)?;
            deny(&kernel, "2001:db8:a:20::/64", DenyAction::Reject)?;
            // The peer is in a namespace of its own: whether it takes what is sent back cannot be seen from here.
            let early = kernel.settings()?.has(Settings::REJECT_EARLY);
            ensure!(early == (mode == Mode::Generic), "{mode}: early {early}");
            let before = [counted(&kernel, "screen", "reject_denied")?, counted(&kernel, "steer", "reject_denied")?];
            kernel.update_settings(|settings| settings.set(Settings::REJECT_EARLY, false))?;
            is_refused(&internet, "198.51.100.33")?;
            is_refused(&internet, "2001:db8:a:20::1")?;
            let _back = internet.in_ns(|| take_frames_back("eth0"))?;
            kernel.update_settings(|settings| settings.set(Settings::REJECT_EARLY, true))?;
            for _ in 0..3 {
                is_refused(&internet, "198.51.100.33")?;
                is_refused(&internet, "2001:db8:a:20::1")?;
            }
            let after = [counted(&kernel, "screen", "reject_denied")?, counted(&kernel, "steer", "reject_denied")?];
            ensure!(after == [before[0] + 6, before[1] + 2], "{mode}: {before:?}, then {after:?}");
            // Everybody else is served.
            let client = "198.51.100.1".parse()?;
            Client::connect(&internet, client, server(client)?)?;
            drop(kernel);
            screener::kernel::detach(&options(policy).pin)?;
        }
        Ok(())
    });
}

#[test]
fn on_a_native_veth_refusals_are_left_to_steer_unless_the_operator_says_otherwise() {
    cell::test("on_a_native_veth_refusals_are_left_to_steer_unless_the_operator_says_otherwise", || {
        ip("link add near type veth peer name far\nlink set near up\nlink set far up\n")?;
        let options = Options { interfaces: vec!["near".to_owned()], xdp: XdpPolicy::Native, ..Options::default() };
        let early = || -> Result<bool> { Ok(Kernel::start(&options)?.settings()?.has(Settings::REJECT_EARLY)) };
        ensure!(!early()?, "whether the peer takes it cannot be seen from here");
        let by_hand = |on: bool| -> Result<()> {
            let kernel = Kernel::start(&options)?;
            kernel.update_settings(|settings| {
                settings.set(Settings::REJECT_EARLY, on);
                settings.set(Settings::REJECT_BY_HAND, true);
            })?;
            Ok(())
        };
        by_hand(false)?;
        ensure!(!early()?, "the operator's word outlives the daemon");
        by_hand(true)?;
        ensure!(early()?);
        Ok(())
    });
}

#[test]
fn an_interface_with_jumbo_frames_is_screened_in_native_mode_and_carries_them() {
    cell::test("an_interface_with_jumbo_frames_is_screened_in_native_mode_and_carries_them", || {
        let internet = Net::internet_and_mx_here()?;
        let [mta, _] = port_25()?;
        ip(&format!("link set {TO_INTERNET} mtu 9000\n"))?;
        internet.in_ns(|| ip("link set eth0 mtu 9000\n"))?;
        let frags = features().into_iter().any(|found| found.feature == Feature::XdpFrags && found.there == Some(true));
        // A kernel before 5.18 cannot, and says so.
        let (policy, mode) = if frags { (XdpPolicy::Native, Mode::Native) } else { (XdpPolicy::Auto, Mode::Generic) };
        let kernel = Kernel::start(&options(policy))?;
        for interface in kernel.status()?.interfaces {
            ensure!(interface.mode == mode, "{interface:?}");
            let reason = interface.reason.unwrap_or_default();
            ensure!(frags || reason.contains("Linux 5.18"), "{reason}");
        }
        deny(&kernel, "198.51.100.16/28", DenyAction::Drop)?;
        let client = "198.51.100.17".parse()?;
        match Client::connect_within(&internet, client, server(client)?, Duration::from_millis(300)) {
            Err(Trouble::Silence(_)) => {}
            other => bail!("{other:?} instead of silence"),
        }
        ensure!(counted(&kernel, "screen", "drop_denied")? > 0);

        let client = "198.51.100.1".parse()?;
        let mut connection = Client::connect(&internet, client, server(client)?)?;
        let (mut accepted, _) = mta.accept()?;
        let sent: Vec<u8> = (0..400_000u32).flat_map(u32::to_ne_bytes).collect();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| connection.send_raw(&sent));
            let mut received = vec![0; sent.len()];
            accepted.set_read_timeout(Some(Duration::from_secs(20)))?;
            accepted.read_exact(&mut received).context("reading what was sent")?;
            ensure!(received == sent, "something was changed on the way");
            sender.join().ok().context("the sender broke")??;
            Ok(())
        })?;
        accepted.write_all(b"250 taken\r\n")?;
        connection.expect(250)?;
        Ok(())
    });
}

#[test]
fn a_flood_is_told_by_a_sample_and_a_quiet_day_in_full() {
    cell::test("a_flood_is_told_by_a_sample_and_a_quiet_day_in_full", || {
        let internet = Net::internet_and_mx_here()?;
        take_known_mac()?;
        let kernel = Kernel::start(&options(XdpPolicy::Native))?;
        deny(&kernel, "10.0.0.0/8", DenyAction::Drop)?;
        ensure!(kernel.adapt_sampling()? == 1);
        let sender = Socket::from(socket(&internet, Reads::Nothing)?);
        let frame = mutant::plain([10, 1, 2, 3], [192, 0, 2, 10]);
        let count = 30_000;
        for _ in 0..count {
            sender.send(&frame)?;
        }
        until("all of them to be dropped", Duration::from_secs(20), || {
            (counted(&kernel, "screen", "drop_denied").ok()? >= count).then_some(())
        })?;
        let sample = kernel.adapt_sampling()?;
        ensure!(sample > 1 && sample.is_power_of_two(), "{sample}");
        ensure!(kernel.settings()?.event_sample == sample);
        ensure!(counted(&kernel, "screen", "note_event_lost")? > count / 2, "nobody reads: most are lost, and counted");
        ensure!(kernel.adapt_sampling()? == 1, "the flood is over");
        // Who said that nothing shall be told is not overruled.
        kernel.update_settings(|settings| settings.event_sample = 0)?;
        ensure!(kernel.adapt_sampling()? == 0);
        Ok(())
    });
}
