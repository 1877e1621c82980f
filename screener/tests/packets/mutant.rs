//! Frames that a mail server might meet and some that none should: mutations of a SYN, most of them lawful, so that they
//! get far enough into the kernel to be worth comparing. From a seed: the same every time.

use std::net::IpAddr;

/// A generator of numbers (`SplitMix64`).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// True in so many of a hundred throws.
    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// Where the frames go.
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x25];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const TCP: u8 = 6;

/// The frames of one attempt from `source`: one, or two if it is in fragments.
pub(crate) fn attempt(dice: &mut Dice, source: IpAddr, server: IpAddr) -> Vec<Vec<u8>> {
    let addresses = match (source, server) {
        (IpAddr::V4(source), IpAddr::V4(server)) => [source.octets(), server.octets()].concat(),
        (IpAddr::V6(source), IpAddr::V6(server)) => [source.octets(), server.octets()].concat(),
        _ => return Vec::new(),
    };
    let segment = segment(dice, &addresses);
    let mut packets = if source.is_ipv4() { v4(dice, &addresses, &segment) } else { v6(dice, &addresses, &segment) };
    for packet in &mut packets {
        if dice.percent(10) {
            for _ in 0..=dice.below(3) {
                let at = dice.below(packet.len());
                packet[at] = dice.byte();
            }
            if source.is_ipv4() && dice.percent(70) {
                seal_v4(packet);
            }
        }
    }
    packets.into_iter().map(|packet| frame(dice, source, &packet)).collect()
}

/// A plain SYN, nothing mutated.
pub(crate) fn plain(source: [u8; 4], server: [u8; 4]) -> Vec<u8> {
    let addresses = [source, server].concat();
    let mut segment = vec![0x9c, 0x40, 0, 25, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x02, 4, 0, 0, 0, 0, 0];
    seal_tcp(&mut segment, &addresses);
    let packet = packet_v4(&addresses, &[], &segment, 0);
    [&SERVER_MAC[..], &CLIENT_MAC, &[8, 0], &packet].concat()
}

/// Mostly a SYN to port 25.
fn segment(dice: &mut Dice, addresses: &[u8]) -> Vec<u8> {
    let ecn = dice.byte() & 0xc0;
    let flags = if dice.percent(75) { 0x02 | ecn } else { dice.byte() };
    let port = match dice.below(10) {
        0 => 26,
        1 => 587,
        _ => 25,
    };
    let options = dice.below(11);
    let mut segment =
        vec![0x9c, dice.byte(), 0, 0, dice.byte(), dice.byte(), dice.byte(), 7, 0, 0, 0, 0, 0, flags, 4, 0];
    segment[2..4].copy_from_slice(&u16::to_be_bytes(port));
    segment[12] = u8::try_from(5 + options).unwrap_or(5) << 4 | (dice.byte() & 1);
    segment.extend([0; 4]);
    segment.extend(vec![1; options * 4]);
    let data = if dice.percent(30) { dice.below(60) } else { 0 };
    segment.extend((0..data).map(|_| dice.byte()));
    if dice.percent(5) {
        segment[12] = dice.byte();
    }
    seal_tcp(&mut segment, addresses);
    segment
}

fn v4(dice: &mut Dice, addresses: &[u8], segment: &[u8]) -> Vec<Vec<u8>> {
    let options = if dice.percent(40) { vec![1; dice.below(11) * 4] } else { Vec::new() };
    let reserved_and_df = if dice.percent(50) { 0x4000 } else { 0 };
    if !dice.percent(15) {
        return vec![packet_v4(addresses, &options, segment, reserved_and_df)];
    }
    // In two fragments, in either order.
    let cut = 8 * (1 + dice.below((segment.len() - 1) / 8));
    let offset = u16::try_from(cut / 8).unwrap_or(1);
    let mut packets = vec![
        packet_v4(addresses, &options, &segment[..cut], 0x2000),
        packet_v4(addresses, &[], &segment[cut..], offset),
    ];
    if dice.percent(50) {
        packets.swap(0, 1);
    }
    packets
}

