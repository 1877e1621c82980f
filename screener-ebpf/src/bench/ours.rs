//! Our lookup as `screen` asks it: the daemon's own `lists.rs`, on the maps that an attached screener has pinned.
//!
//! The one place to change when that module's interface does.

use screener_ebpf::Address;

use crate::lists::{Static, denied};
use crate::settings::settings;

/// Whether a deny entry covers the address.
#[inline(always)]
pub(crate) fn lists(address: &Address) -> bool {
    // Asked for each address, as the program does for each packet.
    let Some(_settings) = settings() else { return false };
    matches!(denied(address).verdict, Static::Denied(_))
}
