//! The hosts, and the servers on them: what each part of the bench measures stands here in configuration.
//!
//! Each part starts the servers it needs, with settings of its own, on hosts that stay.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};

use crate::haproxy::Haproxy;
use crate::host::Host;
use crate::mta::Door;
use crate::net::{Net, Plan};
use crate::postfix::Postfix;
use crate::screener::Screener;

/// How many addresses clients come from: all of 198.18.0.0/16, which RFC 2544 keeps for benches.
pub(super) const SOURCES: u32 = 65_536;

/// Settings of every Postfix: no limits that a bench would meet, processes that stay, and mail that is accepted and then
/// thrown away.
const POSTFIX: &str = "\
myhostname = mx.example.com
mynetworks = 127.0.0.0/8
smtpd_banner = $myhostname ESMTP
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
virtual_mailbox_domains = example.com
virtual_mailbox_maps = inline:{ bob@example.com=bob }
virtual_transport = discard
smtpd_tls_security_level = none
max_use = 1000000
max_idle = 1h
";

/// The MTA's own port 25.
const DIRECT: &str = "smtp inet n - n - 100 smtpd\n";

/// The door behind a screener.
const BEHIND: &str = "127.0.0.1:10025 inet n - n - 100 smtpd -o smtpd_upstream_proxy_protocol=haproxy\n";

/// The same as a socket in the file system.
const BEHIND_SOCKET: &str = "screened unix - - n - 100 smtpd -o smtpd_upstream_proxy_protocol=haproxy\n";

/// The door for sockets that somebody else has accepted.
const GIVEN: &str = "smtpd pass - - n - 100 smtpd\n";

/// Postfix's own screener, which gives to that door.
const SCREENED: &str = "\
smtp inet n - n - 1 postscreen
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
";

/// postscreen's limits, raised as far as ours, and its listen queue with them.
const POSTSCREEN: &str = "\
postscreen_greet_banner = $smtpd_banner
postscreen_pre_queue_limit = 20000
postscreen_post_queue_limit = 20000
postscreen_client_connection_count_limit = 0
default_process_limit = 20000
";

/// The tests after the greeting, which are ours by default.
const DEEP_TESTS: &str = "\
postscreen_pipelining_enable = yes
postscreen_non_smtp_command_enable = yes
postscreen_bare_newline_enable = yes
";

/// Front mode as it is where BPF is not to be had.
const NO_KERNEL: &str = "[kernel]\ninterfaces = []\nxdp = \"off\"\n";

/// What a screener is to do, in terms that both know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// The greet wait in seconds; 0: none.
    pub(super) wait: u32,
    /// Whether the tests after the greeting are done.
    pub(super) deep: bool,
}

/// The hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    /// Where all clients are.
    pub(super) clients: Host,
    pub(super) front: Host,
    pub(super) steer: Host,
    /// Front mode, with Postfix given sockets instead of PROXY headers.
    pub(super) handover: Host,
    /// Front mode, with PROXY headers over a Unix socket.
    pub(super) socket: Host,
    pub(super) postscreen: Host,
    /// A plain proxy instead of a screener.
    pub(super) proxy: Host,
    pub(super) bare: Host,
}

impl Hosts {
    pub(super) fn new() -> Result<Self> {
        let net = Net::new()?;
        let clients =
            net.host(&Plan { name: "clients", addresses: &["198.51.100.10"], prefixes: &["198.18.0.0/16"] })?;
        let host = |name, address| net.host(&Plan { name, addresses: &[address], prefixes: &[] });
        Ok(Self {
            clients,
            front: host("front", "192.0.2.11")?,
            steer: host("steer", "192.0.2.12")?,
            postscreen: host("postscreen", "192.0.2.13")?,
            bare: host("bare", "192.0.2.14")?,
            handover: host("handover", "192.0.2.15")?,
            socket: host("socket", "192.0.2.16")?,
            proxy: host("proxy", "192.0.2.17")?,
        })
    }
}

/// Where a host's clients connect to.
pub(super) fn port_25(host: &Host) -> SocketAddr {
    let address = host.addresses().first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    SocketAddr::new(address, 25)
}

