//! The pin directory: where links and maps live on when the daemon does not.
//!
//! ```text
//! /sys/fs/bpf/screener/link_steer            the attachment to the network namespace
//! /sys/fs/bpf/screener/link_screen_eth0      one a screened interface; bpffs has no dots: eth0.7 is written eth0:7
//! /sys/fs/bpf/screener/abi-1/DENY4, …        the maps of this ABI version
//! ```
//! Links stand outside the versioned directory: one attachment goes from version to version, maps do not.
//!
//! Holds names, the lock and the removal. Never loads or attaches anything.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::MountFlags;
use screener_ebpf as abi;
use serde::Serialize;

use super::error::KernelError;
use super::sys;

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`, <linux/magic.h>.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
const STEER_LINK: &str = "link_steer";
const SCREEN_LINK: &str = "link_screen_";
const MAPS: &str = "abi-";

/// A command that only asks holds the lock for a moment; a daemon that starts looks so often, with such a pause between.
const LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The pin directory of a running daemon. Locked: two daemons cannot fight over one set of links.
#[derive(Debug)]
pub(super) struct PinDirectory {
    path: PathBuf,
    /// Holds the lock; the kernel lets go of it when the process ends, in whatever way. `None`: another daemon has it.
    lock: Mutex<Option<OwnedFd>>,
    /// The maps' directory was not there before.
    made: bool,
}

impl PinDirectory {
    /// Makes the directory if it does not exist, and locks it.
    /// `lock`: an earlier daemon's, given by it.
    pub(super) fn open(path: &Path, lock: Option<OwnedFd>) -> Result<Self, KernelError> {
        ensure_bpffs(path)?;
        let maps = path.join(format!("{MAPS}{}", abi::ABI_VERSION));
        let made = !maps.exists();
        fs::create_dir_all(&maps).map_err(|error| KernelError::pin("cannot make", &maps, error))?;
        let Some(lock) = lock.filter(|lock| is_same(lock, path)) else { return Self::lock(path, made) };
        // The table of locks names whoever took it last in another way than it was held: from here on that is this process.
        for way in [FlockOperation::NonBlockingLockShared, FlockOperation::NonBlockingLockExclusive] {
            rustix::fs::flock(&lock, way)
                .map_err(|error| KernelError::pin("cannot take over the lock of", path, error.into()))?;
        }
        Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock)), made })
    }

    fn lock(path: &Path, made: bool) -> Result<Self, KernelError> {
        let lock = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| KernelError::pin("cannot open", path, error.into()))?;
        for _ in 0..LOOKS {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { path: path.to_owned(), lock: Mutex::new(Some(lock)), made }),
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(BETWEEN_LOOKS),
                Err(error) => return Err(KernelError::pin("cannot lock", path, error.into())),
            }
        }
        Err(KernelError::Busy { path: path.to_owned(), holder: holder(path) })
    }

    /// Whether somebody took everything out of the kernel, with `screener kernel detach` or by hand: another daemon may
    /// have the place by now, and nothing may be pinned there again.
    pub(super) fn is_gone(&self) -> bool {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        !lock.as_ref().is_some_and(|lock| is_same(lock, &self.path))
    }

    /// The lock for another daemon: whoever holds a copy of it holds the directory.
    pub(super) fn lock_to_give(&self) -> io::Result<Option<OwnedFd>> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Leaves the directory to the daemon that was given the lock.
    pub(super) fn leave(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Locks a directory that holds maps of this version; never makes one.
    pub(super) fn of_existing(path: &Path) -> Result<Self, KernelError> {
        if !map_pin(path, abi::maps::SETTINGS).exists() {
            return Err(KernelError::NothingPinned { path: path.to_owned() });
        }
        Self::lock(path, false)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The pin of a map of this version.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        map_pin(&self.path, name)
    }

    /// The pin of `steer`'s link.
    pub(super) fn steer_link(&self) -> PathBuf {
        steer_link(&self.path)
    }

    /// The pin of `screen`'s link on an interface.
    pub(super) fn screen_link(&self, interface: &str) -> PathBuf {
        screen_link(&self.path, interface)
    }

    /// Whether every attachment that is pinned here runs one of these programs.
    pub(super) fn all_run(&self, programs: &[u32]) -> Result<bool, KernelError> {
        let mut links: Vec<_> = screen_links(&self.path)?.into_iter().map(|(_, path)| path).collect();
        links.push(self.steer_link());
        for link in links {
            if link_info(&link)?.is_some_and(|info| info.is_attached() && !programs.contains(&info.program)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the maps of other versions: once our links are in place, no program uses them.
    pub(super) fn remove_other_versions(&self) -> Result<(), KernelError> {
        let ours = format!("{MAPS}{}", abi::ABI_VERSION);
        for name in names(&self.path)? {
            if name.starts_with(MAPS) && name != ours {
                remove_maps(&self.path.join(name))?;
            }
        }
        Ok(())
    }

    /// After a start that attached nothing: removes what it made, unless a link of an earlier one still needs it. Maps
    /// that were there before stay: somebody has filled them.
    pub(super) fn remove_if_unused(&self) -> Result<(), KernelError> {
        if !self.made || names(&self.path)?.iter().any(|name| name.starts_with("link_")) {
            return Ok(());
        }
        remove(&self.path).map(drop)
    }
}

/// Whether a descriptor is of what a path leads to.
fn is_same(lock: &OwnedFd, path: &Path) -> bool {
    let ours = rustix::fs::fstat(lock).map(|stat| (stat.st_dev, stat.st_ino));
    let there = fs::metadata(path).map(|there| (there.dev(), there.ino()));
    matches!((ours, there), (Ok(ours), Ok(there)) if ours == there)
}

/// The pin of a map of this version.
pub(super) fn map_pin(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{MAPS}{}", abi::ABI_VERSION)).join(name)
}

/// The pin of `steer`'s link.
pub(super) fn steer_link(directory: &Path) -> PathBuf {
    directory.join(STEER_LINK)
}

/// The pin of `screen`'s link on an interface.
pub(super) fn screen_link(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{SCREEN_LINK}{}", interface.replace('.', ":")))
}

/// The versions whose maps are in a directory.
pub(super) fn versions(directory: &Path) -> Result<Vec<u32>, KernelError> {
    Ok(names(directory)?.iter().filter_map(|name| name.strip_prefix(MAPS)?.parse().ok()).collect())
}

/// Whether a path is the pin of a `screen` of some screener, by its name.
pub(super) fn is_screen_link(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(SCREEN_LINK))
}

/// The interfaces that have a pinned link, with its path.
pub(super) fn screen_links(directory: &Path) -> Result<Vec<(String, PathBuf)>, KernelError> {
    let links = names(directory)?;
    let links = links.iter().filter_map(|name| {
        let interface = name.strip_prefix(SCREEN_LINK)?.replace(':', ".");
        Some((interface, directory.join(name)))
    });
    Ok(links.collect())
}

/// What [`detach`](super::detach) removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DetachReport {
    /// The attachments that are gone: `steer`, or `screen` and an interface.
    pub detached: Vec<String>,
    /// How many pinned maps are gone.
    pub maps: usize,
    /// Files in the directory that are not ours, and so are still there.
    pub left: Vec<String>,
    /// A daemon is running. Its maps still exist while it lives, but no packet meets a program of ours any more.
    pub in_use: bool,
}

/// Removes everything of ours in a pin directory, and the directory if that leaves it empty.
pub(super) fn remove(path: &Path) -> Result<DetachReport, KernelError> {
    let mut report = DetachReport::default();
    let there = path.try_exists().map_err(|error| KernelError::pin("cannot look at", path, error))?;
    if !there {
        return Ok(report);
    }
    if !on_bpffs(path)? {
        return Err(KernelError::NotBpffs { path: path.to_owned(), why: None });
    }
    let mut names = names(path)?;
    // Links first: as long as one is attached its programs need the maps.
    names.sort_by_key(|name| !name.starts_with("link_"));
    for name in names {
        let entry = path.join(&name);
        if let Some(interface) = name.strip_prefix(SCREEN_LINK) {
            remove_link(&entry)?;
            report.detached.push(format!("screen {}", interface.replace(':', ".")));
        } else if name == STEER_LINK {
            remove_link(&entry)?;
            report.detached.push("steer".to_owned());
        } else if name.starts_with(MAPS) {
            report.maps += remove_maps(&entry)?;
        } else {
            report.left.push(name);
        }
    }
    if report.left.is_empty() {
        fs::remove_dir(path).map_err(|error| KernelError::pin("cannot remove", path, error))?;
    }
    Ok(report)
}

/// Takes the lock of a directory for as long as something is removed from it; `None`: a daemon holds it.
pub(super) fn lock_to_remove(path: &Path) -> Option<fs::File> {
    let directory = fs::File::open(path).ok()?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(directory)
}

/// The process that holds the directory, if one does that can be seen from here.
pub(super) fn holder(path: &Path) -> Option<u32> {
    let directory = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, rustix::fs::major(directory.dev()), rustix::fs::minor(directory.dev()), directory.ino())
}

/// From the table of proc(5): number, kind, mode, access, process, device and inode, range.
fn holder_in(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        match columns[..] {
            [_, "FLOCK", _, "WRITE", process, place, ..] if place == wanted => process.parse().ok(),
            _ => None,
        }
    })
}

/// Removes a link and its pin if they are there. When this returns no packet meets the program any more.
pub(super) fn remove_link(path: &Path) -> Result<(), KernelError> {
    if let Ok(link) = sys::object_get(path)
        && let Err(error) = sys::link_detach(link.as_fd())
    {
        // Its end comes with that of the pin then, if a little later.
        log::debug!("{}: {error}", path.display());
    }
    remove_file(path)
}

/// Removes a pin if it is there.
fn remove_file(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KernelError::pin("cannot remove", path, error)),
        _ => Ok(()),
    }
}

fn remove_maps(directory: &Path) -> Result<usize, KernelError> {
    let maps = names(directory)?;
    for map in &maps {
        remove_file(&directory.join(map))?;
    }
    fs::remove_dir(directory).map_err(|error| KernelError::pin("cannot remove", directory, error))?;
    Ok(maps.len())
}

/// The names in a directory; none if it does not exist.
fn names(directory: &Path) -> Result<Vec<String>, KernelError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| KernelError::pin("cannot read", directory, error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| KernelError::pin("cannot read", directory, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Whether the path, or the nearest directory above it that exists, is on a bpffs.
pub(super) fn on_bpffs(path: &Path) -> Result<bool, KernelError> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat =
        rustix::fs::statfs(existing).map_err(|error| KernelError::pin("cannot examine", existing, error.into()))?;
    // The field is signed and of another width on some architectures; the magic number has 32 bits.
    Ok(stat.f_type as u32 == BPF_FS_MAGIC)
}

/// Sees to it that the pin directory lies on a bpffs: mounts one where it belongs, if nothing at all is there.
fn ensure_bpffs(path: &Path) -> Result<(), KernelError> {
    if on_bpffs(path)? {
        return Ok(());
    }
    let home = Path::new(BPFFS);
    let untouched = fs::read_dir(home).is_ok_and(|mut entries| entries.next().is_none());
    if !path.starts_with(home) || !untouched {
        return Err(KernelError::NotBpffs { path: path.to_owned(), why: None });
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match rustix::mount::mount("bpf", BPFFS, "bpf", flags, c"mode=700") {
        Ok(()) => {
            log::info!("mounted a BPF file system at {BPFFS}: nothing was there");
            Ok(())
        }
        Err(error) => Err(KernelError::NotBpffs { path: path.to_owned(), why: Some(error.into()) }),
    }
}

/// What the kernel says about a pinned link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PinnedLinkInfo {
    /// The id of the program that the link holds.
    pub(super) program: u32,
    /// `screen`: the interface; 0 if it is gone, and with it the attachment.
    pub(super) interface: u32,
    /// `steer`: the inode of the network namespace; 0 if it is gone.
    pub(super) namespace: u64,
}

impl PinnedLinkInfo {
    /// It is attached to something that still exists.
    pub(super) fn is_attached(self) -> bool {
        self.interface != 0 || self.namespace != 0
    }
}

/// Looks at a pinned link; `None` if nothing is pinned there.
///
/// aya tells the id of the program, but not what the link is attached to; fdinfo does (kernel 5.9).
pub(super) fn link_info(path: &Path) -> Result<Option<PinnedLinkInfo>, KernelError> {
    let link = match sys::object_get(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| KernelError::pin("cannot open the link", path, error))?,
    };
    let fields = sys::fdinfo(link.as_fd()).map_err(|error| KernelError::pin("cannot read about", path, error))?;
    let number = |key: &str| fields.get(key).copied().unwrap_or(0);
    Ok(Some(PinnedLinkInfo {
        program: u32::try_from(number("prog_id")).unwrap_or(0),
        interface: u32::try_from(number("ifindex")).unwrap_or(0),
        namespace: number("netns_ino"),
    }))
}

/// Pins a link.
pub(super) fn pin_link(link: &OwnedFd, path: &Path) -> Result<(), KernelError> {
    sys::object_pin(link.as_fd(), path).map_err(|error| KernelError::pin("cannot pin", path, error))
}

/// Gives a pin another name, in the place of what was there.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), KernelError> {
    fs::rename(from, to).map_err(|error| KernelError::pin("cannot put in place", to, error))
}

/// The inode of this process's network namespace, as [`PinnedLinkInfo::namespace`] shows it.
pub(super) fn own_namespace() -> io::Result<u64> {
    fs::metadata(super::attach::NAMESPACE).map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_its_place() {
        let locks = "1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 77 00:1d:12 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 78 00:1d:13 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 79 00:1d:13 0 EOF\n";
        assert_eq!(holder_in(locks, 0, 0x1d, 12), Some(77));
        assert_eq!(holder_in(locks, 0, 0x1d, 13), None);
    }
}
