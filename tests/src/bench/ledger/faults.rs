//! What a shared store that is down, cut off, silent or slow costs the clients of a host: nothing.
//!
//! Hosts of the same make, each with a daemon of the same configuration but for the store: one has none, one has one that is
//! well, and the others' fail in a way of their own for the whole of each round. Strangers go from host to host; each hears the
//! greeting without a wait and earns a pass, which is what the store is to be told. So whatever disturbs the machine disturbs
//! all alike, and what a host is slower than the one without a store is the store's doing.
//!
//! Between the rounds the stores are well again, and must have been told of everybody by the end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::crowd::{config, known};
use crate::bench::report::{Rows, median, percentile, sorted};
use crate::client::Client;
use crate::host::Host;
use crate::mta::BOB;
use crate::mxs::{cut, mend, shared, wait_for_state};
use crate::net::{Family, Net, Plan};
use crate::redis::Redis;
use crate::screener::Screener;
use crate::wait::until_or_show;

/// The sides, as rows name them; the first has no store.
const SIDES: [(&str, Store); 6] = [
    ("none", Store::None),
    ("healthy", Store::Well),
    ("slow", Store::Slow),
    ("silent", Store::Silent),
    ("down", Store::Down),
    ("cut", Store::Cut),
];

/// What is the matter with a side's store in the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    /// There is none.
    None,
    /// Nothing.
    Well,
    /// It is stopped again and again, so that an answer is up to [`ASLEEP`] late.
    Slow,
    /// It is stopped: it accepts connections and never answers.
    Silent,
    /// It was killed: connections to it are refused.
    Down,
    /// Every packet to it is lost.
    Cut,
}

/// How a slow store goes on: shorter than any deadline of the daemon's, and nearly always.
const ASLEEP: Duration = Duration::from_millis(400);
const AWAKE: Duration = Duration::from_millis(50);
/// How long a store may take to have been told, when it is well again.
const TOLD: Duration = Duration::from_secs(30);

/// One host with its daemon and its store.
struct Side {
    name: &'static str,
    fault: Store,
    host: Host,
    screener: Screener,
    server: SocketAddr,
    store: Option<Redis>,
    /// Milliseconds to the greeting, and to the end of the session.
    greeting: Vec<f64>,
    session: Vec<f64>,
}

/// Measures `rounds` rounds of `sessions` sessions with each side. To be called inside a cell. Gives what was wrong.
///
/// # Errors
/// When a host does not come about, or a client is not served.
pub(super) fn measure(net: &Net, clients: &Host, rounds: u32, sessions: u32, rows: &mut Rows) -> Result<Vec<String>> {
    let mut sides =
        (0..).zip(SIDES).map(|(number, side)| Side::start(net, number, side)).collect::<Result<Vec<_>>>()?;
    // Some first, that all processes are warm.
    let first = sessions.div_ceil(10);
    play(clients, &mut sides, 0..first)?;
    let mut figures: Vec<Figures> = SIDES.iter().map(|_| Figures::default()).collect();
    for round in 1..=rounds {
        eprintln!("bench: stores that fail: round {round} of {rounds}");
        for side in &mut sides {
            side.fail().with_context(|| side.name)?;
            side.greeting.clear();
            side.session.clear();
        }
        with_slow_ones(&mut sides, |sides| play(clients, sides, round * sessions..(round + 1) * sessions))?;
        let bare = (sorted(sides[0].greeting.clone()), sorted(sides[0].session.clone()));
        for (side, figures) in sides.iter().zip(&mut figures) {
            figures.greeting.put(&side.greeting, &bare.0);
            figures.session.put(&side.session, &bare.1);
        }
        for side in &mut sides {
            side.heal().with_context(|| side.name)?;
        }
    }
    for ((name, _), figures) in SIDES.iter().zip(figures) {
        figures.greeting.rows(&format!("share_{name}_greeting"), rows);
        figures.session.rows(&format!("share_{name}_session"), rows);
    }
    let everybody = first + rounds * sessions;
    sides.iter().filter_map(|side| side.untold(everybody).transpose()).collect()
}

/// What the rounds gave of one side and one time.
#[derive(Default)]
struct Time {
    median: Vec<f64>,
    p99: Vec<f64>,
    slower: Vec<f64>,
    slower_p99: Vec<f64>,
}

#[derive(Default)]
struct Figures {
    greeting: Time,
    session: Time,
}

impl Time {
    /// A round's values, beside those of the side without a store.
    fn put(&mut self, values: &[f64], bare: &[f64]) {
        let (middle, late) = (median(&sorted(values.to_vec())), percentile(values, 99));
        self.median.push(middle);
        self.p99.push(late);
        self.slower.push(middle - median(bare));
        self.slower_p99.push(late - percentile(bare, 99));
    }

    fn rows(self, name: &str, rows: &mut Rows) {
        rows.put(&format!("{name}_ms"), "ms", self.median);
        if name.starts_with("share_none_") {
            return rows.put(&format!("{name}_p99_ms"), "ms", self.p99);
        }
        rows.put(&format!("{name}_slower_ms"), "ms", self.slower);
        rows.put(&format!("{name}_slower_p99_ms"), "ms", self.slower_p99);
    }
}

