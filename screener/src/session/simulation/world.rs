//! What is around a simulated session: a configuration, a client that arrives, what it says, what the lists say.

use std::time::Duration;

use super::entropy::Entropy;
use crate::clock::UnixTime;
use crate::pass::{Stamps, Test};
use crate::session::{
    Action, AfterTests, Arrival, DeepPolicy, DnsblHit, DnsblPolicy, DnsblReport, Features, Forbidden, Pace, Policy,
    PregreetPolicy, Replies, Standing,
};

/// When the simulated calendar begins.
pub(super) const START: UnixTime = UnixTime(1_000_000);

const DAY: Duration = Duration::from_secs(86_400);

const fn pace(normal: u64, stress: u64) -> Pace {
    Pace { normal: Duration::from_secs(normal), stress: Duration::from_secs(stress) }
}

fn action(entropy: &mut Entropy<'_>) -> Action {
    *entropy.pick(&[Action::Enforce, Action::Enforce, Action::Drop, Action::Ignore, Action::Tarpit])
}

pub(super) fn policy(entropy: &mut Entropy<'_>) -> Policy {
    let mut deep = || DeepPolicy { enable: !entropy.chance(15), action: action(entropy), ttl: 30 * DAY };
    let (pipelining, non_smtp_command, bare_newline) = (deep(), deep(), deep());
    let dnsbl = DnsblPolicy {
        action: action(entropy),
        threshold: 3,
        allow_threshold: entropy.chance(70).then_some(-2),
        deadline: pace(6, 2),
        min_ttl: Duration::from_secs(60),
        max_ttl: Duration::from_secs(3_600),
    };
    Policy {
        hostname: "mx.test".to_owned(),
        replies: Replies::plain(),
        pregreet: PregreetPolicy {
            action: action(entropy),
            wait: if entropy.chance(15) { Pace::steady(Duration::ZERO) } else { pace(6, 2) },
            pipeconnect_weight: 1,
            ttl: DAY,
        },
        dnsbl: entropy.chance(80).then_some(dnsbl),
        pipelining,
        non_smtp_command,
        forbidden: Forbidden::default(),
        bare_newline,
        after_tests: *entropy.pick(&[AfterTests::Relay, AfterTests::Relay, AfterTests::Defer]),
        // Siblings have tests of their own.
        link: None,
        command_time: pace(300, 10),
        session_time: Duration::from_secs(900),
        commands: 8,
        line_length: 256,
        early_input: 1_024,
        tarpit_pace: Duration::from_secs(1),
    }
}

pub(super) fn features(entropy: &mut Entropy<'_>) -> Features {
    let all = ["PIPELINING", "SIZE 1000", "STARTTLS", "8BITMIME", "VRFY", "PIPECONNECT", "CHUNKING"];
    Features::from_mta(all.into_iter().filter(|_| entropy.chance(60)))
}

pub(super) fn arrival(entropy: &mut Entropy<'_>) -> Arrival {
    let standings = [
        Standing::Permitted,
        Standing::Denied,
        Standing::Tarpitted,
        Standing::Unnamed { mta_answers: true },
        Standing::Unnamed { mta_answers: false },
    ];
    let standing = if entropy.chance(10) { *entropy.pick(&standings) } else { Standing::Screened };
    let mut stamps = entropy.chance(30).then(Stamps::default);
    if let Some(stamps) = &mut stamps {
        for test in Test::ALL {
            let until = [None, Some(UnixTime(START.0 - 5)), Some(START.plus(DAY))];
            stamps.set(test, *entropy.pick(&until));
        }
    }
    Arrival {
        standing,
        tagged: entropy.chance(10),
        slow: entropy.chance(10),
        stamps,
        may_pass: !entropy.chance(15),
        stressed: entropy.chance(10),
        terminates_tls: entropy.chance(40),
        ..Arrival::of_a_stranger()
    }
}

/// A client, and how far it has come.
#[derive(Debug)]
pub(super) struct Client {
    script: &'static [&'static str],
    at: usize,
}

impl Client {
    pub(super) fn new(entropy: &mut Entropy<'_>) -> Self {
        const PLAIN: &[&str] = &["EHLO c.test\r\n", MAIL, RCPT, "QUIT\r\n"];
        const OLD: &[&str] = &["HELO c.test\r\n", MAIL, RCPT, "QUIT\r\n"];
        const TLS: &[&str] = &["EHLO c.test\r\n", "STARTTLS\r\n", "EHLO c.test\r\n", MAIL, RCPT, "QUIT\r\n"];
        Self { script: *entropy.pick(&[PLAIN, TLS, OLD]), at: 0 }
    }
}

const MAIL: &str = "MAIL FROM:<a@b.test> SIZE=10\r\n";
const RCPT: &str = "RCPT TO:<x@d.test>\r\n";

/// What a client says next: mostly what one with manners would, since everything else ends early.
pub(super) fn line(entropy: &mut Entropy<'_>, client: &mut Client) -> Vec<u8> {
    const OTHER: [&[u8]; 22] = [
        b"HELO c.test\r\n",
        b"STARTTLS\r\n",
        b"RSET\r\n",
        b"NOOP x\r\n",
        b"VRFY a@b\r\n",
        b"MAIL FROM:<>\r\n",
        b"RCPT TO:<\r\n",
        b"EHLO\r\n",
        b"DATA\r\n",
        b"BDAT 4 LAST\r\nabcd",
        b"AUTH PLAIN AA==\r\n",
        b"XYZZY\r\n",
        b"\r\n",
        b"GET / HTTP/1.1\r\n",
        b"Subject: x\r\n",
        b"RSET\n",
        b"NO\rOP\r\n",
        b"NO\0OP\r\n",
        b"MAIL FROM:<a@b.test>\r\r\n",
        b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@d.test>\r\nDATA\r\n",
        b"\x16\x03\x01\x02\x00\x01\n",
        "RCPT TO:<bö@d.test>\r\n".as_bytes(),
    ];
    if entropy.chance(65) {
        let line = client.script[client.at % client.script.len()];
        client.at += 1;
        return line.into();
    }
    match entropy.below(8) {
        0 => vec![b'x'; 40 * (1 + entropy.below(12))],
        1 => (0..entropy.below(30)).map(|_| u8::try_from(entropy.below(256)).unwrap_or_default()).collect(),
        _ => entropy.pick(&OTHER).to_vec(),
    }
}

/// What the lists say next: the scores narrow down until all have answered.
pub(super) fn report(entropy: &mut Entropy<'_>) -> DnsblReport {
    let score = i32::try_from(entropy.below(11)).unwrap_or_default() - 4;
    let complete = entropy.chance(60);
    let mut open = || if complete { 0 } else { i32::try_from(entropy.below(4)).unwrap_or_default() };
    let (lowest, highest) = (score - open(), score + open());
    let without_best_ally = if entropy.chance(50) { score } else { score + 3 };
    let hits = match score > 0 {
        true => vec![DnsblHit { list: "zen.test".to_owned(), weight: score, ..DnsblHit::default() }],
        false => Vec::new(),
    };
    let ttl = Some(Duration::from_secs(300));
    DnsblReport { score, lowest, highest, without_best_ally, complete, hits, ttl, ..DnsblReport::default() }
}
