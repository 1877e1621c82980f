//! Takeovers under a flood of SYNs: no SYN of an address that is denied before and after gets through at any moment, whether
//! the next daemon has the maps of its predecessor or a version of its own.
//!
//! Each test is a cell with one client host. The screened side is the cell itself; its end of the client's wire is a veth,
//! where `screen` runs natively. What gets through is counted where it shows in either half: as a SYN-ACK that reaches the
//! client.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use ipnet::IpNet;
use screener::feed::{DenyAction, StaticAction};
use screener::kernel::{Kernel, Mode, Options, XdpPolicy};
use screener_tests::cell;
use screener_tests::client::Client;
use screener_tests::frames::{Reads, socket};
use screener_tests::host::Host;
use screener_tests::net::{Net, TO_INTERNET};
use screener_tests::wait::until;
use socket2::{SockFilter, Socket};

const SOON: Duration = Duration::from_secs(10);
const SERVER: &str = "192.0.2.10";
/// Denied throughout.
const DENIED: [u8; 4] = [198, 51, 100, 0];
/// Never denied.
const GOOD: &str = "203.0.113.7";
/// How many takeovers there are under one flood.
const ROUNDS: usize = 10;

fn denies() -> Result<Vec<(IpNet, StaticAction)>> {
    // Some more, so that filling takes its time.
    let mut entries: Vec<_> = (0..5_000u32)
        .map(|number| {
            let network = std::net::Ipv4Addr::from(0x2c00_0000 + (number << 8));
            Ok((IpNet::new(network.into(), 24)?, StaticAction::Deny(DenyAction::Drop)))
        })
        .collect::<Result<_>>()?;
    entries.push((IpNet::new(IpAddr::from(DENIED), 24)?, StaticAction::Deny(DenyAction::Drop)));
    Ok(entries)
}

fn start(options: &Options) -> Result<Kernel> {
    let kernel = Kernel::open(options)?;
    kernel.sync_statics(denies()?)?;
    kernel.attach()?;
    Ok(kernel)
}

/// SYNs from every denied address, ready to send.
fn syns(to: [u8; 6]) -> Result<Vec<Vec<u8>>> {
    let server = SERVER.parse::<std::net::Ipv4Addr>()?.octets();
    let frames = (0..=255u8).flat_map(|host| (0..4u16).map(move |round| (host, round)));
    let frames = frames.map(|(host, round)| {
        let [a, b, c, _] = DENIED;
        let port = 20_000 + u16::from(host) * 16 + round;
        let builder =
            PacketBuilder::ethernet2([2; 6], to).ipv4([a, b, c, host], server, 64).tcp(port, 25, 7, 1024).syn();
        let mut frame = Vec::new();
        builder.write(&mut frame, &[])?;
        Ok(frame)
    });
    frames.collect()
}

/// The flood, and what came back.
#[derive(Default)]
struct Flood {
    over: AtomicBool,
    sent: AtomicU64,
    /// SYN-ACKs to a denied address: it got through.
    through: AtomicU64,
    /// SYN-ACKs to the good address: the counting works.
    good: AtomicU64,
}

