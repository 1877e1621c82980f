//! What can go wrong with the kernel half, said so that the operator knows what to do next.
//!
//! Holds the one error type of the module and the sorting of aya's errors into it. Never hides a cause: what is not
//! understood is shown as it came.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use screener_ebpf as abi;
use thiserror::Error;

use super::foreign::Owner;
use super::probe;

/// An operation on the kernel half failed.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The process may not use BPF.
    #[error("no permission to {what}: {advice}")]
    NoPermission {
        /// What was attempted.
        what: String,
        /// What stands in the way, and what to do.
        advice: String,
    },
    /// There is no BPF.
    #[error(
        "this system has no bpf(2) at all: a seccomp filter answers in the kernel's place (allow bpf(2) in the container's \
         profile), or the kernel was built without CONFIG_BPF_SYSCALL; or do without BPF: listen.mode = \"front\", \
         kernel.xdp = \"off\""
    )]
    NoBpf,
    /// The pin directory is not on a bpffs.
    #[error(
        "{path} is not on a BPF file system: run `mount -t bpf bpf /sys/fs/bpf`, or set kernel.pin to a directory on a \
         mounted one{}", why.as_ref().map(|why| format!(" (mounting it here failed: {why})")).unwrap_or_default()
    )]
    NotBpffs {
        /// The pin directory.
        path: PathBuf,
        /// Why mounting it failed, if that was tried.
        why: Option<io::Error>,
    },
    /// Another daemon holds the pin directory.
    #[error(
        "another screener{} holds {path}: it has the programs and maps there; stop it first",
        holder.map(|process| format!(" (process {process})")).unwrap_or_default()
    )]
    Busy {
        /// The pin directory.
        path: PathBuf,
        /// The process, if it can be seen.
        holder: Option<u32>,
    },
    /// There are no maps to look at.
    #[error(
        "no maps of this version are pinned under {path}: run `screener kernel attach`, or start the daemon with `screener \
         run`; --pin names another directory"
    )]
    NothingPinned {
        /// The pin directory.
        path: PathBuf,
    },
    /// The interface does not exist.
    #[error(
        "there is no interface {interface}: correct kernel.interfaces (`ip link` lists them); a daemon that runs attaches \
         when it comes"
    )]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// Somebody else's XDP program is on the interface.
    #[error("{} already has an XDP program of somebody else, which is left alone: {owner}: {}", owner.interface, owner.advice())]
    ForeignXdp {
        /// Whose it is.
        owner: Box<Owner>,
    },
    /// The driver does not take the program.
    #[error("{interface}: native XDP refused: {reason}; kernel.xdp = \"auto\" falls back to generic mode")]
    NativeRefused {
        /// The interface.
        interface: String,
        /// What the driver's errno means.
        reason: String,
    },
    /// The program could not be attached.
    #[error("cannot attach {program} to {to}: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface or namespace.
        to: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel is too old.
    #[error("this kernel, Linux {release}, lacks {missing}; Linux 5.10 or later is needed")]
    OldKernel {
        /// Its version.
        release: String,
        /// What is missing, with the version that brought it.
        missing: String,
    },
    /// The kernel does not know this kind of program or map.
    #[error("this kernel has no {what}: {source}; Linux 5.10 or later is needed")]
    Unsupported {
        /// What is missing.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The verifier does not accept the program.
    #[error(
        "the kernel's verifier refused {program}: {source}; please report this with the kernel version. It said:\n{log}"
    )]
    Verifier {
        /// The program.
        program: &'static str,
        /// What the system call said.
        source: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A map holds as many entries as it can.
    #[error(
        "the kernel map {map} is full with {max_entries} entries: remove entries, or join prefixes into shorter ones"
    )]
    MapFull {
        /// The map.
        map: &'static str,
        /// Its capacity.
        max_entries: u32,
    },
    /// Another operation on a map failed.
    #[error("kernel map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What went wrong.
        source: Box<MapError>,
    },
    /// A pinned map is not the one that this version makes.
    #[error("{path} is no map of this version: run `screener kernel detach` and start again")]
    ForeignMap {
        /// The pin.
        path: PathBuf,
    },
    /// The built-in object cannot be loaded.
    #[error("the built-in BPF object does not load: {0}")]
    Object(#[source] Box<EbpfError>),
    /// Too many ports.
    #[error("kernel.ports names {0} ports, {max} are possible", max = abi::MAX_PORTS)]
    TooManyPorts(usize),
    /// A file under the pin directory cannot be handled.
    #[error("{what} {path}: {source}")]
    Pin {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The network configuration cannot be read.
    #[error("cannot ask the kernel about interface {interface}: {source}")]
    Netlink {
        /// The interface.
        interface: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The listener cannot be put into the socket map.
    #[error("the {class} listener cannot be given to the kernel: {source}; it must be a TCP socket in LISTEN state")]
    Listener {
        /// The class.
        class: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The event stream exists already.
    #[error("the kernel's events have a reader already")]
    EventsTaken,
    /// The event stream cannot be read from this task.
    #[error("cannot wait for the kernel's events: {0}")]
    Events(#[source] io::Error),
}

/// How much of the verifier's log is shown: the end holds the reason.
const LOG_LINES: usize = 20;

fn is_permission(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOSYS)
}

impl KernelError {
    /// What is not permitted, with what stands in the way.
    fn permission(what: impl Into<String>) -> Self {
        Self::NoPermission { what: what.into(), advice: probe::Privileges::read().advice() }
    }

    pub(super) fn pin(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        if is_permission(&source) {
            // "cannot make …" becomes "no permission to make …".
            let what = what.strip_prefix("cannot ").unwrap_or(what);
            Self::permission(format!("{what} {}", path.into().display()))
        } else if is_missing(&source) {
            Self::NoBpf
        } else {
            Self::Pin { what, path: path.into(), source }
        }
    }

    /// Says which feature the kernel lacks, where that may be why it refused something.
    pub(super) fn explained(self) -> Self {
        match self {
            Self::Unsupported { .. } | Self::Object(_) | Self::Attach { .. } => match probe::missing() {
                Some(missing) => Self::OldKernel { release: probe::release(), missing },
                None => self,
            },
            other => other,
        }
    }

    /// An error of the loader: parsing, creating maps, relocating.
    pub(super) fn load(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) if is_permission(&io_error) => {
                Self::permission(format!("create the BPF map {name}"))
            }
            EbpfError::MapError(MapError::CreateError { io_error, .. }) if is_missing(&io_error) => Self::NoBpf,
            EbpfError::MapError(MapError::CreateError { name, io_error })
                if io_error.raw_os_error() == Some(libc::EINVAL) =>
            {
                Self::Unsupported { what: format!("BPF map of the kind of {name}"), source: io_error }
            }
            error => Self::Object(Box::new(error)),
        }
    }

    /// An error of loading one program.
    pub(super) fn program(program: &'static str, error: ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                if is_permission(&io_error) && log.trim().is_empty() {
                    return Self::permission(format!("load the BPF program {program}"));
                }
                if is_missing(&io_error) {
                    return Self::NoBpf;
                }
                if log.trim().is_empty() {
                    return Self::Unsupported {
                        what: format!("BPF program of the kind of {program}"),
                        source: io_error,
                    };
                }
                let lines: Vec<_> = log.lines().collect();
                let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                Self::Verifier { program, source: io_error, log }
            }
            error => Self::Attach { program, to: "the kernel".into(), source: errno(error) },
        }
    }

    /// An error of attaching a program.
    pub(super) fn attach(program: &'static str, to: &str, source: io::Error) -> Self {
        if is_permission(&source) {
            Self::permission(format!("attach {program} to {to}"))
        } else if is_missing(&source) {
            Self::NoBpf
        } else {
            Self::Attach { program, to: to.to_owned(), source }
        }
    }

    /// An error of an operation on one map.
    pub(super) fn map(map: &'static str, max_entries: u32, error: MapError) -> Self {
        let errno = match &error {
            MapError::SyscallError(error) => error.io_error.raw_os_error(),
            MapError::IoError(error) => error.raw_os_error(),
            _ => None,
        };
        match errno {
            // A hash says E2BIG, a trie ENOSPC.
            Some(libc::E2BIG | libc::ENOSPC) => Self::MapFull { map, max_entries },
            Some(libc::EPERM | libc::EACCES) => Self::permission(format!("change the BPF map {map}")),
            _ => Self::Map { map, source: Box::new(error) },
        }
    }
}

/// What a map has under a key; `None`: nothing.
pub(super) fn found<V>(looked: Result<V, MapError>) -> Result<Option<V>, MapError> {
    match looked {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there was something to remove from a map.
pub(super) fn removed(done: Result<(), MapError>) -> Result<bool, MapError> {
    match done {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        done => Ok(found(done)?.is_some()),
    }
}

/// The system's error within aya's, so that its number can be looked at: aya's own text hides it.
pub(super) fn errno(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(error) => error.io_error,
        ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error) => io_error,
        error => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
            while let Some(inner) = cause {
                if let Some(number) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                    return io::Error::from_raw_os_error(number);
                }
                cause = inner.source();
            }
            io::Error::other(error)
        }
    }
}
