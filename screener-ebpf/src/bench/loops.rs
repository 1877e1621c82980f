//! The loops: each looks up one source after the other and counts what is listed. What a loop takes, less what the empty
//! one takes, is the price of its lookups.
//!
//! `bpf_loop` (kernel 5.17) makes them: the verifier walks the body once.

use core::ffi::c_void;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use screener_ebpf::Address;

use crate::shared::Source;
use crate::work::{job, source};
use crate::{hashes, ours, ranked};

/// What a loop carries from one round to the next.
#[repr(C)]
struct State {
    first: u32,
    mask: u32,
    hits: u32,
}

type Body = unsafe extern "C" fn(u32, *mut c_void) -> i64;

/// Makes as many rounds as the job says, and writes down the hits.
#[inline(always)]
fn rounds(body: Body) -> u32 {
    let Some(job) = job() else { return XDP_ABORTED };
    // SAFETY: a live map value that nobody else writes during a run.
    let job = unsafe { &mut *job };
    let mut state = State { first: job.first, mask: job.mask, hits: 0 };
    // SAFETY: the body takes what `bpf_loop` hands it: the number of the round and the state, which outlives the loop.
    unsafe { bpf_loop(job.count, body as *mut c_void, (&raw mut state).cast(), 0) };
    job.hits = state.hits;
    XDP_PASS
}

#[inline(always)]
fn address(source: &Source) -> Address {
    if source.family == 4 {
        let [a, b, c, d, ..] = source.address;
        Address::V4([a, b, c, d])
    } else {
        Address::V6(source.address)
    }
}

/// Defines a program and the body of its loop.
macro_rules! measured {
    ($program:ident, $body:ident, $lists:expr) => {
        unsafe extern "C" fn $body(number: u32, state: *mut c_void) -> i64 {
            // SAFETY: what `rounds` has given to `bpf_loop`.
            let state = unsafe { &mut *state.cast::<State>() };
            let Some(source) = source(state.first + (number & state.mask)) else { return 1 };
            let lists: fn(&Address) -> bool = $lists;
            state.hits += u32::from(lists(&address(source)));
            0
        }

        #[xdp]
        #[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
        fn $program(_: XdpContext) -> u32 {
            rounds($body)
        }
    };
}

// Looks at every byte, so that the empty loop fetches what the others fetch.
measured!(loop_empty, empty_body, |address| match address {
    Address::V4(bytes) => u32::from_ne_bytes(*bytes) == 0,
    Address::V6(bytes) => u128::from_ne_bytes(*bytes) == 0,
});
measured!(loop_trie, trie_body, hashes::trie_lists);
measured!(loop_ranked, ranked_body, |address| match address {
    Address::V4(bytes) => ranked::lists(*bytes),
    Address::V6(bytes) => hashes::hashes_list(*bytes),
});
measured!(loop_ours, ours_body, ours::lists);
