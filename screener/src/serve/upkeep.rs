//! What the daemon does beside sessions: it asks the MTA what it offers, and lets go of what is old.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::clock::Now;
use crate::handoff::{self, HandoffError};
use crate::kernel::Kernel;

use super::daemon::Daemon;

/// How often the MTA is asked when nothing speaks for a change: a handoff shows one, but there may be none for long.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// How often while it does not answer.
const ASK_SOON: Duration = Duration::from_secs(5);
/// How long the first client waits for the MTA's first answer. An MTA that is there takes a fraction of it.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// How often old passes and histories are looked for.
const EXPIRE: Duration = Duration::from_secs(60);

/// Keeps the EHLO features those of the MTA. Returns when the MTA was asked for the first time, and goes on meanwhile: so the
/// first client of all hears what the MTA offers, if the MTA is there.
pub(super) async fn learn_features(daemon: Arc<Daemon>) {
    let (asked, first) = oneshot::channel();
    tokio::spawn(keep_learning(daemon, asked));
    // Too late, or the task has ended: there are the defaults.
    let _ = tokio::time::timeout(FIRST_ANSWER, first).await;
}

async fn keep_learning(daemon: Arc<Daemon>, asked: oneshot::Sender<()>) {
    let mut asked = Some(asked);
    let mut reloaded = daemon.reloaded.subscribe();
    loop {
        let live = daemon.live();
        let learned = handoff::learn(&live.config.backend, &live.policy.hostname).await;
        daemon.mta_answered(learned.as_ref().err());
        let pause = match learned {
            Ok(learned) => {
                let features = Arc::new(learned.features);
                if *daemon.features.load_full() != *features {
                    info!("the MTA ({}) offers {}", learned.banner, features.lines().join(", "));
                    daemon.features.store(features);
                }
                ASK_AGAIN
            }
            Err(error @ (HandoffError::Refused { .. } | HandoffError::DemandsTls { .. })) => {
                debug!("not learned what the MTA offers: {error}");
                ASK_AGAIN
            }
            Err(HandoffError::Away { .. }) => ASK_SOON,
        };
        if let Some(asked) = asked.take() {
            // Nobody may be waiting any more.
            let _ = asked.send(());
        }
        let soon = tokio::time::Instant::now() + ASK_SOON;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // It may be another MTA by now.
            Ok(()) = reloaded.changed() => {}
            // Not at once again: an MTA may offer each client something else, and then every session says so.
            () = daemon.learn_again.notified() => tokio::time::sleep_until(soon).await,
            () = daemon.retired.cancelled() => return,
        }
    }
}

/// Lets go of passes and histories whose retention is over.
pub(super) async fn expire(daemon: Arc<Daemon>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EXPIRE) => {}
            () = daemon.retired.cancelled() => return,
        }
        let worker = Arc::clone(&daemon);
        tokio::task::spawn_blocking(move || fold(&worker)).await.ok();
        let worker = Arc::clone(&daemon);
        let retention = daemon.live.load().config.ledger.retention;
        // A walk over a million entries does not belong on a thread that serves sessions.
        let done = tokio::task::spawn_blocking(move || worker.ledger.expire(Now::read().unix, retention)).await;
        if let Ok(expired) = done {
            debug!("expired: {} passes, {} histories", expired.passes, expired.histories);
        }
    }
}

/// Compiles the deny set anew before single changes have used up their room: then it takes no command's time.
fn fold(daemon: &Daemon) {
    let _hand = daemon.kernel_hand.lock().unwrap_or_else(PoisonError::into_inner);
    if daemon.retired.is_cancelled() {
        return;
    }
    match daemon.kernel.as_ref().map(Kernel::fold_statics) {
        Some(Ok(true)) => debug!("the deny set was compiled anew"),
        Some(Err(error)) => warn!("the deny set cannot be compiled anew, so changes will take longer: {error}"),
        _ => {}
    }
}
