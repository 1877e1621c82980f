//! The strict SMTP conversation: the engine speaks for the MTA, runs the deep tests on every command, and hands the
//! session over at the first recipient, or at STARTTLS if that is the MTA's to carry out.
//!
//! A client that comes as far as a well-formed EHLO or HELO, MAIL and RCPT, in this order and a reply each, has passed the
//! deep tests. So has one that reaches the MTA's STARTTLS: behind it nothing can be seen any more, the MTA takes over either
//! way, and without this a sender that uses TLS would never be remembered. Where STARTTLS is ours the tests go on inside.

use std::time::Instant;

use bytes::Bytes;

use crate::clock::Now;
use crate::pass::Test;

use super::command::{Command, Verb};
use super::event::{Event, Evidence, Moment, Outcome};
use super::line::{self, Line, Taken};
use super::reply::{self, Reply};
use super::start_tls::StartingTls;
use super::{Action, Core, Input, Phase, lists};

/// The dialogue so far.
#[derive(Debug)]
pub(super) struct Dialogue {
    began: Instant,
    until: Instant,
    commands: u32,
    /// The verb before, for the log.
    last: String,
    helo: Option<Helo>,
    mail: Option<Mail>,
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
        core.send_banner();
        let until = now.instant + core.policy.command_time;
        let last = "CONNECT".to_owned();
        Self { began: now.instant, until, commands: 0, last, helo: None, mail: None }.advance(core, now)
    }

    /// Goes on after a handoff that failed.
    pub(super) fn resume(mut self, core: &mut Core, now: Now) -> Phase {
        self.until = now.instant + core.policy.command_time;
        self.advance(core, now)
    }

    /// Goes on under TLS, where nothing counts that was said before.
    pub(super) fn begin_anew(self, core: &Core, now: Now) -> Phase {
        let until = now.instant + core.policy.command_time;
        Phase::Dialogue(Self { until, helo: None, mail: None, ..self })
    }

    /// When the greeting was complete.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn deadline(&self) -> Instant {
        self.until
    }

    pub(super) fn handle(self, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
        match input {
            Input::Bytes(bytes) => {
                core.input.extend_from_slice(bytes);
                self.advance(core, now)
            }
            Input::Eof => {
                core.log(Event::Hangup(now.instant - self.began, Moment::AfterHandshake));
                core.log(Event::Disconnect);
                core.close()
            }
            Input::Tick if now.instant >= self.until => {
                core.log(Event::TimeLimit(self.last));
                let reply = reply::timeout(&core.policy);
                core.end_with(&reply)
            }
            // An answer that came after the wait still counts, as long as the client is here.
            Input::Dnsbl(report) => {
                lists::hear_late(core, report);
                Phase::Dialogue(self)
            }
            Input::Tick | Input::TlsUp(_) | Input::TlsFailed(_) | Input::HandoffFailed(_) | Input::Shutdown => {
                Phase::Dialogue(self)
            }
        }
    }

    /// Carries out every complete line of the input.
    fn advance(mut self, core: &mut Core, now: Now) -> Phase {
        loop {
            let line = match line::take(&mut core.input, core.policy.line_length) {
                Taken::Line(line) => line,
                Taken::Incomplete => return Phase::Dialogue(self),
                Taken::TooLong => {
                    core.log(Event::LengthLimit(self.last));
                    let reply = reply::limit(&core.policy);
                    return core.end_with(&reply);
                }
            };
            let command = Command::parse(&line.bytes);
            if let Some(last_words) = self.test(core, &line, &command) {
                return core.drop_with(&last_words);
            }
            self.commands += 1;
            if self.commands > core.policy.commands && command.verb != Verb::Quit {
                core.log(Event::CountLimit(self.last));
                let reply = reply::limit(&core.policy);
                return core.end_with(&reply);
            }
            let next = self.carry_out(core, now, &line.bytes, &command);
            self.last = command.name;
            self.until = now.instant + core.policy.command_time;
            match next {
                Next::Reply(reply) => core.send(&reply),
                Next::Last(reply) => return core.end_with(&reply),
                Next::StartTls => {
                    core.send(&reply::READY_FOR_TLS);
                    return StartingTls::enter(core, self, now);
                }
                Next::HandOff(replay) => {
                    core.conclude(Outcome::HandedOff);
                    return core.hand_off(replay, Some(self));
                }
            }
        }
    }

    /// Runs the deep tests on a line. Returns the refusal if the session has to end here.
    fn test(&self, core: &mut Core, line: &Line, command: &Command) -> Option<reply::Refusal> {
        if line.bare_newline && is_tested(core, Test::BareNewline) {
            core.log(Event::BareNewline(line.bytes.clone()));
            let reason = "a line did not end in CR LF, or held a bare CR or NUL".to_owned();
            let remedy = "end every line with CR LF (RFC 5321 section 2.3.8)";
            if fail(core, Test::BareNewline, &reply::PROTOCOL_ERROR, reason, remedy) == Action::Drop {
                return Some(reply::PROTOCOL_ERROR);
            }
        }
        if command.is_non_smtp(&line.bytes) && is_tested(core, Test::NonSmtpCommand) {
            core.log(Event::NonSmtpCommand(self.last.clone(), line.bytes.clone()));
            let reason = format!("sent {} as a command", command.name.escape_default());
            let remedy = "speak SMTP on this port; this looks like another protocol";
            if fail(core, Test::NonSmtpCommand, &reply::NON_SMTP, reason, remedy) == Action::Drop {
                return Some(reply::NON_SMTP);
            }
        }
        if !core.input.is_empty() && is_tested(core, Test::Pipelining) {
            core.log(Event::Pipelining(command.name.clone(), Bytes::copy_from_slice(&core.input)));
            let reason = format!("sent more behind {} before it had the reply", command.name.escape_default());
            let remedy = "wait for each reply: PIPELINING was not offered (RFC 2920)";
            if fail(core, Test::Pipelining, &reply::PROTOCOL_ERROR, reason, remedy) == Action::Drop {
                return Some(reply::PROTOCOL_ERROR);
            }
        }
        None
    }

    fn carry_out(&mut self, core: &mut Core, now: Now, line: &Bytes, command: &Command) -> Next {
        match command.verb {
            Verb::Helo | Verb::Ehlo => self.helo(core, line, command),
            Verb::Mail => self.mail(line, command),
            Verb::Rcpt => self.rcpt(core, now, line, command),
            Verb::StartTls => self.start_tls(core, now, line, command),
            Verb::Data | Verb::Bdat => self.data(core, command.verb),
            Verb::Rset => {
                self.mail = None;
                Next::Reply(reply::OK)
            }
            Verb::Noop => Next::Reply(reply::OK),
            Verb::Quit => Next::Last(reply::BYE),
            Verb::Vrfy if command.argument.is_empty() => Next::Reply(reply::VRFY_SYNTAX),
            Verb::Vrfy => Next::Reply(self.turned_away(core).unwrap_or(reply::VRFY_LATER)),
            Verb::Other | Verb::Unknown => Next::Reply(reply::UNKNOWN),
        }
    }

    /// What a recipient is answered when the client does not go to the MTA in this session.
    fn turned_away(&self, core: &Core) -> Option<Reply> {
        match &core.refusal {
            Some(refusal) => Some(reply::refused(refusal, &core.arrival)),
            None => core.defers().then(|| reply::deferred(&core.arrival)),
        }
    }

    fn helo(&mut self, core: &Core, line: &Bytes, command: &Command) -> Next {
        let extended = command.verb == Verb::Ehlo;
        if command.argument.is_empty() {
            return Next::Reply(if extended { reply::EHLO_SYNTAX } else { reply::HELO_SYNTAX });
        }
        let proto = if extended { "ESMTP" } else { "SMTP" };
        self.helo = Some(Helo { proto, line: line.clone(), name: command.argument.clone() });
        self.mail = None;
        Next::Reply(if extended {
            core.features.reply(&core.policy, core.offers_tls())
        } else {
            reply::helo(&core.policy)
        })
    }

    fn mail(&mut self, line: &Bytes, command: &Command) -> Next {
        if self.helo.is_none() {
            return Next::Reply(reply::HELO_FIRST);
        }
        if self.mail.is_some() {
            return Next::Reply(reply::NESTED_MAIL);
        }
        let Some(from) = command.address(b"FROM") else { return Next::Reply(reply::MAIL_SYNTAX) };
        self.mail = Some(Mail { line: line.clone(), from });
        Next::Reply(reply::MAIL_OK)
    }

    fn rcpt(&mut self, core: &mut Core, now: Now, line: &Bytes, command: &Command) -> Next {
        let (Some(helo), Some(mail)) = (&self.helo, &self.mail) else { return Next::Reply(reply::MAIL_FIRST) };
        let Some(to) = command.address(b"TO").filter(|to| !to.is_empty()) else {
            return Next::Reply(reply::RCPT_SYNTAX);
        };
        if let Some(reply) = self.turned_away(core) {
            let (from, helo_name) = (mail.from.clone(), helo.name.clone());
            core.log(Event::Reject { reply: reply.text(), from, to, proto: helo.proto, helo: helo_name });
            if !core.is_refused() {
                pass_deep_tests(core, now);
                core.conclude(Outcome::Deferred);
            }
            return Next::Reply(reply);
        }
        pass_deep_tests(core, now);
        Next::HandOff(vec![helo.line.clone(), mail.line.clone(), line.clone()])
    }

    fn start_tls(&mut self, core: &mut Core, now: Now, line: &Bytes, command: &Command) -> Next {
        if !command.argument.is_empty() {
            return Next::Reply(reply::STARTTLS_SYNTAX);
        }
        if core.tls.is_some() {
            return Next::Reply(reply::TLS_ACTIVE);
        }
        if core.arrival.terminates_tls {
            // As below; whoever sent something has failed the pipelining test by now.
            core.input.clear();
            return Next::StartTls;
        }
        let Some(helo) = self.helo.as_ref().filter(|_| core.offers_tls()) else {
            return Next::Reply(reply::NOT_IMPLEMENTED);
        };
        if core.is_refused() || core.vetoes() {
            return Next::Reply(reply::TLS_LATER);
        }
        // Plain text behind STARTTLS must never be taken for something said under TLS (CVE-2011-0411).
        core.input.clear();
        pass_deep_tests(core, now);
        Next::HandOff(vec![helo.line.clone(), line.clone()])
    }

    /// A message without a recipient ends the session: what follows would be the message itself.
    fn data(&self, core: &mut Core, verb: Verb) -> Next {
        let (name, mail_first) = match verb {
            Verb::Bdat => ("BDAT", reply::BDAT_MAIL_FIRST),
            _ => ("DATA", reply::RCPT_FIRST),
        };
        core.log(Event::DataWithoutRcpt(name));
        Next::Last(if self.mail.is_some() { reply::NO_RECIPIENTS } else { mail_first })
    }
}

/// Whether a deep test is to be run on the next line: once it has failed there is no more to learn.
fn is_tested(core: &Core, test: Test) -> bool {
    let tested = core.policy.deep(test).is_some_and(|deep| deep.enable) && !core.lattice.has_failed(test);
    tested && !core.welcome && !core.is_unnamed()
}

fn fail(core: &mut Core, test: Test, refusal: &reply::Refusal, reason: String, remedy: &str) -> Action {
    core.fail(test, refusal, Evidence { test, weight: 1, reason, remedy: remedy.to_owned() })
}

fn pass_deep_tests(core: &mut Core, now: Now) {
    for test in [Test::Pipelining, Test::NonSmtpCommand, Test::BareNewline] {
        if let Some(deep) = core.policy.deep(test).cloned() {
            core.lattice.pass(test, now.unix.plus(deep.ttl));
        }
    }
}
