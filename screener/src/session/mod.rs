//! The screening of one connection, as a state machine without I/O.
//!
//! Bytes, answers from DNS lists, the passing of time and the fate of a handoff go in ([`Input`]); replies, questions,
//! log events, granted passes and the handoff come out ([`Output`]). The caller owns the socket and the clock: after
//! each [`Session::handle`] it drains [`Session::poll_output`] and comes back at [`Session::deadline`] at the latest.
//!
//! Never sees a socket, a task, a clock or a store. The states follow reference/postscreen.md section 2; where this
//! engine differs (a lawful end of every greeting, the handoff in the same session) docs/architecture.md says why.

mod command;
mod dialogue;
mod event;
mod features;
mod greeting;
mod lattice;
mod line;
mod lists;
mod policy;
mod reply;
mod report;
mod start_tls;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::clock::Now;
use crate::pass::{Stamps, Test};

use dialogue::Dialogue;
use greeting::Greeting;
use lattice::Lattice;
use start_tls::StartingTls;

pub use event::{Decision, Escaped, Event, Evidence, Moment, Outcome};
pub use features::Features;
pub use report::{DnsblHit, DnsblReport, DnsblUnknown};
pub use start_tls::TlsSession;

pub use policy::{Action, AfterTests, DeepPolicy, DnsblPolicy, Policy, PregreetPolicy};

/// Names one session in replies, log lines and JSON events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// What static entries say of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Permitted: never screened.
    Permitted,
    /// Denied, and the kernel did not keep it out.
    Denied,
    /// Nothing, or a tag: screened.
    Screened,
    /// There is nobody to screen: a proxy's health check, or a client that a proxy cannot name. It is greeted like a client
    /// that has passed everything, but nothing it says reaches the MTA, and nothing is remembered or told of it.
    Unnamed {
        /// Whether the MTA answers at the moment; without it the greeting is 421, so that the proxy looks elsewhere.
        mta_answers: bool,
    },
}

/// All that is known when the connection arrives.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The session's name.
    pub id: SessionId,
    /// The client's address and port, never IPv4-mapped.
    pub client: SocketAddr,
    /// The address and port that it connected to, never IPv4-mapped.
    pub server: SocketAddr,
    /// What static entries say.
    pub standing: Standing,
    /// Came by the listener of the tagged class: every test is due, whatever was passed before, and no pass is earned.
    pub tagged: bool,
    /// The client's pass, if it has one.
    pub stamps: Option<Stamps>,
    /// Whether the address that it connected to is one on which a pass can be earned (`listen.pass_on`).
    pub may_pass: bool,
    /// Whether STARTTLS is ours to carry out: a certificate is at hand. If not, it is the MTA's.
    pub terminates_tls: bool,
}

/// What goes into the engine.
#[derive(Debug)]
pub enum Input<'a> {
    /// The client sent this.
    Bytes(&'a [u8]),
    /// The client closed or reset the connection.
    Eof,
    /// The DNS lists' answers so far.
    Dnsbl(DnsblReport),
    /// Time has passed: at or after [`Session::deadline`].
    Tick,
    /// The TLS handshake that came out is done; from here on bytes come from and go into TLS.
    TlsUp(TlsSession),
    /// The TLS handshake failed: why, in a few words. Nothing more can be said on this connection.
    TlsFailed(String),
    /// The handoff did not come about. With the MTA's own refusal, or without where it could not be reached.
    HandoffFailed(Option<Bytes>),
    /// The daemon is going down.
    Shutdown,
}

/// What comes out of the engine, in order.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Write this to the client.
    Send(Bytes),
    /// Start asking the DNS lists; answers come back as [`Input::Dnsbl`].
    AskDnsbl,
    /// Remember that the client passed.
    Grant(Stamps),
    /// Something to log.
    Log(Event),
    /// The final decision, once a session.
    Decided(Decision),
    /// Begin the TLS handshake, as the server, once what was to be sent is sent. Ends in [`Input::TlsUp`] or
    /// [`Input::TlsFailed`]; what is read until then belongs to the handshake.
    StartTls,
    /// Give the connection to the MTA.
    Handoff(Handoff),
    /// Close the connection after what was sent.
    Close,
}

/// How the MTA has to be brought to where the client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// What the client has said and the MTA must hear, a line each, verbatim, without line ends. All but the last must
    /// be accepted; the reply to the last is the client's. Empty: the MTA's greeting is the client's.
    pub replay: Vec<Bytes>,
    /// Whether the client has seen the first line of a greeting (`220-…`), so that only `220` may follow.
    pub teaser_sent: bool,
    /// What the client sent behind the last line: the MTA's first input after the replay.
    pub pending: Bytes,
    /// What the client and we have agreed on, if its connection is under TLS; the MTA's is not.
    pub tls: Option<TlsSession>,
}

