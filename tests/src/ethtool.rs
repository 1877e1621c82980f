//! What ethtool(8) does, as far as the lab needs it: switches and counters of an interface.
//!
//! Works in the calling thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketType, socket};

const GET_DRIVER: u32 = 0x03;
const GET_STRINGS: u32 = 0x1b;
const GET_COUNTERS: u32 = 0x1d;
const SET_GRO: u32 = 0x2c;

/// Which strings: those of the counters.
const OF_COUNTERS: u32 = 1;

/// The length of a name.
const NAME: usize = 32;

/// Where the answer to [`GET_DRIVER`] says how many counters there are, and how long it is, in words of four bytes.
const COUNTERS_AT: usize = 45;
const DRIVER_WORDS: usize = 49;

/// Turns generic receive offload on, which makes a veth end poll for frames.
///
/// Without it a veth end has no place for a frame that an XDP program sends to it: neither one that a program at the
/// other end sends back (the RST of a `reject` entry), nor one of the bench's generator. For what is sent back to be taken
/// at once, [`take_frames_back`](crate::xdp::take_frames_back) is needed, too.
pub(crate) fn receive_in_batches(interface: &str) -> Result<()> {
    let mut value = [SET_GRO, 1];
    call(interface, &mut value).with_context(|| format!("turning on GRO at {interface}"))
}

/// The driver's counters.
pub(crate) fn counters(interface: &str) -> Result<Vec<(String, u64)>> {
    let mut driver = [0; DRIVER_WORDS];
    driver[0] = GET_DRIVER;
    call(interface, &mut driver).with_context(|| format!("asking for the driver of {interface}"))?;
    let count = driver[COUNTERS_AT] as usize;

    let mut names = vec![0; 3 + count * NAME / 4];
    names[..3].copy_from_slice(&[GET_STRINGS, OF_COUNTERS, driver[COUNTERS_AT]]);
    call(interface, &mut names).with_context(|| format!("asking for the counters of {interface}"))?;
    // Two words of header, then counters of two words each.
    let mut values = vec![0; 2 + 2 * count];
    values[..2].copy_from_slice(&[GET_COUNTERS, driver[COUNTERS_AT]]);
    call(interface, &mut values).with_context(|| format!("reading the counters of {interface}"))?;

    let bytes: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let names = bytes.chunks_exact(NAME).map(|name| {
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME);
        String::from_utf8_lossy(&name[..end]).into_owned()
    });
    let values = values[2..].chunks_exact(2).map(|words| {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&words[0].to_ne_bytes());
        bytes[4..].copy_from_slice(&words[1].to_ne_bytes());
        u64::from_ne_bytes(bytes)
    });
    Ok(names.zip(values).collect())
}

/// Makes one request. The kernel writes the answer over it and knows from its head how long it is.
fn call(interface: &str, request: &mut [u32]) -> Result<()> {
    let socket: OwnedFd =
        socket(AddressFamily::INET, SocketType::DGRAM, None).context("a socket to configure interfaces with")?;
    // SAFETY: all zeroes is a valid request; name and data follow.
    let mut envelope: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in envelope.ifr_name.iter_mut().zip(interface.as_bytes().iter().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    envelope.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    // SAFETY: the request names an interface by a terminated string and points to memory that is as long as its command
    // and its head say; both live until the call returns.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut envelope) };
    ensure!(answer == 0, "{}", io::Error::last_os_error());
    Ok(())
}
