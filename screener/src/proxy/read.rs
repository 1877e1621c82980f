//! Reading: the header at the start of what has come so far, as often as more comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use bytes::Bytes;

use super::tlv::crc32c;
use super::{FIXED, Header, Origin, ProxyError, SIGNATURE, Tlv, TlvKind, VERSION_1};

/// The longest version 2 header that is taken. The largest in use, with the client's certificate in it, stay below; the length
/// field alone would allow 64 KiB to whoever may send a header.
pub const LONGEST: usize = 4096;
/// The longest line of version 1, its end included (section 2.1).
const LONGEST_LINE: usize = 107;
const TLV_HEAD: usize = Tlv::HEAD;

/// The header at the start of `input`, and how many bytes it takes; `None` while its end is not there.
///
/// What is incomplete needs every byte of `input`: nothing of it belongs to the client.
///
/// # Errors
/// As soon as it is certain that these bytes are no header that is taken.
pub fn parse(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    if begins(input, &SIGNATURE) {
        return if input.len() < FIXED { Ok(None) } else { version_2(input) };
    }
    if begins(input, VERSION_1) {
        return if input.len() < VERSION_1.len() { Ok(None) } else { version_1(input) };
    }
    Err(ProxyError::NoHeader)
}

/// Whether the two agree as far as both go.
fn begins(input: &[u8], start: &[u8]) -> bool {
    input.iter().zip(start).all(|(have, want)| have == want)
}

fn version_1(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let window = &input[..input.len().min(LONGEST_LINE)];
    let Some(newline) = window.iter().position(|&byte| byte == b'\n') else {
        return if window.len() < LONGEST_LINE { Ok(None) } else { Err(ProxyError::NoEnd) };
    };
    let line = window[..newline].strip_suffix(b"\r").ok_or(ProxyError::NoEnd)?;
    let shown = || String::from_utf8_lossy(line).into_owned();
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Type(shown()))?;
    let mut words = text.split(' ').skip(1);
    let origin = match words.next() {
        // "The receiver must ignore anything presented before the CRLF."
        Some("UNKNOWN") => Origin::Unknown,
        Some("TCP4") => ends_in_words::<Ipv4Addr>(words).ok_or_else(|| ProxyError::Address(shown()))?,
        Some("TCP6") => ends_in_words::<Ipv6Addr>(words).ok_or_else(|| ProxyError::Address(shown()))?,
        _ => return Err(ProxyError::Type(shown())),
    };
    Ok(Some((Header { origin: plausible(origin)?, tlvs: Vec::new() }, newline + 1)))
}

/// `192.0.2.1 192.0.2.25 49152 25`, and nothing behind it.
fn ends_in_words<'a, A: FromStr + Into<IpAddr>>(words: impl Iterator<Item = &'a str>) -> Option<Origin> {
    let words: Vec<&str> = words.collect();
    let [from, to, from_port, to_port] = words[..] else { return None };
    let end = |address: &str, port: &str| {
        let address: A = address.parse().ok()?;
        // "A decimal number without leading zeroes": what Rust would also read is none, a sign for one.
        let plain = port.bytes().all(|byte| byte.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
        Some(canonical(address.into(), port.parse().ok().filter(|_| plain)?))
    };
    Some(Origin::Client { client: end(from, from_port)?, server: end(to, to_port)? })
}

fn version_2(input: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let (version, command) = (input[12] >> 4, input[12] & 0x0f);
    if version != 2 {
        return Err(ProxyError::Version(version));
    }
    if command > 1 {
        return Err(ProxyError::Type(format!("command {command}")));
    }
    let announced = u16::from_be_bytes([input[14], input[15]]);
    let length = FIXED + usize::from(announced);
    if length > LONGEST {
        return Err(ProxyError::Long(length));
    }
    let (family, transport) = (input[13] >> 4, input[13] & 0x0f);
    let local = command == 0;
    // Both are to be discarded with LOCAL: nothing there can be wrong.
    let addresses = match family {
        _ if local => 0,
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        other => return Err(ProxyError::Type(format!("address family {other}"))),
    };
    if !local && transport > 1 {
        return Err(ProxyError::Transport(transport));
    }
    if usize::from(announced) < addresses {
        return Err(ProxyError::Short(announced));
    }
    let Some(header) = input.get(..length) else { return Ok(None) };
    let body = &header[FIXED..];
    let origin = match (local, family) {
        (true, _) => return Ok(Some((Header::local(), length))),
        (false, 1) => Origin::Client {
            client: canonical(octets::<4>(body, 0).into(), port(body, 8)),
            server: canonical(octets::<4>(body, 4).into(), port(body, 10)),
        },
        (false, 2) => Origin::Client {
            client: canonical(octets::<16>(body, 0).into(), port(body, 32)),
            server: canonical(octets::<16>(body, 16).into(), port(body, 34)),
        },
        (false, _) => Origin::Unknown,
    };
    let tlvs = tlvs(header, FIXED + addresses)?;
    Ok(Some((Header { origin: plausible(origin)?, tlvs }, length)))
}

/// The TLVs from `start` to the header's end, the checksum checked.
fn tlvs(header: &[u8], start: usize) -> Result<Vec<Tlv>, ProxyError> {
    let mut tlvs = Vec::new();
    let mut at = start;
    while at < header.len() {
        let kind = TlvKind(header[at]);
        let cut_off = ProxyError::Tlv(kind.0);
        let Some(length) = header.get(at + 1..at + TLV_HEAD) else { return Err(cut_off) };
        let value = at + TLV_HEAD;
        let end = value + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let Some(told) = header.get(value..end) else { return Err(cut_off) };
        if kind == TlvKind::CRC32C {
            let sum = crc32c(&[&header[..value], &[0; 4], &header[end..]]);
            if told != sum.to_be_bytes() {
                return Err(ProxyError::Checksum);
            }
        }
        tlvs.push(Tlv { kind, value: Bytes::copy_from_slice(told) });
        at = end;
    }
    Ok(tlvs)
}

/// Nobody speaks TCP from an address like these: a proxy that says so is wrong, and what it says would be believed.
fn plausible(origin: Origin) -> Result<Origin, ProxyError> {
    if let Origin::Client { client, server } = origin {
        let wrong = |ip: IpAddr| ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
        if let Some(end) = [client, server].into_iter().find(|end| wrong(end.ip())) {
            return Err(ProxyError::Address(format!("{} is no client's and no server's", end.ip())));
        }
    }
    Ok(origin)
}

fn canonical(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// `N` bytes at an offset that the caller has checked.
fn octets<const N: usize>(body: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| body[at + index])
}

fn port(body: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(octets(body, at))
}
