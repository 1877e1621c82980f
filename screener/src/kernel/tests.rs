//! The built-in object before the real verifier, and `screen` on real frames by `BPF_PROG_TEST_RUN`: no interface, no pins.

use aya::maps::{Array, PerCpuArray};
use aya::programs::{TestRun, Xdp};
use aya::{Ebpf, EbpfLoader, TestRunOptions};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use proptest::prelude::*;
use screener_ebpf::parse::request;
use screener_ebpf::{Counter, Family, Hook, Settings, counter_slot, maps, programs};

use super::load::{OBJECT, settings};
use super::options::Options;
use super::statics::Statics;
use crate::feed::{DenyAction, StaticAction};

const DENY: fn(DenyAction) -> StaticAction = StaticAction::Deny;
const PASS: u32 = 2;
const DROP: u32 = 1;

/// The object, loaded, with `screen` past the verifier.
struct Screen {
    object: Ebpf,
    settings: Settings,
    statics: Statics,
}

impl Screen {
    fn load() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "needs root to load BPF programs: run `cargo xtask test` as root"
        );
        let mut object = EbpfLoader::new().load(OBJECT).unwrap();
        let ports = vec![25, 587];
        let settings = settings(&Options { ports, ..Options::default() }, true).unwrap();
        let mut map: Array<_, Settings> = object.map_mut(maps::SETTINGS).unwrap().try_into().unwrap();
        map.set(0, settings, 0).unwrap();
        let program: &mut Xdp = object.program_mut(programs::SCREEN).unwrap().try_into().unwrap();
        program.load().unwrap();
        // The program keeps its maps, whoever else holds them.
        let statics = Statics::unpinned(&mut object).unwrap();
        Self { object, settings, statics }
    }

    fn put(&mut self, prefix: &str, action: StaticAction) {
        self.statics.put(prefix.parse().unwrap(), action).unwrap();
    }

    fn verdict(&self, frame: &[u8]) -> u32 {
        let program: &Xdp = self.object.program(programs::SCREEN).unwrap().try_into().unwrap();
        program.test_run(TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() }).unwrap().return_value
    }

    fn counted(&self, family: Family, counter: Counter) -> u64 {
        let map: PerCpuArray<_, u64> = self.object.map(maps::COUNTERS).unwrap().try_into().unwrap();
        map.get(&counter_slot(Hook::Screen, family, counter), 0).unwrap().iter().sum()
    }
}

fn syn4(source: [u8; 4]) -> Vec<u8> {
    build(PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(source, [192, 0, 2, 10], 64).tcp(40_000, 25, 7, 1024).syn())
}

fn syn6(source: &str) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6(source.octets(), [0x20; 16], 64);
    build(builder.tcp(40_000, 25, 7, 1024).syn())
}

