//! The network of a lab: a router in the middle, and one wire to each host.
//!
//! The router is the cell's own network namespace. Every host hangs on a veth pair of its own: `eth0` in the host,
//! `to-NAME` at the router. There is no shared segment, so that every packet between two hosts is routed, and a host's
//! addresses need not be neighbours of anything. Addresses come from the documentation ranges only; nothing here has a
//! way out of the cell.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::ethtool::receive_in_batches;
use crate::host::Host;

/// An address family, for tests that run once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which reports show them.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// One of two values.
    pub fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(self.pick("IPv4", "IPv6"))
    }
}

/// What a host is called and which addresses are its own.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// At most 12 characters: it becomes part of an interface name and the host name.
    pub name: &'a str,
    /// Addresses of `eth0`; the first of each family is the one the host speaks from unless told otherwise.
    pub addresses: &'a [&'a str],
    /// Whole prefixes that lead to this host; a process there can bind and speak from any address in them.
    pub prefixes: &'a [&'a str],
}

/// The MX host that most tests need.
pub const MX: Plan<'_> = Plan { name: "mx", addresses: &["192.0.2.10", "2001:db8:25::10"], prefixes: &[] };

/// The Internet that most tests need, with prefixes to speak from. Its wire is [`TO_INTERNET`].
pub const INTERNET: Plan<'_> = Plan {
    name: "internet",
    addresses: &["198.51.100.10", "2001:db8:a::10"],
    prefixes: &["198.51.100.0/24", "203.0.113.0/24", "2001:db8:a::/48", "2001:db8:b::/48"],
};

/// The router's end of the wire to [`INTERNET`].
pub const TO_INTERNET: &str = "to-internet";

/// The router of a lab; hosts are added to it.
#[derive(Debug)]
pub struct Net(());

/// The router's address on every wire. Nobody asks for it: it is where the hosts' default routes point.
const GATEWAY: &str = "10.255.255.1";

