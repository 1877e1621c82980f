//! Whether `screen` can answer by itself where it is attached: whether what it sends back arrives.
//!
//! A network card takes back a frame that it has received. A veth end puts it into a ring of its peer, and wakes the peer
//! only if that has an XDP program, too: without one the frame waits for other traffic to come by, or is gone (GRO at the
//! peer makes the ring, but not the waking). The peer is often in a container's namespace and cannot be seen. Holds
//! that one question. Never changes an interface.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::net::if_::if_indextoname;
use rustix::net::{AddressFamily, SocketType, socket};

use super::interface::{self, Interface, Mode};

// <linux/ethtool.h>
const ETHTOOL_GDRVINFO: u32 = 0x03;

/// Whether a RST that `screen` sends back arrives, on every one of the interfaces.
pub(super) fn arrive(interfaces: &[String]) -> bool {
    interfaces.iter().all(|name| {
        let Ok(interface) = interface::look_up(name) else {
            // Nothing is attached there.
            return true;
        };
        let native = matches!(interface.program, Some((_, Mode::Native)));
        let arrives = !native || !is_veth(name) || peer_wakes(&interface);
        if !arrives {
            log::info!(
                "{name} is a veth whose peer is not seen to take what XDP sends back: clients under `reject` are refused \
                 in the stack; if its peer has an XDP program, `screener kernel map set settings reject_early on` \
                 refuses them earlier"
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

fn peer_wakes(interface: &Interface) -> bool {
    let Some(peer) = interface.link else { return false };
    let Ok(name) = if_indextoname(peer) else { return false };
    let Ok(name) = name.to_str() else { return false };
    interface::look_up(name).is_ok_and(|peer| matches!(peer.program, Some((_, Mode::Native))))
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
    }
}
