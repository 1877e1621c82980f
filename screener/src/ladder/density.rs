//! When a whole prefix is full of offenders: a hoster that looks away, a network of infected machines, one party with a /48.
//!
//! Holds the count. Only clients that have climbed by themselves count, never an address that was merely seen; and whether
//! the prefix may be touched at all (permits, passes, pools) is for whoever drives the ladder to ask.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Ladder;
use super::offender::{Rules, Rung};
use crate::clock::UnixTime;

/// The length of an IPv4 prefix that climbs as a whole: the smallest that is routed by itself.
const V4: u8 = 24;
/// Of an IPv6 prefix: what one customer site is given at most (RFC 6177).
const V6: u8 = 48;
/// So many times as many offenders as make a prefix tarpitted have it kept out.
const DROPPED: u32 = 4;

/// A prefix full of offenders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Which.
    pub prefix: IpNet,
    /// How many clients of it stand above the ground now.
    pub clients: u32,
    /// The rung that this deserves.
    pub rung: Rung,
}

/// The prefix that a client belongs to; `None`: the client is as wide itself.
pub(super) fn prefix_of(client: IpNet) -> Option<IpNet> {
    let prefix = match client {
        IpNet::V4(client) => Ipv4Net::new(client.addr(), V4).ok()?.trunc().into(),
        IpNet::V6(client) => Ipv6Net::new(client.addr(), V6).ok()?.trunc().into(),
    };
    (client.prefix_len() > IpNet::prefix_len(&prefix)).then_some(prefix)
}

impl Ladder {
    /// Whether the prefix of a client that has failed deserves a higher rung than it stands on.
    pub(super) fn density(&self, rules: &Rules, client: IpNet, now: UnixTime) -> Option<Dense> {
        let tarpitted = rules.prefix_clients;
        let dropped = tarpitted.saturating_mul(DROPPED);
        let prefix = prefix_of(client).filter(|_| tarpitted > 0)?;
        let above = self.within(prefix).filter(|&other| {
            other != prefix && self.get(other).is_some_and(|offender| offender.rung(rules, now) > Rung::Refused)
        });
        // More than enough is not counted: a /48 has 65,536 clients.
        let clients = u32::try_from(above.take(dropped as usize).count()).unwrap_or(u32::MAX);
        let rung = match clients {
            clients if clients >= dropped => Rung::Dropped,
            clients if clients >= tarpitted => Rung::Tarpitted,
            _ => return None,
        };
        let stands = self.get(prefix).map(|offender| offender.rung(rules, now));
        (stands < Some(rung)).then_some(Dense { prefix, clients, rung })
    }
}
