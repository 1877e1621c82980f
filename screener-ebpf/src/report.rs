//! Counters and events: how the programs tell what they did.
//!
//! Holds both maps. Never decides anything, and a full ring never changes a verdict.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use screener_ebpf::{
    Address, COUNTER_SLOTS, Counter, EVENT_BYTES, Event, Family, Finding, Hook, Settings, action, counter_slot,
};

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

/// Counts one packet.
#[inline(always)]
pub(crate) fn count(hook: Hook, family: Family, counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter_slot(hook, family, counter)) {
        // SAFETY: a live per-CPU value. `steer` may be interrupted by `screen` on its CPU, but they never share a slot.
        unsafe { *slot += 1 };
    }
}

/// Counts what was found about a SYN from `source`, and tells the daemon if a static entry had a part in it.
///
/// `last`: no later program will see this SYN, so it is this one that tells.
#[inline(always)]
pub(crate) fn conclude(settings: &Settings, source: &Address, port: [u8; 2], finding: &Finding, last: bool) {
    let family = source.family();
    count(finding.hook, family, finding.counter);
    if finding.counted {
        count(finding.hook, family, Counter::Counted);
    }
    if last && (finding.counted || finding.action != action::NONE) {
        tell(settings, source, port, finding);
    }
}

/// Puts an event into the ring, if the dice say so.
#[inline(always)]
fn tell(settings: &Settings, source: &Address, port: [u8; 2], finding: &Finding) {
    let sample = settings.event_sample;
    // SAFETY: a helper without arguments.
    if sample == 0 || (sample > 1 && unsafe { bpf_get_prandom_u32() } % sample != 0) {
        return;
    }
    let Some(mut slot) = EVENTS.reserve::<Event>(0) else {
        count(finding.hook, source.family(), Counter::EventLost);
        return;
    };
    // SAFETY: a helper without arguments (kernel 5.8).
    let now = unsafe { bpf_ktime_get_boot_ns() };
    slot.write(Event::new(now, source, port, sample, finding));
    slot.submit(0);
}
