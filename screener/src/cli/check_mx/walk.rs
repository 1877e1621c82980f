//! How senders walk along the addresses of a domain's mail exchangers when one of them answers a recipient with 450, and
//! whether that leads them to a session that is served.
//!
//! Pure: a small model of three MTAs and of us. Facts: Postfix, reference/postscreen.md section 6.1 (measured); Exim, its
//! specification 4.96, "Errors in outgoing SMTP" and `hosts_max_try`; Sendmail, postscreen's WISHLIST (it keeps the
//! first session open meanwhile) and its own `deliver.c`, which takes tempfailed recipients to the next MX host.

use std::net::IpAddr;

use serde::Serialize;

/// One address of one mail exchanger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Server {
    pub(super) preference: u16,
    pub(super) host: String,
    pub(super) address: IpAddr,
    /// Whether it is this host's.
    pub(super) ours: bool,
    /// Whether a client can earn a pass there.
    pub(super) earns: bool,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sender {
    Postfix,
    Exim,
    Sendmail,
}

impl Sender {
    pub(super) const ALL: [Self; 3] = [Self::Postfix, Self::Exim, Self::Sendmail];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postfix => "Postfix",
            Self::Exim => "Exim",
            Self::Sendmail => "Sendmail",
        }
    }

    /// How many sessions there may be for one delivery. `smtp_mx_session_limit`, `hosts_max_try`, the MX hosts.
    fn sessions(self) -> usize {
        match self {
            Self::Postfix => 2,
            Self::Exim => 5,
            Self::Sendmail => usize::MAX,
        }
    }
}

/// Which addresses a sender speaks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Families {
    Ipv4,
    Ipv6,
    Both,
}

impl Families {
    pub(super) const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::Both];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "with IPv4",
            Self::Ipv6 => "with IPv6",
            Self::Both => "with both families",
        }
    }

    fn reach(self, address: IpAddr) -> bool {
        match self {
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
            Self::Both => true,
        }
    }
}

/// What becomes of the first mail of a sender that has no pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It is delivered in the same run of the queue, in whatever order it takes addresses of one preference.
    AtOnce,
    /// That depends on the order.
    Sometimes,
    /// It stays in the sender's queue until the next run: for Postfix 300 seconds at least.
    Later,
    /// The sender reaches none of the addresses.
    Unreachable,
}

/// More addresses than this are not looked at: the orders would be too many, and no sender goes that far.
const MOST_SERVERS: usize = 8;

/// Walks every order that is possible. `linked`: the sender's two addresses are known as one sender's.
pub(super) fn outcome(servers: &[Server], sender: Sender, families: Families, linked: bool) -> Outcome {
    let mut reached: Vec<_> = servers.iter().filter(|server| families.reach(server.address)).collect();
    reached.sort_by_key(|server| server.preference);
    reached.truncate(MOST_SERVERS);
    if reached.is_empty() {
        return Outcome::Unreachable;
    }
    let mut seen = Seen::default();
    let walk = Walk { sender, linked, left: reached, sessions: 0, passed: [false; 2] };
    walk.go_on(&mut seen);
    match (seen.delivered, seen.deferred) {
        (true, false) => Outcome::AtOnce,
        (true, true) => Outcome::Sometimes,
        (false, _) => Outcome::Later,
    }
}

#[derive(Default)]
struct Seen {
    delivered: bool,
    deferred: bool,
}

#[derive(Clone)]
struct Walk<'a> {
    sender: Sender,
    linked: bool,
    left: Vec<&'a Server>,
    sessions: usize,
    /// IPv4, IPv6.
    passed: [bool; 2],
}

