//! `cargo bench -p screener --bench dns`: what the way through the lists costs, against the same machine's resolver alone.
//!
//! Starts a real rbldnsd and a real unbound before it, on loopback, and asks them first bare (one socket, as many questions
//! in flight) and then through `dnsbl/`, in turns, so that both meet the same machine. Then fills the cache and looks how
//! much memory that took. Prints ratios; a time alone proves nothing.

mod figures;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, Query};
use hickory_resolver::proto::rr::{Name, RecordType};

use screener::config::{Config, DnsblTest};
use screener::dnsbl::Dnsbl;

use figures::{Figures, Usual};

/// Questions in flight. More would show how long the queue of the resolver's socket is.
const WINDOW: usize = 64;

/// DNS lists: questions a second through the whole path against the resolver alone, and memory of the cache
#[derive(Debug, Parser)]
struct Bench {
    #[command(flatten)]
    usual: Usual,
}

const GOALS: [(&str, &str); 3] =
    [("dns_path_ratio", ">= 0.5"), ("dns_million_answers", "<= 100"), ("dns_million_listings", "<= 600")];

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// In a round.
    questions: u32,
    /// To fill the cache with.
    answers: u32,
}

fn main() -> Result<()> {
    let bench = Bench::parse();
    let mut effort = if bench.usual.quick {
        Effort { rounds: 1, questions: 2_000, answers: 20_000 }
    } else {
        Effort { rounds: 5, questions: 20_000, answers: 1_000_000 }
    };
    effort.rounds = bench.usual.rounds(effort.rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(effort))?.print(bench.usual.json)
}

async fn run(effort: Effort) -> Result<Figures> {
    let servers = Servers::start()?;
    let config = config(servers.resolver, effort.answers)?;
    let dnsbl = || Dnsbl::configured(&config).map_err(anyhow::Error::from)?.context("a list");
    let mut figures = Figures::new(&GOALS);
    let mut next = 0;
    for _ in 0..effort.rounds {
        let mut names = || {
            next += effort.questions;
            next - effort.questions
        };
        let (first, second) = (names(), names());
        let server = servers.resolver;
        let bare = tokio::task::spawn_blocking(move || ask_bare(server, first, effort.questions)).await??;
        let lists = dnsbl()?;
        let through = ask_through(&lists, second, effort.questions).await?;
        figures.put("dns_resolver_alone", "questions/s", bare);
        figures.put("dns_path", "questions/s", through);
        figures.put("dns_path_ratio", "", through / bare);
        figures.put("dns_path_cached", "questions/s", ask_through(&lists, second, effort.questions).await?);
    }
    let lists = dnsbl()?;
    // What is there whether or not the cache is full: the pools of the runtime and the resolver.
    ask_mixed(&lists, SPARE, 30_000).await?;
    let before = resident_kib()?;
    let began = Instant::now();
    ask_through(&lists, next, effort.answers).await?;
    let filled = began.elapsed();
    let unlisted = (resident_kib()? - before) / f64::from(effort.answers);
    let kept = lists.status().cache.answers as f64;
    ensure!(kept >= f64::from(effort.answers) * 0.99, "only {kept} answers are kept");
    // One client of three is listed: a list that has everybody would be parked.
    let (before, mixed) = (resident_kib()?, effort.answers / 2);
    ask_mixed(&lists, next + effort.answers, mixed).await?;
    let thirds = f64::from(mixed) / 3.0;
    let listed = (resident_kib()? - before - 2.0 * thirds * unlisted) / thirds;
    for (name, kib) in [("dns_million_answers", unlisted), ("dns_million_listings", listed)] {
        figures.put(name, "MiB", kib * 1e6 / 1024.0);
    }
    figures.put("dns_fill", "s", filled.as_secs_f64());
    Ok(figures)
}

fn config(resolver: SocketAddr, answers: u32) -> Result<DnsblTest> {
    let text = format!(
        "[tests.dnsbl]\nresolvers = [\"{resolver}\"]\ncache = {}\ndeadline = \"30s\"\n\
         [[tests.dnsbl.list]]\nzone = \"bl.example\"\n",
        answers * 2 + 100_000
    );
    Ok(Config::parse(&text, "bench")?.tests.dnsbl)
}

/// The address with this number: none below [`LISTED`] is listed.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x1000_0000 + number)
}

/// The number of the first address that is listed: 64.0.0.0.
const LISTED: u32 = 0x3000_0000;
/// Numbers that no measurement uses.
const SPARE: u32 = 0x2000_0000;