/// One connection under screening.
#[derive(Debug)]
pub struct Session {
    core: Core,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Greeting(Greeting),
    Dialogue(Dialogue),
    StartingTls(StartingTls),
    /// Waiting for the handoff that came out; with the dialogue to go back to if it fails.
    HandingOff(Option<Dialogue>),
    Closed,
}

/// What every phase shares.
#[derive(Debug)]
struct Core {
    policy: Arc<Policy>,
    features: Arc<Features>,
    arrival: Arrival,
    lattice: Lattice,
    evidence: Vec<Evidence>,
    /// What the DNS lists have said, once they were asked.
    lists: Option<DnsblReport>,
    /// The reply to each RCPT once a test has failed under `enforce`: the first failure's.
    refusal: Option<reply::Refusal>,
    input: BytesMut,
    output: VecDeque<Output>,
    teaser_sent: bool,
    /// It owed no test when it came, and gets none.
    welcome: bool,
    /// Since the handshake, if there was one.
    tls: Option<TlsSession>,
    began: Instant,
    decided: bool,
}

impl Session {
    /// Starts with a connection that was just accepted.
    pub fn start(policy: Arc<Policy>, features: Arc<Features>, arrival: Arrival, now: Now) -> Self {
        let lattice = Lattice::new(&policy, &arrival, now.unix);
        let mut core = Core {
            policy,
            features,
            arrival,
            lattice,
            evidence: Vec::new(),
            lists: None,
            refusal: None,
            input: BytesMut::new(),
            output: VecDeque::new(),
            teaser_sent: false,
            welcome: false,
            tls: None,
            began: now.instant,
            decided: false,
        };
        core.log(Event::Connect);
        let phase = match core.arrival.standing {
            Standing::Permitted => {
                core.log(Event::Allowlisted);
                core.welcome(now)
            }
            Standing::Denied => {
                core.log(Event::Denylisted);
                core.drop_with(&reply::DENIED)
            }
            Standing::Unnamed { mta_answers: true } => Dialogue::enter(&mut core, now),
            Standing::Unnamed { mta_answers: false } => core.end_with(&reply::MTA_AWAY_AT_GREETING),
            Standing::Screened if core.lattice.nothing_due() => {
                core.log(Event::PassOld);
                core.welcome(now)
            }
            Standing::Screened => {
                if core.vetoes() {
                    core.log(Event::AllowlistVeto);
                }
                Greeting::enter(&mut core, now)
            }
        };
        Self { core, phase }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let core = &mut self.core;
        self.phase = match (phase, input) {
            (Phase::Closed, _) => Phase::Closed,
            (Phase::HandingOff(dialogue), Input::HandoffFailed(refusal)) => core.handoff_failed(dialogue, refusal, now),
            (Phase::HandingOff(_), Input::Eof) => core.close(),
            // The handoff is not ours to end any more.
            (Phase::HandingOff(dialogue), _) => Phase::HandingOff(dialogue),
            (Phase::StartingTls(starting), input) => starting.handle(core, now, input),
            (_, Input::Shutdown) => core.end_with(&reply::GOING_DOWN),
            (Phase::Greeting(greeting), input) => greeting.handle(core, now, input),
            (Phase::Dialogue(dialogue), input) => dialogue.handle(core, now, input),
        };
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        let next = self.core.output.pop_front();
        if next.is_none() {
            // A client that waits keeps no room for what is said to it at once.
            self.core.output = VecDeque::new();
        }
        next
    }

    /// When [`Input::Tick`] is due; `None` while the engine waits for nothing but the handoff, or is closed.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Greeting(greeting) => Some(greeting.deadline()),
            Phase::Dialogue(dialogue) => Some(dialogue.deadline()),
            Phase::StartingTls(starting) => Some(starting.deadline()),
            Phase::HandingOff(_) | Phase::Closed => None,
        }
    }

    /// Whether the session has come to its end, though there may be outputs left.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether nothing more can come of this session.
    pub fn is_closed(&self) -> bool {
        self.is_over() && self.core.output.is_empty()
    }

    /// Who came where, and as what.
    pub fn arrival(&self) -> &Arrival {
        &self.core.arrival
    }
}

impl Core {
    fn log(&mut self, event: Event) {
        // A health check comes every few seconds; mail that comes without an address is worth a line.
        if self.is_unnamed() && !matches!(event, Event::Reject { .. }) {
            return;
        }
        self.output.push_back(Output::Log(event));
    }

    fn send(&mut self, reply: &reply::Reply) {
        self.output.push_back(Output::Send(reply.wire()));
    }

    /// Ends the session from our side.
    fn close(&mut self) -> Phase {
        self.decide(if self.is_refused() { Outcome::Refused } else { Outcome::Left });
        self.output.push_back(Output::Close);
        Phase::Closed
    }

