//! What goes over the control socket: the contract with the CLI and with whatever else reads it. Times are RFC 3339, UTC.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::feed::DenyAction;

/// `GET /v1/status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// The daemon's process.
    #[serde(default)]
    pub pid: u32,
    /// The daemon before, while it has sessions.
    #[serde(default)]
    pub predecessor: Option<Predecessor>,
    /// `steer` or `front`.
    pub mode: String,
    /// `serving`; or `draining`: it takes no new connections, and ends when its sessions have.
    #[serde(default)]
    pub state: String,
    /// Since its start.
    pub uptime_seconds: u64,
    /// What it goes by.
    #[serde(default)]
    pub configuration: Configuration,
    /// Counted since its start.
    pub sessions: Sessions,
    /// `None`: nothing of ours is in the kernel.
    pub kernel: Option<Kernel>,
    /// Passes, expired ones within the retention included.
    pub passes: usize,
    /// Deny entries, by prefix and origin.
    pub denies: usize,
    /// Who stands where on the offence ladder.
    #[serde(default)]
    pub offenders: crate::ladder::Count,
    /// The DNS lists.
    pub dnsbl: Vec<List>,
    /// The ledger.
    pub ledger: Ledger,
    /// The store that is shared with other hosts; `None`: nothing is shared.
    #[serde(default)]
    pub shared: Option<Shared>,
    /// The certificate; `None`: STARTTLS is the MTA's.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// What is not as it should be, a sentence each; empty when all is well.
    pub degraded: Vec<String>,
    /// What an operator should know though nothing is wrong.
    pub notes: Vec<String>,
}

/// Sessions that reached the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// All.
    pub total: u64,
    /// Those that live, relays included.
    pub active: usize,
    /// `limits.connections`
    #[serde(default)]
    pub limit: usize,
    /// Those of them that are answered slowly.
    #[serde(default)]
    pub tarpitted: usize,
    /// So many that waits are shortened: from 90 % of `limits.connections` on, until there are 70 %.
    #[serde(default)]
    pub stress: bool,
    /// Of the tagged class.
    pub tagged: u64,
    /// Given to the MTA.
    pub handed_off: u64,
    /// Refused.
    pub refused: u64,
}

/// The kernel half.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// The pin directory.
    #[serde(default)]
    pub pin: PathBuf,
    /// Whether any program of ours is attached.
    pub attached: bool,
    /// Where XDP is.
    pub interfaces: Vec<Interface>,
    /// Whether clients are steered at socket lookup.
    pub steer: bool,
    /// Packets by outcome; they count on from daemon to daemon.
    pub counters: Vec<Counter>,
    /// One of so many findings becomes an event; 1: each, 0: none.
    #[serde(default)]
    pub event_sample: u32,
    /// Events that found no room since the maps were made.
    #[serde(default)]
    pub events_lost: u64,
    /// Clients under `reject` are refused by `screen`, where it can.
    #[serde(default)]
    pub reject_early: bool,
    /// How full the maps of passes are.
    #[serde(default)]
    pub passes: Vec<PassRoom>,
}

/// How full the kernel's map of one family's passes is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassRoom {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Passes in it.
    pub entries: usize,
    /// How many it can hold.
    pub capacity: usize,
    /// Clients with a pass for which it had no room: the daemon hands them to the MTA.
    pub left_out: usize,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native`, `generic` or `none`.
    pub mode: String,
    /// Why not as was asked.
    pub reason: Option<String>,
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The outcome and its reason.
    pub name: String,
    /// What becomes of such a packet.
    pub verdict: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `xdp` or `sk_lookup`.
    pub hook: String,
    /// How many.
    pub packets: u64,
}

/// One DNS list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Its public name.
    pub list: String,
    /// Questions asked.
    pub queries: u64,
    /// Answers that were listings.
    pub hits: u64,
    /// Answers that were none: the list is at fault.
    pub errors: u64,
    /// Questions without an answer.
    pub unknown: u64,
    /// `asked`, or `parked` while it is not.
    pub state: String,
    /// The last error.
    pub last_error: Option<String>,
}

/// The certificate of `[tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Its file.
    pub certificate: PathBuf,
    /// What it is good for; empty: none is in use.
    pub names: Vec<String>,
    /// Who has signed it.
    pub issuer: Option<String>,
    /// Until when it is good.
    pub not_after: Option<String>,
    /// The same in seconds since 1970.
    pub not_after_unix: Option<u64>,
    /// In whole days; 0 also after its end.
    pub days_left: Option<u64>,
    /// Why the files as they stand are not used, if so.
    pub refused: Option<String>,
}