impl Flood {
    /// Sends until it is over.
    fn send(&self, socket: &Socket, frames: &[Vec<u8>]) {
        for frame in frames.iter().cycle() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            // A full queue loses the frame: there are more.
            if socket.send(frame).is_ok() {
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts SYN-ACKs from port 25 until it is over.
    fn count(&self, socket: &Socket) -> Result<()> {
        use std::io::Read as _;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut frame = [0; 2048];
        while !self.over.load(Ordering::Relaxed) {
            let Ok(length) = (&*socket).read(&mut frame) else { continue };
            if let Some(to) = syn_ack(&frame[..length]) {
                let counter = if to[..3] == DENIED[..3] { &self.through } else { &self.good };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn come_through(&self) -> u64 {
        self.through.load(Ordering::Relaxed)
    }
}

/// A filter for [`syn_ack`] in the kernel: the RSTs with which `steer` answers the flood would fill the socket.
fn only_syn_acks() -> [SockFilter; 7] {
    let step = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    [
        step(BPF_LD | BPF_H | BPF_ABS, 0, 0, 34),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, 25),
        step(BPF_LD | BPF_B | BPF_ABS, 0, 0, 47),
        step(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0x12),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0x12),
        step(BPF_RET | BPF_K, 0, 0, u32::MAX),
        step(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

/// To whom a frame is a SYN-ACK from port 25. The server's own frames have no options and no tags.
fn syn_ack(frame: &[u8]) -> Option<[u8; 4]> {
    let to = *frame.get(30..)?.first_chunk()?;
    let is_ours = frame.get(12..14)? == [8, 0] && frame.get(34..36)? == [0, 25] && frame.get(47)? & 0x12 == 0x12;
    is_ours.then_some(to)
}

/// Runs `takeovers` under a flood of denied SYNs, from before the first to after the last of them.
fn under_flood(options: &Options, takeovers: impl FnOnce(&Flood) -> Result<()>) -> Result<()> {
    let internet = Net::internet_and_mx_here()?;
    let _mta = TcpListener::bind((SERVER, 25))?;
    // So that our end of the wire knows the way back, and the first answer to the flood need not wait for it.
    drop(connect(&internet)?);
    let address = fs::read_to_string(format!("/sys/class/net/{TO_INTERNET}/address"))?;
    let mut to = [0; 6];
    for (byte, text) in to.iter_mut().zip(address.trim().split(':')) {
        *byte = u8::from_str_radix(text, 16)?;
    }
    let frames = syns(to)?;
    let [sender, reader] = [socket(&internet, Reads::Nothing)?, socket(&internet, Reads::Ipv4)?].map(Socket::from);
    reader.attach_filter(&only_syn_acks())?;
    // The first daemon there ever was, before anybody comes.
    drop(start(options)?);
    let flood = Flood::default();
    thread::scope(|scope| {
        scope.spawn(|| flood.send(&sender, &frames));
        let counting = scope.spawn(|| flood.count(&reader));
        let outcome = until("the flood to rise", SOON, || (flood.sent.load(Ordering::Relaxed) > 5000).then_some(()))
            .and_then(|()| takeovers(&flood))
            .and_then(|()| good_client_is_counted(&internet, &flood));
        flood.over.store(true, Ordering::Relaxed);
        outcome?;
        counting.join().map_err(|_| anyhow::anyhow!("the counting broke"))?
    })?;
    ensure!(flood.come_through() == 0, "{} denied SYNs got through", flood.come_through());
    Ok(())
}

/// Connects from the good address.
fn connect(internet: &Host) -> Result<Client> {
    Ok(Client::connect_within(internet, GOOD.parse()?, SocketAddr::new(SERVER.parse()?, 25), SOON)?)
}

fn good_client_is_counted(internet: &Host, flood: &Flood) -> Result<()> {
    // Where the flood gets answers, the one to the good client may be lost among them.
    until("the good client's SYN-ACK to be counted", SOON, || {
        let _connected = connect(internet).ok()?;
        (flood.good.load(Ordering::Relaxed) > 0).then_some(())
    })
}

/// Makes what is pinned look like the work of another version: its links run programs on maps that this one does not know.
fn make_foreign(pin: &Path) -> Result<()> {
    let ours = pin.join(format!("abi-{}", screener_ebpf::ABI_VERSION));
    let theirs = pin.join(format!("abi-{}", screener_ebpf::ABI_VERSION - 1));
    fs::rename(&ours, &theirs).with_context(|| format!("{} to {}", ours.display(), theirs.display()))
}

/// A number of takeovers, each followed by as much of the flood as it took to be sure of it.
fn take_over_again_and_again(options: &Options, foreign: bool, flood: &Flood) -> Result<()> {
    for round in 0..ROUNDS {
        if foreign {
            make_foreign(&options.pin)?;
        }
        let kernel = start(options)?;
        let seen = flood.sent.load(Ordering::Relaxed);
        until("more of the flood", SOON, || (flood.sent.load(Ordering::Relaxed) > seen + 500).then_some(()))?;
        ensure!(flood.come_through() == 0, "{} got through in round {round}", flood.come_through());
        let status = kernel.status()?;
        ensure!(status.degraded.is_empty(), "{:?}", status.degraded);
        ensure!(status.interfaces.iter().all(|interface| interface.mode == Mode::Native));
        let versions = fs::read_dir(&options.pin)?.flatten().filter(|entry| entry.path().is_dir()).count();
        ensure!(versions == 1, "maps of another version are left in round {round}");
    }
    Ok(())
}

fn native() -> Options {
    Options { steer: false, interfaces: vec![TO_INTERNET.to_owned()], xdp: XdpPolicy::Native, ..Options::default() }
}

fn steer() -> Options {
    Options { xdp: XdpPolicy::Off, ..Options::default() }
}

#[test]
fn screen_is_taken_over_without_a_gap() {
    cell::test("screen_is_taken_over_without_a_gap", || {
        under_flood(&native(), |flood| take_over_again_and_again(&native(), false, flood))
    });
}

#[test]
fn screen_of_another_version_is_replaced_without_a_gap() {
    cell::test("screen_of_another_version_is_replaced_without_a_gap", || {
        under_flood(&native(), |flood| take_over_again_and_again(&native(), true, flood))
    });
}

#[test]
fn steer_is_taken_over_without_a_gap() {
    cell::test("steer_is_taken_over_without_a_gap", || {
        under_flood(&steer(), |flood| take_over_again_and_again(&steer(), false, flood))
    });
}

#[test]
fn steer_of_another_version_is_replaced_without_a_gap() {
    cell::test("steer_of_another_version_is_replaced_without_a_gap", || {
        under_flood(&steer(), |flood| take_over_again_and_again(&steer(), true, flood))
    });
}

/// The proof that the tests above would see a gap: here is one.
#[test]
fn a_gap_is_seen_by_this_flood() {
    cell::test("a_gap_is_seen_by_this_flood", || {
        let options = Options { steer: true, ..native() };
        let seen = under_flood(&options, |flood| {
            screener::kernel::detach(&options.pin)?;
            until("a denied SYN to get through", SOON, || (flood.come_through() > 0).then_some(()))
        });
        let error = seen.err().context("nothing got through without any program")?;
        ensure!(error.to_string().contains("denied SYNs got through"), "{error:#}");
        Ok(())
    });
}
