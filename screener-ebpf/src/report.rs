//! Counters and events: how the programs tell what they did.
//!
//! Holds both maps. Never decides anything, and a full ring never changes a verdict.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use screener_ebpf::{
    Address, COUNTER_SLOTS, Counter, EVENT_BYTES, Event, Family, Finding, Hook, QUIET_AFTER_LOSS, QUIET_SLOT, Settings,
    action, counter_slot, sampled,
};

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

/// Counts one packet. Returns how many this CPU has counted so.
#[inline(always)]
pub(crate) fn count(hook: Hook, family: Family, counter: Counter) -> u64 {
    let Some(slot) = COUNTERS.get_ptr_mut(counter_slot(hook, family, counter)) else { return 0 };
    // SAFETY: a live per-CPU value. `steer` may be interrupted by `screen` on its CPU, but they never share a slot.
    unsafe {
        *slot += 1;
        *slot
    }
}

/// Counts what was found about a SYN from `source`, and tells the daemon if a static entry, the rate or the offence ladder had a
/// part in it.
///
/// `last`: no later program will see this SYN, so it is this one that tells.
#[inline(always)]
pub(crate) fn conclude(settings: &Settings, source: &Address, port: [u8; 2], finding: &Finding, last: bool) {
    let family = source.family();
    let mut number = count(finding.hook, family, finding.counter);
    if finding.counted {
        number = count(finding.hook, family, Counter::Counted);
    }
    let by_itself = matches!(finding.counter, Counter::OverRate | Counter::DroppedOffender | Counter::RejectedOffender);
    let worth_telling = finding.counted || finding.action != action::NONE || by_itself;
    if last && worth_telling && sampled(number, settings.event_sample) {
        tell(settings, source, port, finding);
    }
}

/// Puts an event into the ring; costs next to nothing while nobody takes them out.
#[inline(always)]
fn tell(settings: &Settings, source: &Address, port: [u8; 2], finding: &Finding) {
    let Some(quiet) = COUNTERS.get_ptr_mut(QUIET_SLOT) else { return };
    // SAFETY: a live per-CPU value. The programs may interrupt each other here, and the daemon writes a zero when it begins
    // to read: at worst some attempts are made that were to be left out, or the other way round.
    if unsafe { *quiet } > 0 {
        // SAFETY: as above.
        unsafe { *quiet -= 1 };
    } else if let Some(mut slot) = EVENTS.reserve::<Event>(0) {
        // SAFETY: a helper without arguments (kernel 5.8).
        let now = unsafe { bpf_ktime_get_boot_ns() };
        slot.write(Event::new(now, source, port, settings.event_sample, finding));
        slot.submit(0);
        return;
    } else {
        // SAFETY: as above.
        unsafe { *quiet = QUIET_AFTER_LOSS };
    }
    count(finding.hook, source.family(), Counter::EventLost);
}
