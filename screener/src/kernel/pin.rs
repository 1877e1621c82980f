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

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::MountFlags;
use screener_ebpf as abi;
use serde::Serialize;

use super::error::KernelError;

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`, <linux/magic.h>.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
const STEER_LINK: &str = "link_steer";
const STEER_LINK_NEW: &str = "link_steer_new";
const SCREEN_LINK: &str = "link_screen_";
const MAPS: &str = "abi-";

/// The pin directory of a running daemon. Locked: two daemons cannot fight over one set of links.
#[derive(Debug)]
pub(super) struct PinDirectory {
    path: PathBuf,
    /// Holds the lock; the kernel lets go of it when the process ends, in whatever way.
    _lock: OwnedFd,
}

impl PinDirectory {
    /// Makes the directory if it does not exist, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, KernelError> {
        ensure_bpffs(path)?;
        let maps = path.join(format!("{MAPS}{}", abi::ABI_VERSION));
        fs::create_dir_all(&maps).map_err(|error| KernelError::pin("cannot make", &maps, error))?;
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self, KernelError> {
        let lock = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| KernelError::pin("cannot open", path, error.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(KernelError::Busy { path: path.to_owned() }),
            Err(error) => Err(KernelError::pin("cannot lock", path, error.into())),
        }
    }

    /// Locks a directory that holds maps of this version; never makes one.
    pub(super) fn of_existing(path: &Path) -> Result<Self, KernelError> {
        if !map_pin(path, abi::maps::SETTINGS).exists() {
            return Err(KernelError::NothingPinned { path: path.to_owned() });
        }
        Self::lock(path)
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

    /// Where the successor of `steer`'s link is pinned before it takes its place.
    pub(super) fn steer_link_new(&self) -> PathBuf {
        self.path.join(STEER_LINK_NEW)
    }

    /// The pin of `screen`'s link on an interface.
    pub(super) fn screen_link(&self, interface: &str) -> PathBuf {
        self.path.join(format!("{SCREEN_LINK}{}", interface.replace('.', ":")))
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

    /// After a start that attached nothing: removes what it made, unless a link of an earlier one still needs it.
    pub(super) fn remove_if_unused(&self) -> Result<(), KernelError> {
        if names(&self.path)?.iter().any(|name| name.starts_with("link_")) {
            return Ok(());
        }
        remove(&self.path).map(drop)
    }
}

/// The pin of a map of this version.
pub(super) fn map_pin(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{MAPS}{}", abi::ABI_VERSION)).join(name)
}

/// The pin of `steer`'s link.
pub(super) fn steer_link(directory: &Path) -> PathBuf {
    directory.join(STEER_LINK)
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
    if !path.exists() {
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
            remove_file(&entry)?;
            report.detached.push(format!("screen {}", interface.replace(':', ".")));
        } else if name == STEER_LINK || name == STEER_LINK_NEW {
            remove_file(&entry)?;
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

/// Whether a daemon holds the directory.
pub(super) fn in_use(path: &Path) -> bool {
    let Ok(directory) = fs::File::open(path) else { return false };
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Removes a pin if it is there; with a link's pin the link goes.
pub(super) fn remove_file(path: &Path) -> Result<(), KernelError> {
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
fn on_bpffs(path: &Path) -> Result<bool, KernelError> {
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

/// Looks at a pinned link; `None` if nothing is pinned there.
///
/// aya tells the id of the program, but not what the link is attached to; `/proc/self/fdinfo` does (kernel 5.9).
pub(super) fn link_info(path: &Path) -> Result<Option<PinnedLinkInfo>, KernelError> {
    let link = match object_get(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| KernelError::pin("cannot open the link", path, error))?,
    };
    let fdinfo = PathBuf::from(format!("/proc/self/fdinfo/{}", link.as_raw_fd()));
    let text = fs::read_to_string(&fdinfo).map_err(|error| KernelError::pin("cannot read", &fdinfo, error))?;
    let mut info = PinnedLinkInfo::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let number = value.trim().parse::<u64>().unwrap_or(0);
        match key {
            "prog_id" => info.program = u32::try_from(number).unwrap_or(0),
            "ifindex" => info.interface = u32::try_from(number).unwrap_or(0),
            "netns_ino" => info.namespace = number,
            _ => {}
        }
    }
    Ok(Some(info))
}

/// `bpf(BPF_OBJ_GET)`: the object pinned at a path.
fn object_get(path: &Path) -> io::Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_int = 7;
    #[repr(C)]
    struct Attributes {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes = Attributes { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the command reads `size_of::<Attributes>()` bytes of `attributes` and the path in it, a C string that
    // lives until after the call; it writes to neither.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attributes, size_of::<Attributes>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the call has just made, and that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The inode of this process's network namespace, as [`PinnedLinkInfo::namespace`] shows it.
pub(super) fn own_namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(super::attach::NAMESPACE).map(|metadata| metadata.ino())
}
