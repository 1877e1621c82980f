//! The ceiling of new connections of one client: who sends SYNs faster than that is dropped, unless a permit covers it.
//!
//! Holds the buckets, in maps that never grow: who has not been seen for the longest makes room. Never counts.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use screener_ebpf::rate::admit;
use screener_ebpf::{Address, RATE4_ENTRIES, RATE6_ENTRIES, Settings};

use crate::lists::is_permitted;

#[map]
static RATE4: LruHashMap<[u8; 4], u64> = LruHashMap::with_max_entries(RATE4_ENTRIES, 0);
#[map]
static RATE6: LruHashMap<[u8; 16], u64> = LruHashMap::with_max_entries(RATE6_ENTRIES, 0);

/// Whether this SYN is one too many. The permits are asked only then.
#[inline(always)]
pub(crate) fn is_over(source: &Address, settings: &Settings) -> bool {
    if settings.syn_interval_ns == 0 {
        return false;
    }
    let over = match source {
        Address::V4(address) => spend(&RATE4, address, settings),
        Address::V6(address) => spend(&RATE6, &settings.client_key(*address), settings),
    };
    over && !is_permitted(source)
}

/// Takes a token out of a client's bucket; whether there was none.
#[inline(always)]
fn spend<K>(buckets: &LruHashMap<K, u64>, client: &K, settings: &Settings) -> bool {
    // SAFETY: a helper without arguments (kernel 5.8).
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(bucket) = buckets.get_ptr_mut(client) else {
        // Without room even now, the client has no bucket, and so no limit.
        let _ = buckets.insert(client, now + settings.syn_interval_ns, 0);
        return false;
    };
    // SAFETY: the map lookup gave a pointer to a live value. Other CPUs may read and write it at the same moment: it is an
    // aligned u64, and the worst that comes of it is a SYN that costs no token.
    match admit(unsafe { *bucket }, now, settings.syn_interval_ns, settings.syn_tolerance_ns) {
        Some(full_at) => {
            // SAFETY: as above.
            unsafe { *bucket = full_at };
            false
        }
        None => true,
    }
}
