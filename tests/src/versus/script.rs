//! The words of a transcript: what a client does, step by step.
//!
//! Holds data only. A script never says what is to be heard: that is what the two sides are compared by.

use crate::net::Family;

use super::setting::Setting;

/// One thing that a client does.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Reads the whole greeting.
    Greeting,
    /// Reads one line, such as the first of a greeting that is not finished.
    Line,
    /// Sends a line, and reads the reply.
    Ask(&'static str),
    /// Sends bytes as they are, in one write, and reads the reply.
    AskRaw(&'static [u8]),
    /// Sends a line as often as this, and reads each reply.
    AskTimes(usize, &'static str),
    /// Sends bytes as they are, in one write, and reads nothing.
    Send(&'static [u8]),
    /// Sends this byte as often as that, and reads nothing.
    SendTimes(usize, u8),
    /// Reads a reply.
    Reply,
    /// Reads until the server closes the connection.
    End,
    /// Waits until the server has logged a line about this connection that holds this text.
    Logged(&'static str),
    /// Says that nothing more will come, and stays to read.
    HalfClose,
    /// Closes the connection; the one that was opened before it is the current one again.
    Close,
    /// Goes with a RST.
    Reset,
    /// Connects again from the same address. The connection before stays open, if the server has not closed it.
    Connect,
    /// Connects from the script's next address.
    ConnectAsNext,
}

/// Who the client is to both servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// Nobody that anyone has heard of.
    Stranger,
    /// On the block list that weighs 3: at the threshold.
    Listed,
    /// On the block lists that weigh 3 and 1.
    ListedTwice,
    /// On the block list that weighs 1: below the threshold.
    Suspect,
    /// On the allow list that weighs -3.
    Praised,
    /// On the allow lists that weigh -3 and -2.
    PraisedTwice,
    /// On the block list that weighs 3 and on the allow list that weighs -3.
    Disputed,
    /// On the static list, permitted.
    Permitted,
    /// On the static list, denied.
    Denied,
}

impl Who {
    /// Everybody.
    pub const ALL: [Self; 9] = [
        Self::Stranger,
        Self::Listed,
        Self::ListedTwice,
        Self::Suspect,
        Self::Praised,
        Self::PraisedTwice,
        Self::Disputed,
        Self::Permitted,
        Self::Denied,
    ];
}

/// Which of a server's addresses the client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The one where a pass can be earned.
    Primary,
    /// The one where none can: a backup MX.
    Backup,
}

/// A transcript, to be played under some settings.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Its name; with the setting's it is unique.
    pub name: &'static str,
    /// Under which settings it is played.
    pub under: &'static [Setting],
    /// Who plays it.
    pub who: Who,
    /// Over which family.
    pub family: Family,
    /// To which address.
    pub door: Door,
    /// What is done, part by part: parts are what scripts have in common.
    pub parts: &'static [&'static [Step]],
}

impl Script {
    /// A stranger's transcript over IPv4.
    #[must_use]
    pub const fn new(name: &'static str, under: &'static [Setting], parts: &'static [&'static [Step]]) -> Self {
        Self { name, under, who: Who::Stranger, family: Family::V4, door: Door::Primary, parts }
    }

    /// The same by somebody else.
    #[must_use]
    pub const fn by(self, who: Who) -> Self {
        Self { who, ..self }
    }

    /// The same over IPv6.
    #[must_use]
    pub const fn over_ipv6(self) -> Self {
        Self { family: Family::V6, ..self }
    }

    /// The same to the backup MX.
    #[must_use]
    pub const fn to_backup(self) -> Self {
        Self { door: Door::Backup, ..self }
    }

    /// Every step.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        self.parts.iter().flat_map(|part| part.iter().copied())
    }

    /// How many addresses it speaks from.
    #[must_use]
    pub fn addresses(&self) -> usize {
        1 + self.steps().filter(|step| matches!(step, Step::ConnectAsNext)).count()
    }
}
