//! The bench's own programs in the kernel, and their maps filled with the list.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map};
use aya::programs::{Program, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::bpf;
use super::list::{Dice, Lists};
use super::ranked::{Hashes, Table};
use super::shared::{FRAME, Job, SEGMENT, Source, maps, programs};
use super::traffic::Segment;

/// What `tests/build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

/// What one structure took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    /// From the parsed list to the last entry in the kernel.
    pub(crate) seconds: f64,
    /// Kernel memory.
    pub(crate) mib: f64,
}

/// The programs, loaded.
pub(crate) struct Object {
    ebpf: Ebpf,
}

impl Object {
    /// Loads the object. Maps that are pinned in `pins`, a screener's, are taken from there.
    pub(crate) fn load(pins: &Path, table: &Table, hashes: &Hashes, lists: &Lists) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let size = |count: usize| u32::try_from(count.max(1)).context("a list of more than 2^32 entries");
        loader
            .map_max_entries(maps::TRIE4, size(lists.v4.len())?)
            .map_max_entries(maps::TRIE6, size(lists.v6.len())?)
            .map_max_entries(maps::BITMAPS, size(table.bitmaps.len())?)
            .map_max_entries(maps::ROOTS6, size(hashes.roots.len())?)
            .map_max_entries(maps::PREFIXES6, size(hashes.prefixes.len())?);
        let pinned: Vec<_> = fs::read_dir(pins).with_context(|| pins.display().to_string())?.flatten().collect();
        let pinned: Vec<_> =
            pinned.iter().filter_map(|pin| Some((pin.file_name().into_string().ok()?, pin.path()))).collect();
        for (name, path) in &pinned {
            loader.map_pin_path(name, path.clone());
        }
        let mut ebpf = loader.load(OBJECT).context("loading the bench's object")?;
        for name in programs::ALL {
            let program: &mut Xdp = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        Ok(Self { ebpf })
    }

    /// Fills the kernel's tries.
    pub(crate) fn fill_tries(&mut self, lists: &Lists) -> Result<Filled> {
        let before = bpf::kernel_memory()?;
        let start = Instant::now();
        let mut trie = LpmTrie::<_, [u8; 4], u32>::try_from(self.map_mut(maps::TRIE4)?)?;
        for &(first, length) in &lists.v4 {
            trie.insert(&Key::new(length.into(), first.to_be_bytes()), 1, 0).context("a trie's entry")?;
        }
        let mut trie = LpmTrie::<_, [u8; 16], u32>::try_from(self.map_mut(maps::TRIE6)?)?;
        for &(first, length) in &lists.v6 {
            trie.insert(&Key::new(length.into(), first.to_be_bytes()), 1, 0).context("a trie's entry")?;
        }
        let seconds = start.elapsed().as_secs_f64();
        // The kernel's own number leaves the inner nodes out: so what has gone, instead.
        Ok(Filled { seconds, mib: mib(bpf::kernel_memory()?.saturating_sub(before)) })
    }

    /// Fills the ranked table and the hashes; `built` is what building them took.
    pub(crate) fn fill_ranked(&mut self, table: &Table, hashes: &Hashes, built: Duration) -> Result<Filled> {
        let start = Instant::now();
        bpf::fill(self.array(maps::RANKS)?, &table.ranks)?;
        bpf::fill(self.array(maps::BITMAPS)?, &table.bitmaps)?;
        let mut roots = HashMap::<_, [u8; 4], [u8; 8]>::try_from(self.map_mut(maps::ROOTS6)?)?;
        for (root, lengths) in &hashes.roots {
            roots.insert(root, lengths, 0).context("a root")?;
        }
        let mut prefixes = HashMap::<_, super::shared::Prefix6, u32>::try_from(self.map_mut(maps::PREFIXES6)?)?;
        for prefix in &hashes.prefixes {
            prefixes.insert(prefix, 1, 0).context("a prefix")?;
        }
        let seconds = (built + start.elapsed()).as_secs_f64();
        let mut cost = bpf::Cost::default();
        for name in [maps::RANKS, maps::BITMAPS, maps::ROOTS6, maps::PREFIXES6] {
            cost = cost.and(bpf::Cost::of_map(self.map(name)?)?);
        }
        Ok(Filled { seconds, mib: mib(cost.bytes) })
    }

