//! Whole sessions in a simulated world, watched by a shadow model.
//!
//! A seed decides everything: the configuration, the client and its manners, the pieces in which its bytes come, the DNS
//! lists, the MTA, the handshake, stress, and when the daemon goes down. The same seed is the same run. The fuzzer drives
//! the same world with bytes in place of a seed (`screener/fuzz/targets/session.rs`). Built for tests and fuzzing only.

mod entropy;
mod shadow;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub use entropy::Entropy;

use super::line::{self, Taken, Text};
use super::{Input, Outcome, Output, Session, TlsSession};
use crate::clock::Now;
use shadow::Shadow;
use world::Client;

/// How much a driver reads at a time.
const LONGEST_READ: usize = 4_096;
/// How many things happen before the world only lets time pass.
const STEPS: usize = 60;

/// What came of a run, for those who want to see that a simulation gets anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// How the session ended, if it was not for a health check's.
    pub outcome: Option<Outcome>,
    /// Whether a pass was earned.
    pub granted: bool,
    /// Whether one was taken back.
    pub withdrawn: bool,
    /// Whether the client was answered slowly.
    pub tarpitted: bool,
    /// Whether there was a handshake.
    pub under_tls: bool,
    /// Everything that went in and came out, a line each.
    pub trace: Vec<String>,
}

struct Simulation<'a> {
    entropy: Entropy<'a>,
    session: Session,
    shadow: Shadow,
    began: Instant,
    elapsed: Duration,
    /// The lists were asked, and have more to say.
    lists_open: bool,
    handing_off: bool,
    shaking_hands: bool,
    asks_tarpit: bool,
    stressed: bool,
    trace: Vec<String>,
}

/// Runs one session to its end; the world's time begins at `began`.
///
/// # Panics
/// When something does not hold that must; that is what it is for.
pub fn run(mut entropy: Entropy<'_>, began: Instant) -> Run {
    let policy = world::policy(&mut entropy);
    let features = world::features(&mut entropy);
    let arrival = world::arrival(&mut entropy);
    let shadow = Shadow::new(&policy, &arrival);
    let stressed = arrival.stressed;
    let now = Now { instant: began, unix: world::START };
    let session = Session::start(Arc::new(policy), Arc::new(features), arrival, now);
    let mut simulation = Simulation {
        entropy,
        session,
        shadow,
        began,
        elapsed: Duration::ZERO,
        lists_open: false,
        handing_off: false,
        shaking_hands: false,
        asks_tarpit: false,
        stressed,
        trace: Vec::new(),
    };
    simulation.drain();
    let mut client = Client::new(&mut simulation.entropy);
    for _ in 0..STEPS {
        if simulation.is_over() || simulation.entropy.is_over() {
            break;
        }
        simulation.step(&mut client);
    }
    simulation.finish()
}

