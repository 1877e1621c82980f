//! Thousands of clients in the greet wait at once: the memory that each costs, and how late its greeting comes.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::epoll::Epoll;
use super::rivals::{self, Hosts, Settings, port_25, source};
use super::usage::{find, resident_bytes};
use super::{Effort, Findings};
use crate::bench::report::{median, sorted};
use crate::client::{PATIENCE, open};
use crate::host::Host;

/// How late the last greeting may be before the bench gives up.
const LATEST: Duration = Duration::from_secs(60);

/// What a side showed, round by round.
#[derive(Default)]
struct Seen {
    bytes: Vec<f64>,
    /// Milliseconds beyond the greet wait: the median of the clients, their 99th percentile, the greatest.
    late: [Vec<f64>; 3],
    /// Clients that the server let go of while they waited.
    lost: usize,
}

pub(super) fn measure(hosts: &Hosts, effort: &Effort, findings: &mut Findings) -> Result<()> {
    let settings = Settings { wait: effort.wait, deep: true };
    let (mut ours, mut theirs) = (Seen::default(), Seen::default());
    let mut shown = Vec::new();
    for round in 0..effort.rounds {
        eprintln!("bench: round {} of {}", round + 1, effort.rounds);
        // New processes each time: one that has had as many clients before keeps their memory, and would seem to need none.
        let mut screener = rivals::front(&hosts.front, settings)?;
        let process = screener.id();
        let connecting =
            ours.round(&hosts.clients, port_25(&hosts.front), effort, || Ok(process)).context("before ours")?;
        shown.push(format!("{connecting:.1} s"));
        screener.stop()?;
        let mut postfix = rivals::postscreen(&hosts.postscreen, settings)?;
        let root = postfix.id()?;
        let connecting = theirs
            .round(&hosts.clients, port_25(&hosts.postscreen), effort, || find(root, "postscreen"))
            .context("before postscreen")?;
        shown.push(format!("{connecting:.1} s"));
        postfix.stop()?;
    }
    findings.notes.push(format!(
        "{} clients waited {} s for the greeting; to connect they all took, ours and postscreen by turns, {}",
        effort.waiting,
        effort.wait,
        shown.join(", ")
    ));
    if ours.lost > 0 {
        findings.wrong.push(format!("{} of our clients lost their connection while they waited", ours.lost));
    }
    if theirs.lost > 0 {
        findings.notes.push(format!("{} of postscreen's clients lost their connection while they waited", theirs.lost));
    }
    findings.rows.put("waiting_client_bytes", "B", ours.bytes);
    findings.rows.put("waiting_client_postscreen_bytes", "B", theirs.bytes);
    for (name, (ours, theirs)) in ["p50", "p99", "max"].iter().zip(ours.late.into_iter().zip(theirs.late)) {
        findings.rows.put(&format!("greeting_late_{name}_ms"), "ms", ours);
        findings.rows.put(&format!("greeting_late_postscreen_{name}_ms"), "ms", theirs);
    }
    Ok(())
}

impl Seen {
    /// Returns how many seconds it took until all were connected. `process` is asked for when it has had a client.
    fn round(
        &mut self,
        clients: &Host,
        server: SocketAddr,
        effort: &Effort,
        process: impl FnOnce() -> Result<u32> + Send,
    ) -> Result<f64> {
        let wait = Duration::from_secs(effort.wait.into());
        let count = effort.waiting;
        let (bytes, late, lost, connecting) = clients.in_ns(|| {
            let mut waiting = Waiting::new(server)?;
            // One client beforehand, so that the process is there and has all it needs to serve one.
            waiting.connect(count)?;
            waiting.hear_teasers()?;
            let process = process()?;
            let before = resident_bytes(process)?;
            let begun = Instant::now();
            for number in 0..count {
                waiting.connect(number)?;
                ensure!(begun.elapsed() < wait, "only {number} connected before the first was greeted");
            }
            let connecting = begun.elapsed().as_secs_f64();
            waiting.hear_teasers()?;
            let bytes = (resident_bytes(process)? - before) / f64::from(count);
            let (late, lost) = waiting.hear_greetings(wait)?;
            ensure!(!late.is_empty(), "the server let go of all of them");
            Ok((bytes, late, lost, connecting))
        })?;
        self.bytes.push(bytes);
        self.lost += lost;
        let late = sorted(late);
        let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
        for (values, value) in self.late.iter_mut().zip([median(&late), at(0.99), at(1.0)]) {
            values.push(value);
        }
        Ok(connecting)
    }
}

/// Clients that have connected and say nothing.
struct Waiting {
    server: SocketAddr,
    epoll: Epoll,
    clients: Vec<Silent>,
}

struct Silent {
    /// `None`: the server has closed it.
    stream: Option<TcpStream>,
    /// When the connection stood.
    since: Instant,
    heard: Vec<u8>,
    greeted: Option<Instant>,
    /// The server closed before its greeting.
    lost: bool,
}

impl Waiting {
    fn new(server: SocketAddr) -> Result<Self> {
        Ok(Self { server, epoll: Epoll::new().context("epoll")?, clients: Vec::new() })
    }

    fn connect(&mut self, number: u32) -> Result<()> {
        let stream = open(source(number), self.server, PATIENCE).with_context(|| format!("client {number}"))?;
        let since = Instant::now();
        stream.set_nonblocking(true)?;
        self.epoll.add(&stream, self.clients.len() as u64).context("watching a client")?;
        self.clients.push(Silent { stream: Some(stream), since, heard: Vec::new(), greeted: None, lost: false });
        Ok(())
    }

    /// Until every client has heard something.
    fn hear_teasers(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.clients.iter().any(|client| client.heard.is_empty() && !client.lost) {
            ensure!(Instant::now() < deadline, "no teaser within {PATIENCE:?}");
            self.hear()?;
        }
        Ok(())
    }

    /// Until every client has been greeted, or let go of: the milliseconds beyond the wait of those, and the number of these.
    fn hear_greetings(mut self, wait: Duration) -> Result<(Vec<f64>, usize)> {
        let deadline = Instant::now() + wait + LATEST;
        while self.clients.iter().any(|client| client.greeted.is_none() && !client.lost) {
            ensure!(Instant::now() < deadline, "some were not greeted {LATEST:?} after their time");
            self.hear()?;
        }
        let late = self.clients.iter().filter_map(|client| {
            let took = client.greeted?.duration_since(client.since);
            Some((took.as_secs_f64() - wait.as_secs_f64()) * 1000.0)
        });
        Ok((late.collect(), self.clients.iter().filter(|client| client.lost).count()))
    }

    fn hear(&mut self) -> Result<()> {
        for number in self.epoll.wait(Duration::from_millis(100)).context("waiting for the server")? {
            let Some(client) = self.clients.get_mut(number as usize) else { bail!("no client {number}") };
            client.hear();
        }
        Ok(())
    }
}

impl Silent {
    fn hear(&mut self) {
        let mut bytes = [0; 512];
        let Some(stream) = &mut self.stream else { return };
        let count = match stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // Reset.
            Err(_) => 0,
            Ok(count) => count,
        };
        if count == 0 {
            // Closed, so that nobody watches it any more.
            self.stream = None;
            self.lost = self.greeted.is_none();
            return;
        }
        self.heard.extend_from_slice(&bytes[..count]);
        // The teaser goes on with a hyphen, the greeting ends with a blank.
        if self.heard.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"220 ")) {
            self.greeted.get_or_insert_with(Instant::now);
        }
    }
}
