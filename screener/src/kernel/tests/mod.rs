//! The built-in object before the real verifier, and `screen` on real frames by `BPF_PROG_TEST_RUN`: no interface, no pins.

mod frames;
mod limits;
mod offenders;
mod rig;
mod told;
mod vectors;

use aya::programs::SkLookup;
use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use screener_ebpf::parse::request;
use screener_ebpf::reject::Answer;
use screener_ebpf::{action, programs};

use self::frames::syn;
use self::rig::{DROP, PASS, Screen, TX, programs as xdp_programs};

#[test]
fn nothing_screened_means_nothing_judged() {
    let mut screen = Screen::load();
    screen.put("0.0.0.0/0", action::DROP);
    assert_eq!(screen.verdict(&syn("203.0.113.5")), DROP);
    screen.update(|settings| settings.ports = [[0; 2]; screener_ebpf::MAX_PORTS]);
    assert_eq!(screen.verdict(&syn("203.0.113.5")), PASS);
}

/// A program that takes much of the verifier's million here takes more on older kernels, which prune less.
#[test]
fn the_verifier_has_an_easy_life() {
    for name in xdp_programs() {
        let screen = Screen::load_program(name);
        if let Some(count) = screen.program().info().unwrap().verified_instruction_count() {
            println!("{name}: the verifier walked {count} instructions");
            assert!(count < 100_000, "{name}: {count}");
        }
    }
    let mut screen = Screen::load();
    let steer: &mut SkLookup = screen.object.program_mut(programs::STEER).unwrap().try_into().unwrap();
    steer.load().unwrap();
}

/// Frames that are nearly right: a SYN with some bytes changed, perhaps cut, perhaps longer.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let base = prop_oneof![
        Just(syn("203.0.113.5")),
        Just(syn("2001:db8::5")),
        Just(frames::with_ip_options("203.0.113.5", 3)),
        Just(frames::tagged(syn("203.0.113.5"), &[(0x88a8, 7), (0x8100, 8)])),
        Just(frames::behind("2001:db8::5", &[(60, &[0, 0, 1, 4, 0, 0, 0, 0]), (44, &[0, 0, 0, 1, 0, 0, 0, 9])])),
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (base, changes, 14..110usize, any::<u8>()).prop_map(|(mut frame, changes, length, filler)| {
        for (index, value) in changes {
            let at = index.index(frame.len());
            frame[at] = value;
        }
        frame.resize(length, filler);
        frame
    })
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => mutated(), 1 => proptest::collection::vec(any::<u8>(), 14..120)]
}

/// The same frames in every run: what fails on one kernel can be looked at on another.
fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// With everybody denied, the program does to exactly what the parser calls a request, on the same bytes on the host, what
/// it should; and never aborts. One loaded program for all cases.
#[test]
fn no_bytes_whatever_get_anything_but_pass_unless_they_are_a_request() {
    for (program, action) in xdp_programs().into_iter().cycle().zip([action::DROP, action::REJECT]) {
        let mut screen = Screen::load_program(program);
        screen.put("0.0.0.0/0", action);
        screen.put("::/0", action);
        let settings = screen.settings();
        let outcome = runner(4000).run(&any_frame(), |frame| {
            let expected = match request(&frame[..], &settings) {
                Ok(_) if action == action::DROP => DROP,
                Ok(request) if Answer::to(&frame[..], frame.len(), &request).is_some() => TX,
                _ => PASS,
            };
            prop_assert_eq!(screen.verdict(&frame), expected);
            Ok(())
        });
        outcome.unwrap();
    }
}

/// The same against a parser that is not ours.
#[test]
fn what_is_dropped_is_a_syn_to_a_screened_port_or_a_first_fragment_by_another_parser_too() {
    let mut screen = Screen::load();
    screen.put("0.0.0.0/0", action::DROP);
    screen.put("::/0", action::DROP);
    let outcome = runner(4000).run(&any_frame(), |frame| {
        if screen.verdict(&frame) == DROP {
            prop_assert!(is_to_be_judged(&frame), "{frame:02x?}");
        }
        Ok(())
    });
    outcome.unwrap();
}

/// Up to the TCP header etherparse reads; of that only three bytes matter.
fn is_to_be_judged(frame: &[u8]) -> bool {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { return false };
    let payload = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => ip.payload(),
        Some(LaxNetSlice::Ipv6(ip)) => ip.payload(),
        _ => return false,
    };
    let to_screened_port = matches!(payload.payload.get(2..4), Some([0, 25] | [2, 75]));
    let syn = payload.payload.get(13).is_some_and(|flags| flags & 0x16 == 0x02);
    payload.ip_number == IpNumber::TCP && to_screened_port && (payload.fragmented || syn)
}
