//! Attaching: `screen` to interfaces, `steer` to the network namespace, and taking both over without a gap.
//!
//! Never replaces a program of somebody else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use screener_ebpf::programs::{SCREEN, STEER};

use super::error::KernelError;
use super::foreign::Owner;
use super::interface::{self, Interface, Mode};
use super::load::Program;
use super::options::XdpPolicy;
use super::pin::{self, PinDirectory, PinnedLinkInfo};
use super::sys;

/// The namespace that `steer` is attached to: the one the daemon listens in.
pub(super) const NAMESPACE: &str = "/proc/self/ns/net";

/// How `screen` came onto an interface.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) mode: Mode,
    /// Why not in a better way.
    pub(super) reason: Option<String>,
}

/// What is on an interface, by the name that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// `screen`, by a link that is pinned here, perhaps under the interface's earlier name.
    Ours { interface: Interface, mode: Mode, pin: PathBuf },
    /// There is no such interface any more: it is called otherwise now, and `screen` is still on it.
    Renamed { to: String, mode: Mode, pin: PathBuf },
    /// No XDP program.
    Free(Interface),
    /// The XDP program of somebody else.
    Foreign { interface: Interface, program: u32, mode: Mode },
    /// There is no such interface.
    Gone,
}

impl Look {
    /// The interface, where there is one of the name.
    pub(super) fn interface(&self) -> Option<&Interface> {
        match self {
            Self::Ours { interface, .. } | Self::Free(interface) | Self::Foreign { interface, .. } => Some(interface),
            Self::Renamed { .. } | Self::Gone => None,
        }
    }
}

/// Looks at an interface and at the links that are pinned in a directory.
pub(super) fn look(directory: &Path, name: &str) -> Result<Look, KernelError> {
    let interface = match interface::look_up(name) {
        Ok(interface) => interface,
        Err(KernelError::NoInterface { .. }) => return look_elsewhere(directory, name),
        Err(error) => return Err(error),
    };
    let Some((program, mode)) = interface.program else { return Ok(Look::Free(interface)) };
    for (_, pin) in pin::screen_links(directory)? {
        if pin::link_info(&pin)?.is_some_and(|link| (link.program, link.interface) == (program, interface.index)) {
            return Ok(Look::Ours { interface, mode, pin });
        }
    }
    Ok(Look::Foreign { interface, program, mode })
}

/// Where the link of an interface is whose name does not exist.
fn look_elsewhere(directory: &Path, name: &str) -> Result<Look, KernelError> {
    let pin = pin::screen_link(directory, name);
    let Some(PinnedLinkInfo { program, interface: index @ 1.., .. }) = pin::link_info(&pin)? else {
        return Ok(Look::Gone);
    };
    let found = interface::by_index(index);
    let found = found.map_err(|source| KernelError::Netlink { interface: name.to_owned(), source })?;
    match found {
        Some(Interface { name: to, program: Some((there, mode)), .. }) if there == program => {
            Ok(Look::Renamed { to, mode, pin })
        }
        // In another namespace, perhaps.
        _ => Ok(Look::Gone),
    }
}

/// Puts `screen` on an interface; in place of our own earlier program, if one is there.
pub(super) fn screen(
    programs: &[Program],
    pin: &PinDirectory,
    name: &str,
    policy: XdpPolicy,
) -> Result<Attached, KernelError> {
    let path = pin.screen_link(name);
    match look(pin.path(), name)? {
        Look::Ours { interface, mode, pin: found } => {
            if found != path {
                pin::rename(&found, &path)?;
            }
            if allowed(mode, policy) {
                return take_over(programs, &path, &interface, mode, policy);
            }
            // A link cannot change its mode, so there is a short gap here.
            pin::remove_link(&path)?;
            attach(programs, &path, &interface, policy)
        }
        Look::Renamed { to, mode, pin: found } => {
            let interface = Interface { name: to, ..Interface::default() };
            take_over(programs, &found, &interface, mode, policy)
        }
        Look::Free(interface) => {
            // A pin without an attachment, or with one to another interface: this one was made anew since.
            pin::remove_link(&path)?;
            attach(programs, &path, &interface, policy)
        }
        Look::Foreign { interface, program, mode } => Err(foreign(&interface, program, mode)),
        Look::Gone => Err(KernelError::NoInterface { interface: name.to_owned() }),
    }
}