    /// Refuses and closes at once. After a teaser the greeting is ended lawfully first: `220-` may only be followed by
    /// `220` (RFC 5321 section 4.2.1).
    fn drop_with(&mut self, refusal: &reply::Refusal) -> Phase {
        if self.teaser_sent {
            self.send_banner();
        }
        let reply = reply::dropped(refusal, &self.arrival);
        self.send(&reply);
        self.decide(Outcome::Refused);
        self.log(Event::Disconnect);
        self.close()
    }

    /// Says something final that is nobody's fault, and closes.
    fn end_with(&mut self, reply: &reply::Reply) -> Phase {
        if self.teaser_sent {
            self.send_banner();
        }
        self.send(reply);
        self.log(Event::Disconnect);
        self.close()
    }

    /// The last line of the greeting.
    fn send_banner(&mut self) {
        self.teaser_sent = false;
        self.send(&reply::banner(&self.policy));
    }

    /// A test has failed. Returns what its action is, having noted the refusal it leads to.
    fn fail(&mut self, test: Test, refusal: &reply::Refusal, evidence: Evidence) -> Action {
        let action = self.policy.action(test);
        self.lattice.fail(test);
        self.evidence.push(evidence);
        if action == Action::Enforce && self.refusal.is_none() {
            self.refusal = Some(refusal.clone());
        }
        action
    }

    /// Whether the client is to come again instead of going to the MTA, although it has failed nothing: always on an
    /// address without passes, and elsewhere when it has gone through tests that need the dialogue.
    fn defers(&self) -> bool {
        let deferred = self.policy.after_tests == AfterTests::Defer && !self.welcome;
        deferred || self.is_unnamed()
    }

    /// Whether STARTTLS is to be had now, from us or from the MTA.
    fn offers_tls(&self) -> bool {
        self.tls.is_none() && (self.arrival.terminates_tls || self.features.offers("STARTTLS"))
    }

    /// Whether there is no client behind the connection that could be screened.
    fn is_unnamed(&self) -> bool {
        matches!(self.arrival.standing, Standing::Unnamed { .. })
    }

    /// Whether a client without a pass never reaches the MTA here.
    fn vetoes(&self) -> bool {
        self.defers() && !self.arrival.may_pass
    }

    /// Whether the client may be given to the MTA: no test failed under an action that forbids it.
    fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// Everything that was due is decided and nothing failed: grants what was passed.
    fn conclude(&mut self, outcome: Outcome) {
        if self.decided {
            return;
        }
        if let Some(stamps) = self.lattice.earned(&self.arrival) {
            self.log(if self.lattice.was_new() { Event::PassNew } else { Event::PassOld });
            self.output.push_back(Output::Grant(stamps));
        }
        self.decide(outcome);
    }

    fn decide(&mut self, outcome: Outcome) {
        if !self.decided && !self.is_unnamed() {
            self.decided = true;
            let evidence = std::mem::take(&mut self.evidence);
            let dnsbl = self.lists.clone();
            self.output.push_back(Output::Decided(Decision { outcome, evidence, dnsbl, tls: self.tls }));
        }
    }

    /// The client owes no test: it is the MTA's at once, unless it could have no TLS there although we have a certificate.
    /// Then it gets it here, and goes to the MTA with its first recipient.
    fn welcome(&mut self, now: Now) -> Phase {
        if self.arrival.terminates_tls && !self.features.offers("STARTTLS") {
            self.welcome = true;
            return Dialogue::enter(self, now);
        }
        self.decide(Outcome::HandedOff);
        self.hand_off(Vec::new(), None)
    }

    fn hand_off(&mut self, replay: Vec<Bytes>, back: Option<Dialogue>) -> Phase {
        // A copy: if the handoff fails, the dialogue goes on with it.
        let pending = Bytes::copy_from_slice(&self.input);
        let (teaser_sent, tls) = (self.teaser_sent, self.tls);
        self.output.push_back(Output::Handoff(Handoff { replay, teaser_sent, pending, tls }));
        Phase::HandingOff(back)
    }

    fn handoff_failed(&mut self, back: Option<Dialogue>, refusal: Option<Bytes>, now: Now) -> Phase {
        match back {
            // By this code the MTA closes, and so do we (RFC 5321 section 3.8): an open connection would be a lie.
            Some(_) if refusal.as_ref().is_some_and(|reply| reply.starts_with(b"421")) => {
                self.output.extend(refusal.map(Output::Send));
                self.log(Event::Disconnect);
                self.close()
            }
            // The client waits for the reply to the line that began the handoff.
            Some(dialogue) => {
                self.output.push_back(Output::Send(refusal.unwrap_or_else(|| reply::MTA_AWAY.wire())));
                dialogue.resume(self, now)
            }
            None => {
                let greeting_open = self.teaser_sent;
                if greeting_open {
                    self.send_banner();
                }
                self.output.push_back(Output::Send(refusal.unwrap_or_else(|| reply::MTA_AWAY_AT_GREETING.wire())));
                self.log(Event::Disconnect);
                self.close()
            }
        }
    }
}

#[cfg(test)]
mod tests;
