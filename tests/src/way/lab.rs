//! The lab of the table: an MX host with Postfix and the screener, a DNS list, and the Internet.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;

use crate::cell::KeptHost;
use crate::client::{Client, Trouble};
use crate::dnsl::Dnsl;
use crate::host::Host;
use crate::mta::Mta;
use crate::net::{Family, INTERNET, MX, Net, Plan};
use crate::screener::Screener;
use crate::sender::{Route, Sender};

/// The DNS list that the screener asks.
pub(super) const LIST: &str = "bl.example";

const CONFIG: &str = r#"
hostname = "mx.example.com"
[listen]
mode = "steer"
[tests.pregreet]
wait = "1s"
[tests.dnsbl]
threshold = 1
deadline = "2s"
[[tests.dnsbl.list]]
zone = "bl.example"
[kernel]
interfaces = ["eth0"]
xdp = "native"
[control]
group = "root"
"#;

/// Who a client is in the scenarios: each has addresses of its own, and in IPv6 a /64 of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Under a deny entry with the action drop.
    Denied,
    /// A sending Postfix.
    Sender,
    /// A sending Postfix that nobody has seen before the daemon is killed.
    LateSender,
    /// Speaks before the greeting.
    EarlyTalker,
    /// On the DNS list.
    Listed,
    /// Under a deny entry with the action tag.
    Tagged,
    /// Comes first after the restart.
    Newcomer,
}

impl Role {
    pub(super) fn address(self, family: Family) -> IpAddr {
        let octet = match self {
            Self::Denied => 66,
            Self::Tagged => 130,
            Self::Listed => 9,
            Self::Sender => 21,
            Self::LateSender => 22,
            Self::EarlyTalker => 31,
            Self::Newcomer => 41,
        };
        match (self, family) {
            (Self::Denied | Self::Tagged | Self::Listed, Family::V4) => [203, 0, 113, octet].into(),
            (_, Family::V4) => [198, 51, 100, octet].into(),
            (Self::Denied | Self::Tagged | Self::Listed, Family::V6) => {
                [0x2001, 0xdb8, 0xb, u16::from(octet), 0, 0, 0, 1].into()
            }
            (_, Family::V6) => [0x2001, 0xdb8, 0xa, u16::from(octet), 0, 0, 0, 1].into(),
        }
    }

    /// The prefix around the address that is denied, tagged or listed.
    pub(super) fn prefix(self, family: Family) -> String {
        match self.address(family) {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                format!("{a}.{b}.{c}.{}/26", d & 0xc0)
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }

    /// The envelope sender that goes out from the address.
    pub(super) fn envelope(self, family: Family) -> String {
        format!("{self:?}.{}@example.net", family.pick("v4", "v6")).to_lowercase()
    }
}

/// The hosts and what runs on them.
#[derive(Debug)]
pub struct Lab {
    pub(super) mx: Host,
    pub(super) internet: Host,
    dns: Host,
    pub(super) mta: Mta,
    pub(super) sender: Sender,
    pub(super) lists: Dnsl,
    pub(super) screener: Screener,
}

impl Lab {
    /// Builds it; everything answers when this returns.
    ///
    /// # Errors
    /// When a host or a server does not come about.
    pub fn build() -> Result<Self> {
        let net = Net::new()?;
        let mx = net.host(&MX)?;
        let dns = net.host(&Plan { name: "dns", addresses: &["192.0.2.53", "2001:db8:25::53"], prefixes: &[] })?;
        let internet = net.host(&INTERNET)?;
        let mut lists = Dnsl::start(&dns, &[LIST])?;
        for family in Family::BOTH {
            let entry = match Role::Listed.address(family) {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(_) => Role::Listed.prefix(family),
            };
            lists.list(LIST, &entry, [127, 0, 0, 2].into())?;
        }
        mx.resolve_at(dns.address(Family::V4)?)?;
        let mta = Mta::start(&mx, "")?;
        let mut routes = Vec::new();
        for family in Family::BOTH {
            for role in [Role::Sender, Role::LateSender] {
                let (from, source) = (role.envelope(family), role.address(family));
                routes.push(Route { from, source, server: mx.address(family)? });
            }
        }
        let sender = Sender::start(&internet, &routes)?;
        let screener = Screener::start(&mx, CONFIG)?;
        Ok(Self { mx, internet, dns, mta, sender, lists, screener })
    }

    /// The hosts, for whoever keeps the lab.
    #[must_use]
    pub fn hosts(&self) -> Vec<KeptHost> {
        [&self.mx, &self.internet, &self.dns].map(Host::kept).into()
    }

    /// The MX host's port 25.
    pub(super) fn port_25(&self, family: Family) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.mx.address(family)?, 25))
    }

    /// Connects as one of the clients.
    pub(super) fn connect(&self, role: Role, family: Family) -> Result<Client> {
        let server = self.port_25(family)?;
        Ok(Client::connect(&self.internet, role.address(family), server)?)
    }

    /// Tries to connect, for as long as a SYN is sent again once.
    pub(super) fn try_connect(&self, role: Role, family: Family) -> Result<Result<Client, Trouble>> {
        let server = self.port_25(family)?;
        let limit = Duration::from_millis(1500);
        Ok(Client::connect_within(&self.internet, role.address(family), server, limit))
    }
}
