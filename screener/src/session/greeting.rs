//! Before the greeting is complete: the greet wait and the DNS lists, side by side.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::clock::Now;
use crate::pass::Test;

use super::command::{Command, Verb};
use super::dialogue::Dialogue;
use super::event::{Event, Evidence, Outcome};
use super::line::{self, Taken, Text};
use super::lists::{self, Judgement};
use super::reply;
use super::state::Core;
use super::tarpit::{self, Then};
use super::{Action, Input, Output, Phase};

/// The greet wait: what is waited for.
#[derive(Debug)]
pub(super) struct Greeting {
    silence: bool,
    lists: bool,
    /// The client has sent one clean EHLO, and may have thought that it may.
    early_hello: bool,
}

/// What a client that may have learned `PIPECONNECT` has sent before the greeting.
enum Early {
    /// The beginning of an EHLO.
    Unfinished,
    /// One clean EHLO, and nothing else.
    Hello,
    /// Something that nobody learned here.
    More,
}

impl Greeting {
    /// Begins whatever early test is due; with none, goes on to the dialogue.
    pub(super) fn enter(core: &mut Core, now: Now) -> Phase {
        let mut greeting = Self { silence: false, lists: false, early_hello: false };
        if core.lattice.is_open(Test::Pregreet) {
            let teaser = reply::teaser(&core.policy);
            core.send(&teaser);
            core.teaser_sent = true;
            greeting.silence = true;
        }
        if core.policy.dnsbl.is_some() && core.lattice.is_open(Test::Dnsbl) {
            greeting.lists = true;
            core.output.push_back(Output::AskDnsbl);
        }
        greeting.settle(core, now)
    }

    pub(super) fn deadline(&self, core: &Core) -> Instant {
        // `settle` leaves this phase when nothing is waited for.
        self.silence_until(core).into_iter().chain(self.lists_until(core)).min().unwrap_or(core.began)
    }

    /// When the client has been silent for long enough; `None`: that is not waited for.
    fn silence_until(&self, core: &Core) -> Option<Instant> {
        self.silence.then(|| core.began + core.policy.pregreet.wait.at(core.arrival.stressed))
    }

    /// When the lists have had their time; `None`: they are not waited for.
    fn lists_until(&self, core: &Core) -> Option<Instant> {
        let policy = core.policy.dnsbl.as_ref().filter(|_| self.lists)?;
        Some(core.began + policy.deadline.at(core.arrival.stressed))
    }

    pub(super) fn handle(mut self, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
        match input {
            Input::Bytes(bytes) => {
                let fits = core.hear(bytes);
                if self.silence && core.lattice.is_open(Test::Pregreet) {
                    let action = self.spoke(core, now, bytes);
                    if let Some(phase) = ended(core, action) {
                        return phase;
                    }
                }
                if !fits {
                    core.log(Event::LengthLimit("CONNECT".to_owned()));
                    let limit = reply::limit(&core.policy);
                    return core.end_with(&limit);
                }
            }
            Input::Dnsbl(report) if self.lists => core.lists = Some(Box::new(report)),
            // The lists had their time, and the greeting is still waited for.
            Input::Dnsbl(report) => match lists::judge_late(core, report) {
                Judgement::Open | Judgement::Decided => {}
                Judgement::Drop(refusal) => return core.drop_with(&refusal),
                Judgement::Tarpit(refusal) => return tarpit::ask(core, &refusal, Then::Enter),
            },
            Input::Eof => return core.hang_up(now),
            _ => {}
        }
        self.settle(core, now)
    }

