//! What the daemon does with the pools of senders: it keeps their members fresh, lets members share a pass, and tells how
//! they stand.
//!
//! A member that has no pass of its own meets the daemon once: it is handed over at once, by its pool's pass, and gets a copy
//! of that in the ledger. So the kernel's map, which knows clients and no prefixes, serves it from then on. A copy goes when
//! its pool no longer vouches for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::clock::{Now, UnixTime};
use crate::config;
use crate::control::{Refusal, api_pool};
use crate::ledger::{Origin, What};
use crate::pass::{Stamps, Test};
use crate::pool::{Membership, PoolStatus, RefreshError, Refreshed};
use crate::session::{Arrival, Standing};

use super::answers::stamp;
use super::daemon::Daemon;
use super::live::Live;

/// How many passes are looked at before others may use the table.
const PAGE: usize = 4096;
/// No more than one look in this time, whatever changes.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a file that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(30);
/// How long nothing is looked for where there is no pool.
const A_DAY: Duration = Duration::from_secs(86_400);

/// Begins to look after the pools.
pub(super) fn begin(daemon: &Arc<Daemon>) {
    tokio::spawn(keep(Arc::clone(daemon)));
}

/// A reload has brought other pools.
pub(super) fn reconfigured(daemon: &Arc<Daemon>, wanted: &[config::Pool]) {
    daemon.pools.reconfigure(wanted);
    look_again(daemon);
}

/// A pool's pass may have gone: looks for copies of it that go with it, in the background.
pub(super) fn look_again(daemon: &Arc<Daemon>) {
    let daemon = Arc::clone(daemon);
    tokio::spawn(async move { sweep(&daemon).await });
}

