//! What the kernel says about one network interface: its number, its MTU, and which XDP program runs on it.
//!
//! Holds one question over rtnetlink, because aya has no way to ask for a program that it did not attach. Never changes
//! an interface.

use std::fmt;
use std::io::{self, Read, Write};

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::error::KernelError;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    /// Bytes.
    pub(super) mtu: u32,
    /// The XDP program on it: its id and how it runs.
    pub(super) program: Option<(u32, Mode)>,
    /// The interface that it hangs on, by its number, if that is in this namespace: a veth's peer, for example.
    pub(super) link: Option<u32>,
}

// <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h>
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_DRV: u8 = 1;
const XDP_ATTACHED_SKB: u8 = 2;
const XDP_ATTACHED_HW: u8 = 3;
/// The flag bits above an attribute's type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// Bytes before the attributes of an answer: `nlmsghdr` and `ifinfomsg`.
const HEADERS: usize = 32;

/// Asks about an interface by name.
pub(super) fn look_up(name: &str) -> Result<Interface, KernelError> {
    let index = if_nametoindex(name).map_err(|_| KernelError::NoInterface { interface: name.to_owned() })?;
    ask(index).map_err(|source| match source.raw_os_error() {
        // It vanished between the two questions.
        Some(libc::ENODEV) => KernelError::NoInterface { interface: name.to_owned() },
        _ => KernelError::Netlink { interface: name.to_owned(), source },
    })
}

fn ask(index: u32) -> io::Result<Interface> {
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
    (&socket).write_all(&request(index))?;
    let mut answer = vec![0; 64 << 10];
    let length = (&socket).read(&mut answer)?;
    parse(index, &answer[..length])
}

fn request(index: u32) -> [u8; HEADERS] {
    let mut message = [0; HEADERS];
    message[0..4].copy_from_slice(&(HEADERS as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message[20..24].copy_from_slice(&index.to_ne_bytes());
    message
}

fn parse(index: u32, answer: &[u8]) -> io::Result<Interface> {
    let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ends early");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(short)?;
    if kind == NLMSG_ERROR {
        let number = answer.get(16..).and_then(word).ok_or_else(short)?;
        return Err(io::Error::from_raw_os_error((number as i32).saturating_neg()));
    }
    if kind != RTM_NEWLINK {
        return Err(io::Error::other(format!("an answer of type {kind}")));
    }
    let mut interface = Interface { index, mtu: 0, program: None, link: None };
    let mut elsewhere = false;
    for (kind, value) in Attributes(answer.get(HEADERS..).ok_or_else(short)?) {
        match kind {
            IFLA_MTU => interface.mtu = word(value).unwrap_or(0),
            IFLA_XDP => interface.program = program(value),
            IFLA_LINK => interface.link = word(value),
            IFLA_LINK_NETNSID => elsewhere = true,
            _ => {}
        }
    }
    if elsewhere {
        interface.link = None;
    }
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

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|&word| u32::from_ne_bytes(word))
}

/// The attributes of a netlink message: type and value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d] = *self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & ATTRIBUTE_TYPE, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_known_and_an_unknown_one_is_named() {
        let lo = look_up("lo").unwrap();
        assert_eq!((lo.index, lo.mtu), (1, 65536));
        let error = look_up("none0").unwrap_err();
        assert!(matches!(&error, KernelError::NoInterface { interface } if interface == "none0"), "{error}");
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error_or_an_answer_with_less_in_it() {
        let mut whole = request(7).to_vec();
        whole[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        for (kind, value) in [(IFLA_MTU, 1500u32), (99, 0), (IFLA_MTU, 1500)] {
            whole.extend([8u16.to_ne_bytes(), kind.to_ne_bytes()].concat());
            whole.extend(value.to_ne_bytes());
        }
        assert_eq!(parse(7, &whole).unwrap(), Interface { index: 7, mtu: 1500, program: None, link: None });
        for length in 0..whole.len() {
            drop(parse(7, &whole[..length]));
        }
    }
}
