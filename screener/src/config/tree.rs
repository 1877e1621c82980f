//! The configuration as the program uses it.
//!
//! Holds the typed tree, one struct a table, with the questions that several rooms ask of it. Never holds a value that
//! is out of range: only [`super::check`] makes one.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::error::Place;
use super::feed::Feed;
use super::shared::{Shared, SharedStore};
use super::value::{
    AfterTests, BackendAddress, Family, HandoffMethod, Hostname, InterfaceName, ListLevel, LocalAddress, LogFormat,
    Mode, ProgramName, Stressed, Tagged, TestAction, XdpMode, Zone,
};
use crate::client::Ipv6KeyLength;
use crate::feed::DenyAction;
use crate::ladder::Rules;
use crate::pass::{Test, TestSet};
use crate::session::{Footer, Forbidden};

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it was read from; `None`: there was none, everything has its default.
    pub file: Option<PathBuf>,
    /// The name in greetings and replies.
    pub hostname: Hostname,
    /// `[listen]`
    pub listen: Listen,
    /// `[backend]`
    pub backend: Backend,
    /// `[replies]`
    pub replies: Replies,
    /// `[limits]`
    pub limits: Limits,
    /// `[tls]`; `None`: STARTTLS is the MTA's.
    pub tls: Option<Tls>,
    /// `[tests]`
    pub tests: Tests,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[shared]`
    pub shared: Shared,
    /// `[kernel]`
    pub kernel: Kernel,
    /// `[ladder]`: how clients that keep failing climb; `None`: they do not.
    pub ladder: Option<Rules>,
    /// `[[permit]]`, without the own networks.
    pub permits: Vec<Permit>,
    /// `[[deny]]`
    pub denies: Vec<Deny>,
    /// `[[feed]]`
    pub feeds: Vec<Feed>,
    /// `[[pool]]`
    pub pools: Vec<Pool>,
    /// `[link]`; `None`: it is off.
    pub link: Option<Link>,
    /// `[control]`
    pub control: Control,
    /// `[observe]`
    pub observe: Observe,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where we stand.
    pub mode: Mode,
    /// What clients connect to; at least one, no two alike.
    pub addresses: Vec<SocketAddr>,
    /// Where a pass can be earned; empty: everywhere.
    pub pass_on: Vec<LocalAddress>,
    /// Never screened.
    pub own_networks: Vec<IpNet>,
    /// Peers that send us a PROXY header.
    pub proxy_from: Vec<IpNet>,
}

impl Listen {
    /// Whether a client that connected to `local` can earn a pass.
    pub fn earns_pass(&self, local: SocketAddr) -> bool {
        self.pass_on.is_empty() || self.pass_on.iter().any(|address| address.covers(local))
    }

    /// Whether this peer sends us a PROXY header.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxy_from.iter().any(|prefix| prefix.contains(&peer))
    }

    /// Whether some of these addresses are peers that send us a PROXY header.
    pub fn meets_proxy(&self, prefix: IpNet) -> bool {
        self.proxy_from.iter().any(|proxies| proxies.contains(&prefix) || prefix.contains(proxies))
    }

    /// Whether a client may connect to this address and port.
    pub(crate) fn covers(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.addresses.iter().any(|listen| {
            let any = listen.ip().is_unspecified() && (listen.is_ipv6() || ip.is_ipv4());
            (any || listen.ip() == ip) && port.is_none_or(|port| port == listen.port())
        })
    }
}

/// `[backend]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where the MTA listens for us.
    pub address: BackendAddress,
    /// How it learns who the client is.
    pub handoff: HandoffMethod,
    /// What follows when the deep tests are passed.
    pub after_tests: AfterTests,
}

/// `[replies]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    /// What the greeting says behind the name; may be empty.
    pub banner: String,
    /// What stands behind each refusal.
    pub footer: Footer,
    /// EHLO keywords of the MTA that are not offered, in upper case.
    pub withhold_ehlo: Vec<String>,
    /// A trial: every permanent refusal becomes a temporary one.
    pub soft_bounce: bool,
}

