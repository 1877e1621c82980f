//! Answering slowly: a client in the tarpit gets every reply a byte at a time, and at its first recipient, or when its
//! time is up, the refusal.
//!
//! The bytes leave as ordinary output, one at each deadline; no buffer grows by them, and none of what the client says
//! meanwhile is looked at before it has the whole reply. How many clients may be here at a time is not known here: the
//! engine asks for a place ([`Output::AskTarpit`]) and drops the client if there is none.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::clock::Now;

use super::command::Command;
use super::dialogue::Dialogue;
use super::event::Event;
use super::line::Line;
use super::reply::{self, Refusal, Reply};
use super::state::Core;
use super::{Input, Output, Phase};

/// The mouth of a client's session that has a place in the tarpit.
#[derive(Debug)]
pub(super) struct Slow {
    unsaid: BytesMut,
    next: Instant,
    pace: Duration,
}

impl Slow {
    pub(super) fn say(&mut self, wire: &[u8], now: Instant) {
        if self.unsaid.is_empty() {
            self.next = now + self.pace;
        }
        self.unsaid.extend_from_slice(wire);
    }

    pub(super) fn is_speaking(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// When the next byte is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The next byte, if it is due.
    fn utter(&mut self, now: Instant) -> Option<Bytes> {
        if now < self.next || self.unsaid.is_empty() {
            return None;
        }
        self.next = now + self.pace;
        let byte = Bytes::copy_from_slice(&self.unsaid[..1]);
        self.unsaid.advance(1);
        if self.unsaid.is_empty() {
            self.unsaid = BytesMut::new();
        }
        Some(byte)
    }

    /// All that was not said yet.
    pub(super) fn rest(self) -> Bytes {
        self.unsaid.freeze()
    }
}

/// A session that waits for a place.
#[derive(Debug)]
pub(super) struct Asking {
    refusal: Refusal,
    then: Then,
}

/// Where it goes on with a place.
#[derive(Debug)]
pub(super) enum Then {
    /// To the dialogue.
    Enter,
    /// With what the client has sent.
    Advance(Dialogue),
    /// With this command.
    CarryOut(Dialogue, Line, Command),
}

/// Asks for a place for a client that failed under [`super::Action::Tarpit`].
pub(super) fn ask(core: &mut Core, refusal: &Refusal, then: Then) -> Phase {
    core.output.push_back(Output::AskTarpit);
    core.refusal.get_or_insert_with(|| Box::new(refusal.clone()));
    Phase::Asking(Box::new(Asking { refusal: refusal.clone(), then }))
}

impl Asking {
    pub(super) fn handle(self: Box<Self>, core: &mut Core, now: Now, input: &Input<'_>) -> Phase {
        match input {
            Input::Tarpit(true) => {
                core.log(Event::Tarpit);
                let pace = core.policy.tarpit_pace;
                core.slow = Some(Box::new(Slow { unsaid: BytesMut::new(), next: now.instant, pace }));
                match self.then {
                    Then::Enter => Dialogue::enter(core, now),
                    Then::Advance(dialogue) => dialogue.advance(core, now),
                    Then::CarryOut(dialogue, line, command) => dialogue.carry_on(core, now, &line, &command),
                }
            }
            Input::Tarpit(false) => {
                core.log(Event::TarpitFull);
                core.drop_with(&self.refusal)
            }
            Input::Eof => core.hang_up(now),
            Input::Bytes(bytes) => {
                core.hear(bytes);
                Phase::Asking(self)
            }
            _ => Phase::Asking(self),
        }
    }
}

/// Takes an input while a reply is going out.
pub(super) fn handle(phase: Phase, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
    match (phase, input) {
        // What does not fit is of no interest.
        (phase, Input::Bytes(bytes)) => {
            core.hear(bytes);
            phase
        }
        (Phase::Leaving, Input::Eof) => {
            core.slow = None;
            core.close()
        }
        (_, Input::Eof) => {
            core.slow = None;
            core.hang_up(now)
        }
        (phase, Input::Tick) if now.instant >= core.session_end() => {
            let reply = reply::timeout(&core.policy);
            end(&phase, core, &reply)
        }
        (phase, Input::Tick) => {
            core.utter(now.instant);
            match phase {
                phase if core.is_speaking() => phase,
                Phase::Leaving => core.close(),
                Phase::Dialogue(dialogue) => dialogue.resume(core, now),
                phase => phase,
            }
        }
        (Phase::Dialogue(dialogue), input @ Input::Dnsbl(_)) => dialogue.handle(core, now, input),
        (phase, _) => phase,
    }
}

/// Says all that is left at once and closes with these last words: the time is up, or the room is needed.
pub(super) fn end(phase: &Phase, core: &mut Core, last_words: &Reply) -> Phase {
    core.hurry();
    match phase {
        // It has had its last words.
        Phase::Leaving => core.close(),
        _ => core.end_with(last_words),
    }
}

impl Core {
    /// Lets the next byte go, if it is due.
    fn utter(&mut self, now: Instant) {
        if let Some(byte) = self.slow.as_mut().and_then(|slow| slow.utter(now)) {
            self.output.push_back(Output::Send(byte));
        }
    }

    /// From now on at the usual speed, beginning with what is left to say.
    pub(super) fn hurry(&mut self) {
        if let Some(rest) = self.slow.take().map(|slow| slow.rest()).filter(|rest| !rest.is_empty()) {
            self.output.push_back(Output::Send(rest));
        }
    }
}
