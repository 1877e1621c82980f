//! The smallest DNS client that can tell what a list answers.
//!
//! One question, one datagram, A or TXT. Never retries, never follows anything, never asks but the given server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses.
    A,
    /// Text.
    Txt,
}

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The response code: 0 is success, 3 is NXDOMAIN.
    pub code: u8,
    /// The A records.
    pub addresses: Vec<Ipv4Addr>,
    /// The TXT records, each with its strings joined.
    pub texts: Vec<String>,
    /// Whether the authority section has a SOA, by which a resolver may remember a negative answer.
    pub has_soa: bool,
}

const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_TXT: u16 = 16;

/// Asks a server from a host, with one datagram.
///
/// # Errors
/// When no answer comes in time or it cannot be understood.
pub fn ask(host: &Host, server: SocketAddr, name: &str, kind: Kind, timeout: Duration) -> Result<Answer> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = host.in_ns(|| UdpSocket::bind(any).context("a socket for a DNS query"))?;
    socket.connect(server).context("the way to the server")?;
    // The port is random enough to tell answers apart: every question has a socket of its own.
    let id = socket.local_addr().context("our own port")?.port();
    socket.send(&question(id, name, kind)?).with_context(|| format!("asking {server}"))?;
    let deadline = Instant::now() + timeout;
    let mut packet = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = socket.recv(&mut packet).with_context(|| format!("no answer from {server} about {name}"))?;
        let packet = packet.get(..length).context("an answer")?;
        if packet.get(..2) == Some(&id.to_be_bytes()) {
            return parse(packet).with_context(|| format!("the answer of {server} about {name}"));
        }
    }
}

/// The name under which a list knows an address: reversed, below the zone.
#[must_use]
pub fn listed_name(address: IpAddr, zone: &str) -> String {
    let mut labels: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().flat_map(|b| [b >> 4, b & 15]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect()
        }
    };
    labels.reverse();
    labels.push(zone.to_owned());
    labels.join(".")
}

fn question(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>> {
    let mut packet = Vec::with_capacity(name.len() + 18);
    packet.extend(id.to_be_bytes());
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|length| *length < 64);
        packet.push(length.with_context(|| format!("a label in {name:?} is too long"))?);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    let number = match kind {
        Kind::A => TYPE_A,
        Kind::Txt => TYPE_TXT,
    };
    packet.extend(number.to_be_bytes());
    packet.extend(1u16.to_be_bytes());
    Ok(packet)
}

fn parse(packet: &[u8]) -> Result<Answer> {
    let mut reader = Reader { packet, at: 2 };
    let flags = reader.number()?;
    ensure!(flags & 0x8000 != 0, "not an answer");
    let mut answer = Answer { code: (flags & 15) as u8, ..Answer::default() };
    let [questions, answers, authorities, _] = [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
    for _ in 0..questions {
        reader.skip_name()?;
        reader.take(4)?;
    }
    for _ in 0..answers {
        let (kind, data) = reader.record()?;
        match kind {
            TYPE_A => {
                let bytes: [u8; 4] = data.try_into().context("an address of 4 bytes")?;
                answer.addresses.push(bytes.into());
            }
            TYPE_TXT => answer.texts.push(strings(data)?),
            _ => {}
        }
    }
    for _ in 0..authorities {
        answer.has_soa |= reader.record()?.0 == TYPE_SOA;
    }
    Ok(answer)
}

fn strings(mut data: &[u8]) -> Result<String> {
    let mut text = Vec::new();
    while let Some((length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*length)).context("a string that ends early")?;
        text.extend(string);
        data = rest;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let bytes = self.packet.get(self.at..self.at + count);
        self.at += count;
        bytes.context("a packet that ends early")
    }

    fn number(&mut self) -> Result<u16> {
        let bytes: [u8; 2] = self.take(2)?.try_into().context("two bytes")?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn skip_name(&mut self) -> Result<()> {
        loop {
            let length = self.take(1)?[0];
            match length {
                0 => return Ok(()),
                // A pointer ends a name.
                0xc0.. => return self.take(1).map(drop),
                _ => self.take(usize::from(length))?,
            };
        }
    }

    fn record(&mut self) -> Result<(u16, &'a [u8])> {
        self.skip_name()?;
        let kind = self.number()?;
        self.take(6)?;
        let length = self.number()?;
        Ok((kind, self.take(usize::from(length))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_reversed_below_the_zone() {
        let name = |text: &str| listed_name(text.parse().unwrap(), "bl.example");
        assert_eq!(name("127.0.0.2"), "2.0.0.127.bl.example");
        let v6 = name("2001:db8::1");
        assert!(v6.starts_with("1.0.0.0."), "{v6}");
        assert!(v6.ends_with(".8.b.d.0.1.0.0.2.bl.example"), "{v6}");
    }

    #[test]
    fn every_prefix_of_an_answer_is_an_error() {
        let mut packet = question(7, "a.b", Kind::A).unwrap();
        packet[2] = 0x81;
        packet[7] = 1;
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 2]);
        let answer = parse(&packet).unwrap();
        assert_eq!(answer.addresses, [Ipv4Addr::new(127, 0, 0, 2)]);
        for length in 0..packet.len() {
            assert!(parse(&packet[..length]).is_err(), "{length}");
        }
    }
}
