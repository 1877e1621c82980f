//! Who is kept out for a while for having failed again and again: clients, and prefixes that are full of such clients.
//!
//! Holds both maps. Never puts anybody in: the daemon does, from the offence ladder, and only after completed sessions. An entry
//! that has ended counts for nothing.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use screener_ebpf::{
    Address, OFFENDER_ENTRIES, OFFENDER_PREFIX4, OFFENDER_PREFIX6, Offender, OffenderKey4, OffenderKey6, Settings,
    offender_key4, offender_key6,
};

use crate::lists::{is_permitted, use_pass};

#[map]
static OFFENDER4: HashMap<OffenderKey4, Offender> = HashMap::with_max_entries(OFFENDER_ENTRIES, BPF_F_NO_PREALLOC);
#[map]
static OFFENDER6: HashMap<OffenderKey6, Offender> = HashMap::with_max_entries(OFFENDER_ENTRIES, BPF_F_NO_PREALLOC);

/// For `screen`, which has asked neither permits nor passes: both outrank this, and are asked only when there is an entry.
#[inline(always)]
pub(crate) fn keeps_out(source: &Address, settings: &Settings) -> bool {
    let Some(entry) = find(source, settings) else { return false };
    if is_permitted(source) || use_pass(source, settings) {
        return false;
    }
    hit(entry)
}

/// For `steer`, which knows already that there is neither a permit nor a pass.
#[inline(always)]
pub(crate) fn turns_away(source: &Address, settings: &Settings) -> bool {
    find(source, settings).is_some_and(hit)
}

/// The entry of the client, or else of its prefix, ended or not.
#[inline(always)]
fn find(source: &Address, settings: &Settings) -> Option<*mut Offender> {
    if !settings.has(Settings::OFFENDERS) {
        return None;
    }
    let prefixes = settings.has(Settings::OFFENDER_PREFIXES);
    match source {
        Address::V4(address) => {
            let client = OFFENDER4.get_ptr_mut(offender_key4(*address, 32)).filter(|entry| holds(*entry));
            if client.is_some() || !prefixes {
                return client;
            }
            let [a, b, c, _] = *address;
            OFFENDER4.get_ptr_mut(offender_key4([a, b, c, 0], OFFENDER_PREFIX4)).filter(|entry| holds(*entry))
        }
        Address::V6(address) => {
            let key = offender_key6(settings.client_key(*address), 128);
            let client = OFFENDER6.get_ptr_mut(key).filter(|entry| holds(*entry));
            if client.is_some() || !prefixes {
                return client;
            }
            let [a, b, c, d, e, f, ..] = *address;
            let prefix = [a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            OFFENDER6.get_ptr_mut(offender_key6(prefix, OFFENDER_PREFIX6)).filter(|entry| holds(*entry))
        }
    }
}

/// Whether an entry has not ended.
#[inline(always)]
fn holds(entry: *mut Offender) -> bool {
    // SAFETY: a helper without arguments (kernel 5.8).
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the map lookup gave a pointer to a live value, and values stay readable until the program ends. The daemon
    // may write the field meanwhile: it is an aligned u64, and either moment will do.
    now < unsafe { (*entry).expires_boot_ns }
}

/// Notes that somebody was kept out by an entry. Always true.
#[inline(always)]
fn hit(entry: *mut Offender) -> bool {
    // SAFETY: a helper without arguments (kernel 5.8).
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: as in `holds`; another CPU may write the same two fields: each is an aligned u64, and the worst that comes of
    // it is one hit too few.
    unsafe {
        (*entry).last_hit_boot_ns = now;
        (*entry).hits += 1;
    }
    true
}
