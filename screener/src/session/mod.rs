//! The screening of one connection, as a state machine without I/O.
//!
//! Bytes, answers from DNS lists, the passing of time and the fate of a handoff go in ([`Input`]); replies, questions,
//! log events, granted passes and the handoff come out ([`Output`]). The caller owns the socket and the clock: after
//! each [`Session::handle`] it drains [`Session::poll_output`] and comes back at [`Session::deadline`] at the latest.
//!
//! Never sees a socket, a task, a clock or a store. The states follow reference/postscreen.md section 2; where this
//! engine differs (a lawful end of every greeting, the handoff in the same session) docs/postscreen-differences.md says
//! why.

mod command;
mod deep;
mod dialogue;
mod event;
mod features;
mod footer;
mod forbidden;
mod greeting;
mod lattice;
mod line;
mod link;
mod lists;
mod policy;
mod reply;
mod report;
#[cfg(any(test, fuzzing))]
pub mod simulation;
mod start_tls;
mod state;
mod tarpit;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::clock::{Now, UnixTime};
use crate::pass::{Stamps, Test};

use dialogue::Dialogue;
use greeting::Greeting;
use link::Linking;
use start_tls::StartingTls;
use state::Core;
use tarpit::{Asking, Then};

pub use event::{Ceiling, Decision, Escaped, Event, Evidence, Moment, Outcome, Printable, Said};
pub use features::Features;
pub use footer::{Footer, FooterError};
pub use forbidden::{Forbidden, ForbiddenError};
pub use link::Sibling;
pub use report::{DnsblHit, DnsblReport, DnsblUnknown};
pub use start_tls::TlsSession;

pub use policy::{Action, AfterTests, DeepPolicy, DnsblPolicy, Pace, Policy, PregreetPolicy, Replies};

/// Names one session in replies, log lines and JSON events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// When the session began: the name is the second, and a number within it.
    pub fn began(self) -> UnixTime {
        UnixTime(self.0 >> 16)
    }
}

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
    /// To be answered slowly from the first byte on, and refused in the end.
    Tarpitted,
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
    /// It has kept failing: a failed test is answered slowly, unless it is ignored. Who passes is welcome as ever.
    pub slow: bool,
    /// The client's pass, if it has one.
    pub stamps: Option<Stamps>,
    /// Whether the address that it connected to is one on which a pass can be earned (`listen.pass_on`).
    pub may_pass: bool,
    /// Whether STARTTLS is ours to carry out: a certificate is at hand. If not, it is the MTA's.
    pub terminates_tls: bool,
    /// Whether the daemon is under stress at this moment; [`Input::Stress`] tells of a change.
    pub stressed: bool,
}

#[cfg(any(test, fuzzing))]
impl Arrival {
    /// Of a client of whom nothing is known.
    pub(crate) fn of_a_stranger() -> Self {
        Self {
            id: SessionId(0xabc),
            client: ([203, 0, 113, 5], 34_209).into(),
            server: ([192, 0, 2, 10], 25).into(),
            standing: Standing::Screened,
            tagged: false,
            slow: false,
            stamps: None,
            may_pass: true,
            stressed: false,
            terminates_tls: false,
        }
    }
}

/// What goes into the engine.
#[derive(Debug)]
pub enum Input<'a> {
    /// The client sent this.
    Bytes(&'a [u8]),
    /// Everything that was sent until now has reached the client: what it sends from here on it sends in knowledge of it.
    /// What comes without this was sent ahead. Whoever cannot know says so right after it has written.
    Delivered,
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
    /// Sessions have become many (true), or few again: waits shrink, or grow, those that go on already too.
    Stress(bool),
    /// The answer to [`Output::AskTarpit`]: whether there is a place.
    Tarpit(bool),
    /// The answer to [`Output::AskSibling`]; `None`: there is none, or nobody can say.
    Sibling(Option<Sibling>),
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
    /// Is there a place in the tarpit, to be held until the session ends? The answer comes back as [`Input::Tarpit`].
    AskTarpit,
    /// Has another address of this client's passed just now? It called itself so; whether both are one sender is to be proved
    /// otherwise. The answer comes back as [`Input::Sibling`].
    AskSibling(String),
    /// The greeting is complete, and the client may speak; the last line of one that only makes a refusal lawful does not count.
    Greeted,
    /// Remember that the client passed.
    Grant(Stamps),
    /// The client has failed this test after all: what was remembered of it does not hold.
    Withdraw(Test),
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
    /// Waiting for a place in the tarpit.
    Asking(Box<Asking>),
    /// Waiting to hear of the client's other address.
    Linking(Box<Linking>),
    /// All is decided; the last reply is going out slowly.
    Leaving,
    Closed,
}

