//! Threads beside those that drive sessions.
//!
//! A small host has one thread for all sessions, and whoever does not come to an end of what there is to do keeps it from them:
//! a million passes that change do. Such work has a thread and a runtime of its own.

use anyhow::Context as _;

/// Does something on a thread of its own until it is done.
pub(super) fn run<W: Future<Output = ()>>(name: &str, work: impl FnOnce() -> W + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.with_context(|| format!("no runtime for {name}"))?;
    let run = move || {
        runtime.block_on(work());
        // A lookup of a name may still hang in the system's resolver; nobody waits for it.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).with_context(|| format!("no thread for {name}"))?;
    Ok(())
}
