//! What goes over the control socket about one client: what is known of it, and the erasing of that. Times are RFC 3339, UTC.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::api::Static;
use super::api_pass::Pass;
use super::api_pool::Membership;
use crate::feed::DenyAction;

/// `GET /v1/explain/{address}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The client that the address belongs to: the first address of its key.
    pub client: String,
    /// All addresses of the key: what holds for one of them holds for all.
    pub network: IpNet,
    /// Whether the client is on the list: it reaches the MTA without being screened.
    pub on_list: bool,
    /// What would happen now: `permit`, `deny`, `pass` or `screen`.
    pub verdict: String,
    /// The deny entry's action.
    pub action: Option<DenyAction>,
    /// Whether it is on the list, why, and since when.
    pub answer: String,
    /// What will happen when it comes again.
    pub next: String,
    /// Both, and what it did last: the answer for a person in one piece.
    pub summary: String,
    /// The static entry that decides.
    #[serde(rename = "static")]
    pub entry: Option<Static>,
    /// Its pass.
    pub pass: Option<Pass>,
    /// The pool of senders that it belongs to.
    #[serde(default)]
    pub pool: Option<Membership>,
    /// With which other address it was linked last, and by what.
    #[serde(default)]
    pub linked: Option<String>,
    /// Whether it comes by the tagged class's listener.
    pub tag: bool,
    /// When it was first noticed.
    pub first_seen: Option<String>,
    /// When it was last noticed, by the daemon or by the kernel.
    pub last_seen: Option<String>,
    /// When the kernel last let it through to the MTA by its pass.
    #[serde(default)]
    pub let_through: Option<String>,
    /// When its pass was last used, by the kernel or by a session that was given to the MTA.
    #[serde(default)]
    pub last_used: Option<String>,
    /// Sessions that reached the daemon.
    pub sessions: u64,
    /// Those of them that were given to the MTA. Which mails they brought is the MTA's to know.
    #[serde(default)]
    pub handed_off: u64,
    /// Sessions that it has now.
    #[serde(default)]
    pub connected: usize,
    /// The last names that it called itself, the latest last.
    #[serde(default)]
    pub names: Vec<Named>,
    /// Which of our addresses it came to, in that order: the first, and the last few.
    #[serde(default)]
    pub contacts: Vec<Contact>,
    /// The last refusals, the latest last.
    #[serde(default)]
    pub refusals: Vec<Refused>,
    /// What kept it out in the kernel, the latest last.
    #[serde(default)]
    pub drops: Vec<Dropped>,
    /// The last events, oldest first.
    pub events: Vec<Happening>,
    /// Hits of the static entry that decides.
    pub hits: u64,
}

impl Explanation {
    /// Whether anything at all is known about the client.
    pub fn is_known(&self) -> bool {
        self.entry.is_some()
            || self.pass.is_some()
            || self.pool.is_some()
            || self.first_seen.is_some()
            || self.connected > 0
    }
}

/// One event of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// When it last happened.
    pub at: String,
    /// How many times in a row.
    pub times: u64,
    /// What.
    pub what: String,
    /// The particulars.
    pub detail: String,
}

/// A name that a client called itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// When last.
    pub at: String,
    /// In how many sessions.
    pub times: u64,
}

/// A session, or several in a row to the same address with the same end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Our address.
    pub server: String,
    /// Whether a pass can be earned there.
    pub earns_pass: bool,
    /// `handed_off`, `not_taken`, `deferred`, `refused`, `limited` or `left`.
    pub outcome: String,
    /// When the first of them began.
    pub since: String,
    /// When the last of them began.
    pub at: String,
    /// How many.
    pub times: u64,
}

/// A refusal, or several by the same evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When last.
    pub at: String,
    /// When first.
    pub since: String,
    /// How many times.
    pub times: u64,
    /// On what evidence.
    pub evidence: Vec<Finding>,
    /// What it was told, the last time; empty: nothing.
    pub reply: String,
    /// What it called itself, the last time.
    pub name: Option<String>,
    /// The sender of its mail, the last time; empty: a bounce.
    pub sender: Option<String>,
    /// How many recipients it named, the last time.
    pub recipients: u32,
}

/// One piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The test; `deny` for a static entry.
    pub test: String,
    /// How heavily it weighed.
    pub weight: i32,
    /// What was seen.
    pub reason: String,
    /// The DNS lists, each with what it added.
    pub lists: Vec<(String, i32)>,
}

/// SYNs that an entry kept out in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The entry; `None`: it had gone when the kernel told of it.
    pub prefix: Option<IpNet>,
    /// Where it came from: `cli`, `config`, `feed:NAME`.
    pub source: String,
    /// The first of them.
    pub since: String,
    /// The last of them.
    pub at: String,
    /// About how many: of a flood the kernel tells a sample.
    pub packets: u64,
}

/// The body of `POST /v1/forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// The client, by one of its addresses.
    pub address: IpAddr,
    /// Its pass too.
    #[serde(default)]
    pub pass: bool,
}

/// The answer to a [`ForgetRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The client.
    pub client: String,
    /// All its addresses.
    pub network: String,
    /// What was erased, a sentence each.
    pub erased: Vec<String>,
    /// What else holds its address, a sentence each.
    pub remains: Vec<String>,
    /// Why it is not erased in the file yet, if so.
    pub not_written: Option<String>,
}
