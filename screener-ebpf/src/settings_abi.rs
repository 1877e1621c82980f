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
    /// [`Settings::STEERED`], [`Settings::REJECT_EARLY`], [`Settings::REJECT_BY_HAND`].
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
        let wanted = u16::from_ne_bytes(port);
        // Without branches: the verifier walks every path, and eight of them in a row, on each of the paths that lead
        // here, cost it twenty times the rest of the program. An equal port gives -1, any other 0 to 65534.
        let mut difference = 0;
        for &port in &self.ports {
            difference |= i32::from(u16::from_ne_bytes(port) ^ wanted) - 1;
        }
        wanted != 0 && difference < 0
    }
}
