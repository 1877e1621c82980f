//! What `screen` tells the daemon: every finding on a quiet day, a fair sample under a flood, and next to nothing when
//! nobody listens.

use aya::maps::{PerCpuArray, PerCpuValues, RingBuf};
use screener_ebpf::{Address, Counter, Event, Family, QUIET_AFTER_LOSS, QUIET_SLOT, action, maps, rate};

use super::frames::syn;
use super::rig::{DROP, Screen};

/// Everything that is in the ring.
fn events(screen: &mut Screen) -> Vec<Event> {
    let mut ring: RingBuf<_> = screen.object.map_mut(maps::EVENTS).unwrap().try_into().unwrap();
    let mut events = Vec::new();
    while let Some(record) = ring.next() {
        events.push(Event::read(&record).expect("a whole record"));
    }
    events
}

fn drops(screen: &Screen, source: &str, count: usize) {
    let frame = syn(source);
    for _ in 0..count {
        assert_eq!(screen.verdict(&frame), DROP);
    }
}

fn lost(screen: &Screen) -> u64 {
    screen.counted(Family::Ipv4, Counter::EventLost)
}

/// The counter that chooses is one a CPU: a test that moved from one to another would see two samples.
fn stay_on_one_cpu() {
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &cpus).unwrap();
}

#[test]
fn every_finding_is_told_once_with_who_and_why() {
    let mut screen = Screen::load();
    screen.put("203.0.113.0/24", action::DROP);
    screen.put("198.51.100.0/24", action::REJECT);
    screen.put("192.0.2.0/24", action::COUNT);
    drops(&screen, "203.0.113.5", 3);
    screen.verdict(&syn("198.51.100.1"));
    // These `steer` tells of: it sees them, too.
    screen.verdict(&syn("192.0.2.1"));
    screen.verdict(&syn("10.0.0.1"));
    let events = events(&mut screen);
    let told: Vec<_> = events.iter().map(|event| (event.source().unwrap(), event.finding().unwrap().counter)).collect();
    let dropped = (Address::V4([203, 0, 113, 5]), Counter::Dropped);
    assert_eq!(told, [dropped, dropped, dropped, (Address::V4([198, 51, 100, 1]), Counter::Rejected)]);
    assert!(events.iter().all(|event| event.weight == 1 && event.port == [0, 25]));
}

#[test]
fn what_is_over_its_rate_is_told_too() {
    let mut screen = Screen::load();
    screen.update(|settings| (settings.syn_interval_ns, settings.syn_tolerance_ns) = rate::parameters(1, 1));
    let frame = syn("203.0.113.5");
    screen.verdict(&frame);
    screen.verdict(&frame);
    let events = events(&mut screen);
    assert_eq!(events.len(), 1);
    let finding = events[0].finding().unwrap();
    assert_eq!((finding.counter, finding.action), (Counter::OverRate, action::NONE));
}

#[test]
fn a_sample_stands_for_all_whoever_takes_turns() {
    stay_on_one_cpu();
    let mut screen = Screen::load();
    screen.put("203.0.113.0/24", action::DROP);
    screen.update(|settings| settings.event_sample = 8);
    // Two senders in turn, one of them twice as often.
    for _ in 0..4000 {
        for source in ["203.0.113.1", "203.0.113.2", "203.0.113.1"] {
            drops(&screen, source, 1);
        }
    }
    let events = events(&mut screen);
    let weight = |last: u8| -> u32 {
        let of = |event: &&Event| event.address[3] == last;
        events.iter().filter(of).map(|event| event.weight).sum()
    };
    assert!(weight(1).abs_diff(8000) < 200, "{}", weight(1));
    assert!(weight(2).abs_diff(4000) < 200, "{}", weight(2));
    assert_eq!(lost(&screen), 0, "what is not chosen is not lost");
    screen.update(|settings| settings.event_sample = 0);
    drops(&screen, "203.0.113.1", 1000);
    assert!(self::events(&mut screen).is_empty());
}

#[test]
fn a_full_ring_is_left_alone_for_a_while_and_every_loss_is_counted() {
    stay_on_one_cpu();
    let mut screen = Screen::load();
    screen.put("203.0.113.0/24", action::DROP);
    let many = 20_000;
    drops(&screen, "203.0.113.1", many);
    let told = events(&mut screen).len();
    assert!(told > 4000, "{told}");
    assert_eq!(lost(&screen), (many - told) as u64);
    assert_eq!(screen.counted(Family::Ipv4, Counter::Dropped), many as u64, "no verdict changes");
    let quiet = screen.slot(QUIET_SLOT);
    assert!((1..=QUIET_AFTER_LOSS).contains(&quiet), "{quiet}");
    // There is room again, but it takes the program a while to notice.
    drops(&screen, "203.0.113.1", quiet as usize);
    assert!(events(&mut screen).is_empty());
    drops(&screen, "203.0.113.1", 1);
    assert_eq!(events(&mut screen).len(), 1);
    // A daemon that begins to listen does not wait for that.
    drops(&screen, "203.0.113.1", many);
    events(&mut screen);
    let mut slots: PerCpuArray<_, u64> = screen.object.map_mut(maps::COUNTERS).unwrap().try_into().unwrap();
    let zeros = vec![0; slots.get(&QUIET_SLOT, 0).unwrap().len()];
    slots.set(QUIET_SLOT, PerCpuValues::try_from(zeros).unwrap(), 0).unwrap();
    drops(&screen, "203.0.113.1", 1);
    assert_eq!(events(&mut screen).len(), 1);
}
