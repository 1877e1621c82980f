//! The shadow model: what must hold of a session, whatever happens, judged from what went in and came out alone.
//!
//! Knows none of the engine's states. It reads the client's bytes again, more crudely and on the safe side: what it calls
//! dirty is dirty.

use std::time::Instant;

use super::world::START;
use crate::pass::{Stamps, Test};
use crate::session::{
    Action, AfterTests, Arrival, DnsblReport, Event, Handoff, Input, Outcome, Output, Policy, Standing,
};

/// Replies after which there is nothing but the end.
const FINAL: [&str; 3] = ["221", "421", "521"];
/// The longest reply line, its end included (RFC 5321 section 4.5.3.1.5).
const LONGEST_LINE: usize = 512;

/// What has been seen.
#[derive(Debug)]
pub(super) struct Shadow {
    policy: Policy,
    arrival: Arrival,
    /// What the client said in this layer: since the beginning, or since TLS.
    heard: Vec<u8>,
    /// How much of that was said before the greeting was complete.
    early: usize,
    /// Everything that was sent, and how much of it was looked at.
    wire: Vec<u8>,
    looked_at: usize,
    greeted: bool,
    /// The engine has said so.
    told_greeted: bool,
    unfinished: Option<String>,
    ended: Option<String>,
    /// Something was sent that the client may not have.
    undelivered: bool,
    /// The client sent something before it had the reply.
    ahead: bool,
    /// Complete lines of the client, and replies to them; how many of these in layers before.
    lines: usize,
    replies: usize,
    replies_before: usize,
    /// The client has closed the connection, or broken the handshake off.
    has_left: bool,
    last_report: Option<DnsblReport>,
    soft_hello: bool,
    failed: Vec<Test>,
    pub(super) granted: Option<Stamps>,
    pub(super) withdrawn: bool,
    pub(super) decided: Option<Outcome>,
    pub(super) handed_off: bool,
    pub(super) closed: bool,
    pub(super) tarpitted: bool,
    pub(super) under_tls: bool,
}

impl Shadow {
    pub(super) fn new(policy: &Policy, arrival: &Arrival) -> Self {
        Self {
            policy: policy.clone(),
            arrival: arrival.clone(),
            heard: Vec::new(),
            early: 0,
            wire: Vec::new(),
            looked_at: 0,
            greeted: false,
            told_greeted: false,
            unfinished: None,
            ended: None,
            undelivered: false,
            ahead: false,
            lines: 0,
            replies: 0,
            replies_before: 0,
            has_left: false,
            last_report: None,
            soft_hello: false,
            failed: Vec::new(),
            granted: None,
            withdrawn: false,
            decided: None,
            handed_off: false,
            closed: false,
            tarpitted: false,
            under_tls: false,
        }
    }

    pub(super) fn goes_in(&mut self, input: &Input<'_>) {
        match input {
            Input::Bytes(bytes) => {
                let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
                self.ahead |= self.greeted && self.undelivered;
                // More than one line at a time, or a line and the beginning of the next.
                self.ahead |= lines > 1 || (lines == 1 && bytes.last() != Some(&b'\n'));
                self.heard.extend_from_slice(bytes);
                self.lines += lines;
                if !self.greeted {
                    self.early = self.heard.len();
                }
            }
            Input::Eof | Input::TlsFailed(_) => self.has_left = true,
            Input::Delivered => self.undelivered = false,
            Input::Dnsbl(report) => self.last_report = Some(report.clone()),
            Input::TlsUp(_) => {
                self.heard.clear();
                self.replies_before = self.replies;
                self.under_tls = true;
                self.undelivered = false;
            }
            _ => {}
        }
    }