/// The address of a client, by its number.
pub(super) fn source(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() | (number % SOURCES)).into()
}

/// Screener with port 25 for itself and without BPF; it knows no client.
pub(super) fn front(host: &Host, settings: Settings) -> Result<Screener> {
    forget_clients(host)?;
    Screener::start(host, &ours("front", settings, NO_KERNEL))
}

/// The same, with Postfix behind it given sockets.
pub(super) fn handover(host: &Host, settings: Settings) -> Result<Screener> {
    forget_clients(host)?;
    Screener::start(host, &ours("front", settings, &format!("{NO_KERNEL}{}", Door::Passed.backend())))
}

/// A proxy that judges nobody and only carries: haproxy, which says by PROXY who the client is.
pub(super) fn proxy(host: &Host) -> Result<Haproxy> {
    Haproxy::start(host, SocketAddr::from((Ipv4Addr::LOCALHOST, 10025)), "send-proxy-v2 check inter 1h")
}

/// The same, with Postfix behind it on a Unix socket.
pub(super) fn socket(host: &Host, settings: Settings) -> Result<Screener> {
    forget_clients(host)?;
    Screener::start(host, &ours("front", settings, &format!("{NO_KERNEL}{}", Door::Socket.backend())))
}

/// Screener before an MTA that keeps port 25; it knows no client.
pub(super) fn steer(host: &Host, settings: Settings) -> Result<Screener> {
    forget_clients(host)?;
    Screener::start(host, &ours("steer", settings, "[kernel]\ninterfaces = [\"eth0\"]\n"))
}

fn forget_clients(host: &Host) -> Result<()> {
    let ledgers = host.path("/var/lib/screener");
    for entry in fs::read_dir(&ledgers).context("the ledger's directory")? {
        fs::remove_file(entry?.path()).context("removing the ledger of an earlier part")?;
    }
    Ok(())
}

fn ours(mode: &str, Settings { wait, deep }: Settings, rest: &str) -> String {
    let tests = ["pipelining", "non_smtp_command", "bare_newline"];
    let deep: String = tests.iter().map(|test| format!("[tests.{test}]\nenable = {deep}\n")).collect();
    format!(
        "hostname = \"mx.example.com\"\n\
         [listen]\nmode = \"{mode}\"\naddresses = [\"0.0.0.0:25\"]\n\
         [tests.pregreet]\naction = \"drop\"\nwait = \"{wait}s\"\n{deep}{rest}\
         [ladder]\nenable = false\n[control]\ngroup = \"root\"\n"
    )
}

/// Postfix with postscreen on port 25; it knows no client either.
pub(super) fn postscreen(host: &Host, Settings { wait, deep }: Settings) -> Result<Postfix> {
    for entry in fs::read_dir(host.path("/var/lib/postfix")).context("postscreen's cache")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("postscreen_cache") {
            fs::remove_file(entry.path()).context("removing postscreen's cache of an earlier part")?;
        }
    }
    let deep = if deep { DEEP_TESTS } else { "" };
    let own = format!("{POSTFIX}{POSTSCREEN}{deep}postscreen_greet_action = drop\npostscreen_greet_wait = {wait}s\n");
    Postfix::start(host, &own, &format!("{GIVEN}{SCREENED}"))
}

/// Postfix alone.
pub(super) fn bare(host: &Host) -> Result<Postfix> {
    Postfix::start(host, POSTFIX, DIRECT)
}

/// The MTA behind a Screener in front mode.
pub(super) fn behind_front(host: &Host) -> Result<Postfix> {
    Postfix::start(host, POSTFIX, BEHIND)
}

/// The same on a Unix socket.
pub(super) fn behind_socket(host: &Host) -> Result<Postfix> {
    Postfix::start(host, POSTFIX, BEHIND_SOCKET)
}

/// The MTA that a Screener gives sockets.
pub(super) fn behind_handover(host: &Host) -> Result<Postfix> {
    Postfix::start(host, POSTFIX, GIVEN)
}

/// The MTA beside a Screener in steer mode.
pub(super) fn beside_steer(host: &Host) -> Result<Postfix> {
    Postfix::start(host, POSTFIX, &format!("{DIRECT}{BEHIND}"))
}
