//! The PROXY protocol, versions 1 and 2: what a proxy says of the connection it makes on behalf of a client, read
//! ([`parse`]) and written ([`Header::v1`], [`Header::v2`]).
//!
//! Bytes in, a header or an error out; the rules are those of the protocol's text by its author (haproxy's
//! `doc/proxy-protocol.txt`, sections 2.1 to 2.2.7). Never sees a socket or a clock, and decides nothing about who may send
//! a header: anybody who may can claim any address.

mod read;
mod tlv;
mod write;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use thiserror::Error;

pub use read::{LONGEST, parse};
pub use tlv::{Tlv, TlvKind};
pub use write::LONGEST_WRITTEN;

/// What version 2 begins with: bytes that no text protocol begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const VERSION_1: &[u8] = b"PROXY ";
/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// One header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose connection it is.
    pub origin: Origin,
    /// What else version 2 says, in its order. Version 1 has none.
    pub tlvs: Vec<Tlv>,
}

/// Whose connection a proxied connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The proxy's own (version 2, LOCAL): a health check.
    Local,
    /// Somebody's without an address that could be told: version 1's UNKNOWN, which proxies also send with their health
    /// checks; version 2's families UNSPEC and UNIX.
    Unknown,
    /// A client's: the two ends of the connection that it made to the proxy, of one family and never IPv4-mapped.
    Client {
        /// Where it came from.
        client: SocketAddr,
        /// What it connected to.
        server: SocketAddr,
    },
}

impl Header {
    /// For a connection of our own.
    pub fn local() -> Self {
        Self { origin: Origin::Local, tlvs: Vec::new() }
    }

    /// For a client's connection.
    pub fn for_client(client: SocketAddr, server: SocketAddr) -> Self {
        Self { origin: Origin::Client { client, server }, tlvs: Vec::new() }
    }
}

/// Why some bytes are no header. The texts begin as postscreen's do where it has one (reference/postscreen.md section 3.2).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProxyError {
    /// Neither version's first bytes.
    #[error("unrecognized protocol header")]
    NoHeader,
    /// A version 1 line that does not end in 107 bytes, or not in CR LF.
    #[error("missing protocol header terminator: a version 1 line ends in CR LF after at most 107 bytes")]
    NoEnd,
    /// Version 1 with another word than `TCP4`, `TCP6` or `UNKNOWN`; version 2 with a command that does not exist.
    #[error("bad or missing protocol type: {0}")]
    Type(String),
    /// An address or port that is none, or of another family than the header says.
    #[error("bad or missing address: {0}")]
    Address(String),
    /// A version of the binary form other than 2.
    #[error("unrecognized protocol header: version {0}")]
    Version(u8),
    /// UDP, or a transport that does not exist.
    #[error("bad or missing protocol type: transport {0:#04x}, and mail comes by TCP")]
    Transport(u8),
    /// Version 2's length leaves no room for the addresses of its family.
    #[error("short protocol header: {0} bytes do not hold the addresses")]
    Short(u16),
    /// Longer than anybody needs.
    #[error("protocol header too long: {0} bytes, at most {LONGEST} are taken")]
    Long(usize),
    /// TLVs that do not fill the header exactly.
    #[error("bad TLV in protocol header: type {0:#04x} is cut off")]
    Tlv(u8),
    /// The checksum TLV says that the header was damaged.
    #[error("bad checksum in protocol header")]
    Checksum,
}
