//! The `screener` program. All of it is in the library, where tests reach it.

use std::process::ExitCode;

/// Thousands of clients come and wait at a time, each of them a handful of small pieces: glibc's allocator keeps a fifth more
/// than they take, and gives little back when they have gone (docs/bench-smtp.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Set by `cargo xtask` for what is installed.
    screener::cli::main(option_env!("SCREENER_VERSION").unwrap_or(env!("CARGO_PKG_VERSION")))
}
