//! Attaching: `screen` to interfaces, `steer` to the network namespace, and taking both over without a gap.
//!
//! Never replaces a program of somebody else.

use std::fs::File;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramError, SkLookup, Xdp, XdpMode, loaded_programs, xdp::XdpLink};
use screener_ebpf::programs::{SCREEN, STEER};

use super::error::{KernelError, errno, link_errno};
use super::interface::{self, Interface, Mode};
use super::options::XdpPolicy;
use super::pin::{self, PinDirectory};

/// The namespace that `steer` is attached to: the one the daemon listens in.
pub(super) const NAMESPACE: &str = "/proc/self/ns/net";

/// How `screen` came onto an interface.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) mode: Mode,
    /// Why not in a better way.
    pub(super) reason: Option<String>,
}

/// Puts `screen` on an interface; in place of our own earlier program, if one is there.
pub(super) fn screen(
    program: &mut Xdp,
    pin: &PinDirectory,
    name: &str,
    policy: XdpPolicy,
) -> Result<Attached, KernelError> {
    let interface = interface::look_up(name)?;
    let path = pin.screen_link(name);
    let pinned = pin::link_info(&path)?;
    match (interface.program, pinned) {
        (Some((id, mode)), Some(link)) if id == link.program && allowed(mode, policy) => {
            return take_over(program, &path, name, mode, policy);
        }
        // Ours, but in a mode that is not wanted any more: a link cannot change it, so there is a short gap here.
        (Some((id, _)), Some(link)) if id == link.program => pin::remove_file(&path)?,
        (Some((id, _)), _) => return Err(foreign(name, id)),
        // A pin without an attachment: the interface was removed and made anew since.
        (None, Some(_)) => pin::remove_file(&path)?,
        (None, None) => {}
    }
    attach(program, &path, name, &interface, policy)
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
    program: &mut Xdp,
    path: &Path,
    name: &str,
    mode: Mode,
    policy: XdpPolicy,
) -> Result<Attached, KernelError> {
    let link = PinnedLink::from_pin(path).map_err(|error| KernelError::attach(SCREEN, name, link_errno(error)))?;
    let link =
        XdpLink::try_from(FdLink::from(link)).map_err(|error| KernelError::attach(SCREEN, name, link_errno(error)))?;
    let id = program.attach_to_link(link).map_err(|error| KernelError::attach(SCREEN, name, errno(error)))?;
    // The pin holds the link; our descriptor of it closes here.
    drop(program.take_link(id));
    let reason = (mode == Mode::Generic && policy == XdpPolicy::Auto)
        .then(|| "taken over as it was; `screener kernel detach` and a restart try native mode again".to_owned());
    Ok(Attached { mode, reason })
}

/// Attaches to an interface that has no XDP program.
fn attach(
    program: &mut Xdp,
    path: &Path,
    name: &str,
    interface: &Interface,
    policy: XdpPolicy,
) -> Result<Attached, KernelError> {
    let mut reason = None;
    if matches!(policy, XdpPolicy::Auto | XdpPolicy::Native) {
        match link(program, interface.index, XdpMode::Driver) {
            Ok(link) => return pinned(link, path, Mode::Native, None),
            Err(error) => match error.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => return Err(foreign_now(name, error)),
                Some(libc::EPERM | libc::EACCES) => return Err(KernelError::attach(SCREEN, name, error)),
                _ => reason = Some(why_not_native(&error, interface.mtu)),
            },
        }
    }
    if let (XdpPolicy::Native, Some(reason)) = (policy, &reason) {
        return Err(KernelError::NativeRefused { interface: name.to_owned(), reason: reason.clone() });
    }
    match link(program, interface.index, XdpMode::Skb) {
        Ok(link) => pinned(link, path, Mode::Generic, reason.map(|why| format!("native refused: {why}"))),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => Err(foreign_now(name, error)),
        Err(error) => Err(KernelError::attach(SCREEN, name, error)),
    }
}

/// Attaches and takes the link out of aya's hands.
fn link(program: &mut Xdp, index: u32, mode: XdpMode) -> Result<FdLink, std::io::Error> {
    let id = program.attach_to_if_index(index, mode).map_err(errno)?;
    let link = program.take_link(id).map_err(errno)?;
    // aya falls back to netlink on EINVAL. Such an attachment cannot be pinned; it is undone when `link` goes.
    FdLink::try_from(link).map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))
}

fn pinned(link: FdLink, path: &Path, mode: Mode, reason: Option<String>) -> Result<Attached, KernelError> {
    pin_link(link, path)?;
    Ok(Attached { mode, reason })
}

fn pin_link(link: FdLink, path: &Path) -> Result<(), KernelError> {
    let outcome = link.pin(path).map(drop);
    outcome.map_err(|error| {
        let source = match error {
            aya::pin::PinError::SyscallError(error) => error.io_error,
            error => std::io::Error::other(error),
        };
        KernelError::pin("cannot pin", path, source)
    })
}

/// What a driver means by its errno; its own words go to the kernel's trace log only.
fn why_not_native(error: &std::io::Error, mtu: u32) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "the driver has no native XDP".to_owned(),
        Some(libc::ERANGE | libc::E2BIG | libc::EMSGSIZE) => {
            format!("an MTU of {mtu} is too large for it; most drivers take about 3500 (`ip link set dev … mtu 1500`)")
        }
        _ => format!(
            "the driver says \"{error}\" (MTU {mtu}; some need fewer queues or LRO off: see `ethtool -l`, `-k`)"
        ),
    }
}

fn foreign(name: &str, id: u32) -> KernelError {
    let program = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    KernelError::ForeignXdp { interface: name.to_owned(), id, program: program.unwrap_or_default() }
}

/// Somebody was faster than us between the question and the attempt, or holds the interface in the other mode.
fn foreign_now(name: &str, error: std::io::Error) -> KernelError {
    match interface::look_up(name) {
        Ok(Interface { program: Some((id, _)), .. }) => foreign(name, id),
        _ => KernelError::attach(SCREEN, name, error),
    }
}

/// Attaches `steer`, in place of our own earlier one if it is pinned.
///
/// Such a link cannot be updated, but several may stand in one namespace: the new one comes first, then the old one
/// goes. In between both run, and both say the same.
pub(super) fn steer(program: &mut SkLookup, pin: &PinDirectory) -> Result<(), KernelError> {
    let failed = |error: ProgramError| KernelError::attach(STEER, "the network namespace", errno(error));
    let namespace = File::open(NAMESPACE).map_err(|error| KernelError::attach(STEER, NAMESPACE, error))?;
    let id = program.attach(&namespace).map_err(failed)?;
    let link = FdLink::from(program.take_link(id).map_err(failed)?);
    let (new, path) = (pin.steer_link_new(), pin.steer_link());
    // One may be left from a daemon that was killed at this very place.
    pin::remove_file(&new)?;
    pin_link(link, &new)?;
    std::fs::rename(&new, &path).map_err(|error| KernelError::pin("cannot put in place", &path, error))
}
