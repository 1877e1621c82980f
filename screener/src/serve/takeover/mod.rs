//! A new daemon takes the place of the one that runs, and no connection is refused.
//!
//! The new one first does everything that can fail and needs nobody's place: it reads its configuration, has the kernel verify
//! its programs, judges its static entries. Then it asks (`POST /v1/takeover`), and the two talk over a socket of their own:
//!
//! | old | new |
//! |---|---|
//! | who I am | |
//! | | go on |
//! | stops accepting, closes the ledger's file; gives listening sockets, control socket, locks | |
//! | | opens ledger and kernel, takes the attachments over, accepts: I stand |
//! | leaves: from now on tells what its sessions earn, until they have ended | takes that into its ledger |
//!
//! The sockets are never closed, so whoever connects meanwhile waits in their queues. Until the new one says that it stands the
//! old one keeps a copy of everything: if the new one breaks, or does not stand in time and is ended, it opens its file again and goes on.
//!
//! Holds the words of this talk; `take` is the new one's side, `give` the old one's; `upgrade` has the old one start the new one.

pub(super) mod give;
mod process;
pub(super) mod take;
pub(super) mod upgrade;

use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::descriptors;
use crate::kernel::{Class, Family};
use crate::ledger::Said;

use super::sockets::Door;

/// Changes whenever the words below do.
const PROTOCOL: u32 = 1;

/// How long one waits for a word of the other that takes no time.
const ANSWER: Duration = Duration::from_secs(15);
/// How long the new one may take to stand: it reads a ledger of perhaps millions, and fills the kernel's maps.
const STAND: Duration = Duration::from_secs(120);

/// Where the new one waits for the old one: beside the control socket, in a directory where only root makes files.
fn meeting(socket: &Path) -> PathBuf {
    socket.with_added_extension("heir")
}

/// The old one's first word.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Offer {
    protocol: u32,
    version: String,
    pid: u32,
}

/// What the new one says to it, and later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Give.
    Go,
    /// I stand.
    Standing,
}

/// What is given. The descriptors come in the order of the fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Given {
    /// The lock of the pin directory is among them. (The control socket and its lock always are, before it.)
    kernel: bool,
    /// The socket of the metrics is among them.
    metrics: bool,
    /// The front sockets are those of a socket unit.
    fixed: bool,
    /// The listening sockets.
    doors: Vec<GivenDoor>,
}

/// [`Door`] on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GivenDoor {
    Front,
    Steer { class: Class, ipv6: bool },
}

impl From<Door> for GivenDoor {
    fn from(door: Door) -> Self {
        match door {
            Door::Front => Self::Front,
            Door::Steer(class, family) => Self::Steer { class, ipv6: family == Family::V6 },
        }
    }
}

impl From<GivenDoor> for Door {
    fn from(door: GivenDoor) -> Self {
        match door {
            GivenDoor::Front => Self::Front,
            GivenDoor::Steer { class, ipv6 } => Self::Steer(class, if ipv6 { Family::V6 } else { Family::V4 }),
        }
    }
}

/// What the old one gives, or why it does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Given(Given),
    Cannot(String),
}

/// What the old one still has to say while its sessions go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rest {
    /// Its ledger was told this.
    Said(Said),
    /// So many sessions are left.
    Sessions(usize),
}

fn say(stream: &UnixStream, word: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    descriptors::send(stream, &serde_json::to_string(word)?, descriptors)
}

/// The next word; an end is an error.
fn hear<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let (line, descriptors) = descriptors::receive(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((serde_json::from_str(&line)?, descriptors))
}