impl Net {
    /// Makes the cell's network namespace the router.
    ///
    /// # Errors
    /// When a switch of the kernel cannot be set; `/proc/sys` is writable in a cell only.
    pub fn new() -> Result<Self> {
        ensure!(crate::cell::inside(), "a network is made inside a cell only");
        switch("net/ipv4/ip_forward", "1")?;
        switch("net/ipv6/conf/all/forwarding", "1")?;
        for scope in ["all", "default"] {
            switch(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        no_detection()?;
        Ok(Self(()))
    }

    /// Adds a host and connects it; its addresses are usable when this returns.
    ///
    /// # Errors
    /// When a namespace, a mount or an interface cannot be made.
    pub fn host(&self, plan: &Plan<'_>) -> Result<Host> {
        let wire = format!("to-{}", plan.name);
        ensure!(wire.len() <= 15, "{:?} is too long for a host's name: at most 12 characters", plan.name);
        let host = Host::new(plan.name, plan.addresses)?;
        Self::connect(plan, &host, &wire).with_context(|| format!("connecting host {}", plan.name))?;
        Ok(host)
    }

    /// A router with an MX host on it.
    ///
    /// # Errors
    /// As [`Net::new`] and [`Net::host`].
    pub fn mx() -> Result<Host> {
        Self::new()?.host(&MX)
    }

    /// A router with the two hosts that most tests need: the MX host, and the Internet with prefixes to speak from.
    ///
    /// # Errors
    /// As [`Net::new`] and [`Net::host`].
    pub fn mx_and_internet() -> Result<(Host, Host)> {
        let net = Self::new()?;
        Ok((net.host(&MX)?, net.host(&INTERNET)?))
    }

    /// A router that is the MX host itself, with the Internet on it: for tests that hold the kernel half in their own
    /// process.
    ///
    /// # Errors
    /// As [`Net::new`] and [`Net::host`].
    pub fn internet_and_mx_here() -> Result<Host> {
        let internet = Self::new()?.host(&INTERNET)?;
        let mut batch = String::from("link set lo up\n");
        for address in MX.addresses {
            batch += &add(address.parse()?, "lo");
        }
        ip(&batch)?;
        Ok(internet)
    }

    /// Connects a host again whose wire is gone, with a new one: same name, other number.
    ///
    /// # Errors
    /// When an interface cannot be made.
    pub fn reconnect(plan: &Plan<'_>, host: &Host) -> Result<()> {
        Self::connect(plan, host, &format!("to-{}", plan.name))
    }

    fn connect(plan: &Plan<'_>, host: &Host, wire: &str) -> Result<()> {
        ip(&format!(
            "link add {wire} type veth peer name eth0 netns {holder}\n\
             link set {wire} addrgenmode none\n\
             addr add {GATEWAY}/32 dev {wire}\n\
             addr add fe80::1/64 dev {wire} nodad\n\
             link set {wire} up\n",
            holder = host.holder(),
        ))?;
        receive_in_batches(wire)?;
        let inside = host_side(plan, host);
        host.in_ns(|| {
            no_detection()?;
            if !plan.prefixes.is_empty() {
                // A local route alone lets a process bind any IPv4 address in it, but no IPv6 address.
                switch("net/ipv6/ip_nonlocal_bind", "1")?;
            }
            ip(&inside)
        })?;
        ip(&router_side(plan, host, wire))
    }
}

/// The command that gives an interface an address of its own.
fn add(address: IpAddr, interface: &str) -> String {
    match Family::of(address) {
        Family::V4 => format!("addr add {address}/32 dev {interface}\n"),
        Family::V6 => format!("addr add {address}/128 dev {interface} nodad\n"),
    }
}

fn host_side(plan: &Plan<'_>, host: &Host) -> String {
    let mut batch = String::from(
        "link set lo up\n\
         link set eth0 addrgenmode none\n\
         link set eth0 up\n\
         addr add fe80::2/64 dev eth0 nodad\n",
    );
    for address in host.addresses() {
        batch += &add(*address, "eth0");
    }
    if let Some(own) = host.first(Family::V4) {
        batch += &format!("route add default via {GATEWAY} dev eth0 onlink src {own}\n");
    }
    if let Some(own) = host.first(Family::V6) {
        batch += &format!("route add default via fe80::1 dev eth0 src {own}\n");
    }
    for prefix in plan.prefixes {
        batch += &format!("route add local {prefix} dev lo\n");
    }
    batch
}

fn router_side(plan: &Plan<'_>, host: &Host, wire: &str) -> String {
    let mut batch = String::new();
    for address in host.addresses() {
        match Family::of(*address) {
            Family::V4 => batch += &format!("route add {address}/32 dev {wire}\n"),
            Family::V6 => batch += &format!("route add {address}/128 via fe80::2 dev {wire}\n"),
        }
    }
    for prefix in plan.prefixes {
        match host.first(Family::V4) {
            // By way of the host's own address, so that a thousand sources need one neighbour entry.
            Some(own) if !prefix.contains(':') => {
                batch += &format!("route add {prefix} via {own} dev {wire} onlink\n");
            }
            _ if !prefix.contains(':') => batch += &format!("route add {prefix} dev {wire}\n"),
            _ => batch += &format!("route add {prefix} via fe80::2 dev {wire}\n"),
        }
    }
    batch
}

/// Addresses are usable at once: nobody else is on the wire to detect duplicates with.
fn no_detection() -> Result<()> {
    for scope in ["all", "default"] {
        switch(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        switch(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
    }
    Ok(())
}

/// Sets a kernel switch of the calling thread's network namespace.
///
/// # Errors
/// When there is no such switch or it is not writable.
pub fn switch(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}

/// Runs a batch of `ip` commands in the calling thread's network namespace.
///
/// # Errors
/// When one of them fails, with what `ip` said.
pub fn ip(batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running ip(8); is iproute2 installed?")?;
    child.stdin.take().context("the input of ip")?.write_all(batch.as_bytes()).context("writing to ip")?;
    let output = child.wait_with_output().context("waiting for ip")?;
    ensure!(output.status.success(), "ip -batch failed: {}in\n{batch}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The number of an interface of the calling thread's network namespace.
///
/// # Errors
/// When there is none of this name.
pub fn index_of(interface: &str) -> Result<u32> {
    let name = CString::new(interface)?;
    // SAFETY: a C string that lives until after the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "there is no interface {interface}");
    Ok(index)
}
