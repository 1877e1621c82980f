//! The compiled deny set: its layout, and the lookup that both halves share.
//!
//! User space flattens every deny entry, less what permits cover, into what happens to each address (its [`Fate`]), so that
//! no lookup ever compares prefixes. One map a family holds all of it, in elements of four words ([`Quad`], 32 bytes: one
//! never lies across a cache line), and is replaced as a whole. docs/deny-set.md has the reasons and the figures.
//!
//! IPv4: a record for each /18 ([`four`]), and for each /24 that is not all alike a *leaf* of one word. IPv6: a hash table of
//! /32 roots ([`six`]), each with the sorted beginnings of the spans in it.
//!
//! Pure: reads quads through [`Quads`], so that ordinary tests, the oracle tests and the commands run the very code that
//! the programs run. Never builds a table and knows no map.

pub mod four;
pub mod six;

/// Four words: the element of a map.
pub type Quad = [u64; 4];

/// Marks a map as laid out like this; the low half is the version of the layout.
pub const MAGIC: u64 = 0x7363_7264_0000_0001;

/// Words of the header, at the beginning of the map.
pub mod header {
    /// [`MAGIC`](super::MAGIC).
    pub const MAGIC: usize = 0;
    /// IPv6: the number of buckets less one. They are a power of two.
    pub const BUCKET_MASK: usize = 1;
    /// IPv6: the block of the prefixes shorter than /32; 0: there are none.
    pub const WIDE: usize = 2;
    /// The first word of the list of entries, of which all this was made. Here and below: for user space alone.
    pub const LIST: usize = 3;
    /// How many entries the list was made with, in order.
    pub const LISTED: usize = 4;
    /// How many changes since then stand behind them, in the order in which they came.
    pub const CHANGES: usize = 5;
    /// The first free word of the tables.
    pub const FREE: usize = 6;
    /// Not zero while a change is being made: whoever finds it so compiles anew from the list.
    pub const DIRTY: usize = 7;
    /// How many quads the header takes.
    pub const QUADS: u32 = 2;
}

/// Access to the quads of one family's map.
pub trait Quads {
    /// The quad at this index; `None` beyond the end.
    fn quad(&self, index: u32) -> Option<&Quad>;

    /// The word at this index.
    #[inline(always)]
    fn word(&self, index: u32) -> Option<u64> {
        let quad = self.quad(index >> 2)?;
        // SAFETY: the index is below four, and the reference is to four words. Volatile, since user space may be changing
        // this very word (by a store of its own, whole): it must be read once.
        Some(unsafe { core::ptr::from_ref(quad).cast::<u64>().add((index & 3) as usize).read_volatile() })
    }
}

impl Quads for [Quad] {
    #[inline]
    fn quad(&self, index: u32) -> Option<&Quad> {
        self.get(index as usize)
    }
}

/// What happens to an address, in four bits: an [`action`](crate::action) of a deny, and whether a dry run covers it too.
///
/// [`Fate::NONE`] is not listed. A mere number, since it comes out of a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fate(pub u8);

impl Fate {
    /// Not listed.
    pub const NONE: Self = Self(0);
    /// As for [`action::DROP`](crate::action::DROP).
    pub const DROP: Self = Self(crate::action::DROP);
    /// As for [`action::REJECT`](crate::action::REJECT).
    pub const REJECT: Self = Self(crate::action::REJECT);
    const COUNTED: u8 = 8;

    /// The action: none, drop, reject or tag.
    #[inline(always)]
    pub const fn action(self) -> u8 {
        self.0 & 7
    }

    /// Whether an entry that only counts would have matched first.
    #[inline(always)]
    pub const fn counted(self) -> bool {
        self.0 & Self::COUNTED != 0
    }

    /// The same with [`Fate::counted`] true.
    pub const fn and_counted(self) -> Self {
        Self(self.0 | Self::COUNTED)
    }
}
