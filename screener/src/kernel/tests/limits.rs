//! The ceiling of new connections of one client, in the program: its burst, its refill, who is exempt, what it costs.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map};
use screener_ebpf::{Counter, Family, RATE4_ENTRIES, Settings, action, maps, rate};

use super::frames::syn;
use super::rig::{DROP, PASS, Screen, TX};

/// `screen` with a rate of one a `second`th of a second.
fn limited(per_second: u32, burst: u32) -> Screen {
    let mut screen = Screen::load();
    set(&mut screen, per_second, burst);
    screen
}

fn set(screen: &mut Screen, per_second: u32, burst: u32) {
    screen
        .update(|settings| (settings.syn_interval_ns, settings.syn_tolerance_ns) = rate::parameters(per_second, burst));
}

/// How many of `count` SYNs pass.
fn passing(screen: &Screen, source: &str, count: usize) -> usize {
    let frame = syn(source);
    (0..count).filter(|_| screen.verdict(&frame) == PASS).count()
}

#[test]
fn off_unless_it_is_set_and_set_at_run_time() {
    let mut screen = Screen::load();
    assert_eq!(passing(&screen, "203.0.113.5", 500), 500);
    // One an hour, in effect.
    screen.update(|settings| (settings.syn_interval_ns, settings.syn_tolerance_ns) = (3_600_000_000_000, 0));
    assert_eq!(passing(&screen, "203.0.113.5", 500), 1);
    set(&mut screen, 0, 0);
    assert_eq!(passing(&screen, "203.0.113.5", 500), 500);
}

#[test]
fn a_burst_passes_and_what_is_over_it_is_dropped_under_its_own_counter() {
    let screen = limited(1, 40);
    for (source, family) in [("203.0.113.5", Family::Ipv4), ("2001:db8::5", Family::Ipv6)] {
        let passed = passing(&screen, source, 100);
        assert!((40..=42).contains(&passed), "{passed} from {source}");
        assert_eq!(screen.counted(family, Counter::OverRate), 100 - passed as u64);
        assert_eq!(screen.counted(family, Counter::Unlisted), passed as u64);
    }
    assert!(passing(&screen, "203.0.113.6", 10) == 10, "each client has its own bucket");
    assert_eq!(passing(&screen, "2001:db8::6", 10), 0, "in IPv6 a client is a /64");
    assert_eq!(passing(&screen, "2001:db8:0:1::6", 10), 10);
}

#[test]
fn the_bucket_fills_up_again_at_its_rate() {
    let screen = limited(10, 2);
    let frame = syn("203.0.113.5");
    let start = Instant::now();
    let mut passed = 0u128;
    while start.elapsed() < Duration::from_millis(1500) {
        passed += u128::from(screen.verdict(&frame) == PASS);
        std::thread::yield_now();
    }
    let earned = 2 + start.elapsed().as_millis() / 100;
    assert!(passed <= earned, "{passed} of {earned}");
    // A machine that is busy with something else may let a moment pass in which a token was to be had.
    assert!(passed >= 8, "{passed} of {earned}");
}

#[test]
fn permits_are_exempt_and_denies_are_dropped_as_ever() {
    let mut screen = limited(1, 1);
    screen.put("203.0.113.0/28", action::PERMIT);
    screen.put("2001:db8:1::/48", action::PERMIT);
    screen.put("203.0.113.16/28", action::DROP);
    screen.put("203.0.113.32/28", action::REJECT);
    screen.put("203.0.113.48/28", action::TAG);
    assert_eq!(passing(&screen, "203.0.113.5", 50), 50);
    assert_eq!(passing(&screen, "2001:db8:1::5", 50), 50);
    assert_eq!(screen.verdict(&syn("203.0.113.17")), DROP);
    assert_eq!(screen.counted(Family::Ipv4, Counter::Dropped), 1);
    // The first is answered, or tagged; the others come too fast for that.
    let refused = syn("203.0.113.33");
    assert_eq!([screen.verdict(&refused), screen.verdict(&refused)], [TX, DROP]);
    let tagged = syn("203.0.113.49");
    assert_eq!([screen.verdict(&tagged), screen.verdict(&tagged)], [PASS, DROP]);
    assert_eq!(screen.counted(Family::Ipv4, Counter::OverRate), 2);
}

#[test]
fn a_million_addresses_take_no_more_memory_than_one() {
    let screen = limited(1, 1);
    let mut frame = syn("10.0.0.0");
    let before = memory(screen.object.map(maps::RATE4).unwrap());
    for number in 0..1_000_000u32 {
        let source = Ipv4Addr::from(0x0a00_0000 + number).octets();
        frame[26..30].copy_from_slice(&source);
        assert_eq!(screen.verdict(&frame), PASS, "number {number}");
    }
    let map = screen.object.map(maps::RATE4).unwrap();
    assert_eq!(memory(map), before);
    let buckets: HashMap<_, [u8; 4], u64> = map.try_into().unwrap();
    let kept = buckets.keys().count();
    assert!(kept <= RATE4_ENTRIES as usize, "{kept}");
    assert!(kept > RATE4_ENTRIES as usize / 2, "{kept}: most of the room is used");
    // Who came last is still held.
    assert_eq!(screen.verdict(&frame), DROP);
}

/// What the kernel says that a map takes.
fn memory(map: &Map) -> u64 {
    let Map::LruHashMap(data) = map else { panic!("another kind of map") };
    let fd = std::os::fd::AsFd::as_fd(data.fd()).as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let line = info.lines().find(|line| line.starts_with("memlock:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_flags_of_the_settings_are_one_bit_each() {
    let all = [
        Settings::STEERED,
        Settings::REJECT_EARLY,
        Settings::REJECT_BY_HAND,
        Settings::OFFENDERS,
        Settings::OFFENDER_PREFIXES,
    ];
    assert_eq!(all.iter().fold(0, |together, flag| together ^ flag), 31);
}