impl Session {
    /// Starts with a connection that was just accepted.
    pub fn start(policy: Arc<Policy>, features: Arc<Features>, arrival: Arrival, now: Now) -> Self {
        let mut core = Core::new(policy, features, arrival, now);
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
            Standing::Unnamed { mta_answers: false } => core.end_with(&reply::limited(Ceiling::Server)),
            Standing::Tarpitted => {
                core.log(Event::Denylisted);
                tarpit::ask(&mut core, &reply::DENIED, Then::Enter)
            }
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

    /// A connection for which there is no room: it hears why, and is closed.
    pub fn turned_away(
        policy: Arc<Policy>,
        features: Arc<Features>,
        arrival: Arrival,
        ceiling: Ceiling,
        now: Now,
    ) -> Self {
        let mut core = Core::new(policy, features, arrival, now);
        core.log(Event::Connect);
        let phase = core.turn_away(ceiling);
        Self { core, phase }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let core = &mut self.core;
        core.now = now;
        self.phase = match (phase, input) {
            (Phase::Closed, _) => Phase::Closed,
            (phase, Input::Delivered) => {
                core.undelivered = false;
                phase
            }
            (phase, Input::Stress(on)) => core.stress(phase, now, on),
            (phase, Input::Sibling(sibling)) if !matches!(phase, Phase::Linking(_)) => {
                core.hear_of_sibling(sibling);
                phase
            }
            (Phase::HandingOff(dialogue), Input::HandoffFailed(refusal)) => core.handoff_failed(dialogue, refusal, now),
            (Phase::HandingOff(_), Input::Eof) => core.close(),
            // The handoff is not ours to end any more.
            (Phase::HandingOff(dialogue), _) => Phase::HandingOff(dialogue),
            (Phase::StartingTls(starting), input) => starting.handle(core, now, input),
            (phase, Input::Shutdown) => tarpit::end(&phase, core, &reply::GOING_DOWN),
            (Phase::Asking(asking), input) => asking.handle(core, now, &input),
            (Phase::Linking(linking), input) => linking.handle(core, now, input),
            (phase, input) if core.is_speaking() => tarpit::handle(phase, core, now, input),
            (Phase::Greeting(greeting), input) => greeting.handle(core, now, input),
            (Phase::Dialogue(dialogue), input) => dialogue.handle(core, now, input),
            (Phase::Leaving, _) => core.close(),
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
        if let Some(slow) = self.core.slow.as_ref().filter(|slow| slow.is_speaking()) {
            return Some(slow.next().min(self.core.session_end()));
        }
        match &self.phase {
            Phase::Greeting(greeting) => Some(greeting.deadline(&self.core)),
            Phase::Dialogue(dialogue) => Some(dialogue.deadline(&self.core)),
            Phase::StartingTls(starting) => Some(starting.deadline(&self.core)),
            Phase::Linking(linking) => Some(linking.deadline(&self.core)),
            Phase::HandingOff(_) | Phase::Asking(_) | Phase::Leaving | Phase::Closed => None,
        }
    }

    /// Whether the caller should look if what was sent has reached the client ([`Input::Delivered`]) before it brings what
    /// the client sends: only where the answer means something.
    pub fn asks_for_delivery(&self) -> bool {
        self.core.undelivered && matches!(self.phase, Phase::Dialogue(_))
    }

    /// Whether the MTA is to have the connection: nothing but [`Output::Handoff`] is left to be done before that.
    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::HandingOff(_))
    }

    /// Whether the session has come to its end, though there may be outputs left.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether nothing more can come of this session.
    pub fn is_closed(&self) -> bool {
        self.is_over() && self.core.output.is_empty()
    }

    /// How many bytes are kept of what the client said and was not looked at yet.
    #[cfg(any(test, fuzzing))]
    fn held(&self) -> usize {
        self.core.input.len()
    }

    /// Who came where, and as what.
    pub fn arrival(&self) -> &Arrival {
        &self.core.arrival
    }
}

impl Core {
    /// Under stress nobody is held for longer than it takes to refuse it.
    fn stress(&mut self, phase: Phase, now: Now, on: bool) -> Phase {
        self.arrival.stressed = on;
        match phase {
            phase @ (Phase::Leaving | Phase::Dialogue(_)) if on && self.slow.is_some() => {
                let reply = reply::limit(&self.policy);
                tarpit::end(&phase, self, &reply)
            }
            Phase::Greeting(greeting) => greeting.handle(self, now, Input::Tick),
            phase => phase,
        }
    }
}

#[cfg(test)]
mod tests;
