//! The one record that both programs read before anything else.
//!
//! Holds the map. Never writes it: the daemon does.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use screener_ebpf::Settings;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// The settings as they are now.
///
/// `None` only to please the verifier: the map has its entry from the start, with no port in it, so that nothing is
/// judged before the daemon has written it.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}
