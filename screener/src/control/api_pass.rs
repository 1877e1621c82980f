//! What goes over the control socket about passes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::client::ClientKey;
use crate::ledger;
use crate::pass::{Stamps, Test, TestSet};

/// A pass: in the answer to `GET /v1/passes`, and as it is put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Who: an IPv4 address, or the first address of an IPv6 network.
    pub client: String,
    /// Until when, test by test; nothing: never passed.
    pub expires: BTreeMap<String, Option<String>>,
    /// Since when.
    pub created: String,
    /// `screened`, `manual`, `pool` for the copy of a pool's pass, `shared` for one from another host.
    pub origin: String,
    /// Why.
    pub comment: Option<String>,
}

impl Pass {
    /// As it is shown where these tests are enabled.
    pub fn of(client: ClientKey, pass: &ledger::Pass, enabled: TestSet) -> Self {
        let expires = Test::ALL
            .into_iter()
            // A test that is not done has no say; what an operator granted for it is kept for when it is.
            .filter(|&test| enabled.contains(test) || pass.stamps.get(test).is_some())
            .map(|test| (test.name().to_owned(), pass.stamps.get(test).map(|until| until.to_string())))
            .collect();
        Self {
            client: client.to_string(),
            expires,
            created: pass.created.to_string(),
            origin: pass.origin.name().to_owned(),
            comment: pass.comment.clone(),
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// What of it is not understood.
    pub fn parsed(&self) -> Result<(IpAddr, ledger::Pass), String> {
        let client = self.client.parse().map_err(|_| format!("'{}' is no IP address", self.client))?;
        let mut stamps = Stamps::default();
        for (test, until) in &self.expires {
            let test: Test = test.parse().map_err(|error| format!("'{test}': {error}"))?;
            stamps.set(test, until.as_ref().map(|until| until.parse()).transpose()?);
        }
        let pass = ledger::Pass {
            stamps,
            created: self.created.parse()?,
            origin: self.origin.parse()?,
            comment: self.comment.clone(),
        };
        Ok((client, pass))
    }
}

/// Whether a pass counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Every test that is enabled is passed: the client goes to the MTA.
    Valid,
    /// Some test is owed: the client is screened when it comes.
    Expired,
}

/// The query of `GET /v1/passes`: a page of the passes that meet every condition. A million passes are read page by page, so
/// that neither side ever holds them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Behind this client; `None`: from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<IpAddr>,
    /// At most so many; at most [`ListRequest::MOST`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<usize>,
    /// Of clients in there. An IPv6 prefix longer than a client's network means that client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
    /// This test counts as passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// This test does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owed: Option<String>,
    /// Whether the client is screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Valid now, and not any more in so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiring_seconds: Option<u64>,
    /// Since more than so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_seconds: Option<u64>,
    /// Since less than so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer_seconds: Option<u64>,
    /// From there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Of clients that have called themselves so in EHLO: a name with `*` or `?`, or the end of a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ListRequest {
    /// The largest page.
    pub const MOST: usize = 1000;
}

/// The answer to `GET /v1/passes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What was found, in the order of the addresses, IPv4 first. It may be nothing although there is more: no answer looks at
    /// more than some thousands.
    pub passes: Vec<Pass>,
    /// For the next page's `after`; `None`: this was the last.
    pub next: Option<IpAddr>,
    /// How many bits of an IPv6 address are a client.
    pub ipv6_prefix: u8,
}

/// The body of `PUT /v1/passes/{address}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassRequest {
    /// How long; `None`: 30 days.
    pub ttl_seconds: Option<u64>,
    /// Why.
    pub comment: Option<String>,
    /// For these tests alone; none: for all.
    #[serde(default)]
    pub tests: Vec<String>,
}

/// The answer to `PUT /v1/passes/{address}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The pass as it is now.
    #[serde(flatten)]
    pub pass: Pass,
    /// The addresses that it is for.
    pub network: IpNet,
    /// What the operator should know, a sentence each.
    pub notes: Vec<String>,
}

/// The answer to `DELETE /v1/passes/{address}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The addresses whose pass went.
    pub network: IpNet,
    /// What the operator should know, a sentence each: what went with it, by what it may come back.
    pub notes: Vec<String>,
}

/// The query of `DELETE /v1/passes`: a part of the passes in a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// Where the clients are.
    pub prefix: IpNet,
    /// Behind this client; `None`: from the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<IpAddr>,
}

/// The answer to `DELETE /v1/passes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedPage {
    /// How many passes went.
    pub deleted: usize,
    /// For the next page's `after`; `None`: this was the last.
    pub next: Option<IpAddr>,
    /// What the operator should know, a sentence each.
    pub notes: Vec<String>,
}

/// The body of `POST /v1/passes`: passes to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// At most [`RestoreRequest::MOST`].
    pub passes: Vec<Pass>,
    /// Say what would happen, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The last of them: the answer waits until all are on the disk.
    #[serde(default)]
    pub last: bool,
}

impl RestoreRequest {
    /// How many at once.
    pub const MOST: usize = 2000;
    /// The largest body: a comment has at most 1024 bytes, and JSON makes at most six of one.
    pub const MOST_BYTES: usize = Self::MOST * 8192;
}

/// The answer to `POST /v1/passes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Clients that had no pass.
    pub new: u64,
    /// Clients whose pass is longer now, or says more.
    pub extended: u64,
    /// Clients whose pass said all this already.
    pub unchanged: u64,
    /// Left out: every test of it has expired.
    pub expired: u64,
    /// Left out: a copy of a pool's pass, for which no pool vouches here.
    pub unvouched: u64,
    /// Of the new and the extended, those that are screened when they come, since a test that is enabled here is owed.
    pub owing: u64,
    /// What the operator should know, a sentence each.
    pub notes: Vec<String>,
}

impl RestoreReport {
    /// Adds another page's.
    pub fn add(&mut self, page: Self) {
        self.new += page.new;
        self.extended += page.extended;
        self.unchanged += page.unchanged;
        self.expired += page.expired;
        self.unvouched += page.unvouched;
        self.owing += page.owing;
        self.notes.extend(page.notes);
    }
}

/// The query of `GET /v1/watch/passes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchRequest {
    /// Of clients in there, as in [`ListRequest::prefix`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
}

/// A line of the answer to `GET /v1/watch/passes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// When.
    pub at: String,
    /// What happened.
    pub what: Happened,
    /// Whose pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Which test was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// The pass as it is now; as it was, if it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
    /// How many news were lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// What happened to a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// The client had none that counted.
    Granted,
    /// It counts for longer, for more tests, or says something else.
    Extended,
    /// One test was taken back.
    Withdrawn,
    /// It was taken away.
    Revoked,
    /// A test that is enabled is owed from now on.
    Expired,
    /// The reader was too slow: so many were lost.
    Lost,
    /// The last line: this daemon tells no more.
    End,
}

impl Happened {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Extended => "extended",
            Self::Withdrawn => "withdrawn",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::End => "end",
        }
    }
}
