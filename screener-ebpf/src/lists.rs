//! What the lists say about a source address: permit, then deny; and whether the client holds a pass.
//!
//! Hides how the lists are stored. Never counts, never decides what becomes of the packet.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LpmTrie, lpm_trie::Key};
use screener_ebpf::{
    Address, DENY4_ENTRIES, DENY6_ENTRIES, Entry, PASS4_ENTRIES, PASS6_ENTRIES, PERMIT_ENTRIES, Pass, Settings, action,
};

#[map]
static PERMIT4: LpmTrie<[u8; 4], Entry> = LpmTrie::with_max_entries(PERMIT_ENTRIES, 0);
#[map]
static PERMIT6: LpmTrie<[u8; 16], Entry> = LpmTrie::with_max_entries(PERMIT_ENTRIES, 0);
#[map]
static DENY4: LpmTrie<[u8; 4], Entry> = LpmTrie::with_max_entries(DENY4_ENTRIES, 0);
#[map]
static DENY6: LpmTrie<[u8; 16], Entry> = LpmTrie::with_max_entries(DENY6_ENTRIES, 0);
// Without preallocation: a host with a thousand passes should not pay for a million.
#[map]
static PASS4: HashMap<[u8; 4], Pass> = HashMap::with_max_entries(PASS4_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
static PASS6: HashMap<[u8; 16], Pass> = HashMap::with_max_entries(PASS6_ENTRIES, BPF_F_NO_PREALLOC);

/// How many `count` entries may lie upon each other over one address before those below are no longer seen.
const NESTED_COUNTS: usize = 2;

/// What the static lists say.
#[derive(Clone, Copy)]
pub(crate) enum Static {
    /// Nothing.
    Unlisted,
    /// A permit covers the source, and a permit beats every deny.
    Permitted,
    /// A deny entry covers the source.
    Denied(Denial),
}

/// What a deny entry asks for.
#[derive(Clone, Copy)]
pub(crate) enum Denial {
    Drop,
    Reject,
    Tag,
}

/// The answer of the lists.
pub(crate) struct Listed {
    /// What holds.
    pub(crate) verdict: Static,
    /// A `count` entry would have matched; what lies below it holds.
    pub(crate) counted: bool,
}

/// Asks the static lists.
#[inline(always)]
pub(crate) fn look_up(source: &Address) -> Listed {
    match source {
        Address::V4(address) => in_tries(&PERMIT4, &DENY4, *address),
        Address::V6(address) => in_tries(&PERMIT6, &DENY6, *address),
    }
}

#[inline(always)]
fn in_tries<const N: usize>(
    permits: &LpmTrie<[u8; N], Entry>,
    denies: &LpmTrie<[u8; N], Entry>,
    address: [u8; N],
) -> Listed {
    let mut key = Key::new(8 * N as u32, address);
    let mut listed = Listed { verdict: Static::Unlisted, counted: false };
    if permits.get(&key).is_some() {
        listed.verdict = Static::Permitted;
        return listed;
    }
    for _ in 0..=NESTED_COUNTS {
        let Some(entry) = denies.get(&key) else { break };
        match entry.action {
            action::DROP => listed.verdict = Static::Denied(Denial::Drop),
            action::REJECT => listed.verdict = Static::Denied(Denial::Reject),
            action::TAG => listed.verdict = Static::Denied(Denial::Tag),
            action::COUNT if entry.length > 0 => {
                // A dry run must not lift what it lies upon: ask for the longest prefix that is shorter.
                listed.counted = true;
                key.prefix_len = u32::from(entry.length) - 1;
                continue;
            }
            action::COUNT => listed.counted = true,
            // No daemon writes anything else; if one did, mail must not stop for it.
            _ => {}
        }
        break;
    }
    listed
}

/// Whether a permit covers the source, for those who do not ask what else the lists say.
#[inline(always)]
pub(crate) fn is_permitted(source: &Address) -> bool {
    match source {
        Address::V4(address) => PERMIT4.get(Key::new(32, *address)).is_some(),
        Address::V6(address) => PERMIT6.get(Key::new(128, *address)).is_some(),
    }
}

/// Whether the client holds a valid pass; if so, notes that it was used.
#[inline(always)]
pub(crate) fn use_pass(source: &Address, settings: &Settings) -> bool {
    let pass = match source {
        Address::V4(address) => PASS4.get_ptr_mut(address),
        Address::V6(address) => PASS6.get_ptr_mut(settings.client_key(*address)),
    };
    let Some(pass) = pass else { return false };
    // SAFETY: a helper without arguments (kernel 5.8).
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the map lookup gave a pointer to a live value, and values stay readable until the program ends. Another
    // CPU may write the same fields: both are aligned u64, and of two times of use either will do.
    unsafe {
        if now >= (*pass).expires_boot_ns {
            return false;
        }
        (*pass).last_used_boot_ns = now;
    }
    true
}
