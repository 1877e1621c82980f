//! What happens to passes, told to those who watch, each at its own pace.
//!
//! Holds a task a watcher. Never holds up the ledger: a reader that is too slow loses news and hears how many.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::control::Refusal;
use crate::control::api_pass::{Happened as Word, News as Shown, WatchRequest};
use crate::ledger::{Found, Happened, News};

use super::daemon::Daemon;
use super::passes::Clients;

/// How many lines wait for a reader beside what its socket takes.
const WAITING: usize = 64;
/// How often it is looked for passes that have run out.
const LOOK: Duration = Duration::from_secs(2);
/// How many passes are looked at under one lock.
const PAGE: usize = 4096;

/// One who watches.
struct Watch {
    daemon: Arc<Daemon>,
    clients: Clients,
    news: Receiver<News>,
    to: mpsc::Sender<Bytes>,
}

/// Nobody reads any more.
struct Gone;

impl Daemon {
    /// For `pass watch`.
    pub(super) fn passes_watched(self: Arc<Self>, request: &WatchRequest) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        let full = || Refusal::Failed("too many watch the passes already: end one of the others".to_owned());
        let news = self.ledger.watch().ok_or_else(full)?;
        let (to, lines) = mpsc::channel(WAITING);
        let watch = Watch { clients: self.clients(request.prefix), news, to, daemon: self };
        tokio::spawn(watch.run());
        Ok(lines)
    }
}

impl Watch {
    async fn run(mut self) {
        let daemon = Arc::clone(&self.daemon);
        tokio::select! {
            // It ends when nobody reads.
            _ = self.tell_all() => {}
            () = daemon.retired.cancelled() => {
                let last = Shown { what: Word::End, ..blank() };
                // Whoever has not read what waits does not read this.
                let _ = self.to.try_send(line(&last));
            }
        }
    }

    async fn tell_all(&mut self) -> Result<(), Gone> {
        let mut looked = Now::read().unix;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                news = self.news.recv() => match news {
                    Ok(news) if self.clients.contains(news.client) => self.tell(&self.shown(&news)).await?,
                    Ok(_) => {}
                    Err(RecvError::Lagged(lost)) => {
                        self.tell(&Shown { what: Word::Lost, lost: Some(lost), ..blank() }).await?;
                    }
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = look.tick() => {
                    let now = Now::read().unix;
                    self.tell_lapsed(looked, now).await?;
                    looked = now;
                }
                () = self.to.closed() => return Err(Gone),
            }
        }
    }

    /// Tells of the passes that have run out since it was looked last. Nothing else happens at that moment, so it is looked for.
    async fn tell_lapsed(&mut self, before: UnixTime, now: UnixTime) -> Result<(), Gone> {
        if before >= now {
            return Ok(());
        }
        let mut after = None;
        loop {
            let (clients, daemon, from) = (self.clients, Arc::clone(&self.daemon), after);
            // A walk over a million entries does not belong on a thread that serves sessions.
            let walk = spawn_blocking(move || lapsed(&daemon, clients, from, before, now));
            let Ok(Found { passes, next }) = walk.await else { return Ok(()) };
            let enabled = self.daemon.live.load().policy.enabled();
            for (client, pass) in passes {
                let at = pass.stamps.complete_until(enabled).unwrap_or(now).to_string();
                let pass = Some(self.daemon.pass_shown(client, &pass));
                self.tell(&Shown { at, what: Word::Expired, client: Some(client.to_string()), pass, ..blank() })
                    .await?;
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn shown(&self, news: &News) -> Shown {
        let News { client, happened, pass } = news;
        let what = match happened {
            Happened::Granted => Word::Granted,
            Happened::Extended => Word::Extended,
            Happened::Withdrawn(_) => Word::Withdrawn,
            Happened::Revoked => Word::Revoked,
        };
        let test = match happened {
            Happened::Withdrawn(test) => Some(test.name().to_owned()),
            _ => None,
        };
        let shown = |client: ClientKey| pass.as_ref().map(|pass| self.daemon.pass_shown(client, pass));
        Shown { what, client: Some(client.to_string()), test, pass: shown(*client), ..blank() }
    }

    async fn tell(&self, news: &Shown) -> Result<(), Gone> {
        self.to.send(line(news)).await.map_err(|_| Gone)
    }
}

/// Passes of these clients that ran out meanwhile: those of the next page that has any, and where to go on.
fn lapsed(daemon: &Daemon, clients: Clients, mut after: Option<ClientKey>, before: UnixTime, now: UnixTime) -> Found {
    let enabled = daemon.live.load().policy.enabled();
    loop {
        let mut found = daemon.ledger.lapsed(after, PAGE, enabled, before, now);
        found.passes.retain(|(client, _)| clients.contains(*client));
        if !found.passes.is_empty() || found.next.is_none() || daemon.retired.is_cancelled() {
            return found;
        }
        after = found.next;
    }
}

/// News of nothing, now.
fn blank() -> Shown {
    let at = Now::read().unix.to_string();
    Shown { at, what: Word::End, client: None, test: None, pass: None, lost: None }
}

fn line(news: &Shown) -> Bytes {
    // These are strings and numbers: there is nothing that JSON could not say.
    let mut line = serde_json::to_vec(news).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
