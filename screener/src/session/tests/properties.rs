//! What holds for every client: the same bytes in any pieces get the same treatment, and no sequence of inputs breaks an
//! invariant.

use proptest::prelude::*;

use super::rig::{Rig, arrival, listed, policy, unlisted};
use crate::session::{Action, AfterTests, Arrival, Input};

/// Lines a client might send, with and without manners.
fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"EHLO c.test\r\n".to_vec()),
        Just(b"HELO c.test\r\n".to_vec()),
        Just(b"MAIL FROM:<a@b.test>\r\n".to_vec()),
        Just(b"RCPT TO:<x@example.test>\r\n".to_vec()),
        Just(b"RCPT TO:<\r\n".to_vec()),
        Just(b"RSET\n".to_vec()),
        Just(b"NO\rOP\r\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"DATA\r\n".to_vec()),
        Just(b"STARTTLS\r\n".to_vec()),
        Just(b"QUIT\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Ignore), Just(Action::Enforce), Just(Action::Drop), Just(Action::Tarpit)]
}

#[derive(Clone, Debug)]
enum Step {
    Says(Vec<u8>),
    Blurts(Vec<u8>),
    Waits(u64),
    ListsSay(i32, bool),
    Stress(bool),
    HandoffFails,
    HandshakeEnds(bool),
    Leaves,
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => line().prop_map(Step::Says),
        2 => line().prop_map(Step::Blurts),
        1 => any::<bool>().prop_map(Step::Stress),
        4 => (0_u64..400).prop_map(Step::Waits),
        2 => (-5..9, any::<bool>()).prop_map(|(score, complete)| Step::ListsSay(score, complete)),
        1 => Just(Step::HandoffFails),
        2 => any::<bool>().prop_map(Step::HandshakeEnds),
        1 => Just(Step::Leaves),
        1 => Just(Step::Shutdown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Once the greeting is over, a line at a time in any pieces gives the same replies, log and handoff. (How much arrives
    /// at once behind a command is not framing but the pipelining test's evidence: pieces never hold two lines here.)
    #[test]
    fn any_split_of_a_line_gives_the_same_verdict(
        lines in proptest::collection::vec(line(), 1..12),
        cuts in proptest::collection::vec(1_usize..12, 1..40),
    ) {
        let mut whole = Rig::greeted();
        let mut split = Rig::greeted();
        let mut cuts = cuts.iter().cycle();
        for line in &lines {
            let single = line.iter().position(|&byte| byte == b'\n').map_or(&line[..], |end| &line[..=end]);
            if whole.closed || whole.handoff.is_some() {
                break;
            }
            whole.says(single);
            let mut rest = single;
            while !rest.is_empty() {
                let (piece, left) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                split.says(piece);
                rest = left;
            }
        }
        prop_assert_eq!(&whole.sent, &split.sent);
        prop_assert_eq!(&whole.events, &split.events);
        prop_assert_eq!(whole.handoff.is_some(), split.handoff.is_some());
        prop_assert_eq!(whole.closed, split.closed);
    }

    /// Where pipelining is not tested, all that a client says behind the greeting may arrive in any pieces, at any point
    /// between replies: the replies, the log and the handoff are the same.
    #[test]
    fn any_split_of_everything_gives_the_same_session(
        lines in proptest::collection::vec(line(), 1..12),
        cuts in proptest::collection::vec((1_usize..40, any::<bool>()), 1..40),
        bare_newline in action(),
    ) {
        let greeted = || Rig::greeted_under(|policy| {
            policy.pipelining.enable = false;
            policy.bare_newline.action = bare_newline;
        });
        let (mut whole, mut split) = (greeted(), greeted());
        let said = lines.concat();
        whole.says(&said);
        let mut rest = &said[..];
        for (cut, delivered) in cuts.iter().cycle() {
            if rest.is_empty() || split.closed || split.handoff.is_some() {
                break;
            }
            let (piece, left) = rest.split_at((*cut).min(rest.len()));
            if *delivered { split.says(piece) } else { split.blurts(piece) };
            rest = left;
        }
        // What was not said yet in the tarpit is said at the same moments.
        whole.seconds(800);
        split.seconds(800);
        prop_assert_eq!(&whole.sent, &split.sent);
        prop_assert_eq!(&whole.events, &split.events);
        prop_assert_eq!(whole.handoff.as_ref().map(|it| &it.replay), split.handoff.as_ref().map(|it| &it.replay));
        prop_assert_eq!(whole.closed, split.closed);
    }

    /// Every beginning of a good client's dialogue is only unfinished: nothing is found, nothing is refused.
    #[test]
    fn every_prefix_of_a_good_dialogue_is_good(cut in 0_usize..70) {
        let dialogue = ["EHLO c.test\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<x@example.test>\r\n"];
        let mut left = cut;
        let mut rig = Rig::greeted();
        for line in dialogue {
            rig.says(&line[..left.min(line.len())]);
            left = left.saturating_sub(line.len());
        }
        prop_assert!(!rig.closed && rig.sent.lines().all(|line| line.starts_with("250")), "{}", rig.sent);
        prop_assert_eq!(rig.handoff.is_some(), cut >= dialogue.concat().len());
        prop_assert!(rig.events[1..].iter().all(|event| *event == crate::session::Event::PassNew), "{:?}", rig.events);
    }

    /// Whatever a client, the lists, the MTA and time do: at most one decision and one grant (the rig checks the grant),
    /// nothing after the close, no pass after a failure, every greeting lawful, every deadline ahead.
    #[test]
    fn no_sequence_of_inputs_breaks_an_invariant(
        steps in proptest::collection::vec(step(), 0..40),
        actions in (action(), action(), action(), action(), action()),
        (defer, may_pass, terminates_tls, place) in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let mut policy = policy();
        policy.after_tests = if defer { AfterTests::Defer } else { AfterTests::Relay };
        policy.pregreet.action = actions.0;
        policy.dnsbl.as_mut().unwrap().action = actions.1;
        policy.pipelining.action = actions.2;
        policy.non_smtp_command.action = actions.3;
        policy.bare_newline.action = actions.4;
        let mut rig = Rig::with(policy, Arrival { may_pass, terminates_tls, ..arrival() });
        rig.place = place;
        for step in steps {
            if rig.session.is_closed() {
                break;
            }
            match step {
                Step::Says(bytes) => { rig.says(bytes); }
                Step::Blurts(bytes) => { rig.blurts(bytes); }
                Step::Stress(on) => { rig.input(Input::Stress(on)); }
                Step::Waits(seconds) => { rig.seconds(seconds); }
                Step::ListsSay(score, true) if score >= 3 => { rig.lists_say(listed(score)); }
                Step::ListsSay(score, complete) => {
                    let mut report = unlisted();
                    (report.score, report.lowest, report.highest) = (score, score - 2, score + 2);
                    report.complete = complete;
                    rig.lists_say(report);
                }
                // The driver answers only what was asked.
                Step::HandshakeEnds(_) if !rig.shaking_hands() => {}
                Step::HandshakeEnds(true) => { rig.shakes_hands(); }
                Step::HandshakeEnds(false) => { rig.input(Input::TlsFailed("lost connection".to_owned())); }
                Step::HandoffFails => { rig.input(Input::HandoffFailed(None)); }
                Step::Leaves => { rig.input(Input::Eof); }
                Step::Shutdown => { rig.input(Input::Shutdown); }
            }
            prop_assert!(rig.decisions <= 1);
            prop_assert!(!rig.shaking_hands() || rig.session.is_over() || rig.sent.ends_with("220 2.0.0 Ready to start TLS\r\n"));
            let lines: Vec<_> = rig.sent.split_inclusive("\r\n").filter(|line| line.ends_with('\n')).collect();
            for pair in lines.windows(2) {
                prop_assert!(!pair[0].starts_with("220-") || pair[1].starts_with("220 "), "{:?}", pair);
            }
        }
        if rig.granted.is_some() {
            prop_assert!(may_pass && (defer || rig.handoff.is_some()), "a pass is earned with the handoff");
        }
        if rig.session.is_closed() {
            prop_assert_eq!(rig.decisions, 1);
        }
    }
}
