//! The one record that both programs read before they judge: what is adjustable while they run.
//!
//! Holds its layout and the questions to it. Never holds the map: `settings.rs` does.

/// How many ports can be screened.
pub const MAX_PORTS: usize = 8;

/// What the programs need to know. Written by the daemon and by `screener kernel map set`, read by both programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// [`ABI_VERSION`](crate::ABI_VERSION) of who wrote this.
    pub abi: u32,
    /// [`Settings::STEERED`], [`Settings::REJECT_EARLY`], [`Settings::REJECT_BY_HAND`], [`Settings::OFFENDERS`],
    /// [`Settings::OFFENDER_PREFIXES`].
    pub flags: u32,
    /// One of this many findings becomes an event; 1: each, 0: none. See [`sampled`](crate::sampled).
    pub event_sample: u32,
    /// Zero.
    pub _pad: u32,
    /// The screened ports in network order; 0: free slot.
    pub ports: [[u8; 2]; MAX_PORTS],
    /// The leading bits of an IPv6 address that make the client key, as a mask.
    pub key_mask: [u8; 16],
    /// Nanoseconds in which a client earns one more SYN; 0: no limit.
    pub syn_interval_ns: u64,
    /// How far ahead of its rate a client may be: the burst less one, in intervals. See [`rate`](crate::rate).
    pub syn_tolerance_ns: u64,
}
const _: () = assert!(size_of::<Settings>() == 64);

impl Settings {
    /// Flag: `steer` is attached, so `screen` leaves telling about what it lets through to it. One SYN, one event.
    pub const STEERED: u32 = 1;
    /// Flag: `screen` answers for `reject` entries itself. Otherwise it leaves that to `steer`: on an interface that
    /// cannot send back what it has received (a veth whose peer does not poll) the RST would vanish.
    pub const REJECT_EARLY: u32 = 2;
    /// Flag: the operator has chosen [`Settings::REJECT_EARLY`], on or off. A starting daemon leaves it as it is.
    pub const REJECT_BY_HAND: u32 = 4;
    /// Flag: somebody is kept out as an offender. While it is off, nobody pays for a lookup.
    pub const OFFENDERS: u32 = 8;
    /// Flag: whole prefixes are among them.
    pub const OFFENDER_PREFIXES: u32 = 16;

    /// As the map is at first: no port is screened.
    pub const NOTHING: Self = Self {
        abi: 0,
        flags: 0,
        event_sample: 0,
        _pad: 0,
        ports: [[0; 2]; MAX_PORTS],
        key_mask: [0; 16],
        syn_interval_ns: 0,
        syn_tolerance_ns: 0,
    };

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Sets a flag, or takes it away.
    pub const fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// The key of an IPv6 client.
    #[inline(always)]
    pub fn client_key(&self, mut address: [u8; 16]) -> [u8; 16] {
        for (byte, mask) in address.iter_mut().zip(&self.key_mask) {
            *byte &= mask;
        }
        address
    }

    /// Whether connections to this port (network order) are screened.
    #[inline(always)]
    pub fn screens(&self, port: [u8; 2]) -> bool {
        const ONES: u64 = 0x0001_0001_0001_0001;
        const TOPS: u64 = 0x8000_8000_8000_8000;
        // Four ports at a time, without branches: the verifier walks every path. Of what is equal the difference is 0, and
        // taking 1 from it borrows into the top bit, which was not set. A borrow can spread from such a place only.
        let wanted = u64::from(u16::from_ne_bytes(port)) * ONES;
        let mut found = 0;
        for four in self.ports.as_chunks::<4>().0 {
            let [[a, b], [c, d], [e, f], [g, h]] = *four;
            let difference = u64::from_ne_bytes([a, b, c, d, e, f, g, h]) ^ wanted;
            found |= difference.wrapping_sub(ONES) & !difference & TOPS;
        }
        wanted != 0 && found != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_port_is_screened_if_it_stands_there(ports: [[u8; 2]; MAX_PORTS], other: [u8; 2], slot in 0..MAX_PORTS) {
            let settings = Settings { ports, ..Settings::NOTHING };
            for port in [other, ports[slot], [0, 0], [ports[slot][0], other[1]], [0, 1], [0x80, 0]] {
                prop_assert_eq!(settings.screens(port), port != [0, 0] && ports.contains(&port));
            }
        }
    }
}