fn packet_v4(addresses: &[u8], options: &[u8], payload: &[u8], fragment: u16) -> Vec<u8> {
    let words = u8::try_from(options.len() / 4).unwrap_or(0);
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap_or(0);
    let mut packet = vec![0x45 + words, 0, 0, 0, 0x77, 0x77, 0, 0, 64, TCP, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet.extend(addresses);
    packet.extend(options);
    packet.extend(payload);
    seal_v4(&mut packet);
    packet
}

fn v6(dice: &mut Dice, addresses: &[u8], segment: &[u8]) -> Vec<Vec<u8>> {
    const HOP_BY_HOP: u8 = 0;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
    let options = |dice: &mut Dice| {
        let words = dice.below(3);
        // An option that nobody knows and everybody may skip: more than seven bytes of padding in a row the stack refuses.
        let mut header = vec![0, u8::try_from(words).unwrap_or(0), 0x1e, u8::try_from(4 + words * 8).unwrap_or(4)];
        header.resize(8 + words * 8, 0);
        header
    };
    if dice.percent(15) {
        chain.push((HOP_BY_HOP, options(dice)));
    }
    if dice.percent(40) {
        for _ in 0..dice.below(9) {
            chain.push((DESTINATION, options(dice)));
        }
    }
    if dice.percent(10) {
        // An atomic fragment.
        chain.insert(dice.below(chain.len() + 1), (FRAGMENT, vec![0, 0, 0, 0, 0, 0, 0, 9]));
    }
    if dice.percent(3) {
        let at = dice.below(chain.len() + 1);
        chain.insert(at, ([43, 51, 135, 139][dice.below(4)], options(dice)));
    }
    if !dice.percent(15) {
        return vec![packet_v6(addresses, &chain, segment)];
    }
    let cut = 8 * (1 + dice.below((segment.len() - 1) / 8));
    let [high, low] = u16::try_from(cut).unwrap_or(8).to_be_bytes();
    let identity = dice.byte();
    let with = |bits: [u8; 2]| {
        let mut chain = chain.clone();
        chain.push((FRAGMENT, vec![0, 0, bits[0], bits[1], 0, 0, 1, identity]));
        chain
    };
    let mut packets = vec![
        packet_v6(addresses, &with([0, 1]), &segment[..cut]),
        packet_v6(addresses, &with([high, low]), &segment[cut..]),
    ];
    if dice.percent(50) {
        packets.swap(0, 1);
    }
    packets
}

fn packet_v6(addresses: &[u8], chain: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
    let types: Vec<u8> = chain.iter().map(|(kind, _)| *kind).chain([TCP]).collect();
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, types[0], 64];
    packet.extend(addresses);
    for (number, (_, header)) in chain.iter().enumerate() {
        packet.push(types[number + 1]);
        packet.extend(&header[1..]);
    }
    packet.extend(payload);
    let length = u16::try_from(packet.len() - 40).unwrap_or(0);
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// Puts a packet into a frame, perhaps behind priority tags, perhaps with something behind it.
fn frame(dice: &mut Dice, source: IpAddr, packet: &[u8]) -> Vec<u8> {
    let mut frame = [SERVER_MAC, CLIENT_MAC].concat();
    let tags = if dice.percent(25) { dice.below(4) } else { 0 };
    for _ in 0..tags {
        frame.extend([[0x81, 0], [0x88, 0xa8]][dice.below(2)]);
        // VLAN 0 is no VLAN: such a frame belongs to the interface itself.
        frame.extend([dice.byte() & 0xe0, 0]);
    }
    frame.extend(if source.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
    frame.extend(packet);
    if dice.percent(30) {
        frame.extend((0..dice.below(20)).map(|_| dice.byte()));
    }
    if dice.percent(4) {
        frame.truncate(14 + dice.below(frame.len() - 13));
    }
    frame
}

fn seal_v4(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 0x0f) * 4;
    if (20..=packet.len()).contains(&length) {
        packet[10..12].fill(0);
        let sum = sum(&packet[..length]);
        packet[10..12].copy_from_slice(&finish(sum));
    }
}

fn seal_tcp(segment: &mut [u8], addresses: &[u8]) {
    segment[16..18].fill(0);
    let length = u32::try_from(segment.len()).unwrap_or(0);
    let sum = sum(addresses) + u32::from(TCP) + length + sum(segment);
    segment[16..18].copy_from_slice(&finish(sum));
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

fn finish(mut sum: u32) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum & 0xffff)).to_be_bytes()[2..].try_into().unwrap_or([0; 2])
}
