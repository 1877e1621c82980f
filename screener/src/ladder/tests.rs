//! The ladder's promises: what climbs, what never does, what comes down by itself, and that nothing grows without bound.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::pass::Test;

const START: UnixTime = UnixTime(1_800_000_000);
const HOUR: u64 = 3600;

fn ladder() -> Ladder {
    with(Limits::default())
}

fn with(limits: Limits) -> Ladder {
    let mut ladder = Ladder::new(Ipv6KeyLength::default(), limits);
    ladder.set_rules(Some(Rules::default()));
    ladder
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn at(seconds: u64) -> UnixTime {
    UnixTime(START.0 + seconds)
}

const PREGREET: Offence = Offence::Failed(Test::Pregreet);

/// Fails at a moment, in a session that began just before.
fn fail(ladder: &mut Ladder, client: &str, offence: Offence, now: UnixTime) -> Outcome {
    ladder.offend(net(client), offence, now, now)
}

#[test]
fn who_keeps_failing_is_refused_then_tarpitted_then_kept_out_and_each_time_for_longer() {
    let mut ladder = ladder();
    let client = "192.0.2.7/32";
    let mut climbed = Vec::new();
    let mut now = START;
    for _ in 0..40 {
        if let Some(step) = fail(&mut ladder, client, PREGREET, now).step {
            let rung = step.to.unwrap();
            climbed.push((rung, step.offender.until.since(now).as_secs() / HOUR));
            if rung == Rung::Dropped {
                now = step.offender.until;
            }
        }
        now.0 += 60;
    }
    let dropped: Vec<_> = climbed.iter().filter(|(rung, _)| *rung == Rung::Dropped).map(|(_, hours)| *hours).collect();
    assert_eq!(climbed[0].0, Rung::Tarpitted);
    assert_eq!(dropped[..7], [1, 2, 4, 8, 16, 24, 24]);
}

#[test]
fn connections_at_the_same_time_are_one_offence() {
    let mut ladder = ladder();
    for _ in 0..50 {
        ladder.offend(net("192.0.2.7/32"), PREGREET, START, at(6));
    }
    let (_, offender, rung) = ladder.standing("192.0.2.7".parse().unwrap(), at(6)).unwrap();
    assert_eq!((offender.offences, rung), (1, Rung::Refused));
    assert!(ladder.offend(net("192.0.2.7/32"), PREGREET, at(7), at(8)).counted);
}

#[test]
fn a_drop_ends_by_itself_and_after_days_of_quiet_nothing_is_left() {
    let mut ladder = ladder();
    let address = "192.0.2.7".parse().unwrap();
    // What decays within a second is little, but it is something.
    for second in 0..7 {
        fail(&mut ladder, "192.0.2.7/32", PREGREET, at(second));
    }
    assert_eq!(ladder.dropped_until(net("192.0.2.7/32"), at(6)), Some(at(6 + HOUR)));
    assert!(ladder.sweep(at(5 + HOUR)).is_empty());
    let ended = ladder.sweep(at(6 + HOUR));
    assert_eq!((ended.len(), ended[0].from, ended[0].to), (1, Some(Rung::Dropped), Some(Rung::Tarpitted)));
    assert_eq!(ladder.standing(address, at(8 * HOUR)).unwrap().2, Rung::Refused);
    assert!(ladder.sweep(at(12 * HOUR)).is_empty(), "the next drop would be a longer one");
    let gone = ladder.sweep(at(26 * HOUR));
    assert_eq!((gone.len(), gone[0].to, ladder.len()), (1, None, 0));
}

#[test]
fn what_was_kept_out_begins_again_with_an_hour_after_days_of_quiet() {
    let mut ladder = ladder();
    let mut drop_at = |start: u64| {
        let mut second = start;
        loop {
            second += 1;
            let step = fail(&mut ladder, "192.0.2.7/32", Offence::Failed(Test::NonSmtpCommand), at(second)).step;
            if let Some(step) = step.filter(|step| step.to == Some(Rung::Dropped)) {
                return step.offender.until.since(at(second)).as_secs();
            }
        }
    };
    assert_eq!(drop_at(0), HOUR);
    assert_eq!(drop_at(2 * HOUR), 2 * HOUR);
    assert_eq!(drop_at(14 * 24 * HOUR), HOUR);
}

#[test]
fn an_ipv6_client_is_its_key_and_its_prefix_a_48() {
    let ladder = ladder();
    assert_eq!(ladder.client("2001:db8:1:2:3::4".parse().unwrap()), net("2001:db8:1:2::/64"));
    assert!(ladder.is_prefix(net("2001:db8:1::/48")) && !ladder.is_prefix(net("2001:db8:1:2::/64")));
    let mut wide = Ladder::new(Ipv6KeyLength::try_from(48).unwrap(), Limits::default());
    wide.set_rules(Some(Rules { prefix_clients: 1, ..Rules::default() }));
    for second in 0..30 {
        assert_eq!(fail(&mut wide, "2001:db8:1::/48", PREGREET, at(second)).dense, None, "it is the client");
    }
}

#[test]
fn a_prefix_full_of_offenders_climbs_as_a_whole() {
    let mut ladder = ladder();
    let mut rungs = Vec::new();
    for last in 0..32 {
        for second in 0..4 {
            let outcome = fail(&mut ladder, &format!("192.0.2.{last}/32"), PREGREET, at(second));
            if let Some(dense) = outcome.dense {
                rungs.push((dense.clients, dense.rung));
                let (step, _) = ladder.condemn(&dense, at(second)).unwrap();
                assert_eq!((step.network, step.to), (net("192.0.2.0/24"), Some(dense.rung)));
            }
        }
    }
    assert_eq!(rungs, [(8, Rung::Tarpitted), (32, Rung::Dropped)]);
    let stranger = "192.0.2.200".parse().unwrap();
    assert_eq!(ladder.standing(stranger, at(4)).unwrap().2, Rung::Dropped);
    assert_eq!(ladder.standing("192.0.3.200".parse().unwrap(), at(4)), None);
    assert_eq!(ladder.count(at(4)).prefixes, 1);
    // A permit for one of its addresses takes the prefix off, and that client.
    let mut met = ladder.forgive_meeting(net("192.0.2.9/32"));
    met.sort_unstable();
    assert_eq!(met, [net("192.0.2.0/24"), net("192.0.2.9/32")]);
    assert_eq!(ladder.forgive_meeting(net("192.0.0.0/16")).len(), 31);
    assert!(ladder.is_empty() && ladder.by_end.is_empty() && ladder.dropped.is_empty());
}

#[test]
fn what_has_no_room_makes_go_whatever_ends_soonest() {
    let mut ladder = with(Limits { entries: 10, dropped: 3, prefixes: 1 });
    for last in 0..20 {
        fail(&mut ladder, &format!("192.0.{last}.7/32"), PREGREET, at(last));
    }
    assert_eq!((ladder.len(), ladder.count(at(20)).overflows), (10, 10));
    assert!(ladder.get(net("192.0.19.7/32")).is_some() && ladder.get(net("192.0.9.7/32")).is_none());
    let mut let_in = Vec::new();
    for last in 10..20 {
        for second in 0..7 {
            let_in.extend(
                fail(&mut ladder, &format!("192.0.{last}.7/32"), PREGREET, at(100 + last * 10 + second)).changed,
            );
        }
    }
    assert_eq!((ladder.count(at(300)).dropped, ladder.dropped.len()), (3, 3));
    assert!(let_in.contains(&net("192.0.10.7/32")) && ladder.dropped_until(net("192.0.10.7/32"), at(300)).is_none());
}

#[test]
fn without_rules_nobody_is_held_and_what_was_climbed_comes_back_with_them() {
    let mut ladder = ladder();
    let address = "192.0.2.7".parse().unwrap();
    for second in 0..7 {
        fail(&mut ladder, "192.0.2.7/32", PREGREET, at(second));
    }
    ladder.set_rules(None);
    assert_eq!((ladder.standing(address, at(6)), ladder.dropped_until(net("192.0.2.7/32"), at(6))), (None, None));
    assert!(!fail(&mut ladder, "192.0.2.8/32", PREGREET, at(6)).counted);
    ladder.set_rules(Some(Rules::default()));
    assert_eq!(ladder.standing(address, at(6)).unwrap().2, Rung::Dropped);
}

#[test]
fn another_host_cannot_keep_anybody_out_for_longer_than_we_would() {
    let mut ladder = ladder();
    let mut wild = Offender::new(PREGREET, START);
    wild.until = UnixTime(u64::MAX);
    assert_eq!(ladder.apply(net("192.0.2.7/32"), wild.clone(), START), [net("192.0.2.7/32")]);
    assert_eq!(ladder.dropped_until(net("192.0.2.7/32"), START), Some(at(24 * HOUR)));
    for foreign in ["192.0.0.0/16", "2001:db8::1/128", "0.0.0.0/0"] {
        assert!(
            ladder.apply(net(foreign), wild.clone(), START).is_empty(),
            "{foreign} is no client of ours and no prefix"
        );
    }
}

fn any_offence() -> impl Strategy<Value = Offence> {
    let tests = proptest::sample::select(Test::ALL.to_vec()).prop_map(Offence::Failed);
    prop_oneof![3 => tests, 1 => Just(Offence::Exceeded)]
}

fn any_offender() -> impl Strategy<Value = Offender> {
    (any_offence(), proptest::collection::vec(0..20_000_u64, 1..30)).prop_map(|(offence, gaps)| {
        let mut now = START;
        let mut offender = Offender::new(offence, now);
        for gap in gaps {
            now.0 += gap;
            offender.fails(&Rules::default(), offence, now);
        }
        offender
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However badly it fails: with a half-life between two failures a client never leaves the ground. So one that fails once
    /// a day does not.
    #[test]
    fn who_fails_seldom_never_climbs(
        offences in proptest::collection::vec((any_offence(), 7200..1_000_000_u64), 1..200),
    ) {
        let mut ladder = ladder();
        let mut now = START;
        for (offence, gap) in offences {
            now.0 += gap;
            let outcome = fail(&mut ladder, "192.0.2.7/32", offence, now);
            prop_assert!(outcome.counted && outcome.step.is_none(), "{outcome:?}");
        }
    }

    /// Without an offence nobody climbs, and everybody comes down to nothing in the end.
    #[test]
    fn time_alone_only_leads_down(offender in any_offender(), steps in proptest::collection::vec(1..50_000_u64, 1..40)) {
        let rules = Rules::default();
        let mut now = offender.last;
        let (mut rung, mut points) = (offender.rung(&rules, now), offender.points(&rules, now));
        for step in steps {
            now.0 += step;
            prop_assert!(offender.rung(&rules, now) <= rung && offender.points(&rules, now) <= points);
            (rung, points) = (offender.rung(&rules, now), offender.points(&rules, now));
        }
        let end = offender.end(&rules);
        prop_assert!(offender.is_over(&rules, end), "{offender:?} at {end}");
        let most = offender.last.plus(rules.longest_drop * 40);
        prop_assert!(end < most, "{offender:?}");
    }

    /// One more offence never makes anything better.
    #[test]
    fn an_offence_only_leads_up(offender in any_offender(), offence in any_offence(), gap in 0..100_000_u64) {
        let rules = Rules::default();
        let now = UnixTime(offender.last.0 + gap);
        let mut worse = offender.clone();
        worse.fails(&rules, offence, now);
        prop_assert!(worse.rung(&rules, now) >= offender.rung(&rules, now));
        prop_assert!(worse.until >= offender.until);
        let span = worse.until.since(now);
        prop_assert!(span <= rules.longest_drop);
    }

    /// Several hosts tell each other of the same client in whatever order, some of it twice.
    #[test]
    fn what_hosts_say_of_one_client_comes_out_the_same(a in any_offender(), b in any_offender(), c in any_offender()) {
        prop_assert_eq!(a.joined(&b), b.joined(&a));
        prop_assert_eq!(a.joined(&b).joined(&c), a.joined(&b.joined(&c)));
        prop_assert_eq!(a.joined(&a), a.clone());
        prop_assert_eq!(a.joined(&b).joined(&b), a.joined(&b));
    }

    #[test]
    fn what_is_written_comes_back(offender in any_offender()) {
        let json = serde_json::to_vec(&offender).unwrap();
        prop_assert_eq!(serde_json::from_slice::<Offender>(&json).unwrap(), offender);
    }

    /// The indices say what the table says, whatever happens.
    #[test]
    fn the_table_is_never_at_odds_with_itself(
        events in proptest::collection::vec((0..6_u8, 0..12_u8, 0..5_000_u64), 1..200),
    ) {
        let mut ladder = with(Limits { entries: 8, dropped: 3, prefixes: 1 });
        ladder.set_rules(Some(Rules { prefix_clients: 2, ..Rules::default() }));
        let mut now = START;
        for (what, last, gap) in events {
            now.0 += gap / 10;
            let client = net(&format!("192.0.2.{last}/32"));
            match what {
                0..4 => {
                    let outcome = ladder.offend(client, PREGREET, now, now);
                    if let Some(dense) = outcome.dense {
                        ladder.condemn(&dense, now);
                    }
                }
                4 => drop(ladder.forgive_meeting(client)),
                _ => drop(ladder.sweep(UnixTime(now.0 + gap))),
            }
            prop_assert!(ladder.len() <= 8 && ladder.dropped.len() <= 3);
            prop_assert_eq!(ladder.by_end.len(), ladder.len());
            prop_assert!(ladder.by_end.iter().all(|(end, network)| ladder.table[network].end == *end));
            prop_assert!(ladder.dropped.iter().all(|(until, network)| ladder.table[network].offender.until == *until));
            prop_assert_eq!(ladder.prefixes, ladder.iter().filter(|(network, _)| network.prefix_len() == 24).count());
        }
    }
}

#[test]
fn a_half_life_is_one() {
    let rules = Rules { half_life: Duration::from_secs(100), ..Rules::default() };
    let mut offender = Offender::new(PREGREET, START);
    offender.fails(&rules, PREGREET, START);
    assert_eq!((offender.points(&rules, START), offender.points(&rules, at(100))), (2.0, 1.0));
}
