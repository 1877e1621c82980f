//! The maps that tell the programs what to do.
//!
//! Never writes them, but for counting in the job.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

use crate::shared::{Job, SEGMENT, SEGMENTS, Source};

#[map]
static JOB: Array<Job> = Array::with_max_entries(1, 0);

#[map]
static SOURCES: Array<Source> = Array::with_max_entries(SEGMENT * SEGMENTS, BPF_F_MMAPABLE);

/// The job. One run at a time: nobody else writes it meanwhile.
#[inline(always)]
pub(crate) fn job() -> Option<*mut Job> {
    JOB.get_ptr_mut(0)
}

/// A source by its place.
#[inline(always)]
pub(crate) fn source(place: u32) -> Option<&'static Source> {
    SOURCES.get(place)
}
