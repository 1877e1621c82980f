//! The strict SMTP conversation: the engine speaks for the MTA, runs the deep tests on every command, and hands the
//! session over at the first recipient, or at STARTTLS if that is the MTA's to carry out.
//!
//! A client that comes as far as a well-formed EHLO or HELO, MAIL and RCPT, in this order and a reply each, has passed the
//! deep tests. So has one that reaches the MTA's STARTTLS: behind it nothing can be seen any more, the MTA takes over either
//! way, and without this a sender that uses TLS would never be remembered. Where STARTTLS is ours the tests go on inside.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::clock::Now;

use super::command::{Command, Verb};
use super::deep::{self, Verdict};
use super::event::{Event, Moment, Outcome, Printable};
use super::line::{self, Line, Taken};
use super::link::{self, Linking};
use super::lists;
use super::reply::{self, Reply};
use super::start_tls::StartingTls;
use super::state::Core;
use super::tarpit::{self, Then};
use super::{Input, Output, Phase};

/// How much of a name or an address a decision shows: the longest path of RFC 5321 section 4.5.3.1.3.
const LONGEST_NAME: usize = 256;

/// The dialogue so far.
#[derive(Debug)]
pub(super) struct Dialogue {
    /// Since when the client has the time for one command.
    since: Instant,
    /// The verb before, for the log.
    last: String,
    helo: Option<Box<Helo>>,
    mail: Option<Box<Mail>>,
}

#[derive(Debug)]
struct Helo {
    proto: &'static str,
    line: Bytes,
    name: Bytes,
}

#[derive(Debug)]
struct Mail {
    line: Bytes,
    from: Bytes,
}

/// What a command leads to.
enum Next {
    /// A reply, and the next command.
    Reply(Reply),
    /// The reply, and the end.
    Last(Reply),
    /// The TLS handshake.
    StartTls,
    /// The handoff; these lines are to be replayed.
    HandOff(Vec<Bytes>),
}

impl Dialogue {
    /// Completes the greeting and takes up what the client has already said.
    pub(super) fn enter(core: &mut Core, now: Now) -> Phase {
        core.moment = (Moment::AfterHandshake, now.instant);
        core.send_banner();
        core.output.push_back(Output::Greeted);
        // The rest of a line that was begun before the greeting may cross it: that is one offence and not two.
        core.undelivered &= core.input.is_empty();
        let last = "CONNECT".to_owned();
        Self { since: now.instant, last, helo: None, mail: None }.advance(core, now)
    }

    /// Goes on after a handoff that failed, or a reply that took its time.
    pub(super) fn resume(mut self, core: &mut Core, now: Now) -> Phase {
        self.since = now.instant;
        self.advance(core, now)
    }

    /// Goes on under TLS, where nothing counts that was said before.
    pub(super) fn begin_anew(self, now: Now) -> Phase {
        Phase::Dialogue(Self { since: now.instant, helo: None, mail: None, ..self })
    }

    /// A complete line is due by then, or the handoff; single bytes put nothing off.
    pub(super) fn deadline(&self, core: &Core) -> Instant {
        (self.since + core.policy.command_time.at(core.arrival.stressed)).min(core.session_end())
    }

    pub(super) fn handle(self, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
        match input {
            Input::Bytes(bytes) => {
                core.input.extend_from_slice(bytes);
                let verdict = if core.undelivered { deep::sent_ahead(core, &self.last) } else { Verdict::GoOn };
                match verdict {
                    Verdict::GoOn => self.advance(core, now),
                    Verdict::Drop(refusal) => core.drop_with(&refusal),
                    Verdict::Tarpit(refusal) => tarpit::ask(core, &refusal, Then::Advance(self)),
                }
            }
            Input::Eof => core.hang_up(now),
            Input::Tick if now.instant >= self.deadline(core) => {
                core.log(Event::TimeLimit(self.last));
                let reply = reply::timeout(&core.policy);
                core.end_with(&reply)
            }
            // An answer that came after the wait still counts, as long as the client is here.
            Input::Dnsbl(report) => {
                lists::hear_late(core, report);
                Phase::Dialogue(self)
            }
            _ => Phase::Dialogue(self),
        }
    }