/// Whether the policy is content with a program that already runs so.
fn allowed(mode: Mode, policy: XdpPolicy) -> bool {
    match policy {
        XdpPolicy::Auto => mode != Mode::None,
        XdpPolicy::Native => matches!(mode, Mode::Native | Mode::Offloaded),
        XdpPolicy::Generic => mode == Mode::Generic,
        XdpPolicy::Off => false,
    }
}

/// Swaps the program behind a pinned link (`BPF_LINK_UPDATE`): every packet meets the old one or the new one.
fn take_over(
    programs: &[Program],
    path: &Path,
    interface: &Interface,
    mode: Mode,
    policy: XdpPolicy,
) -> Result<Attached, KernelError> {
    let link = sys::object_get(path).map_err(|error| KernelError::attach(SCREEN, &interface.name, error))?;
    first(programs, |program| sys::link_update(link.as_fd(), program))
        .map_err(|error| KernelError::attach(SCREEN, &interface.name, error))?;
    let reason = (mode == Mode::Generic && policy == XdpPolicy::Auto)
        .then(|| "taken over as it was; `screener kernel detach` and a restart try native mode again".to_owned());
    Ok(Attached { mode, reason })
}

/// Attaches to an interface that has no XDP program.
fn attach(
    programs: &[Program],
    path: &Path,
    interface: &Interface,
    policy: XdpPolicy,
) -> Result<Attached, KernelError> {
    let name = &interface.name;
    let link = |flags| first(programs, |program| sys::link_xdp(program, interface.index, flags));
    let mut reason = None;
    if matches!(policy, XdpPolicy::Auto | XdpPolicy::Native) {
        match link(sys::XDP_FLAGS_DRV_MODE) {
            Ok(link) => return pinned(&link, path, Mode::Native, None),
            Err(error) => match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => return Err(foreign_now(name, error)),
                Some(libc::EPERM | libc::EACCES) => return Err(KernelError::attach(SCREEN, name, error)),
                Some(libc::ENODEV) => return Err(KernelError::NoInterface { interface: name.clone() }),
                _ => reason = Some(why_not_native(&error, interface.mtu, name)),
            },
        }
    }
    if let (XdpPolicy::Native, Some(reason)) = (policy, &reason) {
        return Err(KernelError::NativeRefused { interface: name.clone(), reason: reason.clone() });
    }
    match link(sys::XDP_FLAGS_SKB_MODE) {
        Ok(link) => pinned(&link, path, Mode::Generic, reason.map(|why| format!("native refused: {why}"))),
        Err(error) => Err(match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => foreign_now(name, error),
            Some(libc::ENODEV) => KernelError::NoInterface { interface: name.clone() },
            _ => KernelError::attach(SCREEN, name, error),
        }),
    }
}

/// Tries one program after the other; the error is that of the last, the plainest one.
fn first<T>(
    programs: &[Program],
    mut attempt: impl FnMut(std::os::fd::BorrowedFd<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let mut outcome = Err(io::Error::from(io::ErrorKind::NotFound));
    for program in programs {
        outcome = attempt(program.fd.as_fd());
        match &outcome {
            Ok(_) => break,
            Err(error) => log::debug!("{}: {error}", program.name),
        }
    }
    outcome
}

fn pinned(link: &OwnedFd, path: &Path, mode: Mode, reason: Option<String>) -> Result<Attached, KernelError> {
    pin::pin_link(link, path)?;
    Ok(Attached { mode, reason })
}

/// What a driver means by its errno; its own words go to the kernel's trace log only.
fn why_not_native(error: &io::Error, mtu: u32, name: &str) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver has no native XDP".to_owned(),
        Some(libc::ERANGE | libc::E2BIG | libc::EMSGSIZE) => format!(
            "an MTU of {mtu}, or that of the other end, is too large for it (most drivers take up to about 3500, all of \
             them 1500): `ip link set dev {name} mtu 1500` and a restart, or Linux 5.18 and a driver that takes frames in \
             several buffers"
        ),
        _ => format!(
            "the driver says \"{error}\" (MTU {mtu}; some need a smaller one, fewer queues or LRO off: see `ip link show \
             {name}`, `ethtool -l {name}`, `ethtool -k {name}`; the kernel's log may tell more)"
        ),
    }
}

