//! One session with a clock that the test moves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::clock::{Now, UnixTime};
use crate::pass::{Stamps, Test};
use crate::session::{
    Action, AfterTests, Arrival, Decision, DeepPolicy, DnsblHit, DnsblPolicy, DnsblReport, Event, Features, Forbidden,
    Handoff, Input, Output, Pace, Policy, PregreetPolicy, Replies, Session, TlsSession,
};

pub(super) const START: UnixTime = UnixTime(1_000_000);
pub(super) const AGREED: TlsSession =
    TlsSession { protocol: "TLSv1.3", cipher: "TLS_AES_256_GCM_SHA384", bits: 256, key_exchange: Some("X25519") };
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn policy() -> Policy {
    let deep = DeepPolicy { enable: true, action: Action::Enforce, ttl: 30 * DAY };
    Policy {
        hostname: "mx.test".to_owned(),
        replies: Replies::plain(),
        pregreet: PregreetPolicy {
            action: Action::Enforce,
            wait: Pace { normal: Duration::from_secs(6), stress: Duration::from_secs(2) },
            pipeconnect_weight: 1,
            ttl: DAY,
        },
        dnsbl: Some(DnsblPolicy {
            action: Action::Enforce,
            threshold: 3,
            allow_threshold: Some(-2),
            deadline: Pace { normal: Duration::from_secs(6), stress: Duration::from_secs(2) },
            min_ttl: Duration::from_secs(60),
            max_ttl: Duration::from_secs(3_600),
        }),
        pipelining: deep.clone(),
        non_smtp_command: DeepPolicy { action: Action::Drop, ..deep.clone() },
        forbidden: Forbidden::default(),
        bare_newline: deep,
        after_tests: AfterTests::Relay,
        link: None,
        command_time: Pace { normal: Duration::from_secs(300), stress: Duration::from_secs(10) },
        session_time: Duration::from_secs(900),
        commands: 20,
        line_length: 2_048,
        early_input: 8_192,
        tarpit_pace: Duration::from_secs(1),
    }
}

pub(super) fn arrival() -> Arrival {
    Arrival::of_a_stranger()
}

pub(super) fn unlisted() -> DnsblReport {
    DnsblReport { complete: true, ttl: Some(Duration::from_secs(300)), ..DnsblReport::default() }
}

pub(super) fn listed(score: i32) -> DnsblReport {
    let hits = vec![DnsblHit { list: "zen.test".to_owned(), weight: score, ..DnsblHit::default() }];
    let (lowest, highest, without_best_ally) = (score, score, score);
    DnsblReport { score, lowest, highest, without_best_ally, complete: true, hits, ..DnsblReport::default() }
}

