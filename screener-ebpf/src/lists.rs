//! What the lists say about a source address: denied or not, permitted or not; and whether the client holds a pass.
//!
//! Hides how the lists are stored. Never counts, never decides what becomes of the packet.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{HashMap, LpmTrie, lpm_trie::Key};
use screener_ebpf::deny::{self, Fate, Quad, Quads};
use screener_ebpf::{
    Address, DENY_FLAGS, DENY4_QUADS, DENY6_QUADS, Entry, PASS4_ENTRIES, PASS6_ENTRIES, PERMIT_ENTRIES, Pass, Settings,
    action,
};

/// A compiled deny set of so many quads.
type Set<const QUADS: usize> = Array<Quad, QUADS, { DENY_FLAGS as usize }>;

#[btf_map]
static DENY4: ArrayOfMaps<Set<{ DENY4_QUADS as usize }>, 1> = ArrayOfMaps::new();
#[btf_map]
static DENY6: ArrayOfMaps<Set<{ DENY6_QUADS as usize }>, 1> = ArrayOfMaps::new();
#[map]
static PERMIT4: LpmTrie<[u8; 4], Entry> = LpmTrie::with_max_entries(PERMIT_ENTRIES, 0);
#[map]
static PERMIT6: LpmTrie<[u8; 16], Entry> = LpmTrie::with_max_entries(PERMIT_ENTRIES, 0);
// Without preallocation: a host with a thousand passes should not pay for a million.
#[map]
static PASS4: HashMap<[u8; 4], Pass> = HashMap::with_max_entries(PASS4_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
static PASS6: HashMap<[u8; 16], Pass> = HashMap::with_max_entries(PASS6_ENTRIES, BPF_F_NO_PREALLOC);

/// What the static lists say.
#[derive(Clone, Copy)]
pub(crate) enum Static {
    /// Nothing.
    Unlisted,
    /// A permit covers the source, and a permit beats every deny. Only [`look_up`] says so.
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

struct Compiled<'a, const QUADS: usize>(&'a Set<QUADS>);

impl<const QUADS: usize> Quads for Compiled<'_, QUADS> {
    #[inline(always)]
    fn quad(&self, index: u32) -> Option<&Quad> {
        self.0.get(index)
    }
}

/// Asks all static lists.
#[inline(always)]
pub(crate) fn look_up(source: &Address) -> Listed {
    let mut listed = denied(source);
    if matches!(listed.verdict, Static::Unlisted) && is_permitted(source) {
        listed.verdict = Static::Permitted;
    }
    listed
}

/// Asks the deny set alone: every permit has left its hole in it, so what is denied here is not permitted.
#[inline(always)]
pub(crate) fn denied(source: &Address) -> Listed {
    let fate = match source {
        Address::V4(address) => DENY4.get(0).map_or(Fate::NONE, |set| deny::four::find(&Compiled(set), *address)),
        Address::V6([a, b, c, d, e, f, g, h, low @ ..]) => {
            let high = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            Fate(find_six(high, u64::from_be_bytes(*low)) as u8)
        }
    };
    let verdict = match fate.action() {
        action::DROP => Static::Denied(Denial::Drop),
        action::REJECT => Static::Denied(Denial::Reject),
        action::TAG => Static::Denied(Denial::Tag),
        // No daemon writes anything else; if one did, mail must not stop for it.
        _ => Static::Unlisted,
    };
    Listed { verdict, counted: fate.counted() }
}

/// The fate of an IPv6 address, given as its two halves.
///
/// A global function: the verifier walks its loops once, for all numbers whatever (kernel 5.6), and not once on each of the
/// paths that lead here, which took a third of all that it is willing to walk.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_six(high: u64, low: u64) -> u64 {
    DENY6.get(0).map_or(Fate::NONE, |set| deny::six::find(&Compiled(set), high, low)).0.into()
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