    pub(super) fn comes_out(&mut self, output: &Output) {
        assert!(!self.closed, "{output:?} after the close");
        match output {
            Output::Send(bytes) => {
                assert!(!self.handed_off, "words of ours after the handoff");
                self.undelivered = true;
                self.wire.extend_from_slice(bytes);
                self.read_replies();
            }
            Output::Grant(stamps) => {
                assert!(self.granted.is_none(), "two passes");
                self.judge_grant(stamps);
                self.granted = Some(*stamps);
            }
            Output::Greeted => assert!(!std::mem::replace(&mut self.told_greeted, true), "greeted twice"),
            Output::Withdraw(_) => self.withdrawn = true,
            Output::Log(event) => self.note(event),
            Output::Decided(decision) => {
                assert!(self.decided.is_none(), "two decisions");
                self.decided = Some(decision.outcome);
            }
            Output::Handoff(handoff) => {
                self.judge_handoff(handoff);
                self.handed_off = true;
            }
            Output::Close => self.closed = true,
            Output::AskDnsbl | Output::AskTarpit | Output::AskSibling(_) | Output::StartTls => {}
        }
    }

    /// A handoff that failed gives the session back.
    pub(super) fn handed_back(&mut self) {
        self.handed_off = false;
    }

    fn note(&mut self, event: &Event) {
        let test = match event {
            Event::Pregreet(..) => Test::Pregreet,
            Event::DnsblRank(_) => Test::Dnsbl,
            Event::Pipelining(..) => Test::Pipelining,
            Event::NonSmtpCommand(..) => Test::NonSmtpCommand,
            Event::BareNewline(_) => Test::BareNewline,
            Event::EarlyHello(..) => return self.soft_hello = true,
            Event::Tarpit => return self.tarpitted = true,
            _ => return,
        };
        assert!(!self.failed.contains(&test), "{test} failed twice: once is final");
        self.failed.push(test);
    }

