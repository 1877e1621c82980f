//! What goes over the control socket about pools of senders.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One pool: `GET /v1/pools` has all of them, `GET /v1/pools/{domain}` one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Whose senders these are.
    pub domain: String,
    /// How many prefixes of each family.
    pub ipv4_prefixes: usize,
    /// The same for IPv6.
    pub ipv6_prefixes: usize,
    /// How many addresses these are, in words.
    pub size: String,
    /// The members.
    pub prefixes: Vec<IpNet>,
    /// When they were looked up; `None`: never yet.
    pub learned: Option<String>,
    /// When they are looked up again.
    pub next: String,
    /// Until when all members have passed; `None`: some test is owed.
    pub passed_until: Option<String>,
    /// The same, test by test.
    pub expires: BTreeMap<String, Option<String>>,
    /// Which member passed last.
    pub passed_by: Option<IpAddr>,
    /// Terms of the record that ask the DNS; RFC 7208 allows ten.
    pub lookups: usize,
    /// What of the record cannot be expanded, a sentence each.
    pub left_out: Vec<String>,
    /// Why the last look changed nothing.
    pub trouble: Option<String>,
}

/// The pool of a client, in `GET /v1/explain/{addr}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Whose sender it is.
    pub domain: String,
    /// By which prefix.
    pub prefix: IpNet,
    /// Until when all members have passed; `None`: some test is owed.
    pub passed_until: Option<String>,
    /// Which member passed last.
    pub passed_by: Option<IpAddr>,
}

/// `POST /v1/pools/{domain}/refresh`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRequest {
    /// Also where the members have grown by an implausible factor.
    #[serde(default)]
    pub accept: bool,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refreshed {
    /// Whose senders these are.
    pub domain: String,
    /// How many prefixes there are.
    pub prefixes: usize,
    /// Of these, new ones.
    pub added: usize,
    /// Prefixes that are no more.
    pub removed: usize,
    /// How many addresses these are, in words.
    pub size: String,
}