fn foreign(interface: &Interface, program: u32, mode: Mode) -> KernelError {
    KernelError::ForeignXdp { owner: Box::new(Owner::find(&interface.name, interface.index, program, mode)) }
}

/// Somebody was faster than us between the question and the attempt, or holds the interface in the other mode.
fn foreign_now(name: &str, error: io::Error) -> KernelError {
    match interface::look_up(name) {
        Ok(interface @ Interface { program: Some((id, mode)), .. }) => foreign(&interface, id, mode),
        _ => KernelError::attach(SCREEN, name, error),
    }
}

/// Attaches `steer`; in place of our own earlier one if it is pinned, in one step.
pub(super) fn steer(program: &Program, pin: &PinDirectory) -> Result<(), KernelError> {
    let failed = |error| KernelError::attach(STEER, "the network namespace", error);
    let path = pin.steer_link();
    if is_steered(pin.path())? {
        let link = sys::object_get(&path).map_err(failed)?;
        return sys::link_update(link.as_fd(), program.fd.as_fd()).map_err(failed);
    }
    // A pin of a namespace that is not ours, or not any more.
    pin::remove_link(&path)?;
    let namespace = File::open(NAMESPACE).map_err(|error| KernelError::attach(STEER, NAMESPACE, error))?;
    let link = sys::link_sk_lookup(program.fd.as_fd(), &namespace).map_err(failed)?;
    pin::pin_link(&link, &path)
}

/// Whether a `steer` that is pinned in a directory is attached to the network namespace of this process.
pub(super) fn is_steered(directory: &Path) -> Result<bool, KernelError> {
    let link = pin::link_info(&pin::steer_link(directory))?;
    Ok(link.is_some_and(|link| pin::own_namespace().is_ok_and(|own| own == link.namespace)))
}

#[cfg(test)]
mod tests {
    use aya::EbpfLoader;
    use screener_tests::cell;
    use screener_tests::net::ip;

    use super::*;
    use crate::kernel::load::{self, OBJECT};

    /// The plain form of `screen`, as a kernel or a driver without frames in several buffers has it.
    fn plain() -> Vec<Program> {
        let mut object = EbpfLoader::new().load(OBJECT).unwrap();
        let mut programs = load::screen(&mut object).unwrap();
        programs.retain(|program| program.name == SCREEN);
        programs
    }

    #[test]
    fn an_mtu_that_the_driver_does_not_take_is_said_to_be_too_large() {
        cell::test("kernel::attach::tests::an_mtu_that_the_driver_does_not_take_is_said_to_be_too_large", || {
            ip("link add eth0 mtu 9000 type veth peer name peer mtu 9000\nlink set eth0 up\nlink set peer up\n")?;
            let pin = PinDirectory::open(Path::new(crate::kernel::DEFAULT_PIN), None)?;
            let wanted = "an MTU of 9000, or that of the other end, is too large for it";
            let refused = screen(&plain(), &pin, "eth0", XdpPolicy::Native).unwrap_err().to_string();
            assert!(refused.contains(wanted) && refused.contains("`ip link set dev eth0 mtu 1500`"), "{refused}");
            let attached = screen(&plain(), &pin, "eth0", XdpPolicy::Auto)?;
            assert_eq!(attached.mode, Mode::Generic);
            assert!(attached.reason.is_some_and(|reason| reason.contains(wanted)));
            Ok(())
        });
    }
}
