//! The deep tests: what a client does wrong in the dialogue, line by line, on the bytes as they were sent.
//!
//! Each test says what it saw and what the client's postmaster can do; what follows is the policy's.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Now;
use crate::pass::Test;

use super::Action;
use super::command::{Command, Verb};
use super::event::{Event, Evidence};
use super::line::Line;
use super::reply::{self, Refusal};
use super::state::Core;

/// What becomes of the session after the tests on a line.
pub(super) enum Verdict {
    /// It goes on, whether or not a test has failed.
    GoOn,
    /// It ends.
    Drop(Refusal),
    /// It ends slowly.
    Tarpit(Refusal),
}

impl Verdict {
    fn of(action: Action, refusal: Refusal) -> Self {
        match action {
            Action::Ignore | Action::Enforce => Self::GoOn,
            Action::Drop => Self::Drop(refusal),
            Action::Tarpit => Self::Tarpit(refusal),
        }
    }

    /// This one, or the next if this lets the session go on.
    fn or(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::GoOn => next(),
            over => over,
        }
    }
}

/// Tests a command as it was sent; `before` is the verb before it, for the log.
pub(super) fn test(core: &mut Core, before: &str, line: &Line, command: &Command) -> Verdict {
    bare_newline(core, line).or(|| non_smtp_command(core, before, line, command)).or(|| {
        // What stands behind BDAT is its data (RFC 3030 section 2); it ends the session anyway.
        let ahead = !core.input.is_empty() && command.verb != Verb::Bdat;
        if ahead { sent_ahead(core, &command.name) } else { Verdict::GoOn }
    })
}

fn bare_newline(core: &mut Core, line: &Line) -> Verdict {
    if !line.flaws.any() || !is_tested(core, Test::BareNewline) {
        return Verdict::GoOn;
    }
    core.log(Event::BareNewline(line.bytes.clone()));
    let reason = format!("sent {} in a command line", line.flaws);
    let remedy = "end every line with CR LF, and use neither anywhere else (RFC 5321 section 2.3.8)";
    fail(core, Test::BareNewline, &reply::PROTOCOL_ERROR, reason, remedy)
}

fn non_smtp_command(core: &mut Core, before: &str, line: &Line, command: &Command) -> Verdict {
    let policy = Arc::clone(&core.policy);
    let found = command.non_smtp(line, &policy.forbidden);
    let Some(why) = found.filter(|_| is_tested(core, Test::NonSmtpCommand)) else { return Verdict::GoOn };
    core.log(Event::NonSmtpCommand(before.to_owned(), line.bytes.clone()));
    let reason = format!("sent {} as a command: {why}", command.name.escape_default());
    let remedy = "speak SMTP on this port; this looks like another protocol";
    fail(core, Test::NonSmtpCommand, &reply::NON_SMTP, reason, remedy)
}

/// The client has sent more than one command at a time: what stands in the input came before the reply to `behind`.
pub(super) fn sent_ahead(core: &mut Core, behind: &str) -> Verdict {
    if !is_tested(core, Test::Pipelining) {
        return Verdict::GoOn;
    }
    core.log(Event::Pipelining(behind.to_owned(), Bytes::copy_from_slice(&core.input)));
    let reason = format!("sent more behind {} before it had the reply", behind.escape_default());
    let remedy = "wait for each reply: PIPELINING was not offered (RFC 2920)";
    fail(core, Test::Pipelining, &reply::PROTOCOL_ERROR, reason, remedy)
}

/// The client has gone through the dialogue.
pub(super) fn pass(core: &mut Core, now: Now) {
    for test in [Test::Pipelining, Test::NonSmtpCommand, Test::BareNewline] {
        if let Some(ttl) = core.policy.deep(test).map(|deep| deep.ttl) {
            core.lattice.pass(test, now.unix.plus(ttl));
        }
    }
}

/// Whether a deep test is to be run on the next line: once it has failed there is no more to learn.
fn is_tested(core: &Core, test: Test) -> bool {
    let tested = core.policy.deep(test).is_some_and(|deep| deep.enable) && !core.lattice.has_failed(test);
    tested && !core.welcome && !core.is_unnamed()
}

fn fail(core: &mut Core, test: Test, refusal: &Refusal, reason: String, remedy: &str) -> Verdict {
    let evidence = Evidence { test, weight: 1, reason, remedy: remedy.to_owned() };
    Verdict::of(core.fail(test, refusal, evidence), refusal.clone())
}
