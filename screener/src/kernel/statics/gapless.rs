//! `screen` asked about denied addresses without a pause, while the lists around them are replaced and changed: it must say
//! drop every time.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::Array;
use aya::programs::{TestRun, Xdp};
use aya::{EbpfLoader, TestRunOptions};
use etherparse::PacketBuilder;
use screener_ebpf::{Settings, maps, programs};

use super::*;
use crate::kernel::load::{OBJECT, settings};
use crate::kernel::options::Options;

const XDP_DROP: u32 = 1;
/// How many times each kind of frame must have been judged before the test may end.
const ENOUGH: u64 = 20_000;
/// How long it may take on a machine that is busy, or emulated.
const LIMIT: Duration = Duration::from_secs(60);

/// Both have these, and between them everything else differs.
const ALWAYS: [&str; 4] = ["198.51.100.7/32", "203.0.113.0/24", "2001:db8:7::/48", "2001:db8:8::9/128"];

fn frames() -> Vec<Vec<u8>> {
    let four = ["198.51.100.7", "203.0.113.200"].map(|text| text.parse::<Ipv4Addr>().unwrap().octets());
    let six = ["2001:db8:7:1::1", "2001:db8:8::9"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
    let ethernet = || PacketBuilder::ethernet2([2; 6], [4; 6]);
    let four = four.map(|source| ethernet().ipv4(source, [192, 0, 2, 10], 64).tcp(40_000, 25, 7, 1024).syn());
    let six = six.map(|source| ethernet().ipv6(source, [0x20; 16], 64).tcp(40_000, 25, 7, 1024).syn());
    let write = |builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>| {
        let mut frame = Vec::new();
        builder.write(&mut frame, &[]).unwrap();
        frame
    };
    four.into_iter().chain(six).map(write).collect()
}

/// A list with those entries among so many others, which the number decides.
fn list(number: u32) -> Vec<(IpNet, StaticAction)> {
    let drop = StaticAction::Deny(DenyAction::Drop);
    let others = (0..2000).flat_map(|index: u32| {
        let spread = index.wrapping_mul(2_654_435_761).wrapping_add(number.wrapping_mul(97));
        let four = Ipv4Net::new_assert(Ipv4Addr::from_bits(spread & !0x8000_0000), 16 + (index % 17) as u8).trunc();
        let six = u128::from(0x2001_0db8 + spread % 50) << 96 | u128::from(spread) << 64;
        let six = Ipv6Net::new_assert(Ipv6Addr::from_bits(six), 34 + (index % 60) as u8).trunc();
        [IpNet::V4(four), IpNet::V6(six)]
    });
    ALWAYS.iter().map(|text| text.parse().unwrap()).chain(others).map(|net| (net, drop)).collect()
}

#[test]
fn an_address_that_is_denied_before_and_after_is_denied_at_every_moment_between() {
    let mut object = EbpfLoader::new().load(OBJECT).unwrap();
    let mut map: Array<_, Settings> = object.map_mut(maps::SETTINGS).unwrap().try_into().unwrap();
    map.set(0, settings(&Options::default(), true).unwrap(), 0).unwrap();
    let program: &mut Xdp = object.program_mut(programs::SCREEN).unwrap().try_into().unwrap();
    program.load().unwrap();
    let mut statics = Statics::unpinned(&mut object).unwrap();
    statics.sync(list(0)).unwrap();
    let program: &Xdp = object.program(programs::SCREEN).unwrap().try_into().unwrap();
    let (done, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    let frames = frames();
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (number, frame) in frames.iter().enumerate() {
                    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
                    let verdict = program.test_run(options).unwrap().return_value;
                    if verdict != XDP_DROP {
                        return Err((number, judged.load(Ordering::Relaxed)));
                    }
                }
                judged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let (mut number, deadline) = (0, Instant::now() + LIMIT);
        while judged.load(Ordering::Relaxed) < ENOUGH && Instant::now() < deadline && !flood.is_finished() {
            number += 1;
            statics.sync(list(number)).unwrap();
            // Changes beside, above and below them, in the same /24, /18, root and /64.
            for net in ["198.51.100.8/32", "198.51.100.0/24", "203.0.113.128/25", "203.0.0.0/16", "2001:db8:7::/64"] {
                let net: IpNet = net.parse().unwrap();
                statics.put(net, StaticAction::Deny(DenyAction::Drop)).unwrap();
                statics.remove(net, StaticKind::Deny).unwrap();
            }
            for net in ["198.51.100.6/32", "203.0.112.0/24", "2001:db8:8::8/128"] {
                let net: IpNet = net.parse().unwrap();
                statics.put(net, StaticAction::Permit).unwrap();
                statics.remove(net, StaticKind::Permit).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(flood.join().unwrap(), Ok(()), "a frame (its number, and how many rounds before) got through");
        assert!(judged.load(Ordering::Relaxed) >= ENOUGH && number > 1, "too slow: {judged:?} in {number} rounds");
    });
}