impl Simulation<'_> {
    fn step(&mut self, client: &mut Client) {
        match self.entropy.below(16) {
            4..=13 if self.shaking_hands => self.handshake_ends(),
            0..=6 => self.client_speaks(client),
            7..=9 => self.time_passes(),
            10 | 11 if self.lists_open => {
                let report = world::report(&mut self.entropy);
                self.lists_open = !report.complete;
                self.input(Input::Dnsbl(report));
            }
            12 | 13 if self.handing_off => self.mta_answers(),
            14 => {
                self.stressed = !self.stressed;
                self.input(Input::Stress(self.stressed));
            }
            15 if self.entropy.chance(25) => {
                let input = if self.entropy.chance(70) { Input::Eof } else { Input::Shutdown };
                self.input(input);
            }
            _ => {}
        }
    }

    /// Whether the driver reads from the client at the moment.
    fn is_heard(&self) -> bool {
        !self.handing_off && !self.shaking_hands && !self.is_over()
    }

    fn client_speaks(&mut self, client: &mut Client) {
        if !self.is_heard() {
            return;
        }
        let line = world::line(&mut self.entropy, client);
        if !self.entropy.chance(15) {
            self.input(Input::Delivered);
        }
        let mut rest = &line[..];
        while !rest.is_empty() && self.is_heard() {
            let piece = if self.entropy.chance(70) { rest.len() } else { 1 + self.entropy.below(rest.len().min(256)) };
            let (now, later) = rest.split_at(piece.min(rest.len()));
            self.input(Input::Bytes(now));
            rest = later;
        }
    }

    /// To the next deadline, or not quite as far.
    fn time_passes(&mut self) {
        let Some(deadline) = self.session.deadline() else { return };
        let left = deadline.saturating_duration_since(self.began + self.elapsed);
        if self.entropy.chance(60) {
            self.elapsed += left;
            self.tick();
        } else {
            self.elapsed += left / 2;
        }
    }

    fn tick(&mut self) {
        let now = self.began + self.elapsed;
        // The first byte out of the tarpit is due at once.
        for _ in 0..2 {
            self.input(Input::Tick);
            if self.session.deadline().is_none_or(|next| next > now) {
                return;
            }
        }
        panic!("the engine asks for the same moment again and again");
    }

    fn mta_answers(&mut self) {
        if self.entropy.chance(50) {
            return;
        }
        self.handing_off = false;
        self.shadow.handed_back();
        let refusal = self.entropy.chance(50).then(|| Bytes::from_static(b"550 5.7.1 not from you\r\n"));
        self.input(Input::HandoffFailed(refusal));
    }

    fn handshake_ends(&mut self) {
        self.shaking_hands = false;
        if self.entropy.chance(80) {
            let agreed =
                TlsSession { protocol: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", bits: 128, key_exchange: None };
            self.input(Input::TlsUp(agreed));
        } else {
            self.input(Input::TlsFailed("no shared cipher".to_owned()));
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.trace.push(format!("{:?} <- {input:?}", self.elapsed));
        let now = Now { instant: self.began + self.elapsed, unix: world::START.plus(self.elapsed) };
        self.shadow.goes_in(&input);
        self.session.handle(now, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            self.trace.push(format!("{:?} -> {output:?}", self.elapsed));
            self.shadow.comes_out(&output);
            match output {
                Output::AskDnsbl => self.lists_open = true,
                Output::AskTarpit => self.asks_tarpit = true,
                Output::StartTls => self.shaking_hands = true,
                Output::Handoff(_) => self.handing_off = true,
                _ => {}
            }
        }
        let deadline = self.session.deadline();
        self.shadow.between(deadline, self.began, self.session.held());
        // A driver has the answer at once.
        if std::mem::take(&mut self.asks_tarpit) {
            let place = self.entropy.chance(75);
            self.input(Input::Tarpit(place));
        }
    }

    fn is_over(&self) -> bool {
        self.session.is_closed()
    }

    /// Nothing happens any more but that time passes, and the MTA takes what is handed to it.
    fn finish(mut self) -> Run {
        // In the tarpit a byte is a deadline.
        for _ in 0..20_000 {
            let Some(deadline) = self.session.deadline() else { break };
            self.elapsed = self.elapsed.max(deadline - self.began);
            self.tick();
        }
        assert!(self.is_over() || self.handing_off, "still not over after {:?}", self.elapsed);
        self.shadow.at_the_end();
        Run {
            outcome: self.shadow.decided,
            granted: self.shadow.granted.is_some(),
            withdrawn: self.shadow.withdrawn,
            tarpitted: self.shadow.tarpitted,
            under_tls: self.shadow.under_tls,
            trace: std::mem::take(&mut self.trace),
        }
    }
}

/// What led to a failure is what one wants to see of it.
impl Drop for Simulation<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:#?}\n{}", self.session.arrival(), self.trace.join("\n"));
        }
    }
}

/// Takes lines out of some bytes, however they come, and checks that nothing is lost, nothing is invented, and what is odd in
/// a line is seen.
///
/// # Panics
/// When that does not hold.
pub fn lines(input: &[u8], limit: usize, piece: usize) {
    let mut whole = BytesMut::from(input);
    let (mut split, mut given) = (BytesMut::new(), 0);
    let mut used = 0;
    loop {
        let taken = line::take(&mut whole, limit);
        let mut in_pieces = line::take(&mut split, limit);
        while in_pieces == Taken::Incomplete && given < input.len() {
            let end = (given + piece.max(1)).min(input.len());
            split.extend_from_slice(&input[given..end]);
            given = end;
            in_pieces = line::take(&mut split, limit);
        }
        assert_eq!(taken, in_pieces, "the pieces make another line");
        let Taken::Line(line) = taken else {
            let rest = &input[used..];
            match taken {
                Taken::TooLong => assert!(rest.len() >= limit && !rest[..limit].contains(&b'\n')),
                _ => assert!(rest.len() < limit && !rest.contains(&b'\n')),
            }
            return;
        };
        let end = used + line.bytes.len();
        assert_eq!(&input[used..end], &line.bytes[..]);
        let line_end: &[u8] = if line.flaws.bare_lf { b"\n" } else { b"\r\n" };
        assert!(input[end..].starts_with(line_end), "the line ends otherwise than it is said to");
        assert!(!line.bytes.contains(&b'\n') && line.bytes.len() + line_end.len() <= limit);
        assert_eq!(line.flaws.bare_cr, line.bytes.contains(&b'\r'));
        assert_eq!(line.flaws.nul, line.bytes.contains(&0));
        assert_eq!(line.text == Text::Ascii, line.bytes.is_ascii());
        assert_eq!(line.text == Text::Binary, std::str::from_utf8(&line.bytes).is_err());
        used = end + line_end.len();
    }
}
