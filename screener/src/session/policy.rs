//! What configuration asks of the engine, in the engine's own terms.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pass::{Test, TestSet};

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
    pub wait: Duration,
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
    pub deadline: Duration,
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

/// All of it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting and in replies.
    pub hostname: String,
    /// The greet wait.
    pub pregreet: PregreetPolicy,
    /// The DNS lists; `None`: there are none.
    pub dnsbl: Option<DnsblPolicy>,
    /// Commands before the reply to the one before.
    pub pipelining: DeepPolicy,
    /// HTTP, mail headers and other things that are no SMTP.
    pub non_smtp_command: DeepPolicy,
    /// Lines that do not end in CR LF.
    pub bare_newline: DeepPolicy,
    /// What follows when those three are passed.
    pub after_tests: AfterTests,
    /// How long the client may take for one complete command line.
    pub command_time: Duration,
    /// How many commands a session may hold.
    pub commands: u32,
    /// How many bytes a command line may hold, line end included.
    pub line_length: usize,
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
