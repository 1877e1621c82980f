//! What the bench's programs and its user-space half agree on: the user-space half takes this file in with `#[path]`.
//!
//! Holds names and layouts. Never holds code that only one side can run.

/// The names of the maps.
pub mod maps {
    /// One [`Job`](super::Job).
    pub const JOB: &str = "JOB";
    /// [`Source`](super::Source)s, in segments of [`SEGMENT`](super::SEGMENT).
    pub const SOURCES: &str = "SOURCES";
    /// The kernel's trie over the IPv4 prefixes.
    pub const TRIE4: &str = "TRIE4";
    /// The kernel's trie over the IPv6 prefixes.
    pub const TRIE6: &str = "TRIE6";
    /// The ranked table: one [`Rank`](super::Rank) a /16.
    pub const RANKS: &str = "RANKS";
    /// The ranked table: one [`Bitmap`](super::Bitmap) for each /24 that is listed in part.
    pub const BITMAPS: &str = "BITMAPS";
    /// The first 32 bits of IPv6 prefixes, and which lengths to ask for: [`Lengths`](super::Lengths).
    pub const ROOTS6: &str = "ROOTS6";
    /// IPv6 prefixes by address and length: [`Prefix6`](super::Prefix6).
    pub const PREFIXES6: &str = "PREFIXES6";
}

/// The names of the programs.
pub mod programs {
    /// Makes frames.
    pub const GENERATE: &str = "generate";
    /// Drops at once.
    pub const EMPTY_DROP: &str = "empty_drop";
    /// Passes at once.
    pub const EMPTY_PASS: &str = "empty_pass";
    /// The loop with no lookup in it.
    pub const LOOP_EMPTY: &str = "loop_empty";
    /// The loop around the kernel's tries.
    pub const LOOP_TRIE: &str = "loop_trie";
    /// The loop around the ranked table and the hashes.
    pub const LOOP_RANKED: &str = "loop_ranked";
    /// The loop around the daemon's own lookup.
    pub const LOOP_OURS: &str = "loop_ours";
    /// All of them.
    pub const ALL: [&str; 7] = [GENERATE, EMPTY_DROP, EMPTY_PASS, LOOP_EMPTY, LOOP_TRIE, LOOP_RANKED, LOOP_OURS];
}

/// Sources in a segment: a power of two, and far more than a cache holds the answers for.
pub const SEGMENT: u32 = 1 << 18;

/// How many segments there are.
pub const SEGMENTS: u32 = 8;

/// The bytes of a frame: an IPv6 SYN with one option. An IPv4 frame has padding behind it.
pub const FRAME: usize = 78;

/// One source of frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// In network order; an IPv4 address is the first four bytes.
    pub address: [u8; 16],
    /// 4 or 6.
    pub family: u32,
    /// Zero.
    pub _pad: u32,
}
const _: () = assert!(size_of::<Source>() == 24);

/// What a run is to do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The first source of the segment.
    pub first: u32,
    /// A mask over the number of the frame, which makes its place in the segment.
    pub mask: u32,
    /// How many frames were made, or how many rounds the loop shall make.
    pub count: u32,
    /// One of [`traffic`].
    pub traffic: u32,
    /// Where frames go, 0: nowhere.
    pub interface: u32,
    /// What the loop found.
    pub hits: u32,
}
const _: () = assert!(size_of::<Job>() == 24);

/// The values of [`Job::traffic`].
pub mod traffic {
    /// SYNs to port 25.
    pub const SYN: u32 = 0;
    /// UDP and segments of established connections to port 25, by turns.
    pub const OTHER: u32 = 1;
}

/// What the ranked table knows of a /16: two bits for each /24 in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// 256 codes: 0 not listed, 1 listed as a whole, 2 in part.
    pub codes: [u64; 8],
    /// The place of the first bitmap of this /16.
    pub base: u32,
    /// How many bitmaps the words before each one have.
    pub counts: [u8; 8],
    /// Zero.
    pub _pad: u32,
}
const _: () = assert!(size_of::<Rank>() == 80);

/// Code: the whole /24 is listed.
pub const WHOLE: u64 = 1;
/// Code: a bitmap tells.
pub const PARTIAL: u64 = 2;

/// The addresses of a /24, one bit each.
pub type Bitmap = [u64; 4];

/// Up to eight lengths of prefixes under a root, 0: no more.
pub type Lengths = [u8; 8];

/// The key of [`maps::PREFIXES6`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix6 {
    /// In network order, host bits zero.
    pub address: [u8; 16],
    /// In bits.
    pub length: u32,
}
const _: () = assert!(size_of::<Prefix6>() == 20);