/// The session and everything that came out of it.
pub(super) struct Rig {
    pub(super) session: Session,
    began: Instant,
    elapsed: Duration,
    pub(super) sent: String,
    pub(super) events: Vec<Event>,
    pub(super) granted: Option<Stamps>,
    pub(super) handoff: Option<Handoff>,
    pub(super) handshakes: usize,
    handshakes_ended: usize,
    pub(super) decisions: usize,
    pub(super) decision: Option<Decision>,
    /// How often a greeting was said to be complete.
    pub(super) greetings: usize,
    pub(super) withdrawn: Vec<Test>,
    pub(super) asked: bool,
    /// The names under which other addresses of the client were asked for.
    pub(super) siblings: Vec<String>,
    /// Whether there is a place in the tarpit for whoever asks.
    pub(super) place: bool,
    pub(super) closed: bool,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(policy(), arrival())
    }

    pub(super) fn with(policy: Policy, arrival: Arrival) -> Self {
        Self::start(policy, Features::from_mta(["PIPELINING", "SIZE 1000", "STARTTLS", "8BITMIME"]), arrival)
    }

    /// Before an MTA that offers this.
    pub(super) fn of_mta<'a>(offer: impl IntoIterator<Item = &'a str>, arrival: Arrival) -> Self {
        Self::start(policy(), Features::from_mta(offer), arrival)
    }

    pub(super) fn start(policy: Policy, features: Features, arrival: Arrival) -> Self {
        let features = Arc::new(features);
        let began = Instant::now();
        let now = Now { instant: began, unix: START };
        let session = Session::start(Arc::new(policy), features, arrival, now);
        let mut rig = Self {
            session,
            began,
            elapsed: Duration::ZERO,
            sent: String::new(),
            events: Vec::new(),
            granted: None,
            handoff: None,
            handshakes: 0,
            handshakes_ended: 0,
            decisions: 0,
            decision: None,
            greetings: 0,
            withdrawn: Vec::new(),
            asked: false,
            siblings: Vec::new(),
            place: true,
            closed: false,
        };
        rig.drain();
        rig
    }

    pub(super) fn now(&self) -> Now {
        Now { instant: self.began + self.elapsed, unix: START.plus(self.elapsed) }
    }

    pub(super) fn input(&mut self, input: Input<'_>) -> &mut Self {
        let now = self.now();
        self.handshakes_ended += usize::from(matches!(input, Input::TlsUp(_) | Input::TlsFailed(_)));
        self.session.handle(now, input);
        self.drain();
        self
    }

    /// The client has everything that was sent to it, and says this.
    pub(super) fn says(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.input(Input::Delivered).blurts(bytes)
    }

    /// The client says this before what was sent has reached it.
    pub(super) fn blurts(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.input(Input::Bytes(bytes.as_ref()))
    }

    /// As [`Rig::new`], with other settings.
    pub(super) fn under(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = policy();
        change(&mut policy);
        Self::with(policy, arrival())
    }

    /// As [`Rig::greeted`], with other settings.
    pub(super) fn greeted_under(change: impl FnOnce(&mut Policy)) -> Self {
        let mut rig = Self::under(change);
        rig.lists_say(unlisted()).seconds(6);
        rig.take();
        rig
    }

    /// Whether the engine waits for the end of a handshake.
    pub(super) fn shaking_hands(&self) -> bool {
        self.handshakes > self.handshakes_ended
    }

    /// The handshake that the engine waits for comes about.
    pub(super) fn shakes_hands(&mut self) -> &mut Self {
        self.input(Input::TlsUp(AGREED))
    }

    pub(super) fn lists_say(&mut self, report: DnsblReport) -> &mut Self {
        self.input(Input::Dnsbl(report))
    }

    /// Lets time pass, with a tick wherever the engine asked for one.
    pub(super) fn waits(&mut self, span: Duration) -> &mut Self {
        let end = self.elapsed + span;
        while let Some(deadline) = self.session.deadline().map(|at| at - self.began).filter(|&at| at <= end) {
            self.elapsed = self.elapsed.max(deadline);
            self.input(Input::Tick);
            if self.session.deadline().is_some_and(|at| at - self.began <= deadline) {
                panic!("the engine asks for the same moment again: {:?}", self.session);
            }
        }
        self.elapsed = end;
        self
    }

    pub(super) fn seconds(&mut self, seconds: u64) -> &mut Self {
        self.waits(Duration::from_secs(seconds))
    }

    /// A client with manners, up to the complete greeting.
    pub(super) fn greeted() -> Self {
        let mut rig = Self::new();
        rig.lists_say(unlisted()).seconds(6);
        rig.take();
        rig
    }

    /// What was sent since the last call.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn replay(&self) -> Vec<Bytes> {
        self.handoff.as_ref().expect("a handoff").replay.clone()
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(!self.closed, "{output:?} after the close");
            match output {
                Output::Send(bytes) => self.sent.push_str(std::str::from_utf8(&bytes).unwrap()),
                Output::AskDnsbl => self.asked = true,
                Output::AskSibling(name) => self.siblings.push(name),
                Output::AskTarpit => {
                    let place = self.place;
                    let now = self.now();
                    self.session.handle(now, Input::Tarpit(place));
                }
                Output::Greeted => self.greetings += 1,
                Output::Grant(stamps) => assert!(self.granted.replace(stamps).is_none(), "two grants"),
                Output::Withdraw(test) => self.withdrawn.push(test),
                Output::Log(event) => self.events.push(event),
                Output::Decided(decision) => {
                    self.decisions += 1;
                    self.decision = Some(decision);
                }
                Output::StartTls => self.handshakes += 1,
                Output::Handoff(handoff) => self.handoff = Some(handoff),
                Output::Close => self.closed = true,
            }
        }
    }
}