async fn keep(daemon: Arc<Daemon>) {
    // What is wrong with the file.
    daemon.tell_pools(&[]);
    let work = async {
        // The configuration may have lost a pool while no daemon was there.
        sweep(&daemon).await;
        loop {
            for domain in daemon.pools.due(Now::read().unix) {
                // What went wrong was told.
                let _ = daemon.refresh(&domain, false).await;
            }
            let (before, saving) = (daemon.pools.troubles(), Arc::clone(&daemon));
            let saved = spawn_blocking(move || saving.pools.save()).await.unwrap_or(false);
            daemon.tell_pools(&before);
            tokio::time::sleep(PAUSE).await;
            let mut until_next = daemon.pools.next().map_or(A_DAY, |next| next.since(Now::read().unix));
            if !saved {
                until_next = until_next.min(SAVE_AGAIN);
            }
            tokio::select! {
                () = tokio::time::sleep(until_next) => {}
                () = daemon.pools.changed() => {}
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = daemon.retired.cancelled() => {}
    }
}

/// Takes back copies of pools' passes for which no pool vouches any more.
async fn sweep(daemon: &Arc<Daemon>) {
    let daemon = Arc::clone(daemon);
    // A walk over a million entries does not belong on a thread that serves sessions.
    let _ = spawn_blocking(move || {
        let (enabled, mut after) = (daemon.live.load().policy.enabled(), None);
        loop {
            let page = daemon.ledger.passes_after(after, PAGE);
            let Some((last, _)) = page.last() else { return };
            after = Some(*last);
            let now = Now::read().unix;
            let copies = page.into_iter().filter(|(_, pass)| pass.origin == Origin::Pool);
            for (client, pass) in copies {
                let counts = pass.stamps.last_expiry().is_some_and(|until| until > now);
                if counts
                    && !daemon.pools.vouches_for(client.network(daemon.key_length), enabled, now)
                    && daemon.ledger.revoke(client)
                {
                    let why = pass.comment.unwrap_or_default();
                    info!("{client}: pass taken back, its pool no longer vouches for it ({why})");
                    daemon.ledger.note(client, What::Revoked, why, now);
                }
            }
        }
    })
    .await;
}

impl Daemon {
    /// What a client has passed, itself or as a member of a pool. A member that comes for the first time since its pool
    /// has passed gets a copy of the pass.
    pub(super) fn stamps_of(&self, live: &Live, address: IpAddr) -> Option<Stamps> {
        let own = self.ledger.stamps(self.key(address));
        let Some(pool) = self.pools.find(address) else { return own };
        let (enabled, now) = (live.policy.enabled(), Now::read().unix);
        let merged = own.unwrap_or_default().merged(&pool.stamps);
        (own.is_some() || merged != Stamps::default()).then(|| {
            let owes = |stamps: &Stamps| !stamps.owed(enabled, now).is_empty();
            if own.as_ref().is_none_or(owes) && !owes(&merged) {
                self.copy_pass(address, &pool, now);
            }
            merged
        })
    }

    fn copy_pass(&self, address: IpAddr, pool: &Membership, now: UnixTime) {
        let by = pool.passed_by.map_or_else(String::new, |by| format!(", which passed by {by}"));
        let comment = format!("pool {}{by}", pool.domain);
        let key = self.key(address);
        self.ledger.grant(key, &pool.stamps, Origin::Pool, Some(&comment), now);
        self.ledger.note(key, What::Pooled, comment, now);
    }

    /// A client has passed: so has its pool.
    pub(super) fn grant_to_pool(&self, live: &Live, arrival: &Arrival, stamps: &Stamps) {
        let address = arrival.client.ip();
        if arrival.standing != Standing::Screened {
            return;
        }
        let Some(pool) = self.pools.grant(address, stamps) else { return };
        let (enabled, now) = (live.policy.enabled(), Now::read().unix);
        let own = self.ledger.stamps(self.key(address)).unwrap_or_default();
        // It did a part of the tests itself, and is excused from the rest by its pool.
        if !own.owed(enabled, now).is_empty() && pool.stamps.owed(enabled, now).is_empty() {
            self.copy_pass(address, &pool, now);
        }
    }

    /// A test that a client had passed speaks against it now.
    pub(super) fn withdraw_from_pool(self: &Arc<Self>, address: IpAddr, test: Test) {
        if self.pools.withdraw(address, test).is_some() {
            look_again(self);
        }
    }

    async fn refresh(self: &Arc<Self>, domain: &str, accept: bool) -> Result<Refreshed, Refusal> {
        let live = self.live();
        let resolver = live.names.as_ref().map_err(|why| Refusal::Failed(why.clone()))?;
        let before = self.pools.troubles();
        let refreshed = self.pools.refresh(domain, resolver, accept, Now::read().unix).await;
        self.tell_pools(&before);
        match refreshed {
            Ok(refreshed) => {
                if refreshed.added + refreshed.removed > 0 {
                    let Refreshed { added, removed, prefixes, size } = &refreshed;
                    info!("pool {domain}: {prefixes} prefixes, {size}: {added} came, {removed} went");
                    sweep(self).await;
                }
                Ok(refreshed)
            }
            Err(error) => Err(match error {
                RefreshError::Unknown(_) => Refusal::Missing(error.to_string()),
                RefreshError::Expand(_) => Refusal::Failed(error.to_string()),
                RefreshError::Implausible { .. } => Refusal::Wrong(error.to_string()),
            }),
        }
    }

    /// Tells what is wrong with the pools and was not before, and when nothing is any more.
    fn tell_pools(&self, before: &[String]) {
        let now = self.pools.troubles();
        now.iter().filter(|trouble| !before.contains(trouble)).for_each(|trouble| warn!("{trouble}"));
        if now.is_empty() && !before.is_empty() {
            info!("all pools are as they should be again");
        }
    }

    /// For `pool refresh`.
    pub(super) async fn pool_refreshed(
        self: &Arc<Self>,
        domain: &str,
        request: api_pool::RefreshRequest,
    ) -> Result<api_pool::Refreshed, Refusal> {
        let Refreshed { added, removed, prefixes, size } = self.refresh(domain, request.accept).await?;
        Ok(api_pool::Refreshed { domain: domain.to_owned(), prefixes, added, removed, size: size.to_string() })
    }

    /// For `pool list` and `pool show`.
    pub(super) fn pools_shown(&self) -> Vec<api_pool::Pool> {
        self.pools.status().iter().map(|pool| self.pool_shown(pool)).collect()
    }

    fn pool_shown(&self, pool: &PoolStatus) -> api_pool::Pool {
        let (enabled, now) = (self.live.load().policy.enabled(), Now::read().unix);
        let until = pool.stamps.complete_until(enabled).filter(|&until| until > now);
        let prefixes = pool.members.prefixes();
        let ipv4_prefixes = prefixes.iter().filter(|net| net.addr().is_ipv4()).count();
        api_pool::Pool {
            domain: pool.domain.to_string(),
            ipv4_prefixes,
            ipv6_prefixes: prefixes.len() - ipv4_prefixes,
            size: pool.members.size().to_string(),
            prefixes: prefixes.to_vec(),
            learned: pool.learned.map(stamp),
            next: stamp(pool.next),
            passed_until: until.map(stamp),
            expires: Test::ALL
                .into_iter()
                .filter(|&test| enabled.contains(test) || pool.stamps.get(test).is_some())
                .map(|test| (test.name().to_owned(), pool.stamps.get(test).map(stamp)))
                .collect(),
            passed_by: pool.passed_by,
            lookups: pool.lookups,
            left_out: pool.left_out.clone(),
            trouble: pool.trouble.clone(),
        }
    }

    /// For `pool forget`.
    pub(super) async fn pool_forgotten(self: &Arc<Self>, domain: &str) -> Result<(), Refusal> {
        match self.pools.forget(domain) {
            Some(true) => {
                info!("pool {domain}: its pass was taken away by command");
                sweep(self).await;
                Ok(())
            }
            Some(false) => Err(Refusal::Missing(format!("the pool {domain} has no pass"))),
            None => Err(Refusal::Missing(RefreshError::Unknown(domain.to_owned()).to_string())),
        }
    }

    /// For `explain`.
    pub(super) fn membership_shown(&self, address: IpAddr) -> Option<api_pool::Membership> {
        let found = self.pools.find(address)?;
        let (enabled, now) = (self.live.load().policy.enabled(), Now::read().unix);
        Some(api_pool::Membership {
            domain: found.domain.to_string(),
            prefix: found.prefix,
            passed_until: found.stamps.complete_until(enabled).filter(|&until| until > now).map(stamp),
            passed_by: found.passed_by,
        })
    }
}
