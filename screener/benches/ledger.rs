//! `cargo bench -p screener --bench ledger`: what the ledger costs, beside a plain map and the bare store under it.
//!
//! Everything in one process and one run: passes for so many clients, looked up and renewed from one thread and from
//! several, written, and read at a start. Prints figures and ratios; a time alone proves nothing. `cargo xtask bench
//! ledger` runs it, and behind it what needs a lab.

mod figures;

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use redb::{ReadableDatabase as _, ReadableTable as _};

use screener::client::{ClientKey, Ipv6KeyLength};
use screener::clock::{Now, UnixTime};
use screener::ledger::{Ledger, Options, Origin, What};
use screener::pass::Stamps;

use figures::{Figures, Usual};

/// Threads that look up or renew at once: as many as a daemon has on a small host.
const THREADS: u32 = 4;

/// The ledger: lookups and updates a second, memory and disk for a million passes, time to start
#[derive(Debug, Parser)]
struct Bench {
    #[command(flatten)]
    usual: Usual,
    /// Where the files are made; without it in the system's place for temporary ones
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Only make a ledger with so many passes, as a daemon would have written it
    #[arg(long, value_name = "FILE")]
    make: Option<PathBuf>,
    /// How many passes
    #[arg(long)]
    passes: Option<u32>,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    passes: u32,
    /// Clients with a history of a few events.
    histories: u32,
    lookups: u32,
    updates: u32,
    rounds: usize,
}

const GOALS: [(&str, &str); 3] =
    [("ledger_start_seconds", "<= 1"), ("ledger_start_ratio", "<= 5"), ("ledger_lookup_ratio", "<= 2")];

fn main() -> Result<()> {
    let bench = Bench::parse();
    let mut effort = if bench.usual.quick {
        Effort { passes: 20_000, histories: 4_000, lookups: 50_000, updates: 20_000, rounds: 1 }
    } else {
        Effort { passes: 1_000_000, histories: 200_000, lookups: 2_000_000, updates: 400_000, rounds: 5 }
    };
    effort.rounds = bench.usual.rounds(effort.rounds);
    effort.passes = bench.passes.unwrap_or(effort.passes);
    if let Some(path) = &bench.make {
        return fill(path, effort.passes, 0);
    }
    let directory = match &bench.directory {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    };
    let directory = directory.context("a directory for the files")?;
    let mut figures = Figures::new(&GOALS);
    memory(effort, &mut figures)?;
    let path = directory.path().join("ledger.redb");
    let begun = Instant::now();
    fill(&path, effort.passes, effort.histories)?;
    eprintln!("bench: a ledger of {} passes written in {:.1} s", effort.passes, begun.elapsed().as_secs_f64());
    figures.put("ledger_disk_bytes_per_pass", "bytes", disk(directory.path(), effort.passes)?);
    for _ in 0..effort.rounds {
        round(&path, effort, &mut figures)?;
    }
    figures.print(bench.usual.json)
}

/// One round of everything that has a time.
fn round(path: &Path, effort: Effort, figures: &mut Figures) -> Result<()> {
    let bare = seconds(|| read_bare(path))?;
    let begun = Instant::now();
    let (ledger, report) = Ledger::open(path, Options::default())?;
    let start = begun.elapsed().as_secs_f64();
    ensure!(report.degraded.is_empty() && report.passes == effort.passes as usize, "{report:?}");
    figures.put("ledger_start_seconds", "s", start);
    figures.put("ledger_start_bare_redb_seconds", "s", bare);
    figures.put("ledger_start_ratio", "", start / bare);

    let plain: BTreeMap<ClientKey, Stamps> = (0..effort.passes).map(|n| (nth(n), stamps(DAY))).collect();
    let plain = Mutex::new(plain);
    let of_plain = |client| plain.lock().is_ok_and(|plain| plain.get(&client).is_some());
    let rival = seconds(|| look_up(effort, effort.lookups, 1, &of_plain))?;
    let own = seconds(|| look_up(effort, effort.lookups, 1, &|client| ledger.stamps(client).is_some()))?;
    figures.put("ledger_lookups_per_second", "/s", f64::from(effort.lookups) / own);
    figures.put("ledger_lookup_ratio", "", own / rival);
    drop(plain);
    let part = effort.lookups / THREADS;
    let look = |seed| look_up(effort, part, seed, &|client| ledger.stamps(client).is_some());
    let together = seconds(|| on_threads(&look))?;
    figures.put("ledger_lookups_per_second_4_threads", "/s", f64::from(effort.lookups) / together);

    // Each is another second later than the one before it, so none of them is without a change.
    let renew = |part: u32, seed: u32| {
        let (mut random, now) = (Random::new(seed), Now::read().unix);
        for n in 0..part {
            let client = nth(random.below(effort.passes));
            ledger.grant(client, &stamps(2 * DAY + n + seed * part), Origin::Screened, None, now);
        }
        anyhow::Ok(())
    };
    let updates = seconds(|| renew(effort.updates, 1))?;
    let flush = seconds(|| Ok(ledger.flush()?))?;
    figures.put("ledger_updates_per_second", "/s", f64::from(effort.updates) / updates);
    figures.put("ledger_durable_updates_per_second", "/s", f64::from(effort.updates) / (updates + flush));
    let together = seconds(|| on_threads(&|seed| renew(effort.updates / THREADS, seed)))?;
    figures.put("ledger_updates_per_second_4_threads", "/s", f64::from(effort.updates) / together);
    ledger.flush()?;
    Ok(())
}

