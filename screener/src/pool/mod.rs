//! Senders that share a pass: all the addresses that one domain names as its senders in its SPF record.
//!
//! Holds the pools, their members and the pass of each, in memory and in a small file beside the ledger. Who has passed is
//! said from outside, and so is the time; the one thing that waits here is [`Pools::refresh`], for the DNS. Never decides
//! about a client, and never lets a list of members go for one that is implausible: the last good one stays.

mod expand;
mod file;
mod members;
mod record;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;
use tokio::sync::Notify;

pub use expand::{ExpandError, Expansion};
pub use members::{Implausible, Members, Size};

use crate::clock::UnixTime;
use crate::config;
use crate::dns::Resolver;
use crate::pass::{Stamps, Test, TestSet};
use file::KeptPool;

/// How soon a refresh that failed is tried again, the first time; each further time twice as long.
const RETRY: Duration = Duration::from_secs(60);

/// The pool that an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Whose senders these are.
    pub domain: Arc<str>,
    /// The member's prefix.
    pub prefix: IpNet,
    /// The pass that all members share.
    pub stamps: Stamps,
    /// Which member passed last.
    pub passed_by: Option<IpAddr>,
}

/// What a refresh did.
#[derive(Clone, Debug, PartialEq)]
pub struct Refreshed {
    /// Prefixes that came.
    pub added: usize,
    /// Prefixes that went.
    pub removed: usize,
    /// How many there are.
    pub prefixes: usize,
    /// How many addresses these are.
    pub size: Size,
}

/// Why the members stay as they were.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum RefreshError {
    /// There is no such pool.
    #[error("there is no pool {0}: `screener pool list` shows those of the configuration")]
    Unknown(String),
    /// The DNS does not say who the members are.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// It says something that cannot be meant.
    #[error("the new members of {domain} are refused: {why}")]
    Implausible {
        /// Whose.
        domain: String,
        /// Why.
        why: Implausible,
    },
}

/// How a pool stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolStatus {
    /// Whose senders these are.
    pub domain: Arc<str>,
    /// Who they are.
    pub members: Arc<Members>,
    /// When that was looked up; `None`: never yet.
    pub learned: Option<UnixTime>,
    /// When it is looked up again.
    pub next: UnixTime,
    /// The pass that they share.
    pub stamps: Stamps,
    /// Who passed last.
    pub passed_by: Option<IpAddr>,
    /// What of the record cannot be expanded.
    pub left_out: Vec<String>,
    /// Terms of the record that ask the DNS, at most ten.
    pub lookups: usize,
    /// Why the last refresh changed nothing.
    pub trouble: Option<String>,
}

#[derive(Debug)]
struct Pool {
    config: config::Pool,
    domain: Arc<str>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Arc<Members>,
    learned: Option<UnixTime>,
    next: UnixTime,
    failures: u32,
    stamps: Stamps,
    passed_by: Option<IpAddr>,
    left_out: Vec<String>,
    lookups: usize,
    trouble: Option<String>,
}

/// All pools.
#[derive(Debug)]
pub struct Pools {
    pools: RwLock<Vec<Arc<Pool>>>,
    file: PathBuf,
    /// Whether something changed that is not in the file.
    unsaved: AtomicBool,
    /// Told when there is something to write, or another time to refresh at.
    changed: Notify,
    /// One refresh at a time: two would compare with the same old members.
    refreshing: tokio::sync::Mutex<()>,
    /// What is wrong with the file.
    trouble: Mutex<Option<String>>,
}

impl Pool {
    fn new(config: &config::Pool, kept: Option<KeptPool>) -> Self {
        let state = kept.map_or_else(State::default, |kept| State {
            members: Arc::new(Members::new(&kept.members)),
            learned: Some(kept.learned),
            stamps: file::stamps(kept.until),
            passed_by: kept.passed_by,
            ..State::default()
        });
        Self { config: config.clone(), domain: config.domain.as_str().into(), state: state.into() }
    }

