//! The rivals for IPv6, and the kernel's tries for both families.
//!
//! The hashes: the first 32 bits of the address lead to the lengths under that root, and each length to one lookup.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{HashMap, LpmTrie};
use screener_ebpf::Address;

use crate::shared::{Lengths, Prefix6};

// The sizes are set when they are loaded.
#[map]
static TRIE4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static TRIE6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static ROOTS6: HashMap<[u8; 4], Lengths> = HashMap::with_max_entries(1, 0);
#[map]
static PREFIXES6: HashMap<Prefix6, u32> = HashMap::with_max_entries(1, 0);

/// Whether the kernel's trie covers the address.
#[inline(always)]
pub(crate) fn trie_lists(address: &Address) -> bool {
    match address {
        Address::V4(address) => TRIE4.get(Key::new(32, *address)).is_some(),
        Address::V6(address) => TRIE6.get(Key::new(128, *address)).is_some(),
    }
}

/// Whether the hashes have a prefix of the address.
#[inline(always)]
pub(crate) fn hashes_list(address: [u8; 16]) -> bool {
    let [a, b, c, d, ..] = address;
    // SAFETY: nobody writes the map during a run.
    let Some(lengths) = (unsafe { ROOTS6.get([a, b, c, d]) }) else { return false };
    for &length in lengths {
        if length == 0 {
            return false;
        }
        let key = Prefix6 { address: cut(address, length), length: u32::from(length) };
        // SAFETY: as above.
        if unsafe { PREFIXES6.get(key) }.is_some() {
            return true;
        }
    }
    false
}

/// The address with its host bits zero. Lengths are 1 to 128.
#[inline(always)]
fn cut(address: [u8; 16], length: u8) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    let high = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let low = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
    let (high, low) = if length <= 64 {
        (high & (u64::MAX << ((64 - u32::from(length)) & 63)), 0)
    } else {
        (high, low & (u64::MAX << ((128 - u32::from(length)) & 63)))
    };
    let [a, b, c, d, e, f, g, h] = high.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = low.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}
