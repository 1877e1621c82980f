//! What the kernel says about one network interface: its number, its MTU, which XDP program runs on it, whose it is; and
//! the news that some interface has changed.
//!
//! Holds questions over rtnetlink, because aya has no way to ask for a program that it did not attach. Never changes
//! an interface.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use nix::net::if_::if_nametoindex;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::KernelError;
use super::netlink::{Attributes, Question, text, word};

/// How an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
    /// In the network card.
    Offloaded,
    /// Not at all.
    None,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
            Self::None => "none",
        })
    }
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    /// Bytes.
    pub(super) mtu: u32,
    /// What it is where it is no card: `veth`, `bond`, `bridge`, `vlan`, …
    pub(super) kind: Option<String>,
    /// What it is a member of: `bond`, `bridge`, …; and the index of that.
    pub(super) member_of: Option<(String, u32)>,
    pub(super) rx_queues: u32,
    /// It is up.
    pub(super) up: bool,
    /// The XDP program on it: its id and how it runs.
    pub(super) program: Option<(u32, Mode)>,
}

// <linux/rtnetlink.h>, <linux/if_link.h>
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTMGRP_LINK: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_DRV: u8 = 1;
const XDP_ATTACHED_SKB: u8 = 2;
const XDP_ATTACHED_HW: u8 = 3;
/// The length of `ifinfomsg`.
const HEADER: usize = 16;

/// Asks about an interface by name.
pub(super) fn look_up(name: &str) -> Result<Interface, KernelError> {
    let gone = || KernelError::NoInterface { interface: name.to_owned() };
    let index = if_nametoindex(name).map_err(|_| gone())?;
    // An interface can have several names, one of which is shown.
    let still = |interface: &Interface| interface.name == name || if_nametoindex(name) == Ok(index);
    match by_index(index) {
        // It vanished between the two questions, or was renamed there.
        Ok(found) => found.filter(still).ok_or_else(gone),
        Err(source) => Err(KernelError::Netlink { interface: name.to_owned(), source }),
    }
}

/// Asks about an interface by its number; `None`: there is none.
pub(super) fn by_index(index: u32) -> io::Result<Option<Interface>> {
    let mut header = vec![0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let question = Question { protocol: libc::NETLINK_ROUTE, kind: RTM_GETLINK, header };
    match question.ask(RTM_NEWLINK) {
        Ok(answer) => Ok(Some(parse(&answer)?)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(answer: &[u8]) -> io::Result<Interface> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (header, attributes) = answer.split_at_checked(HEADER).ok_or_else(short)?;
    let flags = word(&header[8..]).unwrap_or(0);
    let mut interface = Interface {
        index: word(&header[4..]).unwrap_or(0),
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        ..Interface::default()
    };
    let (mut master, mut member_of) = (0, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_MTU => interface.mtu = word(value).unwrap_or(0),
            IFLA_MASTER => master = word(value).unwrap_or(0),
            IFLA_NUM_RX_QUEUES => interface.rx_queues = word(value).unwrap_or(0),
            IFLA_XDP => interface.program = program(value),
            IFLA_LINKINFO => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        IFLA_INFO_KIND => interface.kind = Some(text(value)),
                        IFLA_INFO_SLAVE_KIND => member_of = Some(text(value)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    interface.member_of = member_of.map(|kind| (kind, master));
    Ok(interface)
}

fn program(nested: &[u8]) -> Option<(u32, Mode)> {
    let (mut id, mut mode) = (0, Mode::None);
    for (kind, value) in Attributes(nested) {
        match kind {
            IFLA_XDP_ATTACHED => {
                mode = match value.first() {
                    Some(&XDP_ATTACHED_DRV) => Mode::Native,
                    Some(&XDP_ATTACHED_SKB) => Mode::Generic,
                    Some(&XDP_ATTACHED_HW) => Mode::Offloaded,
                    // 0: none. Several at once cannot come about while we hold ours by a link.
                    _ => Mode::None,
                };
            }
            IFLA_XDP_PROG_ID => id = word(value).unwrap_or(0),
            _ => {}
        }
    }
    (id != 0).then_some((id, mode))
}

/// Tells that interfaces have come, gone or changed. Which ones is for the reader to find out: news can be lost when
/// there are many, a look at the interfaces cannot.
pub struct LinkNews(AsyncFd<OwnedFd>);

impl LinkNews {
    /// Must be called within a tokio runtime.
    pub(super) fn subscribe() -> io::Result<Self> {
        // tokio panics where there is no runtime.
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, RTMGRP_LINK))?;
        // SAFETY: the descriptor is owned, stays the same, and is closed with the value that owns it.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        registered.map(Self).map_err(|error| error.into_parts().1)
    }

    /// Waits for the next piece of news; several that came meanwhile are one. An error is for good.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut news = false;
        while !news {
            let mut ready = self.0.readable().await?;
            let mut buffer = [0; 8192];
            loop {
                match rustix::net::recv(ready.get_inner(), &mut buffer, RecvFlags::empty()) {
                    // NOBUFS: there were more than the socket could hold, which is news too.
                    Ok(_) | Err(rustix::io::Errno::NOBUFS) => news = true,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_known_and_an_unknown_one_is_named() {
        let lo = look_up("lo").unwrap();
        assert_eq!((lo.index, lo.mtu, lo.name.as_str()), (1, 65536, "lo"));
        assert_eq!(by_index(0x7fff_ffff).unwrap(), None);
        let error = look_up("none0").unwrap_err();
        assert!(matches!(&error, KernelError::NoInterface { interface } if interface == "none0"), "{error}");
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error_or_an_interface_with_less_in_it() {
        let attributes = Question { protocol: 0, kind: 0, header: vec![0; HEADER] }
            .with(IFLA_IFNAME, b"eth0\0")
            .with(IFLA_MTU, &1500u32.to_ne_bytes())
            .with(IFLA_LINKINFO, &Question { protocol: 0, kind: 0, header: Vec::new() }.with(1, b"veth\0").header);
        let whole = attributes.header;
        let interface = parse(&whole).unwrap();
        assert_eq!((interface.name.as_str(), interface.mtu, interface.kind.as_deref()), ("eth0", 1500, Some("veth")));
        for length in 0..whole.len() {
            drop(parse(&whole[..length]));
        }
    }
}
