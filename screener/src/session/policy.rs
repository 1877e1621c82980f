//! What configuration asks of the engine, in the engine's own terms.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::pass::{Test, TestSet};

use super::footer::Footer;
use super::forbidden::Forbidden;

/// What a failed test does (reference/postscreen.md section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Log it, let the client through, test again next time.
    Ignore,
    /// Finish the other tests, then refuse each RCPT.
    Enforce,
    /// Refuse and close at once.
    Drop,
    /// Answer slowly, while there is room for one more such client, and refuse in the end; without room: [`Self::Drop`].
    Tarpit,
}

/// A span, and what it shrinks to under stress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// While there is room.
    pub normal: Duration,
    /// Under stress.
    pub stress: Duration,
}

impl Pace {
    /// The same under stress.
    pub const fn steady(span: Duration) -> Self {
        Self { normal: span, stress: span }
    }

    /// The span that holds now.
    pub fn at(self, stressed: bool) -> Duration {
        if stressed { self.stress } else { self.normal }
    }

    /// Whether it is never anything but zero.
    pub fn is_zero(self) -> bool {
        self.normal.is_zero()
    }
}

/// What follows when the tests after the greeting are passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterTests {
    /// The session goes on, with the MTA.
    Relay,
    /// postscreen's way: 450, the client is welcome next time. On an address where no pass can be earned a client
    /// without one is always deferred: with a second MX address for the others that is the backup-MX trick.
    Defer,
}

/// The test for clients that speak before the greeting.
#[derive(Clone, Debug)]
pub struct PregreetPolicy {
    /// What failing does.
    pub action: Action,
    /// How long the client must be silent; zero: the test is off.
    pub wait: Pace,
    /// What one clean EHLO before the greeting adds to the score of the DNS lists, for a client that may have learned from
    /// the MTA that it may do so.
    pub pipeconnect_weight: i32,
    /// How long a pass lasts.
    pub ttl: Duration,
}

/// The test against DNS lists.
#[derive(Clone, Debug)]
pub struct DnsblPolicy {
    /// What failing does.
    pub action: Action,
    /// A score of this much or more fails.
    pub threshold: i32,
    /// A score of this much or less passes every other test that is still to be done; `None`: no such score.
    pub allow_threshold: Option<i32>,
    /// How long answers are waited for.
    pub deadline: Pace,
    /// The shortest time a verdict is kept.
    pub min_ttl: Duration,
    /// The longest time a verdict is kept.
    pub max_ttl: Duration,
}

/// One of the tests after the greeting.
#[derive(Clone, Debug)]
pub struct DeepPolicy {
    /// Whether the test is done at all.
    pub enable: bool,
    /// What failing does.
    pub action: Action,
    /// How long a pass lasts.
    pub ttl: Duration,
}

/// How replies are worded.
#[derive(Clone, Debug)]
pub struct Replies {
    /// What the greeting says behind the name; may be empty.
    pub banner: String,
    /// What stands behind a refusal.
    pub footer: Footer,
    /// The time zone of the footer's `$localtime`.
    pub zone: TimeZone,
    /// EHLO keywords that are not offered, in upper case, beside those that never are.
    pub withheld: Vec<String>,
    /// A trial: every permanent refusal becomes a temporary one.
    pub soft_bounce: bool,
}

impl Replies {
    /// Without any wishes of an operator's.
    #[cfg(any(test, fuzzing))]
    pub(super) fn plain() -> Self {
        Self {
            banner: "ESMTP".to_owned(),
            footer: Footer::default(),
            zone: TimeZone::UTC,
            withheld: Vec::new(),
            soft_bounce: false,
        }
    }

    /// Whether the operator does not want this EHLO keyword to be offered.
    pub(super) fn withholds(&self, keyword: &str) -> bool {
        self.withheld.iter().any(|name| name.eq_ignore_ascii_case(keyword))
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting and in replies.
    pub hostname: String,
    /// How replies are worded.
    pub replies: Replies,
    /// The greet wait.
    pub pregreet: PregreetPolicy,
    /// The DNS lists; `None`: there are none.
    pub dnsbl: Option<DnsblPolicy>,
    /// Commands before the reply to the one before.
    pub pipelining: DeepPolicy,
    /// HTTP, mail headers and other things that are no SMTP.
    pub non_smtp_command: DeepPolicy,
    /// The first words of commands that are no SMTP.
    pub forbidden: Forbidden,
    /// Lines that do not end in CR LF.
    pub bare_newline: DeepPolicy,
    /// What follows when those three are passed.
    pub after_tests: AfterTests,
    /// How long a recipient that would be deferred waits to hear of the client's other address; `None`: nobody is asked.
    pub link: Option<Duration>,
    /// How long the client may take for one complete command line, however it trickles in.
    pub command_time: Pace,
    /// How long a session may last until it is handed over.
    pub session_time: Duration,
    /// How many commands a session may hold.
    pub commands: u32,
    /// How many bytes a command line may hold, line end included.
    pub line_length: usize,
    /// How many bytes a client may send before the greeting is complete, or while it is answered slowly.
    pub early_input: usize,
    /// In the tarpit: a byte this often.
    pub tarpit_pace: Duration,
}

impl Policy {
    /// The tests that are done.
    pub fn enabled(&self) -> TestSet {
        let mut tests = TestSet::EMPTY;
        if !self.pregreet.wait.is_zero() {
            tests.insert(Test::Pregreet);
        }
        if self.dnsbl.is_some() {
            tests.insert(Test::Dnsbl);
        }
        for test in [Test::Pipelining, Test::NonSmtpCommand, Test::BareNewline] {
            if self.deep(test).is_some_and(|deep| deep.enable) {
                tests.insert(test);
            }
        }
        tests
    }

    /// What failing a test does.
    pub fn action(&self, test: Test) -> Action {
        match test {
            Test::Pregreet => self.pregreet.action,
            Test::Dnsbl => self.dnsbl.as_ref().map_or(Action::Ignore, |dnsbl| dnsbl.action),
            Test::Pipelining => self.pipelining.action,
            Test::NonSmtpCommand => self.non_smtp_command.action,
            Test::BareNewline => self.bare_newline.action,
        }
    }

    /// The settings of a test after the greeting.
    pub fn deep(&self, test: Test) -> Option<&DeepPolicy> {
        match test {
            Test::Pregreet | Test::Dnsbl => None,
            Test::Pipelining => Some(&self.pipelining),
            Test::NonSmtpCommand => Some(&self.non_smtp_command),
            Test::BareNewline => Some(&self.bare_newline),
        }
    }
}