impl Walk<'_> {
    fn go_on(&self, seen: &mut Seen) {
        let Some(preference) = self.left.iter().map(|server| server.preference).min() else {
            seen.deferred = true;
            return;
        };
        if self.sessions >= self.sender.sessions() || (seen.delivered && seen.deferred) {
            seen.deferred = true;
            return;
        }
        for (at, server) in self.left.iter().enumerate().filter(|(_, server)| server.preference == preference) {
            let family = usize::from(server.address.is_ipv6());
            let known = self.passed[family] || (self.linked && self.passed[1 - family]);
            if server.ours && known {
                seen.delivered = true;
                continue;
            }
            let mut next = self.clone();
            next.sessions += 1;
            next.passed[family] |= server.ours && server.earns;
            next.left.remove(at);
            if self.sender == Sender::Sendmail {
                // It takes one address of each MX host.
                next.left.retain(|other| other.host != server.host);
            }
            next.go_on(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(preference: u16, host: &str, address: &str, earns: bool) -> Server {
        Server { preference, host: host.to_owned(), address: address.parse().unwrap(), ours: true, earns }
    }

    /// reference/postscreen.md section 6.1, first case.
    fn plain() -> Vec<Server> {
        vec![server(10, "mx1", "192.0.2.10", true), server(20, "mx2", "192.0.2.20", false)]
    }

    /// The second: the primary has both families, the backup one.
    fn dual_primary() -> Vec<Server> {
        let mut servers = plain();
        servers.push(server(10, "mx1", "2001:db8::10", true));
        servers
    }

    #[test]
    fn two_addresses_of_one_family_serve_everybody_who_walks_on() {
        for sender in Sender::ALL {
            assert_eq!(outcome(&plain(), sender, Families::Ipv4, false), Outcome::AtOnce, "{sender:?}");
            assert_eq!(outcome(&plain(), sender, Families::Both, false), Outcome::AtOnce, "{sender:?}");
            assert_eq!(outcome(&plain(), sender, Families::Ipv6, false), Outcome::Unreachable, "{sender:?}");
        }
    }

    #[test]
    fn a_dual_stack_primary_eats_both_sessions_of_a_postfix_unless_its_addresses_are_linked() {
        let servers = dual_primary();
        assert_eq!(outcome(&servers, Sender::Postfix, Families::Ipv4, false), Outcome::AtOnce);
        assert_eq!(outcome(&servers, Sender::Postfix, Families::Ipv6, false), Outcome::Later);
        assert_eq!(outcome(&servers, Sender::Postfix, Families::Both, false), Outcome::Later);
        assert_eq!(outcome(&servers, Sender::Postfix, Families::Both, true), Outcome::AtOnce);
        // It goes on to the third.
        assert_eq!(outcome(&servers, Sender::Exim, Families::Both, false), Outcome::AtOnce);
        // It takes one address of the primary: by IPv6 it comes to the backup as a stranger.
        assert_eq!(outcome(&servers, Sender::Sendmail, Families::Both, false), Outcome::Sometimes);
        assert_eq!(outcome(&servers, Sender::Sendmail, Families::Both, true), Outcome::AtOnce);
    }

    #[test]
    fn one_address_or_a_backup_that_comes_first_helps_nobody() {
        let one = vec![server(10, "mx1", "192.0.2.10", true)];
        let wrong_way = vec![server(10, "mx1", "192.0.2.10", false), server(20, "mx2", "192.0.2.20", true)];
        for sender in Sender::ALL {
            assert_eq!(outcome(&one, sender, Families::Ipv4, true), Outcome::Later);
            assert_eq!(outcome(&wrong_way, sender, Families::Ipv4, true), Outcome::Later);
        }
        let equal = vec![server(10, "mx1", "192.0.2.10", true), server(10, "mx2", "192.0.2.20", false)];
        assert_eq!(outcome(&equal, Sender::Postfix, Families::Ipv4, false), Outcome::Sometimes);
    }

    #[test]
    fn what_is_another_hosts_earns_nothing_here() {
        let mut servers = plain();
        servers[1].ours = false;
        assert_eq!(outcome(&servers, Sender::Postfix, Families::Ipv4, false), Outcome::Later);
        let many: Vec<_> = (0..40).map(|n| server(10, "mx", &format!("192.0.2.{n}"), true)).collect();
        assert_eq!(outcome(&many, Sender::Exim, Families::Ipv4, false), Outcome::AtOnce);
    }
}
