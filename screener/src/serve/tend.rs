//! Looking after the kernel half while the daemon runs: interfaces that vanish, come back, or come for the first time.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::kernel::{Change, Kernel, LinkNews, Now};

use super::daemon::Daemon;

/// How often the interfaces are looked at without any news of them: some changes make none, such as a program that
/// somebody detaches from a link.
const POLL: Duration = Duration::from_secs(10);

/// Attaches again wherever an interface has come back, until the daemon goes down.
pub(super) async fn interfaces(daemon: Arc<Daemon>) {
    let mut news = match daemon.kernel.as_ref().map(Kernel::link_news) {
        Some(Ok(news)) => Some(news),
        Some(Err(error)) => {
            warn!("interfaces are looked at every {} s only: {error}", POLL.as_secs());
            None
        }
        None => return,
    };
    loop {
        tokio::select! {
            heard = next(&mut news) => if let Err(error) = heard {
                warn!("interfaces are looked at every {} s only: {error}", POLL.as_secs());
                news = None;
            },
            () = tokio::time::sleep(POLL) => {}
            () = daemon.retired.cancelled() => return,
        }
        let worker = Arc::clone(&daemon);
        let look = move || {
            let _hand = worker.kernel_hand.lock().unwrap_or_else(PoisonError::into_inner);
            let left = worker.retired.is_cancelled();
            worker.kernel.as_ref().filter(|_| !left).map(Kernel::tend).unwrap_or_default()
        };
        for change in tokio::task::spawn_blocking(look).await.unwrap_or_default() {
            tell(&change);
        }
    }
}

async fn next(news: &mut Option<LinkNews>) -> std::io::Result<()> {
    match news {
        Some(news) => news.next().await,
        None => std::future::pending().await,
    }
}

fn tell(Change { interface, now }: &Change) {
    match now {
        Now::Attached { mode, reason: None } => info!("{interface}: XDP is attached in {mode} mode"),
        Now::Attached { mode, reason: Some(reason) } => {
            warn!("{interface}: XDP is attached in {mode} mode: {reason}");
        }
        Now::Renamed { to } => {
            warn!("{interface} is called {to} now, where it is still screened: put that name into kernel.interfaces");
        }
        Now::Missing { why } => warn!("{interface}: nothing is dropped early: {why}"),
    }
}