impl Side {
    fn start(net: &Net, number: u8, (name, fault): (&'static str, Store)) -> Result<Self> {
        let (own, far) = (format!("192.0.2.{}", 20 + number), format!("192.0.2.{}", 120 + number));
        let host = net.host(&Plan { name: &format!("mx-{name}"), addresses: &[&own], prefixes: &[] })?;
        let store = if fault == Store::None {
            None
        } else {
            let host = net.host(&Plan { name: &format!("at-{name}"), addresses: &[&far], prefixes: &[] })?;
            Some(Redis::start(&host, "")?)
        };
        let shared = if store.is_some() { format!("[ledger]\nshared = \"redis://{far}\"\n") } else { String::new() };
        let screener = Screener::start(&host, &config(&shared))?;
        let server = SocketAddr::new(host.address(Family::V4)?, 25);
        let side = Self { name, fault, host, screener, server, store, greeting: Vec::new(), session: Vec::new() };
        if side.store.is_some() {
            wait_for_state(&side.screener, "sharing")?;
        }
        Ok(side)
    }

    /// Begins what is the matter with its store. A slow one is slow beside the sessions.
    fn fail(&mut self) -> Result<()> {
        match (self.fault, &mut self.store) {
            (Store::Silent, Some(store)) => store.sleep(),
            (Store::Down, Some(store)) => store.kill9(),
            (Store::Cut, Some(_)) => cut(&self.host, "drop"),
            _ => Ok(()),
        }
    }

    /// Ends it, and waits until everything is told.
    fn heal(&mut self) -> Result<()> {
        let failures = |side: &Self| Ok::<_, anyhow::Error>(shared(&side.screener)?["failures"].as_u64());
        match (self.fault, &mut self.store) {
            (Store::Silent, Some(store)) => store.wake()?,
            (Store::Down, Some(store)) => store.restart()?,
            (Store::Cut, Some(_)) => mend(&self.host)?,
            (Store::None, _) | (_, None) => return Ok(()),
            (Store::Well | Store::Slow, _) => {
                ensure!(failures(self)? == Some(0), "it was given up: {}", shared(&self.screener)?);
            }
        }
        wait_for_state(&self.screener, "sharing")?;
        let look = || Ok((shared(&self.screener)?["queued"] == 0).then_some(()));
        until_or_show("everything to be told", TOLD, || self.screener.log(), look)
    }

    /// A sentence, if its store does not know everybody who has a pass.
    fn untold(&self, everybody: u32) -> Result<Option<String>> {
        let Some(store) = &self.store else { return Ok(None) };
        let (known, passes) = (known(store)?, self.screener.passes()?);
        let right = [known, passes] == [u64::from(everybody); 2];
        Ok((!right).then(|| {
            format!("{}: of {everybody} clients that passed the daemon knows {passes} and the store {known}", self.name)
        }))
    }
}

/// Does something while the slow stores are stopped and let go on again and again.
fn with_slow_ones(sides: &mut [Side], work: impl FnOnce(&mut [Side]) -> Result<()>) -> Result<()> {
    let mut slow: Vec<(usize, Redis)> = Vec::new();
    for (at, side) in sides.iter_mut().enumerate().filter(|(_, side)| side.fault == Store::Slow) {
        slow.extend(side.store.take().map(|store| (at, store)));
    }
    let done = AtomicBool::new(false);
    let worked = thread::scope(|scope| {
        let dawdling = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                slow.iter_mut().try_for_each(|(_, store)| store.sleep())?;
                thread::sleep(ASLEEP);
                slow.iter_mut().try_for_each(|(_, store)| store.wake())?;
                thread::sleep(AWAKE);
            }
            Ok(())
        });
        let worked = work(sides);
        done.store(true, Ordering::Relaxed);
        dawdling.join().unwrap_or_else(|_| bail!("the slow store's thread broke"))?;
        worked
    });
    for (at, store) in slow {
        sides[at].store = Some(store);
    }
    worked
}

/// Strangers with these numbers, each of whom has a session with every side.
fn play(clients: &Host, sides: &mut [Side], numbers: Range<u32>) -> Result<()> {
    clients.in_ns(|| {
        for number in numbers {
            for turn in 0..sides.len() {
                let at = (turn + number as usize) % sides.len();
                let side = &mut sides[at];
                let (greeting, session) = session(number, side.server).with_context(|| side.name)?;
                side.greeting.push(greeting);
                side.session.push(session);
            }
        }
        Ok(())
    })
}

/// A whole session of a stranger, with a pass at its end: milliseconds to the greeting, and to the last word.
fn session(number: u32, server: SocketAddr) -> Result<(f64, f64)> {
    let source = IpAddr::from(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + number));
    let begun = Instant::now();
    let since = || begun.elapsed().as_secs_f64() * 1e3;
    let mut client = Client::here(source, server)?;
    client.expect(220)?;
    let greeting = since();
    // A name of its own: nothing is to be looked up about two clients with the same one.
    client.ask(&format!("EHLO c{number}.example.net"), 250)?;
    client.ask("MAIL FROM:<a@example.net>", 250)?;
    client.ask(&format!("RCPT TO:<{BOB}>"), 450)?;
    client.ask("QUIT", 221)?;
    Ok((greeting, since()))
}