/// `[limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at a time.
    pub connections: NonZeroU32,
    /// Sessions of one client at a time; `None`: no limit of its own.
    pub per_client: Option<NonZeroU32>,
    /// How long a client may take for one command.
    pub command_time: Stressed,
    /// How long a session may last until it is handed over.
    pub session_time: Duration,
    /// Commands in one session.
    pub commands: NonZeroU32,
    /// Clients that are answered slowly, at a time.
    pub tarpit: u32,
    /// They get a byte this often.
    pub tarpit_pace: Duration,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// `[tests]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tests {
    /// What becomes of clients that a `tag` entry lets in.
    pub tagged: Tagged,
    /// `[tests.pregreet]`
    pub pregreet: PregreetTest,
    /// `[tests.dnsbl]`
    pub dnsbl: DnsblTest,
    /// `[tests.pipelining]`
    pub pipelining: DeepTest,
    /// `[tests.non_smtp_command]`
    pub non_smtp_command: DeepTest,
    /// `tests.non_smtp_command.forbidden`: the words that no mail client begins a command with.
    pub forbidden: Forbidden,
    /// `[tests.bare_newline]`
    pub bare_newline: DeepTest,
}

impl Tests {
    /// The tests that are on: `pregreet` has a wait, `dnsbl` has a list, the deep tests have `enable`.
    pub fn enabled(&self) -> TestSet {
        let on = |&test: &Test| match test {
            Test::Pregreet => !self.pregreet.wait.normal.is_zero(),
            Test::Dnsbl => !self.dnsbl.lists.is_empty(),
            Test::Pipelining => self.pipelining.enable,
            Test::NonSmtpCommand => self.non_smtp_command.enable,
            Test::BareNewline => self.bare_newline.enable,
        };
        Test::ALL.into_iter().filter(on).collect()
    }

    /// What a failed test does.
    pub fn action(&self, test: Test) -> TestAction {
        match test {
            Test::Pregreet => self.pregreet.action,
            Test::Dnsbl => self.dnsbl.action,
            Test::Pipelining => self.pipelining.action,
            Test::NonSmtpCommand => self.non_smtp_command.action,
            Test::BareNewline => self.bare_newline.action,
        }
    }

    /// How long a test stays passed. For `dnsbl` it is the longest: the answers' own TTLs may be shorter.
    pub fn ttl(&self, test: Test) -> Duration {
        match test {
            Test::Pregreet => self.pregreet.ttl,
            Test::Dnsbl => self.dnsbl.max_ttl,
            Test::Pipelining => self.pipelining.ttl,
            Test::NonSmtpCommand => self.non_smtp_command.ttl,
            Test::BareNewline => self.bare_newline.ttl,
        }
    }
}

/// `[tests.pregreet]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PregreetTest {
    /// What a failure does.
    pub action: TestAction,
    /// How long a client waits for the greeting; zero: the test is off.
    pub wait: Stressed,
    /// How long a client stays passed.
    pub ttl: Duration,
    /// What one clean EHLO before the greeting adds to the DNS lists' score, for a client that may have learned from the
    /// MTA that it may send one.
    pub pipeconnect_weight: i32,
}

/// `[tests.dnsbl]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsblTest {
    /// What a failure does.
    pub action: TestAction,
    /// From this score on a client fails; at least 1.
    pub threshold: i32,
    /// Down from this score a client is excused from the other tests; below 0. `None`: nobody is.
    pub allow_threshold: Option<i32>,
    /// When the score is taken, whoever has not answered.
    pub deadline: Duration,
    /// A client stays passed at least so long.
    pub min_ttl: Duration,
    /// A client stays passed at most so long.
    pub max_ttl: Duration,
    /// Who is asked; empty: the system's resolvers.
    pub resolvers: Vec<SocketAddr>,
    /// How many answers are kept.
    pub cache: usize,
    /// The lists; empty: the test is off.
    pub lists: Vec<DnsList>,
}