fn build(builder: PacketBuilderStep<TcpHeader>) -> Vec<u8> {
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn drop_entries_drop_and_everything_else_passes_under_its_reason() {
    let mut screen = Screen::load();
    for (prefix, action) in [
        ("203.0.113.0/24", DENY(DenyAction::Drop)),
        ("203.0.113.192/26", DENY(DenyAction::Tag)),
        ("198.51.100.0/24", DENY(DenyAction::Reject)),
        ("203.0.113.9/32", DENY(DenyAction::Count)),
        ("203.0.113.64/28", StaticAction::Permit),
        ("2001:db8:bad::/48", DENY(DenyAction::Drop)),
        ("2001:db8:bad:1::/64", StaticAction::Permit),
    ] {
        screen.put(prefix, action);
    }
    let four = Family::Ipv4;
    let vectors = [
        (syn4([203, 0, 113, 0]), DROP, four, Counter::Dropped),
        (syn4([203, 0, 113, 191]), DROP, four, Counter::Dropped),
        (syn4([203, 0, 112, 255]), PASS, four, Counter::Unlisted),
        (syn4([203, 0, 114, 0]), PASS, four, Counter::Unlisted),
        (syn4([203, 0, 113, 64]), PASS, four, Counter::Unlisted),
        (syn4([203, 0, 113, 80]), DROP, four, Counter::Dropped),
        (syn4([203, 0, 113, 200]), PASS, four, Counter::TagLater),
        (syn4([198, 51, 100, 1]), PASS, four, Counter::RejectLater),
        (syn4([203, 0, 113, 9]), DROP, four, Counter::Counted),
        (syn6("2001:db8:bad::1"), DROP, Family::Ipv6, Counter::Dropped),
        (syn6("2001:db8:bad:ffff::1"), DROP, Family::Ipv6, Counter::Dropped),
        (syn6("2001:db8:bad:1::1"), PASS, Family::Ipv6, Counter::Unlisted),
        (syn6("2001:db8:bae::1"), PASS, Family::Ipv6, Counter::Unlisted),
    ];
    for (number, (frame, verdict, family, counter)) in vectors.iter().enumerate() {
        let before = screen.counted(*family, *counter);
        assert_eq!(screen.verdict(frame), *verdict, "vector {number}");
        assert_eq!(screen.counted(*family, *counter), before + 1, "vector {number}: {}", counter.name());
    }
}

#[test]
fn from_a_denied_source_only_a_syn_to_a_screened_port_is_dropped() {
    let mut screen = Screen::load();
    screen.put("203.0.113.0/24", DENY(DenyAction::Drop));
    let denied = syn4([203, 0, 113, 5]);
    assert_eq!(screen.verdict(&denied), DROP);
    for flags in 0..=255u8 {
        let mut frame = denied.clone();
        frame[47] = flags;
        let expected = if flags & 0x16 == 0x02 { DROP } else { PASS };
        assert_eq!(screen.verdict(&frame), expected, "{flags:#010b}");
    }
    for (port, verdict) in [(587u16, DROP), (24, PASS), (26, PASS), (40_000, PASS)] {
        let mut frame = denied.clone();
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        assert_eq!(screen.verdict(&frame), verdict, "{port}");
    }
    let mut tagged = denied.clone();
    tagged.splice(12..12, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
    assert_eq!(screen.verdict(&tagged), DROP, "QinQ");
    // The shortest frame that the kernel lets us try is an Ethernet header.
    for length in 14..denied.len() {
        assert_eq!(screen.verdict(&denied[..length]), PASS, "cut at {length}");
    }
    // A first fragment hides the flags; without it nothing can be put together.
    let mut fragment = denied;
    fragment[20] = 0x20;
    assert_eq!(screen.verdict(&fragment[..42]), DROP);
    assert_eq!(screen.counted(Family::Ipv4, Counter::DroppedFragment), 1);
}

#[test]
fn nothing_screened_means_nothing_judged() {
    let mut screen = Screen::load();
    screen.put("0.0.0.0/0", DENY(DenyAction::Drop));
    assert_eq!(screen.verdict(&syn4([203, 0, 113, 5])), DROP);
    let none = settings(&Options { ports: Vec::new(), ..Options::default() }, true).unwrap();
    let mut map: Array<_, Settings> = screen.object.map_mut(maps::SETTINGS).unwrap().try_into().unwrap();
    map.set(0, none, 0).unwrap();
    assert_eq!(screen.verdict(&syn4([203, 0, 113, 5])), PASS);
}

/// Frames that are nearly right: a SYN with some bytes changed, perhaps cut, perhaps longer.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![Just(syn4([203, 0, 113, 5])), Just(syn6("2001:db8::5"))];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (base, changes, 14..90usize, any::<u8>()).prop_map(|(mut frame, changes, length, filler)| {
        for (index, value) in changes {
            let at = index.index(frame.len());
            frame[at] = value;
        }
        frame.resize(length, filler);
        frame
    })
}

/// With everybody denied, the program drops exactly what the parser calls a request, on the same bytes on the host. One
/// loaded program for all cases.
#[test]
fn no_bytes_whatever_get_anything_but_pass_unless_they_are_a_request() {
    let mut screen = Screen::load();
    screen.put("0.0.0.0/0", DENY(DenyAction::Drop));
    screen.put("::/0", DENY(DenyAction::Drop));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let frames = prop_oneof![3 => mutated(), 1 => proptest::collection::vec(any::<u8>(), 14..120)];
    let outcome = runner.run(&frames, |frame| {
        let expected = if request(&frame[..], &screen.settings).is_ok() { DROP } else { PASS };
        prop_assert_eq!(screen.verdict(&frame), expected);
        Ok(())
    });
    outcome.unwrap();
}
