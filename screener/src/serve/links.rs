//! A session's question for the client's other address: who may it be, and does the DNS say that both are one sender.
//!
//! Asked for almost nobody: only where somebody has just passed under the same name from the other family. Decides nothing: the
//! engine does, from the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::clock::Now;
use crate::ledger::What;
use crate::link;
use crate::session::{Arrival, Sibling};

use super::daemon::Daemon;
use super::live::Live;

/// Questions at a time: whoever has no place is not linked.
const AT_A_TIME: usize = 64;
static PLACES: Semaphore = Semaphore::const_new(AT_A_TIME);

/// A session's name, and the question that is open about it.
pub(super) struct Links {
    name: String,
    question: Option<JoinHandle<Option<Sibling>>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(question) = &self.question {
            question.abort();
        }
    }
}

/// The answer; never, where nothing is asked.
pub(super) async fn answer(links: &mut Option<Box<Links>>) -> Option<Sibling> {
    let Some(question) = links.as_mut().and_then(|links| links.question.as_mut()) else {
        return std::future::pending().await;
    };
    let answer = question.await;
    if let Some(links) = links {
        links.question = None;
    }
    // A task that broke has said so.
    answer.ok().flatten()
}

impl Links {
    /// Begins to look for a sibling.
    pub(super) fn ask(daemon: &Arc<Daemon>, live: &Arc<Live>, arrival: &Arrival, name: String) -> Self {
        let question = look(daemon, live, arrival, &name);
        Self { name, question }
    }

    /// Whether an answer is to come.
    pub(super) fn is_open(&self) -> bool {
        self.question.is_some()
    }

    /// The client has earned a pass: its other address may come next.
    pub(super) fn passed(&self, daemon: &Daemon, live: &Live, arrival: &Arrival) {
        if let Some(link) = live.config.link {
            daemon.links.passed(&self.name, arrival.client.ip(), link.window, Instant::now());
        }
    }
}

/// `None`: nobody has passed under that name from the other family.
fn look(daemon: &Arc<Daemon>, live: &Arc<Live>, arrival: &Arrival, name: &str) -> Option<JoinHandle<Option<Sibling>>> {
    let link = live.config.link?;
    let address = arrival.client.ip();
    let others = daemon.links.others(name, address, link.window, Instant::now());
    if others.is_empty() || live.names.is_err() {
        return None;
    }
    let Ok(place) = PLACES.try_acquire() else {
        debug!(session = %arrival.id, "not asked for a sibling: too many are asked for");
        return None;
    };
    let (daemon, live, name) = (Arc::clone(daemon), Arc::clone(live), name.to_owned());
    Some(tokio::spawn(async move {
        let _place = place;
        let resolver = live.names.as_ref().ok()?;
        // The engine waits no longer either.
        let asked = tokio::time::timeout(link.deadline, link::confirm(resolver, &name, address, &others));
        let other = asked.await.ok()??;
        let stamps = daemon.stamps_of(&live, other)?;
        Some(Sibling { address: other, name, stamps })
    }))
}

impl Daemon {
    /// Both addresses are one sender's: that belongs into the other one's history too.
    pub(super) fn linked(&self, arrival: &Arrival, other: IpAddr, name: &str) {
        let detail = format!("LINKED with [{}]: both are addresses of {name}", arrival.client.ip());
        self.ledger.note(self.key(other), What::Linked, detail, Now::read().unix);
    }
}
