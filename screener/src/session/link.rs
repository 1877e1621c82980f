//! Two addresses, one sender: a client that is about to be deferred is asked for among those that have just passed under
//! the same EHLO name from an address of the other family.
//!
//! Whether two addresses are one sender is found out outside (a name alone proves nothing: [`Output::AskSibling`]); the
//! engine waits for the answer no longer than the policy says, and only where it matters: at the reply that would be 450.

use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::clock::Now;
use crate::pass::{Stamps, Test};

use super::command::{Command, Verb};
use super::deep::{self, Verdict};
use super::dialogue::Dialogue;
use super::event::Event;
use super::line::Line;
use super::lists;
use super::state::Core;
use super::tarpit::{self, Then};
use super::{Input, Output, Phase, Standing};

/// The other address of a client, and what it has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The address.
    pub address: IpAddr,
    /// The name that both called themselves, which has both addresses.
    pub name: String,
    /// The pass of the other address.
    pub stamps: Stamps,
}

/// What is known of a sibling.
#[derive(Debug, Default)]
pub(super) enum Link {
    /// Nobody was asked.
    #[default]
    Unasked,
    /// The answer is due by then.
    Open(Instant),
    /// There is none that counts.
    Alone,
    /// There is one, and it has passed what needs the dialogue.
    Linked,
}

impl Core {
    /// Whether another address of this client has passed.
    pub(super) fn is_linked(&self) -> bool {
        matches!(self.link, Link::Linked)
    }

    /// The client has said its name: asks for a sibling, once a session.
    pub(super) fn ask_for_sibling(&mut self, name: &Bytes, now: Now) {
        let Some(deadline) = self.policy.link else { return };
        let screened = self.arrival.standing == Standing::Screened && !self.arrival.tagged;
        if !screened || !self.defers() || self.is_refused() || !matches!(self.link, Link::Unasked) {
            return;
        }
        // What is no text is no name either.
        let Ok(name) = std::str::from_utf8(name) else { return };
        self.link = Link::Open(now.instant + deadline);
        self.output.push_back(Output::AskSibling(name.to_owned()));
    }

    /// Takes the answer.
    pub(super) fn hear_of_sibling(&mut self, sibling: Option<Sibling>) {
        if !matches!(self.link, Link::Open(_)) {
            return;
        }
        self.link = Link::Alone;
        let Some(sibling) = sibling else { return };
        // What it passed before the greeting this client has passed itself by now.
        let owed = sibling.stamps.owed(self.policy.enabled(), self.now.unix);
        if !owed.iter().any(Test::is_deep) {
            self.link = Link::Linked;
            self.log(Event::Linked(sibling.address, sibling.name));
        }
    }
}

/// A session whose next reply depends on the answer.
#[derive(Debug)]
pub(super) struct Linking {
    dialogue: Dialogue,
    line: Line,
    command: Command,
    until: Instant,
}

/// Until when the reply to a command has to wait for the answer; `None`: it does not.
pub(super) fn waits_for_answer(core: &Core, command: &Command) -> Option<Instant> {
    let Link::Open(until) = core.link else { return None };
    let matters = match command.verb {
        Verb::Rcpt => core.defers(),
        Verb::StartTls => core.vetoes() && !core.arrival.terminates_tls,
        _ => false,
    };
    (matters && !core.is_refused()).then_some(until)
}

impl Linking {
    pub(super) fn enter(dialogue: Dialogue, line: Line, command: Command, until: Instant) -> Phase {
        Phase::Linking(Box::new(Self { dialogue, line, command, until }))
    }

    pub(super) fn deadline(&self, core: &Core) -> Instant {
        self.until.min(core.session_end())
    }

    pub(super) fn handle(self: Box<Self>, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
        match input {
            Input::Bytes(bytes) => {
                // What does not fit is of no interest: it was sent before the reply.
                core.hear(bytes);
                match deep::sent_ahead(core, &self.command.label()) {
                    Verdict::GoOn if core.is_refused() => self.go_on(core, now),
                    Verdict::GoOn => Phase::Linking(self),
                    Verdict::Drop(refusal) => core.drop_with(&refusal),
                    Verdict::Tarpit(refusal) => {
                        tarpit::ask(core, &refusal, Then::CarryOut(self.dialogue, self.line, self.command))
                    }
                }
            }
            Input::Sibling(sibling) => {
                core.hear_of_sibling(sibling);
                self.go_on(core, now)
            }
            Input::Tick if now.instant >= self.deadline(core) => {
                core.hear_of_sibling(None);
                self.go_on(core, now)
            }
            Input::Dnsbl(report) => {
                lists::hear_late(core, report);
                Phase::Linking(self)
            }
            Input::Eof => core.hang_up(now),
            _ => Phase::Linking(self),
        }
    }

    fn go_on(self, core: &mut Core, now: Now) -> Phase {
        self.dialogue.carry_on(core, now, &self.line, &self.command)
    }
}