/// `[[tests.dnsbl.list]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsList {
    /// Where it is asked.
    pub zone: Zone,
    /// What a listing counts; not 0, below 0 on an allow list.
    pub weight: i32,
    /// What single answers count; empty: every answer counts `weight`. In the order of the file.
    pub codes: Vec<Code>,
    /// Which clients it is asked about; at least one family.
    pub families: Vec<Family>,
    /// What comes of its answers.
    pub level: ListLevel,
    /// Answers that are errors of this list, beside those that are errors of every list.
    pub errors: Vec<ErrorCode>,
    /// Its answers are kept at least so long.
    pub min_ttl: Duration,
    /// Its answers are kept at most so long.
    pub max_ttl: Duration,
    /// How long it is waited for.
    pub deadline: Duration,
    /// Where a listed host learns more; `{address}` stands for its address.
    pub url: Option<String>,
    /// Whether its text about a listed host is asked for.
    pub text: bool,
    /// Whether it has the test points of RFC 5782.
    pub test_points: bool,
    /// Where it stands in the file, for errors found later.
    pub place: Place,
}

/// One entry of `codes`. `dnsbl/` owns the syntax of the filter; here it is only known to look like an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Which answers, e.g. `127.0.0.[4..7]`.
    pub filter: String,
    /// What they count.
    pub weight: i32,
    /// Where the filter stands in the file, for errors found later.
    pub place: Place,
}

/// One entry of `errors`, like [`Code::filter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// Which answers.
    pub filter: String,
    /// Where it stands in the file.
    pub place: Place,
}

/// `[tests.pipelining]` and its like
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeepTest {
    /// Whether it is done at all.
    pub enable: bool,
    /// What a failure does.
    pub action: TestAction,
    /// How long a client stays passed.
    pub ttl: Duration,
}

/// `[ledger]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The file.
    pub path: PathBuf,
    /// How much of an IPv6 address is the client.
    pub ipv6_prefix: Ipv6KeyLength,
    /// How long a client is remembered after its last pass expired.
    pub retention: Duration,
    /// The store that is shared with other hosts.
    pub shared: Option<SharedStore>,
}

/// `[kernel]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Where XDP is attached; empty: wherever a default route leads.
    pub interfaces: Vec<InterfaceName>,
    /// How XDP is attached.
    pub xdp: XdpMode,
    /// The screened ports; at least one, no 0, no two alike.
    pub ports: Vec<u16>,
    /// Where programs, links and maps are pinned.
    pub pin: PathBuf,
    /// Whether clients that keep failing are dropped in the kernel.
    pub offenders: bool,
    /// The ceiling of SYNs for one client.
    pub syn_rate: Option<crate::rate::SynRate>,
}

/// `[[permit]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Who; no host bits.
    pub prefix: IpNet,
    /// Why; may be empty.
    pub comment: String,
}

/// `[[deny]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deny {
    /// Who; no host bits.
    pub prefix: IpNet,
    /// What happens to them.
    pub action: DenyAction,
    /// Why; may be empty.
    pub comment: String,
    /// Where it stands in the file, for errors found later.
    pub place: Place,
}

/// `[[pool]]`: senders that share a pass, by a domain's SPF record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Whose senders; lower case, no two alike.
    pub domain: String,
    /// They are looked up at most so often, whatever TTL the records have.
    pub min_refresh: Duration,
    /// They are looked up at least so often.
    pub max_refresh: Duration,
    /// A list of members that is more than so many times as large as the one before is refused; at least 2.
    pub growth: u32,
}

/// `[link]`: two addresses, one of each family, that are one sender. Of use under `after_tests = "defer"` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// How long after a client has passed its other address may still come.
    pub window: Duration,
    /// How long a recipient waits for the DNS to confirm that they are one.
    pub deadline: Duration,
}

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Who may use it besides root; `None`: nobody.
    pub group: Option<String>,
}

/// `[observe]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Where metrics are served over TCP; `None`: only on the control socket.
    pub metrics: Option<SocketAddr>,
    /// The form of the log.
    pub log: LogFormat,
    /// The program in each line of it, as syslog shows it.
    pub program: ProgramName,
}
