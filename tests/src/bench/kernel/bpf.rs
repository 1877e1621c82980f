//! The calls to bpf(2) that aya has no safe form of: running a program by its descriptor whoever loaded it, finding one
//! by its number, filling an array at once, and what a map costs.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapInfo, MapType};

use crate::bpf::{bpf, bpf_fd};

const LOOK_UP: libc::c_int = 1;
const RUN: libc::c_int = 10;
const PROGRAM_BY_ID: libc::c_int = 13;

/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 1 << 1;

/// The part of `union bpf_attr` that runs a program.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    program: u32,
    answer: u32,
    in_size: u32,
    out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    pad: u32,
}

/// The part that looks up an element.
#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Runs an XDP program on a frame so many times, and gives its last answer; `out` takes the frame as it left it.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32, out: Option<&mut [u8]>) -> Result<u32> {
    let mut attributes = RunAttributes { repeat, ..attributes(program, frame)? };
    if let Some(out) = out {
        attributes.out_size = u32::try_from(out.len()).context("too long for a frame")?;
        attributes.data_out = out.as_mut_ptr() as u64;
    }
    // SAFETY: laid out as <linux/bpf.h> has it; the frame and the room for its end live until after the call.
    unsafe { bpf(RUN, &mut attributes) }.context("BPF_PROG_TEST_RUN")?;
    Ok(attributes.answer)
}

/// Runs an XDP program on so many live frames: what it answers really happens to them. Gives the nanoseconds for a frame by
/// the kernel's own clock, which runs neither while the run is prepared (it changes the kernel's text, and that takes
/// longer than ten thousand frames) nor while another process has the core.
pub(crate) fn run_live(program: BorrowedFd<'_>, frame: &[u8], frames: u32, batch: u32) -> Result<u32> {
    let attributes = attributes(program, frame)?;
    let mut attributes = RunAttributes { repeat: frames, batch, flags: LIVE_FRAMES, ..attributes };
    // SAFETY: laid out as <linux/bpf.h> has it; the frame lives until after the call.
    unsafe { bpf(RUN, &mut attributes) }.context("BPF_PROG_TEST_RUN with live frames (Linux 5.18)")?;
    Ok(attributes.duration)
}

fn attributes(program: BorrowedFd<'_>, frame: &[u8]) -> Result<RunAttributes> {
    Ok(RunAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        in_size: u32::try_from(frame.len()).context("too long for a frame")?,
        data_in: frame.as_ptr() as u64,
        ..RunAttributes::default()
    })
}

/// The program with this number.
pub(crate) fn program_by_id(id: u32) -> Result<OwnedFd> {
    // SAFETY: three numbers: that of the program, the next one, flags.
    unsafe { bpf_fd(PROGRAM_BY_ID, &mut [id, 0, 0]) }.with_context(|| format!("program {id}"))
}

/// Writes the first elements of an array map that was made for mmap(2).
///
/// `T` must be as long as the map's values are apart: a multiple of eight bytes.
pub(crate) fn fill<T: Copy>(map: BorrowedFd<'_>, values: &[T]) -> Result<()> {
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let length = size_of_val(values);
    if length == 0 {
        return Ok(());
    }
    // SAFETY: a new shared mapping of the map's memory; the kernel refuses one that is longer than the map.
    let place = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, map.as_raw_fd(), 0)
    };
    ensure!(place != libc::MAP_FAILED, "mmap of a map: {}", io::Error::last_os_error());
    // SAFETY: the mapping is `length` bytes long, new, and so apart from the values; it is unmapped once.
    unsafe {
        ptr::copy_nonoverlapping(values.as_ptr(), place.cast::<T>(), values.len());
        libc::munmap(place, length);
    }
    Ok(())
}

/// What a map costs the kernel, with the maps that it holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Bytes, as the kernel accounts for them.
    pub(crate) bytes: u64,
    /// There is a trie among them: of those the kernel leaves the inner nodes out, so the bytes are too few.
    pub(crate) too_low: bool,
}

impl Cost {
    /// The sum of two.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, too_low: self.too_low || other.too_low }
    }

    /// Of a pinned map.
    pub(crate) fn of_pin(pin: &Path) -> Result<Self> {
        Self::of(&MapInfo::from_pin(pin).with_context(|| pin.display().to_string())?)
    }

    /// Of a map of our own.
    pub(crate) fn of_map(map: &Map) -> Result<Self> {
        let (Map::Array(data) | Map::HashMap(data)) = map else { bail!("a map of this kind is not asked for") };
        Self::of(&data.info().context("a map's description")?)
    }

    fn of(info: &MapInfo) -> Result<Self> {
        let fd = info.fd().context("opening a map")?;
        let fd = std::os::fd::AsFd::as_fd(&fd);
        let text = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd())).context("fdinfo")?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let kind = info.map_type().ok();
        let too_low = matches!(kind, Some(MapType::LpmTrie));
        let mut cost = Self { bytes: field("memlock:").context("no memlock in fdinfo")?, too_low };
        if matches!(kind, Some(MapType::ArrayOfMaps)) {
            for place in 0..field("max_entries:").unwrap_or(0) {
                if let Some(inner) = inner_map(fd, u32::try_from(place)?)? {
                    cost = cost.and(Self::of(&inner)?);
                }
            }
        }
        Ok(cost)
    }
}

/// The map at a place of an array of maps: to user space its value is the inner map's number.
fn inner_map(outer: BorrowedFd<'_>, place: u32) -> Result<Option<MapInfo>> {
    let mut id = 0_u32;
    let mut attributes = ElementAttributes {
        map: outer.as_raw_fd().cast_unsigned(),
        key: &raw const place as u64,
        value: &raw mut id as u64,
        ..ElementAttributes::default()
    };
    // SAFETY: laid out as <linux/bpf.h> has it; the key and the value live until after the call.
    match unsafe { bpf(LOOK_UP, &mut attributes) } {
        Ok(_) => MapInfo::from_id(id).map(Some).context("an inner map"),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error).context("looking into an array of maps"),
    }
}

/// What the kernel has taken for itself, in bytes: slabs, vmalloc and per-CPU memory.
pub(crate) fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let parts = ["Slab:", "VmallocUsed:", "Percpu:"].map(|name| kib(name).unwrap_or(0));
    Ok(parts.iter().sum::<u64>() * 1024)
}