/// The same work, with a number of its own each, on every thread.
fn on_threads(work: &(impl Fn(u32) -> Result<()> + Sync)) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS).map(|seed| scope.spawn(move || work(seed))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread broke")))
    })
}

/// How much memory a pass takes, with all that belongs to it.
fn memory(effort: Effort, figures: &mut Figures) -> Result<()> {
    let before = resident()?;
    let ledger = Ledger::in_memory(Options::default());
    for n in 0..effort.passes {
        // In no order: the tree is as full as it gets by itself.
        let client = nth(n.wrapping_mul(0x9E37_79B1) % effort.passes);
        ledger.grant(client, &stamps(DAY), Origin::Screened, None, Now::read().unix);
    }
    let passes = ledger.pass_count();
    let taken = resident()?.saturating_sub(before);
    figures.put("ledger_memory_bytes_per_pass", "bytes", taken as f64 / passes as f64);
    Ok(())
}

/// Writes a ledger: passes of which each test ends at another time, and histories of a few events.
fn fill(path: &Path, passes: u32, histories: u32) -> Result<()> {
    let (ledger, report) = Ledger::open(path, Options::default())?;
    ensure!(report.degraded.is_empty() && report.passes == 0, "{}: {report:?}", path.display());
    let now = Now::read().unix;
    for n in 0..passes {
        ledger.grant(nth(n), &stamps(DAY), Origin::Screened, None, now);
    }
    for n in 0..histories {
        let client = nth(n.wrapping_mul(5) % passes.max(1));
        ledger.note(client, What::Connected, "CONNECT to [198.51.100.1]:25".to_owned(), now);
        ledger.note(client, What::Passed, "PASS NEW".to_owned(), now);
        ledger.note(client, What::HandedOff, "127.0.0.1:10025".to_owned(), now);
    }
    Ok(ledger.flush()?)
}

/// Looks up clients in no order; all are there.
fn look_up(effort: Effort, count: u32, seed: u32, there: &impl Fn(ClientKey) -> bool) -> Result<()> {
    let mut random = Random::new(seed);
    for _ in 0..count {
        ensure!(black_box(there(nth(random.below(effort.passes)))), "a pass is not there");
    }
    Ok(())
}

/// What the store takes to give every record, with nothing made of it.
fn read_bare(path: &Path) -> Result<()> {
    const TABLES: [&str; 2] = ["passes", "histories"];
    let database = redb::Builder::new().set_cache_size(2 << 20).open(path)?;
    let transaction = database.begin_read()?;
    for table in TABLES {
        let table: redb::TableDefinition<'_, &[u8; 17], &[u8]> = redb::TableDefinition::new(table);
        for row in transaction.open_table(table)?.iter()? {
            let (key, value) = row?;
            black_box((key.value(), value.value()));
        }
    }
    Ok(())
}

/// What is left on the disk of each pass when the file is one of passes alone.
fn disk(directory: &Path, passes: u32) -> Result<f64> {
    let path = directory.join("passes.redb");
    fill(&path, passes, 0)?;
    let length = fs::metadata(&path)?.len();
    fs::remove_file(&path)?;
    Ok(length as f64 / f64::from(passes))
}

const DAY: u32 = 86_400;

fn stamps(seconds: u32) -> Stamps {
    let UnixTime(now) = Now::read().unix;
    Stamps::all_until(UnixTime(now + u64::from(seconds)))
}

/// The client number `n`, all over the address space.
fn nth(n: u32) -> ClientKey {
    let address = n.wrapping_mul(0x9E37_79B1);
    ClientKey::of(IpAddr::from(Ipv4Addr::from_bits(address)), Ipv6KeyLength::default())
}

/// Numbers without order, the same in every run (xorshift).
struct Random(u32);

impl Random {
    fn new(seed: u32) -> Self {
        Self(seed.wrapping_mul(0x85EB_CA6B) | 1)
    }

    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % end.max(1)
    }
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64())
}

/// The memory that this process has of its own, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