    /// Carries out every complete line of the input, one reply after the other.
    pub(super) fn advance(self, core: &mut Core, now: Now) -> Phase {
        let mut phase = Phase::Dialogue(self);
        while let Phase::Dialogue(dialogue) = phase {
            if core.is_speaking() {
                return Phase::Dialogue(dialogue);
            }
            let line = match line::take(&mut core.input, core.policy.line_length) {
                Taken::Line(line) => line,
                Taken::Incomplete => return Phase::Dialogue(dialogue),
                Taken::TooLong => {
                    core.log(Event::LengthLimit(dialogue.last));
                    let reply = reply::limit(&core.policy);
                    return core.end_with(&reply);
                }
            };
            let command = Command::parse(&line.bytes);
            phase = match deep::test(core, &dialogue.last, &line, &command) {
                Verdict::GoOn => match link::waits_for_answer(core, now, &command) {
                    Some(until) => Linking::enter(dialogue, line, command, until),
                    None => dialogue.carry_out(core, now, &line, &command),
                },
                Verdict::Drop(refusal) => core.drop_with(&refusal),
                Verdict::Tarpit(refusal) => tarpit::ask(core, &refusal, Then::CarryOut(dialogue, line, command)),
            };
        }
        phase
    }

    /// Goes on with a command that was tested before something was waited for: a place in the tarpit, news of a sibling.
    pub(super) fn carry_on(self, core: &mut Core, now: Now, line: &Line, command: &Command) -> Phase {
        match self.carry_out(core, now, line, command) {
            Phase::Dialogue(dialogue) => dialogue.advance(core, now),
            over => over,
        }
    }

    fn carry_out(mut self, core: &mut Core, now: Now, line: &Line, command: &Command) -> Phase {
        core.said.commands += 1;
        if core.said.commands > core.policy.commands && command.verb != Verb::Quit {
            core.log(Event::CountLimit(self.last));
            let reply = reply::limit(&core.policy);
            return core.end_with(&reply);
        }
        let next = self.obey(core, now, line, command);
        self.last = command.label();
        self.since = now.instant;
        match next {
            Next::Reply(reply) => {
                core.send(&reply);
                Phase::Dialogue(self)
            }
            Next::Last(reply) => core.end_with(&reply),
            Next::StartTls => {
                core.send(&reply::READY_FOR_TLS);
                StartingTls::enter(core, self, now)
            }
            Next::HandOff(replay) => {
                core.conclude(Outcome::HandedOff);
                core.hand_off(replay, Some(self))
            }
        }
    }

    fn obey(&mut self, core: &mut Core, now: Now, line: &Line, command: &Command) -> Next {
        match command.verb {
            // What could be two lines to somebody else is no command to us, whatever the test says of it.
            Verb::Helo if line.flaws.within() => Next::Reply(reply::HELO_SYNTAX),
            Verb::Ehlo if line.flaws.within() => Next::Reply(reply::EHLO_SYNTAX),
            Verb::Mail if line.flaws.within() => Next::Reply(reply::MAIL_SYNTAX),
            Verb::Rcpt if line.flaws.within() => Next::Reply(reply::RCPT_SYNTAX),
            Verb::Helo | Verb::Ehlo => self.helo(core, &line.bytes, command),
            Verb::Mail => self.mail(core, &line.bytes, command),
            Verb::Rcpt => self.rcpt(core, now, &line.bytes, command),
            Verb::StartTls => self.start_tls(core, now, &line.bytes, command),
            Verb::Data | Verb::Bdat => self.data(core, command),
            Verb::Rset => {
                self.mail = None;
                Next::Reply(reply::OK)
            }
            Verb::Noop => Next::Reply(reply::OK),
            Verb::Quit => Next::Last(reply::BYE),
            Verb::Vrfy if !core.offers("VRFY") => Next::Reply(reply::VRFY_DISABLED),
            Verb::Vrfy if command.argument.is_empty() => Next::Reply(reply::VRFY_SYNTAX),
            Verb::Vrfy => turned_away(core).map_or(Next::Reply(reply::VRFY_LATER), |reply| refusing(core, reply)),
            Verb::Other | Verb::Unknown => Next::Reply(reply::UNKNOWN),
        }
    }

    fn helo(&mut self, core: &mut Core, line: &Bytes, command: &Command) -> Next {
        let extended = command.verb == Verb::Ehlo;
        if command.argument.is_empty() {
            return Next::Reply(if extended { reply::EHLO_SYNTAX } else { reply::HELO_SYNTAX });
        }
        let proto = if extended { "ESMTP" } else { "SMTP" };
        self.helo = Some(Box::new(Helo { proto, line: line.clone(), name: command.argument.clone() }));
        self.mail = None;
        core.said.helo = Some(Printable(&command.argument, LONGEST_NAME).to_string());
        core.ask_for_sibling(&command.argument);
        if !extended {
            return Next::Reply(reply::helo(&core.policy));
        }
        let features = Arc::clone(&core.features);
        let (reply, withheld) = features.reply(&core.policy, core.offers_tls());
        if !withheld.is_empty() {
            core.log(Event::KeywordsWithheld(withheld.join(", ")));
        }
        Next::Reply(reply)
    }