    /// Decides what can be decided, and moves on when nothing is left.
    fn settle(mut self, core: &mut Core, now: Now) -> Phase {
        if let Some(until) = self.lists_until(core) {
            match lists::judge(core, now, now.instant >= until) {
                Judgement::Open => {}
                Judgement::Decided => self.lists = false,
                Judgement::Drop(refusal) => return core.drop_with(&refusal),
                Judgement::Tarpit(refusal) => return tarpit::ask(core, &refusal, Then::Enter),
            }
        }
        if let Some(until) = self.silence_until(core) {
            // Under `ignore` an early talker waits as long as everybody else: talking early must not pay.
            let decided = !core.lattice.is_open(Test::Pregreet) && !core.lattice.has_failed(Test::Pregreet);
            if now.instant >= until {
                if !self.early_hello && !core.input.is_empty() && core.lattice.is_open(Test::Pregreet) {
                    let said = core.input.clone();
                    let action = spoke_early(core, now, &said);
                    if let Some(phase) = ended(core, action) {
                        return phase;
                    }
                }
                core.lattice.pass(Test::Pregreet, now.unix.plus(core.policy.pregreet.ttl));
            }
            // A client that is refused already, for whatever it did, has nothing to wait for.
            self.silence = !(decided || core.is_refused() || now.instant >= until);
        }
        if self.silence || self.lists {
            return Phase::Greeting(self);
        }
        if self.early_hello && self.is_too_much(core) {
            let action = fail(core, "sent EHLO before the greeting, and stands on DNS lists too".to_owned());
            if let Some(phase) = ended(core, action) {
                return phase;
            }
        }
        if core.is_refused() || core.lattice.deep_open() || core.vetoes() {
            return Dialogue::enter(core, now);
        }
        core.conclude(Outcome::HandedOff);
        core.hand_off(Vec::new(), None)
    }

    /// The client has spoken while it should be silent.
    fn spoke(&mut self, core: &mut Core, now: Now, bytes: &[u8]) -> Action {
        // Only who has passed here before has talked to the MTA, and only that may have told it so.
        if core.arrival.stamps.is_none() || core.arrival.tagged || !core.features.pipe_connect() {
            return spoke_early(core, now, bytes);
        }
        match early(&core.input, core.policy.line_length) {
            Early::Unfinished => {}
            Early::Hello => {
                self.early_hello = true;
                core.log(Event::EarlyHello(now.instant - core.began, Bytes::copy_from_slice(&core.input)));
                core.evidence.push(Evidence {
                    test: Test::Pregreet,
                    weight: core.policy.pregreet.pipeconnect_weight,
                    reason: "sent EHLO before the greeting, as the MTA allows with PIPECONNECT".to_owned(),
                    remedy: "nothing is wrong with that; it costs the greet wait".to_owned(),
                });
            }
            Early::More => {
                self.early_hello = false;
                let said = core.input.clone();
                return spoke_early(core, now, &said);
            }
        }
        Action::Ignore
    }

    /// Whether the early EHLO and the DNS lists together are enough.
    fn is_too_much(&self, core: &Core) -> bool {
        let score = core.lists.as_ref().map_or(0, |report| report.score);
        let weight = core.policy.pregreet.pipeconnect_weight;
        let threshold = core.policy.dnsbl.as_ref().map(|dnsbl| dnsbl.threshold);
        !core.is_refused() && threshold.is_some_and(|threshold| score.saturating_add(weight) >= threshold)
    }
}

/// What an action of the pregreet test leads to; `None`: the session goes on.
fn ended(core: &mut Core, action: Action) -> Option<Phase> {
    match action {
        Action::Drop => Some(core.drop_with(&reply::PROTOCOL_ERROR)),
        Action::Tarpit => Some(tarpit::ask(core, &reply::PROTOCOL_ERROR, Then::Enter)),
        Action::Ignore | Action::Enforce => None,
    }
}

fn early(said: &[u8], line_length: usize) -> Early {
    let mut input = BytesMut::from(said);
    match line::take(&mut input, line_length) {
        Taken::Line(line) => {
            let command = Command::parse(&line.bytes);
            let clean = input.is_empty() && !line.flaws.any() && line.text == Text::Ascii;
            let hello = command.verb == Verb::Ehlo && !command.argument.is_empty();
            if clean && hello { Early::Hello } else { Early::More }
        }
        Taken::Incomplete if said.iter().zip(b"EHLO ").all(|(a, b)| a.eq_ignore_ascii_case(b)) => Early::Unfinished,
        Taken::Incomplete | Taken::TooLong => Early::More,
    }
}

fn spoke_early(core: &mut Core, now: Now, said: &[u8]) -> Action {
    let after = now.instant - core.began;
    core.log(Event::Pregreet(said.len(), after, Bytes::copy_from_slice(said)));
    fail(core, format!("spoke {:.1} s after it connected, before the greeting", after.as_secs_f64()))
}

fn fail(core: &mut Core, reason: String) -> Action {
    let remedy = "wait for the line that begins with 220 and a space before the first command".to_owned();
    let evidence = Evidence { test: Test::Pregreet, weight: 1, reason, remedy };
    core.fail(Test::Pregreet, &reply::PROTOCOL_ERROR, evidence)
}
