//! Offenders in the program: kept out until their time is over, which the program knows by itself; outranked by permits and
//! passes; and not even looked for while there are none.

use std::net::IpAddr;
use std::time::Duration;

use aya::maps::HashMap;
use aya::programs::SkLookup;
use screener_ebpf::{
    Counter, Family, Offender, OffenderKey4, OffenderKey6, Pass, Settings, action, maps, offender_key4, offender_key6,
    programs,
};

use super::frames::{behind, syn, with, with_ip_options};
use super::rig::{DROP, PASS, Screen, programs as xdp_programs};
use crate::kernel::boot::BootClock;

const HOUR: Duration = Duration::from_secs(3600);
const FOUR: Family = Family::Ipv4;
const SIX: Family = Family::Ipv6;

fn after(span: Duration) -> u64 {
    BootClock::read().now_ns + u64::try_from(span.as_nanos()).unwrap()
}

/// Keeps a client (`bits` is 32 or 128) or a prefix out.
fn keep_out(screen: &mut Screen, address: &str, bits: u8, expires_boot_ns: u64) {
    let offender = Offender { expires_boot_ns, last_hit_boot_ns: 0, hits: 0 };
    match address.parse().unwrap() {
        IpAddr::V4(address) => {
            let mut map: HashMap<_, OffenderKey4, Offender> =
                screen.object.map_mut(maps::OFFENDER4).unwrap().try_into().unwrap();
            map.insert(offender_key4(address.octets(), bits), offender, 0).unwrap();
        }
        IpAddr::V6(address) => {
            let mut map: HashMap<_, OffenderKey6, Offender> =
                screen.object.map_mut(maps::OFFENDER6).unwrap().try_into().unwrap();
            map.insert(offender_key6(address.octets(), bits), offender, 0).unwrap();
        }
    }
    screen.update(|settings| {
        settings.set(Settings::OFFENDERS, true);
        settings.set(Settings::OFFENDER_PREFIXES, true);
    });
}

fn entry(screen: &Screen, address: [u8; 4], bits: u8) -> Offender {
    let map: HashMap<_, OffenderKey4, Offender> = screen.object.map(maps::OFFENDER4).unwrap().try_into().unwrap();
    map.get(&offender_key4(address, bits), 0).unwrap()
}

fn dropped(screen: &Screen, family: Family) -> u64 {
    screen.counted(family, Counter::DroppedOffender)
}

#[test]
fn an_offender_is_kept_out_whatever_its_syn_looks_like_and_only_its_syns() {
    for program in xdp_programs() {
        let mut screen = Screen::load_program(program);
        keep_out(&mut screen, "203.0.113.5", 32, after(HOUR));
        keep_out(&mut screen, "2001:db8::", 128, after(HOUR));
        let dropped_frames = [
            syn("203.0.113.5"),
            with_ip_options("203.0.113.5", 3),
            syn("2001:db8::5"),
            syn("2001:db8::ffff:1"),
            behind("2001:db8::5", &[(60, &[0, 0, 1, 4, 0, 0, 0, 0])]),
        ];
        for frame in &dropped_frames {
            assert_eq!(screen.verdict(frame), DROP, "{program}");
        }
        assert_eq!((dropped(&screen, FOUR), dropped(&screen, SIX)), (2, 3), "{program}");
        // Somebody else; an answer to our own mail; another port.
        let to_other_port = with(syn("203.0.113.5"), &[(36, &465u16.to_be_bytes())]);
        let answer = with(syn("203.0.113.5"), &[(34, &[0, 25, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12])]);
        for frame in [syn("203.0.113.4"), syn("2001:db8:0:1::5"), answer, to_other_port] {
            assert_eq!(screen.verdict(&frame), PASS, "{program}");
        }
        let entry = entry(&screen, [203, 0, 113, 5], 32);
        assert_eq!((entry.hits, entry.last_hit_boot_ns > 0), (2, true));
    }
}

#[test]
fn its_time_ends_in_the_kernel_whether_or_not_a_daemon_is_there() {
    let mut screen = Screen::load();
    for (source, bits, address) in [("203.0.113.5", 32, "203.0.113.5"), ("2001:db8::5", 128, "2001:db8::")] {
        keep_out(&mut screen, address, bits, after(Duration::from_millis(400)));
        let frame = syn(source);
        assert_eq!(screen.verdict(&frame), DROP);
        let begun = std::time::Instant::now();
        while screen.verdict(&frame) == DROP {
            assert!(begun.elapsed() < Duration::from_secs(5), "{source} is kept out for ever");
            std::thread::yield_now();
        }
        assert!(begun.elapsed() > Duration::from_millis(100), "{source}");
    }
    // Nobody has taken the entries out.
    assert!(entry(&screen, [203, 0, 113, 5], 32).hits > 0);
}

