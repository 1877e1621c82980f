//! The ABI between the kernel half and the daemon, and the packet parser of the kernel half.
//!
//! Holds what both sides must agree on, byte for byte: the names and sizes of the maps, their keys and values, the
//! counter slots and the event record. Fixed-width integers and byte arrays in network order only; no `bool`, no
//! `enum` in a map value, because the other side may write any bit pattern. The parser, the making of a refusal and the
//! token bucket stand here, and not with the programs, so that ordinary tests on the host can drive them.
//!
//! Never holds a map, a helper call or anything else that only one of the two sides has.
#![no_std]

#[cfg(test)]
extern crate std;

mod counter;
pub mod deny;
mod event;
pub mod parse;
pub mod rate;
pub mod reject;
mod settings_abi;

pub use counter::{COUNTER_SLOTS, Counter, Family, Hook, QUIET_SLOT, Verdict, counter_slot};
pub use event::{Event, Finding, QUIET_AFTER_LOSS, sampled};
pub use settings_abi::{MAX_PORTS, Settings};

/// The version of everything below. Raise it with every change of a map, a key, a value, a counter slot or the meaning
/// of one: the maps of each version live in a pin directory of their own, because the kernel does not compare layouts.
pub const ABI_VERSION: u32 = 3;

/// The names of the maps, in the object, in the pin directory and in `bpftool map`.
pub mod maps {
    /// One [`Settings`](crate::Settings).
    pub const SETTINGS: &str = "SETTINGS";
    /// IPv4 prefixes that are never screened: LPM trie to [`Entry`](crate::Entry).
    pub const PERMIT4: &str = "PERMIT4";
    /// IPv6 prefixes that are never screened: LPM trie to [`Entry`](crate::Entry).
    pub const PERMIT6: &str = "PERMIT6";
    /// The denied IPv4 prefixes, compiled: an array of one map of [`Quad`](crate::deny::Quad)s, or of none.
    pub const DENY4: &str = "DENY4";
    /// The denied IPv6 prefixes likewise.
    pub const DENY6: &str = "DENY6";
    /// IPv4 clients with a pass: hash from the address to [`Pass`](crate::Pass).
    pub const PASS4: &str = "PASS4";
    /// IPv6 clients with a pass: hash from the address, cut by [`Settings::key_mask`](crate::Settings::key_mask), to
    /// [`Pass`](crate::Pass).
    pub const PASS6: &str = "PASS6";
    /// IPv4 clients and /24s that are kept out for a while: hash from [`offender_key4`](crate::offender_key4) to
    /// [`Offender`](crate::Offender).
    pub const OFFENDER4: &str = "OFFENDER4";
    /// IPv6 clients and /48s likewise, by [`offender_key6`](crate::offender_key6).
    pub const OFFENDER6: &str = "OFFENDER6";
    /// The daemon's listeners: sockets by [`socket_slot`](crate::socket_slot).
    pub const SOCKETS: &str = "SOCKETS";
    /// Token buckets of IPv4 clients: LRU hash from the address to the `u64` of [`rate::admit`](crate::rate::admit).
    pub const RATE4: &str = "RATE4";
    /// Token buckets of IPv6 clients, by the address cut by [`Settings::key_mask`](crate::Settings::key_mask).
    pub const RATE6: &str = "RATE6";
    /// Packets by [`counter_slot`](crate::counter_slot), one `u64` a CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Ring buffer of [`Event`](crate::Event)s.
    pub const EVENTS: &str = "EVENTS";
    /// Every map that outlives the daemon, in the order in which `status` shows them.
    pub const ALL: [&str; 14] = [
        SETTINGS, PERMIT4, PERMIT6, DENY4, DENY6, PASS4, PASS6, OFFENDER4, OFFENDER6, RATE4, RATE6, SOCKETS, COUNTERS,
        EVENTS,
    ];
}

/// The names of the programs in the object.
pub mod programs {
    /// The XDP program.
    pub const SCREEN: &str = "screen";
    /// The XDP program for frames of several buffers, which the kernel knows since 5.18. Otherwise the same.
    pub const SCREEN_FRAGS: &str = "screen_frags";
    /// The `sk_lookup` program.
    pub const STEER: &str = "steer";
}

/// How many permits of one family there may be. A trie allocates an entry when it is put in: a ceiling costs nothing.
pub const PERMIT_ENTRIES: u32 = 1 << 18;
/// The flags of the maps within [`maps::DENY4`] and [`maps::DENY6`]: `BPF_F_MMAPABLE` (kernel 5.5), for they are filled
/// through memory. Not `BPF_F_INNER_MAP`, with which each could be as large as its content: the verifier would not inline
/// lookups then, and on a processor with a mitigated return each of the calls costs more than the lookup.
pub const DENY_FLAGS: u32 = 1 << 10;
/// Quads of a compiled IPv4 deny set, which is as large as that whatever is in it: 32 MiB.
pub const DENY4_QUADS: u32 = 1 << 20;
/// Quads of a compiled IPv6 deny set: 16 MiB.
pub const DENY6_QUADS: u32 = 1 << 19;
/// How many IPv4 clients may hold a pass. Costs 16 bytes each at once (the buckets), the rest when one is put in.
pub const PASS4_ENTRIES: u32 = 1 << 20;
/// How many IPv6 clients may hold a pass.
pub const PASS6_ENTRIES: u32 = 1 << 18;
/// How many IPv4 clients and /24s can be kept out as offenders at once, and how many IPv6 ones. Costs 16 bytes each at
/// once (the buckets), the rest when one is put in.
pub const OFFENDER_ENTRIES: u32 = 1 << 16;
/// The length of an IPv4 prefix that is kept out as a whole.
pub const OFFENDER_PREFIX4: u8 = 24;
/// The length of an IPv6 prefix that is kept out as a whole.
pub const OFFENDER_PREFIX6: u8 = 48;
/// How many IPv4 clients have a token bucket of their own at once; those not seen for the longest lose theirs. Costs
/// about 80 bytes each, whether the rate is limited or not: an LRU hash is made whole.
pub const RATE4_ENTRIES: u32 = 1 << 16;
/// How many IPv6 clients have a token bucket of their own at once.
pub const RATE6_ENTRIES: u32 = 1 << 15;
/// Bytes of the event ring: more than 5000 events, what a busy host sees while the daemon restarts.
pub const EVENT_BYTES: u32 = 1 << 18;

