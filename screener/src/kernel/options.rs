//! What the daemon asks of the kernel half.
//!
//! Holds values only. Never reads configuration: `config/` makes these.

use std::fmt;
use std::path::{Path, PathBuf};

use screener_ebpf as abi;
use serde::{Deserialize, Serialize};

use crate::client::Ipv6KeyLength;
use crate::rate::SynRate;

/// The default pin directory.
pub const DEFAULT_PIN: &str = "/sys/fs/bpf/screener";

/// How `screen` may be attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpPolicy {
    /// In the driver if it can, else in the stack: slower, and reported.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the stack: works on every interface.
    Generic,
    /// Not at all.
    Off,
}

/// What to load and where to put it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interfaces for `screen`.
    pub interfaces: Vec<String>,
    /// How `screen` may be attached.
    pub xdp: XdpPolicy,
    /// Interfaces that do not exist yet may come: no error, as long as somebody calls
    /// [`Kernel::tend`](super::Kernel::tend) when they do.
    pub follow: bool,
    /// Whether to attach `steer` to this process's network namespace.
    pub steer: bool,
    /// The screened ports, at most [`abi::MAX_PORTS`].
    pub ports: Vec<u16>,
    /// The pin directory, on a bpffs.
    pub pin: PathBuf,
    /// How much of an IPv6 address tells one client from another.
    pub key_length: Ipv6KeyLength,
    /// One of this many findings becomes an event; 1: each, 0: none. [`Kernel::adapt_sampling`](super::Kernel) changes it.
    pub event_sample: u32,
    /// The ceiling of new connections of one client; `None`: none.
    pub syn_rate: Option<SynRate>,
}

impl Options {
    /// The same, for interfaces that may come later.
    #[must_use]
    pub fn following(self) -> Self {
        Self { follow: true, ..self }
    }
}

impl Default for Options {
    /// Port 25 steered, no interface, every finding an event.
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            xdp: XdpPolicy::default(),
            follow: false,
            steer: true,
            ports: vec![25],
            pin: Path::new(DEFAULT_PIN).to_owned(),
            key_length: Ipv6KeyLength::default(),
            event_sample: 1,
            syn_rate: None,
        }
    }
}

/// Which of the daemon's listeners a connection came to: the listener is the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// An unknown client.
    Plain,
    /// A client under a deny entry with the action `tag`.
    Tagged,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Tagged];

    /// The name in configuration, logs and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tagged => "tagged",
        }
    }

    pub(super) fn to_abi(self) -> abi::Class {
        match self {
            Self::Plain => abi::Class::Plain,
            Self::Tagged => abi::Class::Tagged,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The family of a listener. A dual-stack listener goes into both slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Takes IPv4 connections.
    V4,
    /// Takes IPv6 connections.
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn to_abi(self) -> abi::Family {
        match self {
            Self::V4 => abi::Family::Ipv4,
            Self::V6 => abi::Family::Ipv6,
        }
    }
}