    // A panic elsewhere leaves at worst a field of an older moment.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> Option<KeptPool> {
        let state = self.state();
        Some(KeptPool {
            domain: self.domain.to_string(),
            members: state.members.prefixes().to_vec(),
            learned: state.learned?,
            until: file::until(&state.stamps),
            passed_by: state.passed_by,
        })
    }

    /// Takes the place of the old members, if that is plausible.
    fn adopt(&self, expansion: Expansion, accept: bool, now: UnixTime) -> Result<Refreshed, Implausible> {
        let new = Members::new(&expansion.prefixes);
        new.check()?;
        let mut state = self.state_mut();
        if state.learned.is_some() && !accept {
            new.check_growth(&state.members, self.config.growth)?;
        }
        let before: BTreeSet<_> = state.members.prefixes().iter().collect();
        let after: BTreeSet<_> = new.prefixes().iter().collect();
        let refreshed = Refreshed {
            added: after.difference(&before).count(),
            removed: before.difference(&after).count(),
            prefixes: after.len(),
            size: new.size(),
        };
        let ttl = expansion.ttl.unwrap_or_default().clamp(self.config.min_refresh, self.config.max_refresh);
        state.members = Arc::new(new);
        state.learned = Some(now);
        state.next = now.plus(ttl);
        state.failures = 0;
        state.left_out = expansion.left_out;
        state.lookups = expansion.lookups;
        state.trouble = None;
        Ok(refreshed)
    }

    fn failed(&self, error: &RefreshError, now: UnixTime) {
        let mut state = self.state_mut();
        let pause = RETRY.saturating_mul(1 << state.failures.min(16)).min(self.config.max_refresh);
        state.failures = state.failures.saturating_add(1);
        state.next = now.plus(pause);
        let keeps = match state.learned {
            Some(learned) => format!("the members of {learned} stay"),
            None => "it has no members".to_owned(),
        };
        let domain = &self.domain;
        state.trouble = Some(match error {
            RefreshError::Implausible { why: Implausible::Grown { .. }, .. } => {
                format!("pool {domain}: {error}; {keeps}; if it is meant: `screener pool refresh {domain} --accept`")
            }
            _ => format!("pool {domain}: {error}; {keeps}"),
        });
    }
}

/// The senders that a domain names in its SPF record, for whoever keeps them otherwise than as a pool.
///
/// # Errors
/// When the DNS does not say.
pub async fn senders(resolver: &Resolver, domain: &str) -> Result<Expansion, ExpandError> {
    expand::expand(resolver, domain).await
}

impl Pools {
    /// The pools of a configuration, with what the file has of them.
    pub fn open(file: PathBuf, wanted: &[config::Pool]) -> Self {
        let (mut kept, trouble) = match if wanted.is_empty() { Ok(Vec::new()) } else { file::read(&file) } {
            Ok(kept) => (kept, None),
            Err(error) => (Vec::new(), Some(format!("what was known of the pools is lost: {error}"))),
        };
        let mut take = |domain: &str| {
            let at = kept.iter().position(|pool| pool.domain == domain)?;
            Some(kept.swap_remove(at))
        };
        let pools = wanted.iter().map(|pool| Arc::new(Pool::new(pool, take(&pool.domain)))).collect();
        Self {
            pools: RwLock::new(pools),
            file,
            unsaved: AtomicBool::default(),
            changed: Notify::new(),
            refreshing: tokio::sync::Mutex::default(),
            trouble: Mutex::new(trouble),
        }
    }

    /// The pools of another configuration: those that stay keep their members and their pass.
    pub fn reconfigure(&self, wanted: &[config::Pool]) {
        {
            let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
            let new = wanted.iter().map(|config| {
                let known = pools.iter().find(|pool| *pool.domain == *config.domain);
                match known {
                    Some(known) if known.config == *config => Arc::clone(known),
                    known => Arc::new(Pool::new(config, known.and_then(|known| known.kept()))),
                }
            });
            *pools = new.collect();
        }
        self.touch();
    }

    /// The pool of an address.
    pub fn find(&self, address: IpAddr) -> Option<Membership> {
        let address = address.to_canonical();
        self.pools().iter().find_map(|pool| {
            let state = pool.state();
            let prefix = state.members.covering(address)?;
            let (domain, stamps, passed_by) = (Arc::clone(&pool.domain), state.stamps, state.passed_by);
            Some(Membership { domain, prefix, stamps, passed_by })
        })
    }

    /// A member has passed: so has its pool. `None`: it is no member.
    pub fn grant(&self, address: IpAddr, stamps: &Stamps) -> Option<Membership> {
        self.change(address, |state| {
            let merged = state.stamps.merged(stamps);
            (state.stamps, state.passed_by) = (merged, Some(address.to_canonical()));
        })
    }

    /// What a member has passed counts no more, for its pool neither. `None`: it is no member.
    pub fn withdraw(&self, address: IpAddr, test: Test) -> Option<Membership> {
        self.change(address, |state| state.stamps.set(test, None))
    }

    /// Takes the pass of the pool of an address away. `None`: it is no member.
    pub fn revoke(&self, address: IpAddr) -> Option<Membership> {
        self.change(address, |state| (state.stamps, state.passed_by) = (Stamps::default(), None))
    }

