//! What an interface's driver says of itself: its name, the offloads that matter to XDP, and what XDP it is capable of.
//!
//! Holds questions by ethtool's ioctl and by the netlink family `netdev`. Never changes a setting.

use std::io;
use std::os::fd::AsRawFd;

use super::interface::Interface;
use super::netlink::{Attributes, Question, half, text};

// <linux/ethtool.h>
const ETHTOOL_GDRVINFO: u32 = 3;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_LRO: u32 = 1 << 15;
/// `struct ethtool_drvinfo`; the name stands behind the command.
const DRIVER_INFO: usize = 196;

/// The driver's name; for what is no card, what it is.
pub(super) fn name(interface: &Interface) -> Option<String> {
    let mut info = vec![0; DRIVER_INFO];
    info[..4].copy_from_slice(&ETHTOOL_GDRVINFO.to_ne_bytes());
    let driver = ethtool(&interface.name, &mut info).ok().map(|()| text(&info[4..36]));
    driver.filter(|name| !name.is_empty()).or_else(|| interface.kind.clone())
}

/// Whether it joins TCP segments before we see them (LRO), which native XDP forbids; `None`: it does not say.
pub(super) fn joins_segments(interface: &Interface) -> Option<bool> {
    let mut value = [ETHTOOL_GFLAGS.to_ne_bytes(), [0; 4]].concat();
    ethtool(&interface.name, &mut value).ok()?;
    let flags = value[4..].first_chunk().map(|&flags| u32::from_ne_bytes(flags))?;
    Some(flags & ETH_FLAG_LRO != 0)
}

fn ethtool(interface: &str, data: &mut [u8]) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all zeroes is a valid request; name and data follow.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.as_bytes().iter().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    // SAFETY: the request names an interface by a terminated string and points to a value of the size that its command
    // has; both live until the call returns.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What XDP a driver says it is capable of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpFeatures(u64);

impl XdpFeatures {
    /// It runs programs.
    pub(super) fn native(self) -> bool {
        self.0 & 1 != 0
    }

    /// It gives them frames in several buffers.
    pub(super) fn frags(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

// <linux/genetlink.h>, <linux/netdev.h>
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// The length of `genlmsghdr`.
const HEADER: usize = 4;

/// Asks what XDP the driver is capable of; an error before Linux 6.3, which cannot be asked.
pub(super) fn xdp_features(interface: &Interface) -> io::Result<XdpFeatures> {
    let absent = || io::Error::from(io::ErrorKind::Unsupported);
    let ask =
        |kind: u16, command: u8| Question { protocol: libc::NETLINK_GENERIC, kind, header: vec![command, 1, 0, 0] };
    let family = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY).with(CTRL_ATTR_FAMILY_NAME, b"netdev\0").ask(GENL_ID_CTRL)?;
    let family = attribute(&family, CTRL_ATTR_FAMILY_ID).and_then(half).ok_or_else(absent)?;
    let question = ask(family, NETDEV_CMD_DEV_GET).with(NETDEV_A_DEV_IFINDEX, &interface.index.to_ne_bytes());
    let answer = question.ask(family)?;
    let features = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES).and_then(|value| value.first_chunk());
    features.map(|&features| XdpFeatures(u64::from_ne_bytes(features))).ok_or_else(absent)
}

fn attribute(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut attributes = Attributes(message.get(HEADER..)?);
    attributes.find(|&(kind, _)| kind == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::interface::look_up;

    #[test]
    fn the_loopback_interface_has_no_native_xdp() {
        let lo = look_up("lo").unwrap();
        // A kernel before 6.3 cannot say.
        assert!(!xdp_features(&lo).is_ok_and(XdpFeatures::native));
        assert_ne!(joins_segments(&lo), Some(true));
    }
}