#[test]
fn a_whole_prefix_is_kept_out_and_nothing_beside_it() {
    let mut screen = Screen::load();
    keep_out(&mut screen, "203.0.113.0", 24, after(HOUR));
    keep_out(&mut screen, "2001:db8:7::", 48, after(HOUR));
    for source in ["203.0.113.0", "203.0.113.255", "2001:db8:7::1", "2001:db8:7:ffff:1::"] {
        assert_eq!(screen.verdict(&syn(source)), DROP, "{source}");
    }
    for source in ["203.0.112.255", "203.0.114.0", "2001:db8:6:ffff::1", "2001:db8:8::1"] {
        assert_eq!(screen.verdict(&syn(source)), PASS, "{source}");
    }
    assert_eq!(entry(&screen, [203, 0, 113, 0], 24).hits, 2);
    // An entry of a prefix is not one of its first address.
    screen.update(|settings| settings.set(Settings::OFFENDER_PREFIXES, false));
    assert_eq!(screen.verdict(&syn("203.0.113.0")), PASS);
    assert_eq!(screen.verdict(&syn("2001:db8:7::")), PASS);
}

#[test]
fn permits_and_passes_outrank_it_and_denies_come_first() {
    let mut screen = Screen::load();
    for last in 1..=6 {
        keep_out(&mut screen, &format!("203.0.113.{last}"), 32, after(HOUR));
    }
    keep_out(&mut screen, "198.51.100.0", 24, after(HOUR));
    keep_out(&mut screen, "2001:db8::", 128, after(HOUR));
    screen.put("203.0.113.1/32", action::PERMIT);
    screen.put("198.51.100.128/25", action::PERMIT);
    screen.put("2001:db8::7/128", action::PERMIT);
    screen.put("203.0.113.3/32", action::DROP);
    screen.put("203.0.113.4/32", action::TAG);
    screen.put("203.0.113.5/32", action::COUNT);
    {
        let mut passes: HashMap<_, [u8; 4], Pass> = screen.object.map_mut(maps::PASS4).unwrap().try_into().unwrap();
        let pass = |expires_boot_ns| Pass { expires_boot_ns, last_used_boot_ns: 0 };
        passes.insert([203, 0, 113, 2], pass(after(HOUR)), 0).unwrap();
        passes.insert([198, 51, 100, 2], pass(after(HOUR)), 0).unwrap();
        passes.insert([203, 0, 113, 6], pass(1), 0).unwrap();
    }
    for (source, verdict, counter) in [
        ("203.0.113.1", PASS, Counter::Unlisted),
        ("203.0.113.2", PASS, Counter::Unlisted),
        ("203.0.113.3", DROP, Counter::Dropped),
        ("203.0.113.4", DROP, Counter::DroppedOffender),
        ("203.0.113.5", DROP, Counter::DroppedOffender),
        ("203.0.113.6", DROP, Counter::DroppedOffender),
        ("198.51.100.200", PASS, Counter::Unlisted),
        ("198.51.100.2", PASS, Counter::Unlisted),
        ("198.51.100.3", DROP, Counter::DroppedOffender),
        ("2001:db8::7", PASS, Counter::Unlisted),
        ("2001:db8::8", DROP, Counter::DroppedOffender),
    ] {
        let family = if source.contains(':') { SIX } else { FOUR };
        let before = screen.counted(family, counter);
        assert_eq!(screen.verdict(&syn(source)), verdict, "{source}");
        assert_eq!(screen.counted(family, counter), before + 1, "{source}: {counter:?}");
    }
    assert_eq!(entry(&screen, [203, 0, 113, 2], 32).hits, 0, "who is let in was not kept out");
}

#[test]
fn while_nobody_is_kept_out_nobody_is_looked_for() {
    let mut screen = Screen::load();
    keep_out(&mut screen, "203.0.113.5", 32, after(HOUR));
    screen.update(|settings| settings.set(Settings::OFFENDERS, false));
    assert_eq!(screen.verdict(&syn("203.0.113.5")), PASS);
}

#[test]
fn steer_with_offenders_passes_the_verifier() {
    let mut screen = Screen::load();
    let steer: &mut SkLookup = screen.object.program_mut(programs::STEER).unwrap().try_into().unwrap();
    steer.load().unwrap();
}