    /// Takes the pass of a pool away. `None`: there is no such pool; false: it had none.
    pub fn forget(&self, domain: &str) -> Option<bool> {
        let pool = self.pool(domain)?;
        let had = {
            let mut state = pool.state_mut();
            state.passed_by = None;
            std::mem::take(&mut state.stamps) != Stamps::default()
        };
        self.touch();
        Some(had)
    }

    fn change(&self, address: IpAddr, change: impl FnOnce(&mut State)) -> Option<Membership> {
        let found = self.find(address)?;
        let pool = self.pool(&found.domain)?;
        let stamps = {
            let mut state = pool.state_mut();
            change(&mut state);
            state.stamps
        };
        if stamps != found.stamps {
            self.touch();
        }
        Some(Membership { stamps, ..found })
    }

    /// Looks a pool's members up and lets them take the place of the old ones; `accept`: also where they have grown by an
    /// implausible factor.
    ///
    /// # Errors
    /// When nothing is changed; why. It is tried again by itself.
    pub async fn refresh(
        &self,
        domain: &str,
        resolver: &Resolver,
        accept: bool,
        now: UnixTime,
    ) -> Result<Refreshed, RefreshError> {
        let _alone = self.refreshing.lock().await;
        let pool = self.pool(domain).ok_or_else(|| RefreshError::Unknown(domain.to_owned()))?;
        let refreshed = match expand::expand(resolver, domain).await {
            Ok(expansion) => pool.adopt(expansion, accept, now).map_err(|why| {
                let domain = domain.to_owned();
                RefreshError::Implausible { domain, why }
            }),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = &refreshed {
            pool.failed(error, now);
        }
        self.touch();
        refreshed
    }

    /// The pools whose members are to be looked up now.
    pub fn due(&self, now: UnixTime) -> Vec<Arc<str>> {
        let pools = self.pools();
        let due = pools.iter().filter(|pool| pool.state().next.is_due(now, pool.config.max_refresh));
        due.map(|pool| Arc::clone(&pool.domain)).collect()
    }

    /// When the next refresh is due; `None`: there are no pools.
    pub fn next(&self) -> Option<UnixTime> {
        self.pools().iter().map(|pool| pool.state().next).min()
    }

    /// Waits for a change: of a pass, of members, of the configuration.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether a copy of a pool's pass that a client holds is still good: some address of the client is a member, and the pool
    /// has passed.
    pub fn vouches_for(&self, client: IpNet, enabled: TestSet, now: UnixTime) -> bool {
        self.pools().iter().any(|pool| {
            let state = pool.state();
            state.members.meets(client) && state.stamps.owed(enabled, now).is_empty()
        })
    }

    /// Whether members of any pool have addresses in common with a network.
    pub fn meets(&self, network: IpNet) -> bool {
        self.pools().iter().any(|pool| pool.state().members.meets(network))
    }

    /// How the pools stand, in the order of the configuration.
    pub fn status(&self) -> Vec<PoolStatus> {
        let status = |pool: &Arc<Pool>| {
            let state = pool.state();
            PoolStatus {
                domain: Arc::clone(&pool.domain),
                members: Arc::clone(&state.members),
                learned: state.learned,
                next: state.next,
                stamps: state.stamps,
                passed_by: state.passed_by,
                left_out: state.left_out.clone(),
                lookups: state.lookups,
                trouble: state.trouble.clone(),
            }
        };
        self.pools().iter().map(status).collect()
    }

    /// What is not as it should be, a sentence each.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles: Vec<_> = self.trouble().clone().into_iter().collect();
        troubles.extend(self.pools().iter().filter_map(|pool| pool.state().trouble.clone()));
        troubles
    }

    /// Writes the file, if there is something to write. Blocks: not for an async task. True: it could be written, or nothing
    /// was to be.
    pub fn save(&self) -> bool {
        if !self.unsaved.swap(false, Ordering::AcqRel) {
            return true;
        }
        let pools: Vec<_> = self.pools().iter().filter_map(|pool| pool.kept()).collect();
        let written = file::write(&self.file, pools);
        let ok = written.is_ok();
        if !ok {
            self.unsaved.store(true, Ordering::Release);
        }
        *self.trouble() = written.err().map(|error| format!("what is known of the pools is not on the disk: {error}"));
        ok
    }

    fn touch(&self) {
        self.unsaved.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn pool(&self, domain: &str) -> Option<Arc<Pool>> {
        self.pools().iter().find(|pool| *pool.domain == *domain).map(Arc::clone)
    }

    fn pools(&self) -> RwLockReadGuard<'_, Vec<Arc<Pool>>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