    /// Fills the segments of sources.
    pub(crate) fn fill_sources(&self, lists: &Lists) -> Result<()> {
        let mut dice = Dice(0x5eed);
        let segments = Segment::ALL.iter().flat_map(|segment| segment.sources(lists, &mut dice));
        let sources: Vec<Source> = segments.collect();
        bpf::fill(self.array(maps::SOURCES)?, &sources)
    }

    /// Runs the generator for so many frames out of a segment, and tells the nanoseconds for each.
    pub(crate) fn generate(&mut self, job: &Job, frames: u32) -> Result<u32> {
        /// As many as a NAPI poll takes at once: each batch is received before the next one is made.
        const BATCH: u32 = 64;
        self.set_job(job)?;
        let program = self.program(programs::GENERATE)?;
        bpf::run_live(program, &template(), frames, BATCH)
    }

    /// The frame of this number, as the generator makes it.
    pub(crate) fn frame(&mut self, job: &Job, number: u32) -> Result<Vec<u8>> {
        self.set_job(&Job { count: number, interface: 0, ..*job })?;
        let mut frame = vec![0; FRAME];
        bpf::run(self.program(programs::GENERATE)?, &template(), 1, Some(&mut frame))?;
        Ok(frame)
    }

    /// Runs one of the loops over a whole segment: what it took, and how many it found on the list.
    ///
    /// In slices, each of which a disturbance of the machine may spoil, and three times over the whole; of each slice the
    /// shortest time counts. Between two goes at a slice the rest of the segment has been through the caches.
    pub(crate) fn run_loop(&mut self, program: &str, segment: Segment) -> Result<(Duration, u32)> {
        const SLICE: u32 = SEGMENT / 16;
        const GOES: usize = 3;
        let mut shortest = [Duration::MAX; (SEGMENT / SLICE) as usize];
        let mut hits = 0;
        for go in 0..GOES {
            for (slice, shortest) in (0..).zip(&mut shortest) {
                let first = segment.first() + slice * SLICE;
                self.set_job(&Job { first, mask: SLICE - 1, count: SLICE, ..Job::default() })?;
                let start = Instant::now();
                bpf::run(self.program(program)?, &template(), 1, None)?;
                *shortest = start.elapsed().min(*shortest);
                if go == 0 {
                    let jobs = Array::<_, Job>::try_from(self.map(maps::JOB)?)?;
                    hits += jobs.get(&0, 0).context("reading the job")?.hits;
                }
            }
        }
        Ok((shortest.iter().sum(), hits))
    }

    /// A program of ours.
    pub(crate) fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        match self.ebpf.program(name) {
            Some(Program::Xdp(program)) => Ok(program.fd()?.as_fd()),
            _ => bail!("no program {name}"),
        }
    }

    /// Attaches a program natively to an interface of the calling thread's network namespace, for as long as this lives.
    pub(crate) fn attach(&mut self, name: &str, interface: &str) -> Result<()> {
        let program: &mut Xdp =
            self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        program.attach(interface, XdpMode::Driver).with_context(|| format!("attaching {name}"))?;
        Ok(())
    }

    fn set_job(&mut self, job: &Job) -> Result<()> {
        let mut jobs = Array::<_, Job>::try_from(self.map_mut(maps::JOB)?)?;
        jobs.set(0, *job, 0).context("writing the job")
    }

    fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).with_context(|| format!("no map {name}"))
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    fn array(&self, name: &str) -> Result<BorrowedFd<'_>> {
        match self.map(name)? {
            Map::Array(data) => Ok(data.fd().as_fd()),
            _ => bail!("{name} is no array"),
        }
    }
}

/// Where the receivers are, and where frames come from.
pub(crate) const RECEIVER: [u8; 6] = [2, 0, 0, 0, 0, 0x25];

/// The frame before the generator has written into it.
fn template() -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&RECEIVER);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Runs a program of anybody's on one frame, again and again, and tells what one run took, in nanoseconds: in the shortest
/// of some goes, as it does the same each time and whatever is above that is somebody else's.
pub(crate) fn run_warm(program: BorrowedFd<'_>, frame: &[u8], answer: u32) -> Result<f64> {
    const RUNS: u32 = 20_000;
    const GOES: usize = 15;
    let mut shortest = Duration::MAX;
    for _ in 0..GOES {
        let start = Instant::now();
        let given = bpf::run(program, frame, RUNS, None)?;
        shortest = start.elapsed().min(shortest);
        ensure!(given == answer, "a program answered {given} to a frame and not {answer}");
    }
    Ok(shortest.as_nanos() as f64 / f64::from(RUNS))
}
