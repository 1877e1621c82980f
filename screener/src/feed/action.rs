//! What a static entry does with a client.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a deny entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyAction {
    /// No answer to a SYN.
    Drop,
    /// A RST, so that an honest sender fails at once.
    Reject,
    /// Let in, to the listener of the tagged class.
    Tag,
    /// Dry run: counted and let in as if the entry were not there.
    Count,
}

impl DenyAction {
    /// The name in configuration, commands and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Tag => "tag",
            Self::Count => "count",
        }
    }
}

impl fmt::Display for DenyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The word is no deny action.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is no deny action: use drop, reject, tag or count")]
pub struct BadAction(String);

impl FromStr for DenyAction {
    type Err = BadAction;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Drop, Self::Reject, Self::Tag, Self::Count]
            .into_iter()
            .find(|action| action.name() == word)
            .ok_or_else(|| BadAction(word.to_owned()))
    }
}

/// What a static entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StaticAction {
    /// Never screened; beats every deny.
    Permit,
    /// Denied, in the way given.
    Deny(DenyAction),
}