/// Questions a second that the resolver answers somebody who does nothing else.
fn ask_bare(server: SocketAddr, first: u32, count: u32) -> Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let question = |number: u32| -> Result<Vec<u8>> {
        let [a, b, c, d] = client(first + number).octets();
        let name = Name::from_ascii(format!("{d}.{c}.{b}.{a}.bl.example."))?;
        let mut question = Message::new((number % 65_536) as u16, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(name, RecordType::A));
        Ok(question.to_vec()?)
    };
    let began = Instant::now();
    let (mut sent, mut answered, mut packet) = (0, 0, [0; 1500]);
    while answered < count {
        while sent < count && sent - answered < WINDOW as u32 {
            socket.send(&question(sent)?)?;
            sent += 1;
        }
        // What gets lost is not asked again: it counts as answered late.
        let _ = socket.recv(&mut packet);
        answered += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// The same through the lists.
async fn ask_through(lists: &Dnsbl, first: u32, count: u32) -> Result<f64> {
    ask_each(lists, count, move |number| client(first + number)).await
}

/// Every third of the clients is listed.
async fn ask_mixed(lists: &Dnsbl, first: u32, count: u32) -> Result<f64> {
    ask_each(lists, count, move |number| {
        client(if number.is_multiple_of(3) { LISTED + first % 0x80_0000 + number } else { first + number })
    })
    .await
}

async fn ask_each(lists: &Dnsbl, count: u32, who: impl Fn(u32) -> Ipv4Addr + Copy + Send + 'static) -> Result<f64> {
    let began = Instant::now();
    let workers: Vec<_> = (0..WINDOW as u32)
        .map(|worker| {
            let lists = lists.clone();
            tokio::spawn(async move {
                let mut unknown = 0;
                let mut number = worker;
                while number < count {
                    let address: IpAddr = who(number).into();
                    // With the text of a listing, which comes last.
                    let report = lists.start(address).everything().await;
                    unknown += report.unknown.len();
                    number += WINDOW as u32;
                }
                unknown
            })
        })
        .collect();
    let mut unknown = 0;
    for worker in workers {
        unknown += worker.await?;
    }
    ensure!(unknown * 100 < count as usize, "{unknown} of {count} questions got no answer: {:?}", lists.status());
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

fn resident_kib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// rbldnsd with one list, and unbound before it; both end when this is dropped.
struct Servers {
    children: Vec<Child>,
    resolver: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself; then there is nothing to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Servers {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let place = directory.path();
        fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let zone = "$SOA 3600 ns.bl.example. admin.bl.example. 0 600 300 86400 3600\n$NS 3600 ns.bl.example.\n\
                    :127.0.0.2:Listed, see https://bl.example/?$\n127.0.0.2\n64.0.0.0/8\n";
        fs::write(place.join("list"), zone)?;
        let (list, resolver) = (free_port()?, free_port()?);
        let conf = format!(
            "server:\n  interface: 127.0.0.1@{}\n  access-control: 127.0.0.0/8 allow\n  do-daemonize: no\n  chroot: \"\"\n  \
             username: \"\"\n  pidfile: \"\"\n  directory: \"{}\"\n  use-syslog: no\n  logfile: \"\"\n  verbosity: 0\n  \
             module-config: \"iterator\"\n  do-not-query-localhost: no\n  qname-minimisation: no\n  msg-cache-size: 4m\n  \
             outgoing-range: 4096\n  num-queries-per-thread: 4096\nremote-control:\n  control-enable: no\n\
             stub-zone:\n  name: \"bl.example\"\n  stub-addr: 127.0.0.1@{}\n",
            resolver.port(),
            place.display(),
            list.port()
        );
        fs::write(place.join("unbound.conf"), conf)?;
        let mut rbldnsd = Command::new("rbldnsd");
        rbldnsd.args(["-n", "-r", "/", "-c", "0", "-w"]).arg(place);
        rbldnsd.args(["-b", &format!("127.0.0.1/{}", list.port()), "bl.example:ip4set:list"]);
        let mut unbound = Command::new("unbound");
        unbound.args(["-d", "-c"]).arg(place.join("unbound.conf"));
        let mut servers = Self { children: Vec::new(), resolver, _directory: directory };
        for (command, name) in [(&mut rbldnsd, "rbldnsd"), (&mut unbound, "unbound")] {
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            servers.children.push(child.with_context(|| format!("{name} is needed: run cargo xtask setup"))?);
        }
        servers.wait()?;
        Ok(servers)
    }

    fn wait(&mut self) -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(self.resolver)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_ascii("2.0.0.127.bl.example.")?, RecordType::A));
        let question = question.to_vec()?;
        let until = Instant::now() + Duration::from_secs(15);
        while Instant::now() < until {
            for child in &mut self.children {
                ensure!(child.try_wait()?.is_none(), "a server ended at its start");
            }
            let mut packet = [0; 1500];
            let answered = socket.send(&question).and_then(|_| socket.recv(&mut packet));
            if answered.is_ok_and(|length| Message::from_vec(&packet[..length]).is_ok_and(|it| !it.answers.is_empty()))
            {
                return Ok(());
            }
            // Nobody listens yet; the answer to that comes at once.
            std::thread::sleep(Duration::from_millis(20));
        }
        anyhow::bail!("the servers do not answer")
    }
}

/// Free for both protocols now; if another process takes it first, the server says so.
fn free_port() -> Result<SocketAddr> {
    for _ in 0..20 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        if TcpListener::bind(socket.local_addr()?).is_ok() {
            return Ok(socket.local_addr()?);
        }
    }
    anyhow::bail!("no free port")
}
