//! What goes over the control socket about the offence ladder. Times are RFC 3339, UTC.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Somebody on the ladder: `GET /v1/offenders`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offender {
    /// Who: a client, or a prefix that is full of such clients.
    pub network: String,
    /// `refused`, `tarpitted` or `dropped`.
    pub rung: String,
    /// Its score now, in points.
    pub score: f64,
    /// How many offences were counted; of a prefix, how many of its clients keep failing.
    pub offences: u32,
    /// The last of them: a test's name, `command_limit`, or `density` for a prefix.
    pub last_offence: String,
    /// When that was.
    pub last_at: String,
    /// Since when it is on the ladder.
    pub since: String,
    /// Until when it is dropped.
    pub until: Option<String>,
    /// By whom: `xdp` (no answer), `steer` (a RST) or `daemon` (521).
    pub by: Option<String>,
    /// How often it came since it was kept out, as the kernel counted.
    pub hits: u64,
    /// The last of these.
    pub last_hit: Option<String>,
    /// When it will be off the ladder if nothing more happens.
    pub ends: String,
}

impl Offender {
    /// Where it stands and why, in a sentence.
    pub fn standing(&self) -> String {
        let Self { network, rung, offences, last_offence, last_at, ends, .. } = self;
        let why = if last_offence == "density" {
            format!("{offences} clients of {network} keep failing, counted at {last_at}")
        } else {
            format!("{offences} offences, the last {last_offence} at {last_at}")
        };
        match (rung.as_str(), &self.until) {
            ("dropped", Some(until)) => format!("Kept out as an offender until {until}: {why}."),
            ("tarpitted", _) => format!("It keeps failing: {why}; forgotten by {ends}."),
            _ => format!("It has failed lately: {why}; forgotten by {ends}."),
        }
    }

    /// What happens when it comes; `None`: it is screened.
    pub fn kept_out(&self) -> Option<String> {
        let how = match self.by.as_deref()? {
            "xdp" => "its SYNs are dropped without an answer",
            "steer" => "its connections are refused in the kernel with a RST",
            _ => "its connections are refused by the daemon with 521",
        };
        let hits = if self.hits > 0 { format!(" ({} so far)", self.hits) } else { String::new() };
        Some(format!("When it comes, {how}{hits}."))
    }
}

/// The body of `POST /v1/offenders/forgive`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgiveRequest {
    /// The client of an address, or a prefix with everybody in it; `None`: everybody.
    pub network: Option<IpNet>,
}

/// The answer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgiven {
    /// How many were taken off.
    pub count: usize,
    /// Who, unless it was everybody.
    pub networks: Vec<String>,
    /// The prefix that the client is still held with.
    pub still: Option<String>,
}
