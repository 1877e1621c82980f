//! What this program is called: by the release, and by the commit too where `cargo xtask` has built the executable.
//!
//! Only `main` knows how it was built: the library would be compiled anew for every commit.

use std::sync::OnceLock;

static BUILT: OnceLock<&str> = OnceLock::new();

/// Says how the executable was built; the first one to say it is right.
pub(crate) fn set(built: &'static str) {
    BUILT.get_or_init(|| built);
}

/// The version.
pub(crate) fn own() -> &'static str {
    BUILT.get().copied().unwrap_or(env!("CARGO_PKG_VERSION"))
}
