//! Where a static entry comes from.
//!
//! Holds the origins and their order. Never the entries.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Where an entry comes from, in the order of precedence between the entries on one prefix that permit, or that deny: a
/// command beats the configuration, both beat a feed; between feeds the harder action decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A command (`permit add`, `deny add`).
    Cli,
    /// `[[permit]]` or `[[deny]]`.
    Config,
    /// An address of this host.
    OwnAddress,
    /// `listen.own_networks`.
    OwnNetwork,
    /// The feed of this name.
    Feed(Arc<str>),
}

impl Source {
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Cli => 0,
            Self::Config => 1,
            Self::OwnAddress => 2,
            Self::OwnNetwork => 3,
            Self::Feed(_) => 4,
        }
    }
}

/// As in lists and JSON: `cli`, `config`, `own_address`, `own_network`, `feed:NAME`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cli => f.write_str("cli"),
            Self::Config => f.write_str("config"),
            Self::OwnAddress => f.write_str("own_address"),
            Self::OwnNetwork => f.write_str("own_network"),
            Self::Feed(name) => write!(f, "feed:{name}"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
