//! What counts as an offence, and how much.
//!
//! Holds the weights and their reasons. Only what a client did in a connection that really stood counts: the address of a
//! SYN can be forged, that of a session cannot. Not held against anybody: hanging up (health checks, scanners that ask nothing),
//! a time limit (a path that loses large packets looks like that), a failed TLS handshake (old senders come again
//! without), too many connections at a time, and whatever is answered 4xx.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pass::Test;

/// Why a client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offence {
    /// It failed a test whose action is not to ignore that.
    Failed(Test),
    /// It sent more commands, or longer ones, than a session may hold.
    Exceeded,
    /// Of a prefix: it is full of offenders.
    Density,
    /// Something that a later version counts.
    #[serde(other)]
    Other,
}

impl Offence {
    /// The most that one offence weighs.
    pub const HEAVIEST: u32 = 3;

    /// How many points it is worth. A session is worth its heaviest offence.
    pub fn weight(self) -> u32 {
        match self {
            // Another protocol, or an open proxy that is made to speak: no mail server by any reading.
            Self::Failed(Test::NonSmtpCommand) => Self::HEAVIEST,
            // Manners that mail servers have and bots have not. Some appliances do not have them either, but those come rarely.
            Self::Failed(Test::Pregreet | Test::Pipelining | Test::BareNewline) => 2,
            // What others say of it, and perhaps not for long. It hears why, and may be a real server with mail in its queue.
            Self::Failed(Test::Dnsbl) | Self::Exceeded | Self::Other => 1,
            Self::Density => 0,
        }
    }

    /// The heaviest of what a session showed.
    pub fn heaviest(failed: impl IntoIterator<Item = Test>, exceeded: bool) -> Option<Self> {
        let failed = failed.into_iter().map(Self::Failed);
        failed.chain(exceeded.then_some(Self::Exceeded)).max_by_key(|offence| offence.weight())
    }

    /// The name in commands, JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed(test) => test.name(),
            Self::Exceeded => "command_limit",
            Self::Density => "density",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
