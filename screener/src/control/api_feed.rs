//! What goes over the control socket about feeds.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One feed: `GET /v1/feeds` has all of them, `GET /v1/feeds/{name}` one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// What it is called.
    pub name: String,
    /// Where it comes from; a query is not shown, it may be a key.
    pub source: String,
    /// The form of its list; `None`: an SPF record.
    pub format: Option<String>,
    /// `drop`, `reject`, `tag`, `count` or `permit`.
    pub action: String,
    /// `good`; `waiting` for its first answer; `refused` or `failed`: the last try changed nothing.
    pub state: String,
    /// How many prefixes are in force.
    pub entries: usize,
    /// How much they cover, in words.
    pub covers: String,
    /// Since when the list is in force; `None`: there is none.
    pub taken: Option<String>,
    /// When the source last said that this is its list.
    pub checked: Option<String>,
    /// How long that is ago.
    pub age_seconds: Option<u64>,
    /// When the source is asked again.
    pub next: String,
    /// The last time it was asked, since the daemon's start.
    pub last: Option<Last>,
    /// Why the last try changed nothing.
    pub trouble: Option<String>,
    /// A list that was refused and can be looked at (`GET /v1/feeds/{name}/diff`) and forced.
    pub refused: Option<Refused>,
    /// What is wrong with the copy on the disk.
    pub unsaved: Option<String>,
    /// What should be known of the list, a sentence each.
    pub notes: Vec<String>,
    /// Packets that its entries decided about, since the daemon's start; connections where no program in the kernel sees them.
    pub hits: u64,
    /// When the last of them came.
    pub last_hit: Option<String>,
    /// How often asking ended how, since the daemon's start.
    pub results: Vec<Count>,
}

/// How asking a source ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When.
    pub at: String,
    /// `taken`, `unchanged`, `refused` or `failed`.
    pub result: String,
}

/// A list that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When.
    pub at: String,
    /// How many prefixes it has.
    pub prefixes: usize,
    /// Why.
    pub why: String,
}

/// How often asking ended in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// As [`Last::result`].
    pub result: String,
    /// How often.
    pub count: u64,
}

/// The answer to `GET /v1/feeds/{name}/diff`: from the list in force to the one that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The feed.
    pub name: String,
    /// The list that was refused.
    pub refused: Refused,
    /// How many prefixes are in force.
    pub in_force: usize,
    /// How many would come.
    pub added_count: usize,
    /// How many would go.
    pub removed_count: usize,
    /// How many both lists have.
    pub kept: usize,
    /// Those that would come, the first [`Diff::MOST`] of them.
    pub added: Vec<IpNet>,
    /// Those that would go, the first [`Diff::MOST`] of them.
    pub removed: Vec<IpNet>,
}

impl Diff {
    /// So many prefixes of a kind are named.
    pub const MOST: usize = 10_000;
}

/// `POST /v1/feeds/{name}/refresh`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// Take the list that was refused, without asking the source.
    #[serde(default)]
    pub force: bool,
}

/// The answer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// The feed.
    pub name: String,
    /// How many prefixes are in force.
    pub prefixes: usize,
    /// Of these, new ones.
    pub added: usize,
    /// Prefixes that are no more.
    pub removed: usize,
    /// What should be known of the list, a sentence each.
    pub notes: Vec<String>,
}