/// The key of the two tries: a prefix, in the layout that `BPF_MAP_TYPE_LPM_TRIE` asks for.
pub type Prefix<const BYTES: usize> = (u32, [u8; BYTES]);

/// What a permit trie says about a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// [`action::PERMIT`].
    pub action: u8,
    /// The length of the prefix in bits: an LPM lookup does not tell which entry it has found. With it the daemon can tell
    /// an entry from one that merely covers it.
    pub length: u8,
    /// Zero.
    pub _pad: [u8; 2],
}
const _: () = assert!(size_of::<Entry>() == 4);

/// The values of [`Entry::action`] and [`Event::action`].
pub mod action {
    /// No static entry had a part in it.
    pub const NONE: u8 = 0;
    /// `screen` answers nothing.
    pub const DROP: u8 = 1;
    /// The client is refused with a RST.
    pub const REJECT: u8 = 2;
    /// To the listener of the tagged class.
    pub const TAG: u8 = 3;
    /// Counted; otherwise as if the entry were not there.
    pub const COUNT: u8 = 4;
    /// Never screened.
    pub const PERMIT: u8 = 5;
}

/// What is known of a client that has passed. Times are `CLOCK_BOOTTIME` (it does not stop while the machine sleeps).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// The pass holds before this moment, in nanoseconds since boot.
    pub expires_boot_ns: u64,
    /// When `steer` last let the client through, in nanoseconds since boot; 0: never. Written by `steer`.
    pub last_used_boot_ns: u64,
}
const _: () = assert!(size_of::<Pass>() == 16);

/// Who is kept out for having failed again and again. Times are `CLOCK_BOOTTIME`. An entry that has ended counts for
/// nothing, whether or not anybody takes it out: a daemon that is gone leaves nobody out for ever.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// It is kept out before this moment, in nanoseconds since boot.
    pub expires_boot_ns: u64,
    /// When it last came, in nanoseconds since boot; 0: not since. Written by the programs.
    pub last_hit_boot_ns: u64,
    /// How often it came. Written by the programs: two CPUs at the same moment may count one.
    pub hits: u64,
}
const _: () = assert!(size_of::<Offender>() == 24);

/// The key of an IPv4 client or /24 among the offenders: the address, cut to that, and the length.
pub type OffenderKey4 = [u8; 8];
/// The key of an IPv6 client or /48 among the offenders.
pub type OffenderKey6 = [u8; 20];

/// The key of an IPv4 network among the offenders. The address is cut already.
#[inline(always)]
pub const fn offender_key4([a, b, c, d]: [u8; 4], bits: u8) -> OffenderKey4 {
    [a, b, c, d, bits, 0, 0, 0]
}

/// The key of an IPv6 network among the offenders. The address is cut already; a client has 128 `bits` here, whatever the
/// length of its key is, so that no program has to count them.
#[inline(always)]
pub const fn offender_key6(address: [u8; 16], bits: u8) -> OffenderKey6 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, bits, 0, 0, 0]
}

/// Which listener a client is given to: the listener is the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// An unknown client.
    Plain = 0,
    /// A client under a deny entry with the action `tag`.
    Tagged = 1,
}

/// How many listeners the socket map holds: one a class and family.
pub const SOCKET_SLOTS: u32 = 4;

/// The slot of a listener: a socket can only be given to packets of its own family (`bpf_sk_assign`).
#[inline(always)]
pub const fn socket_slot(class: Class, family: Family) -> u32 {
    let v6 = matches!(family, Family::Ipv6);
    2 * class as u32 + v6 as u32
}

/// A source address as the lists know it: IPv4-mapped addresses are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// In network order.
    V4([u8; 4]),
    /// In network order.
    V6([u8; 16]),
}

impl Address {
    /// The family, for counting.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::Ipv4,
            Self::V6(_) => Family::Ipv6,
        }
    }
}

#[cfg(feature = "user")]
mod pod {
    //! Tells aya that the map values may be copied to and from the kernel as bytes.

    // SAFETY: repr(C), integers and byte arrays only, no padding (64 = 4 * 4 + 8 * 2 + 16 + 2 * 8).
    unsafe impl aya::Pod for crate::Settings {}
    // SAFETY: repr(C), bytes only.
    unsafe impl aya::Pod for crate::Entry {}
    // SAFETY: repr(C), two u64.
    unsafe impl aya::Pod for crate::Pass {}
    // SAFETY: repr(C), three u64.
    unsafe impl aya::Pod for crate::Offender {}
}