/// The store that is shared with other hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// Where it is, without user and password.
    pub store: String,
    /// What this host is called there.
    pub name: String,
    /// `sharing`; `joining` while both sides are made equal; `away`.
    pub state: String,
    /// Clients about whom the others are still to be told.
    pub queued: usize,
    /// How often there were too many of them to be kept singly, since the start. Nothing is lost by that.
    pub queue_overflows: u64,
    /// Words of this host that were new there, since the start.
    pub told: u64,
    /// Words of other hosts that were new here.
    pub heard: u64,
    /// Records that could not be understood.
    pub unreadable: u64,
    /// How often it could not be used.
    pub failures: u64,
    /// When it last answered.
    pub last_contact: Option<String>,
    /// How long it took to answer, at the last look.
    pub round_trip_ms: Option<f64>,
}

/// The ledger's store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Clients whose history is kept.
    pub histories: usize,
    /// Changes that are not on the disk yet.
    pub queued: usize,
    /// When it was last written.
    pub last_written: Option<String>,
}

/// A permit or a deny entry: `GET /v1/permits`, `GET /v1/denies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Static {
    /// Who.
    pub prefix: String,
    /// `permit`, `drop`, `reject`, `tag` or `count`.
    pub action: String,
    /// `cli`, `config`, `own_address`, `own_network` or `feed:NAME`.
    pub origin: String,
    /// Why.
    pub comment: Option<String>,
    /// Since when.
    pub added: String,
    /// SYNs that it decided about, since the daemon's start.
    pub hits: u64,
    /// The last of them.
    pub last_seen: Option<String>,
}

/// The body of `PUT /v1/denies/{prefix}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyRequest {
    /// What happens to the clients.
    pub action: DenyAction,
    /// Why.
    pub comment: Option<String>,
    /// In spite of the guard rails.
    #[serde(default)]
    pub force: bool,
}

/// The body of `PUT /v1/permits/{prefix}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitRequest {
    /// Why.
    pub comment: Option<String>,
    /// Even if it is very wide.
    #[serde(default)]
    pub force: bool,
}

/// The body of `POST /v1/denies`: a list, taken as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// What happens to the clients.
    pub action: DenyAction,
    /// Why, for every entry.
    pub comment: Option<String>,
    /// In spite of the guard rails.
    #[serde(default)]
    pub force: bool,
    /// Say what would happen, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The list.
    pub prefixes: Vec<IpNet>,
}

impl ImportRequest {
    /// The largest body: about three million prefixes.
    pub const MOST_BYTES: usize = 64 << 20;
}

/// The answer to an [`ImportRequest`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Prefixes that were not denied by command before.
    pub added: usize,
    /// Prefixes that were, with another action or comment.
    pub changed: usize,
    /// Prefixes that stayed as they were.
    pub kept: usize,
    /// How much the list covers.
    pub covers: String,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// How long it took, the disk included.
    pub seconds: f64,
}

/// The query of `GET /v1/export/denies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// Only what comes from there, as in [`Static::origin`].
    pub origin: Option<String>,
    /// Only what does that.
    pub action: Option<DenyAction>,
}

/// The answer to `POST /v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The file that was read; `None`: there is none, everything has its default.
    pub file: Option<PathBuf>,
    /// The keys that are different and in force now.
    pub changed: Vec<String>,
    /// The keys that are different and take effect when the daemon is started again.
    pub needs_restart: Vec<String>,
    /// What came of it beside.
    pub notes: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// The answer to `POST /v1/takeover`: the daemon has come to where the new one waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coming {
    /// Its process.
    pub pid: u32,
}

/// The answer to `POST /v1/upgrade`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The new daemon's process.
    pub pid: u32,
    /// How long it took.
    pub seconds: f64,
}

/// A daemon from which this one took over and whose sessions go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its process.
    pub pid: u32,
    /// How many sessions it still has.
    pub sessions: usize,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The file; `None`: there is none.
    pub file: Option<PathBuf>,
    /// When it was read.
    pub read: String,
    /// Keys that stand otherwise in the file and take effect when the daemon is started again.
    pub needs_restart: Vec<String>,
}

/// Any answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What is wrong, and what to do.
    pub error: String,
}
