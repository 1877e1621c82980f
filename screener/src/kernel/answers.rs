//! Whether `screen` can answer by itself where it is attached: whether what it sends back arrives.
//!
//! A network card takes back a frame that it has received. A veth end gives it to its peer, and that one drops it without
//! a word unless it polls for frames: with an XDP program of its own or, since kernel 5.13, with GRO. The peer is
//! often in a container's namespace and cannot be seen. Holds that one question. Never changes an interface.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::net::if_::if_indextoname;
use rustix::net::{AddressFamily, SocketType, socket};

use super::interface::{self, Interface, Mode};

// <linux/ethtool.h>
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GGRO: u32 = 0x2b;

/// Whether a RST that `screen` sends back arrives, on every one of the interfaces.
pub(super) fn arrive(interfaces: &[String]) -> bool {
    interfaces.iter().all(|name| {
        let Ok(interface) = interface::look_up(name) else {
            // Nothing is attached there.
            return true;
        };
        let native = matches!(interface.program, Some((_, Mode::Native)));
        let arrives = !native || !is_veth(name) || peer_polls(&interface);
        if !arrives {
            log::info!(
                "{name} is a veth whose peer is not seen to take what XDP sends back: clients under `reject` are refused \
                 in the stack; if its peer has GRO on (`ethtool -K PEER gro on`), `screener kernel map set settings \
                 reject_early on` refuses them earlier"
            );
        }
        arrives
    })
}

fn is_veth(name: &str) -> bool {
    #[repr(C)]
    struct Driver {
        command: u32,
        name: [u8; 32],
        rest: [u8; 160],
    }
    let mut driver = Driver { command: ETHTOOL_GDRVINFO, name: [0; 32], rest: [0; 160] };
    // SAFETY: a `struct ethtool_drvinfo` (196 bytes), which is what the command fills.
    let asked = unsafe { ethtool(name, &mut driver) };
    // A device without an answer is no veth: these have one.
    asked.is_ok() && CStr::from_bytes_until_nul(&driver.name).is_ok_and(|name| name == c"veth")
}

fn peer_polls(interface: &Interface) -> bool {
    let Some(peer) = interface.link else { return false };
    let Ok(name) = if_indextoname(peer) else { return false };
    let Ok(name) = name.to_str() else { return false };
    let has_program = interface::look_up(name).is_ok_and(|peer| matches!(peer.program, Some((_, Mode::Native))));
    has_program || (gro_polls() && has_gro(name))
}

fn has_gro(name: &str) -> bool {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value { command: ETHTOOL_GGRO, data: 0 };
    // SAFETY: a `struct ethtool_value`, which is what the command fills.
    unsafe { ethtool(name, &mut value) }.is_ok() && value.data != 0
}

/// Whether GRO makes a veth poll: since kernel 5.13. Before, it was always on and meant nothing.
fn gro_polls() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(13))
}

/// Asks an ethtool question about an interface.
///
/// # Safety
/// `question` must be of the type that the command in its first field reads and writes.
unsafe fn ethtool<T>(name: &str, question: &mut T) -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all zeroes is a valid request; name and data follow.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(question).cast();
    // SAFETY: the name is terminated, the data is what the caller promises, and both live until the call returns.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_veth_is_trusted() {
        assert!(arrive(&["lo".to_owned(), "none0".to_owned()]));
        assert!(!is_veth("lo"));
        assert!(gro_polls(), "this machine's kernel is newer");
    }
}