    fn mail(&mut self, core: &mut Core, line: &Bytes, command: &Command) -> Next {
        if self.helo.is_none() {
            return Next::Reply(reply::HELO_FIRST);
        }
        if self.mail.is_some() {
            return Next::Reply(reply::NESTED_MAIL);
        }
        let Some(from) = command.address(b"FROM") else { return Next::Reply(reply::MAIL_SYNTAX) };
        core.said.sender = Some(Printable(&from, LONGEST_NAME).to_string());
        self.mail = Some(Box::new(Mail { line: line.clone(), from }));
        Next::Reply(reply::MAIL_OK)
    }

    fn rcpt(&mut self, core: &mut Core, now: Now, line: &Bytes, command: &Command) -> Next {
        let (Some(helo), Some(mail)) = (&self.helo, &self.mail) else { return Next::Reply(reply::MAIL_FIRST) };
        let Some(to) = command.address(b"TO").filter(|to| !to.is_empty()) else {
            return Next::Reply(reply::RCPT_SYNTAX);
        };
        core.said.recipients += 1;
        if let Some(reply) = turned_away(core) {
            let (from, helo_name) = (mail.from.clone(), helo.name.clone());
            lists::tell(core);
            core.log(Event::Reject { reply: reply.text(), from, to, proto: helo.proto, helo: helo_name });
            if !core.is_refused() {
                deep::pass(core, now);
                core.conclude(Outcome::Deferred);
            }
            return refusing(core, reply);
        }
        deep::pass(core, now);
        Next::HandOff(vec![helo.line.clone(), mail.line.clone(), line.clone()])
    }

    fn start_tls(&mut self, core: &mut Core, now: Now, line: &Bytes, command: &Command) -> Next {
        if !command.argument.is_empty() {
            return Next::Reply(reply::STARTTLS_SYNTAX);
        }
        // In the tarpit the handshake would begin before our word for it is out.
        if core.slow.is_some() {
            return Next::Reply(reply::TLS_LATER);
        }
        if core.tls.is_some() {
            return Next::Reply(reply::TLS_ACTIVE);
        }
        if core.arrival.terminates_tls && core.offers_tls() {
            // As below; whoever sent something has failed the pipelining test by now.
            core.input.clear();
            return Next::StartTls;
        }
        let Some(helo) = self.helo.as_ref().filter(|_| core.offers_tls()) else {
            return Next::Reply(reply::NOT_IMPLEMENTED);
        };
        if core.is_refused() || core.vetoes() || core.is_unnamed() {
            return Next::Reply(reply::TLS_LATER);
        }
        // Plain text behind STARTTLS must never be taken for something said under TLS (CVE-2011-0411).
        core.input.clear();
        deep::pass(core, now);
        Next::HandOff(vec![helo.line.clone(), line.clone()])
    }

    /// A message without a recipient ends the session: what follows would be the message itself.
    fn data(&self, core: &mut Core, command: &Command) -> Next {
        let (name, mail_first, syntax) = match command.verb {
            Verb::Bdat => ("BDAT", reply::BDAT_MAIL_FIRST, reply::BDAT_SYNTAX),
            _ => ("DATA", reply::RCPT_FIRST, reply::DATA_SYNTAX),
        };
        core.log(Event::DataWithoutRcpt(name));
        let well_formed = command.argument.is_empty() == (command.verb == Verb::Data);
        Next::Last(match &self.mail {
            _ if !well_formed => syntax,
            Some(_) => reply::NO_RECIPIENTS,
            None => mail_first,
        })
    }
}

/// A refusal: in the tarpit it is the last word.
fn refusing(core: &Core, reply: Reply) -> Next {
    if core.slow.is_some() { Next::Last(reply) } else { Next::Reply(reply) }
}

/// What a recipient is answered when the client does not go to the MTA in this session.
fn turned_away(core: &Core) -> Option<Reply> {
    let reply = match &core.refusal {
        Some(refusal) if core.slow.is_some() => reply::dropped(refusal, &core.arrival),
        Some(refusal) => reply::refused(refusal, &core.arrival),
        None if core.defers() => reply::deferred(&core.arrival),
        None => return None,
    };
    Some(reply.softened(&core.policy))
}
