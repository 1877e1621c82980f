//! Several MX hosts that share a store: the hosts, their daemons, clients that pass, and a host that is cut off.
//!
//! There is no MTA: a client that has passed hears 450, which is enough to have a pass.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::client::Client;
use crate::host::Host;
use crate::net::{Family, INTERNET, Net, Plan};
use crate::redis::{PORT, Redis};
use crate::screener::Screener;
use crate::wait::until_or_show;

/// How long tests wait for what takes no time worth speaking of.
pub const SOON: Duration = Duration::from_secs(20);

const MXS: [Plan<'_>; 3] = [
    Plan { name: "mx1", addresses: &["192.0.2.11", "2001:db8:25::11"], prefixes: &[] },
    Plan { name: "mx2", addresses: &["192.0.2.12", "2001:db8:25::12"], prefixes: &[] },
    Plan { name: "mx3", addresses: &["192.0.2.13", "2001:db8:25::13"], prefixes: &[] },
];

/// The host of the store.
pub const STORE: Plan<'_> = Plan { name: "store", addresses: &["192.0.2.70"], prefixes: &[] };

/// The hosts and the store.
#[derive(Debug)]
pub struct Mxs {
    /// Where clients speak from.
    pub internet: Host,
    /// `mx1`, `mx2` and so on.
    pub hosts: Vec<Host>,
    /// Their daemons.
    pub screeners: Vec<Screener>,
    /// The store.
    pub store: Redis,
}

/// A configuration of a host that shares a store; `more` may begin with keys of `[ledger]`.
#[must_use]
pub fn config(store: &str, more: &str) -> String {
    format!(
        "hostname = \"mx.example.com\"\n[backend]\nafter_tests = \"defer\"\n[tests.pregreet]\nwait = \"1s\"\n\
         [kernel]\ninterfaces = [\"eth0\"]\n[control]\ngroup = \"root\"\n[ledger]\nshared = \"{store}\"\n{more}"
    )
}

impl Mxs {
    /// A network and a store in it, with more lines of configuration.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn net_and_store(more: &str) -> Result<(Net, Redis)> {
        let net = Net::new()?;
        let store = Redis::start(&net.host(&STORE)?, more)?;
        Ok((net, store))
    }

    /// Starts so many hosts; all of them share when this returns.
    ///
    /// # Errors
    /// When one does not.
    pub fn start(net: &Net, store: Redis, count: usize, config: &str) -> Result<Self> {
        let hosts = MXS[..count].iter().map(|plan| net.host(plan)).collect::<Result<Vec<_>>>()?;
        let internet = net.host(&INTERNET)?;
        // How soon one host knows what another does is about the daemons, not about a machine that lets them wait behind other tests.
        let start = |host| Screener::start_under(host, config, &["nice", "-n", "-15"]);
        let screeners = hosts.iter().map(start).collect::<Result<Vec<_>>>()?;
        screeners.iter().try_for_each(|screener| wait_for_state(screener, "sharing"))?;
        Ok(Self { internet, hosts, screeners, store })
    }

    /// A client passes every test on a host.
    ///
    /// # Errors
    /// When it does not.
    pub fn pass(&self, source: &str, mx: usize) -> Result<()> {
        let source: IpAddr = source.parse()?;
        let server = SocketAddr::new(self.hosts[mx].address(Family::of(source))?, 25);
        let mut client = Client::connect(&self.internet, source, server)?;
        client.expect(220)?;
        client.begin_mail(450)?;
        client.ask("QUIT", 221)?;
        Ok(())
    }

    /// Waits until the kernel of a host gives a client to the MTA, or does not.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub fn wait_for_kernel(&self, mx: usize, client: &str, there: bool, within: Duration) -> Result<()> {
        let screener = &self.screeners[mx];
        let what =
            format!("{client} to {} the kernel's map on {}", if there { "be in" } else { "leave" }, MXS[mx].name);
        let look = || {
            let found = screener.cli(&["kernel", "map", "get", "pass", client])?.status.success();
            Ok((found == there).then_some(()))
        };
        until_or_show(&what, within, || screener.log(), look)
    }

    /// As [`Mxs::wait_for_kernel`], on every host.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub fn wait_for_kernels(&self, client: &str, there: bool, within: Duration) -> Result<()> {
        (0..self.hosts.len()).try_for_each(|mx| self.wait_for_kernel(mx, client, there, within))
    }

    /// Cuts a host off from the store: nothing arrives, and nobody is told.
    ///
    /// # Errors
    /// When the host does not notice.
    pub fn cut_off(&self, mx: usize) -> Result<()> {
        cut(&self.hosts[mx], "drop")?;
        wait_for_state(&self.screeners[mx], "away")
    }

    /// Undoes [`Mxs::cut_off`].
    ///
    /// # Errors
    /// When the host does not share again.
    pub fn heal(&self, mx: usize) -> Result<()> {
        mend(&self.hosts[mx])?;
        wait_for_state(&self.screeners[mx], "sharing")
    }
}

/// Cuts a host off from every store; `verdict` is what nftables does with what it sends to one: `drop`, or a `reject`.
///
/// # Errors
/// When nftables does not.
pub fn cut(host: &Host, verdict: &str) -> Result<()> {
    let chain = "add table inet cut; add chain inet cut out { type filter hook output priority 0; }";
    host.ask("nft", &[&format!("{chain}; add rule inet cut out tcp dport {PORT} {verdict}")]).map(drop)
}

/// Undoes [`cut`].
///
/// # Errors
/// When nftables does not.
pub fn mend(host: &Host) -> Result<()> {
    host.ask("nft", &["delete table inet cut"]).map(drop)
}

/// What `status` says of the shared store.
///
/// # Errors
/// When the daemon does not answer.
pub fn shared(screener: &Screener) -> Result<Value> {
    Ok(screener.json(&["status", "--json"])?["shared"].clone())
}

/// Waits until `status` says that it is so with the shared store.
///
/// # Errors
/// When it does not come to that in time.
pub fn wait_for_state(screener: &Screener, state: &str) -> Result<()> {
    let look = || Ok((shared(screener)?["state"] == state).then_some(()));
    until_or_show(&format!("the shared store to be {state}"), SOON, || screener.log(), look)
}