    /// Every complete line that was sent.
    fn read_replies(&mut self) {
        while let Some(end) = self.wire[self.looked_at..].iter().position(|&byte| byte == b'\n') {
            let line = &self.wire[self.looked_at..=self.looked_at + end];
            self.looked_at += end + 1;
            let text = std::str::from_utf8(line).expect("replies are text");
            let line = text.strip_suffix("\r\n").unwrap_or_else(|| panic!("{text:?} does not end in CR LF"));
            assert!(text.len() <= LONGEST_LINE, "{text:?} is too long");
            let (code, rest) = line.split_at_checked(3).unwrap_or_else(|| panic!("{line:?} is no reply"));
            assert!(code.bytes().all(|byte| byte.is_ascii_digit()) && "2345".contains(&code[..1]), "{line:?}");
            assert!(rest.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{line:?}");
            if let Some(before) = &self.unfinished {
                assert_eq!(before, code, "a reply that was begun goes on with another code");
            }
            assert!(self.ended.is_none(), "{line:?} after the final {:?}", self.ended);
            self.unfinished = rest.starts_with('-').then(|| code.to_owned());
            if self.unfinished.is_some() {
                continue;
            }
            if !self.greeted && code == "220" {
                self.greeted = true;
                continue;
            }
            self.replies += 1;
            if FINAL.contains(&code) {
                self.ended = Some(line.to_owned());
            }
        }
        // A limit or the end of the daemon may be said unasked, once.
        assert!(self.replies <= self.lines + 1, "{} replies to {} lines", self.replies, self.lines);
    }

    fn action(&self, test: Test) -> Action {
        self.policy.action(test)
    }

    /// Whether the lists excuse the client from every other test.
    fn is_allowed(&self) -> bool {
        let allow = self.policy.dnsbl.as_ref().and_then(|dnsbl| dnsbl.allow_threshold);
        allow.is_some_and(|allow| self.last_report.as_ref().is_some_and(|report| report.score <= allow))
    }

    /// Whether the client has shown this flaw, by a look at its bytes that knows nothing of phases.
    fn is_dirty(&self, test: Test) -> bool {
        let flawed = || {
            let mut before = 0;
            self.carried_out().iter().any(|&byte| {
                let odd = byte == 0 || (byte == b'\n' && before != b'\r') || (before == b'\r' && byte != b'\n');
                before = byte;
                odd
            })
        };
        match test {
            Test::Pregreet => self.early > 0 && !self.soft_hello,
            Test::Dnsbl => {
                let threshold = self.policy.dnsbl.as_ref().map_or(i32::MAX, |dnsbl| dnsbl.threshold);
                self.last_report.as_ref().is_some_and(|report| report.without_best_ally >= threshold && report.complete)
            }
            Test::Pipelining => self.ahead,
            Test::NonSmtpCommand => self.carried_out().windows(4).any(|bytes| bytes == b"GET "),
            Test::BareNewline => flawed(),
        }
    }

    /// What the client said as far as it has been answered, and the one line that is being carried out.
    fn carried_out(&self) -> &[u8] {
        let lines = self.replies - self.replies_before + 1;
        let ends = self.heard.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        &self.heard[..ends.take(lines).last().unwrap_or_default()]
    }

    fn judge_grant(&self, stamps: &Stamps) {
        let arrival = &self.arrival;
        assert_eq!(arrival.standing, Standing::Screened, "a pass for a client that was not screened");
        assert!(arrival.may_pass && !arrival.tagged, "a pass where none can be earned");
        let defers = self.policy.after_tests == AfterTests::Defer;
        for &test in &self.failed {
            assert_eq!(self.action(test), Action::Ignore, "a pass after {test} has failed");
            assert!(defers, "a pass after {test} has failed and was ignored");
        }
        let known = arrival.stamps.unwrap_or_default();
        for test in self.policy.enabled().iter() {
            let due = known.get(test).is_none_or(|until| until <= START);
            match stamps.get(test) {
                Some(until) => {
                    // Under `defer` an ignored failure counts for a minute, so that who comes again gets in.
                    let short = defers
                        && until <= START.plus(self.policy.session_time).plus(std::time::Duration::from_secs(60));
                    let clean = !self.is_dirty(test) || self.is_allowed() || short;
                    assert!(clean, "{test} is remembered as passed, and was not");
                }
                None => assert!(!due || defers, "a pass without {test}, which was due"),
            }
        }
    }

    fn judge_handoff(&self, handoff: &Handoff) {
        assert!(self.ended.is_none(), "a handoff after the final {:?}", self.ended);
        for &test in &self.failed {
            assert_eq!(self.action(test), Action::Ignore, "handed off after {test} has failed");
        }
        assert!(!self.tarpitted, "handed off out of the tarpit");
        let standing = self.arrival.standing;
        assert!(matches!(standing, Standing::Permitted | Standing::Screened), "{standing:?} was handed off");
        let Some(last) = handoff.replay.last() else {
            assert!(!self.greeted, "the MTA's greeting cannot be the client's any more");
            return;
        };
        for line in &handoff.replay {
            assert!(!line.iter().any(|&byte| b"\r\n\0".contains(&byte)), "{line:?} is more than a line to somebody");
            assert!(has_line(&self.heard, line), "{line:?} was never said");
        }
        if last.to_ascii_uppercase().starts_with(b"STARTTLS") {
            assert!(handoff.pending.is_empty(), "plain text behind STARTTLS is taken for what was said under TLS");
        } else {
            let said = self.heard.strip_suffix(&handoff.pending[..]).expect("what is pending was said last");
            let said = said.strip_suffix(b"\n").expect("a line ends before it");
            let said = said.strip_suffix(b"\r").unwrap_or(said);
            assert!(said.ends_with(last), "{last:?} is not the last line before what is pending");
        }
    }

    /// What must hold between inputs.
    pub(super) fn between(&self, deadline: Option<Instant>, began: Instant, held: usize) {
        if let Some(deadline) = deadline {
            assert!(deadline <= began + self.policy.session_time, "a deadline behind the session's end");
        }
        // A read of the driver's, and what the engine is allowed to keep.
        let most = self.policy.early_input.max(self.policy.line_length) + super::LONGEST_READ;
        assert!(held <= most, "{held} bytes are held");
    }

    /// What must hold at the end.
    pub(super) fn at_the_end(&self) {
        assert!(self.closed || self.handed_off, "a session without an end");
        if !matches!(self.arrival.standing, Standing::Unnamed { .. }) {
            assert!(self.decided.is_some(), "a session without a decision");
        }
        assert!(self.unfinished.is_none() || self.has_left || self.handed_off, "a reply was begun and never finished");
    }
}

/// Whether a line stands in what was said, from its beginning to its end.
fn has_line(said: &[u8], line: &[u8]) -> bool {
    said.split(|&byte| byte == b'\n').any(|one| one.strip_suffix(b"\r").unwrap_or(one) == line)
}
