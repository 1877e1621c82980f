//! What the daemon does with passes on command: it lists them, gives them, takes them away, and puts them back.
//!
//! Holds one page of work a call, so that nobody waits for a million passes. Never decides who has earned one.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::control::Refusal;
use crate::control::api_pass::{
    Added, DeleteRequest, Deleted, DeletedPage, ListRequest, Page, Pass as Shown, PassRequest, RestoreReport,
    RestoreRequest, Standing,
};
use crate::feed::{DenyAction, StaticAction};
use crate::ledger::{Found, Grant, Origin, Pass, What};
use crate::pass::{Stamps, Test, TestSet};

use super::daemon::Daemon;
use super::pattern::Pattern;
use super::pools;

/// How long a pass by hand lasts unless it is said.
const MANUAL_PASS: Duration = Duration::from_secs(30 * 86_400);
/// How many passes are read under one lock of the ledger: a fraction of a millisecond.
const LOCKED: usize = 1024;
/// How many passes one answer looks at.
const LOOKED: usize = 32 * LOCKED;
/// How many one answer takes away.
const DELETED: usize = 8 * LOCKED;

/// The clients from a first to a last one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clients {
    first: ClientKey,
    last: ClientKey,
}

impl Clients {
    pub(super) fn contains(self, client: ClientKey) -> bool {
        (self.first..=self.last).contains(&client)
    }

    /// Where a walk goes on behind a client.
    fn behind(self, after: Option<ClientKey>) -> Bound<ClientKey> {
        match after {
            Some(after) if after >= self.first => Bound::Excluded(after),
            _ => Bound::Included(self.first),
        }
    }
}

/// What [`Daemon::pass_taken`] did.
pub(super) struct Taken {
    /// There was a pass.
    pub(super) had: bool,
    /// Whose pass went too.
    pub(super) pool: Option<Arc<str>>,
}

/// The conditions of a list.
struct Filter {
    test: Option<Test>,
    owed: Option<Test>,
    origin: Option<Origin>,
    standing: Option<Standing>,
    expiring: Option<Duration>,
    older: Option<Duration>,
    newer: Option<Duration>,
    name: Option<Pattern>,
    enabled: TestSet,
    now: UnixTime,
}

impl Filter {
    fn of(request: &ListRequest, enabled: TestSet, now: UnixTime) -> Result<Self, Refusal> {
        let test = |named: &Option<String>| {
            named
                .as_ref()
                .map(|name| name.parse().map_err(|error| Refusal::Wrong(format!("'{name}': {error}"))))
                .transpose()
        };
        let span = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        Ok(Self {
            test: test(&request.test)?,
            owed: test(&request.owed)?,
            origin: request.origin.as_deref().map(str::parse).transpose().map_err(Refusal::Wrong)?,
            standing: request.standing,
            expiring: span(request.expiring_seconds),
            older: span(request.older_seconds),
            newer: span(request.newer_seconds),
            name: request.name.as_deref().map(Pattern::new),
            enabled,
            now,
        })
    }

    fn wants(&self, pass: &Pass) -> bool {
        let counts = |test| pass.stamps.get(test).is_some_and(|until| until > self.now);
        let valid = pass.stamps.complete_until(self.enabled).filter(|&until| until > self.now);
        let age = self.now.since(pass.created);
        self.test.is_none_or(counts)
            && self.owed.is_none_or(|test| !counts(test))
            && self.origin.is_none_or(|origin| pass.origin == origin)
            && self.standing.is_none_or(|standing| (standing == Standing::Valid) == valid.is_some())
            && self.expiring.is_none_or(|within| valid.is_some_and(|until| until <= self.now.plus(within)))
            && self.older.is_none_or(|limit| age > limit)
            && self.newer.is_none_or(|limit| age < limit)
    }
}

impl Daemon {
    /// The clients of a prefix; `None`: all there can be.
    pub(super) fn clients(&self, prefix: Option<IpNet>) -> Clients {
        let all = || (IpAddr::from([0; 4]), IpAddr::from([u8::MAX; 16]));
        let (first, last) = prefix.map_or_else(all, |prefix| {
            let prefix = canonical(prefix);
            (prefix.network(), prefix.broadcast())
        });
        Clients { first: self.key(first), last: self.key(last) }
    }

    pub(super) fn pass_shown(&self, client: ClientKey, pass: &Pass) -> Shown {
        Shown::of(client, pass, self.live.load().policy.enabled())
    }

    /// For `GET /v1/passes`.
    pub(super) fn passes_page(&self, request: &ListRequest) -> Result<Page, Refusal> {
        let most = request.most.unwrap_or(ListRequest::MOST).clamp(1, ListRequest::MOST);
        let enabled = self.live.load().policy.enabled();
        let filter = Filter::of(request, enabled, Now::read().unix)?;
        let clients = self.clients(request.prefix);
        let mut page = Page { ipv6_prefix: self.key_length.bits(), ..Page::default() };
        let mut after = request.after.map(|after| self.key(after));
        for _ in 0..LOOKED / LOCKED {
            let Found { passes, next } = self.ledger.passes_within(clients.behind(after), clients.last, LOCKED);
            for (client, pass) in &passes {
                // The name last: it takes a look at what is known of the client.
                let called = |name: &Pattern| self.ledger.is_called(*client, |known| name.fits(known));
                if filter.wants(pass) && filter.name.as_ref().is_none_or(called) {
                    page.passes.push(Shown::of(*client, pass, enabled));
                    if page.passes.len() == most {
                        page.next = Some(client.address());
                        return Ok(page);
                    }
                }
            }
            page.next = next.map(ClientKey::address);
            after = next;
            if next.is_none() {
                break;
            }
        }
        Ok(page)
    }

    /// For `pass add`.
    pub(super) fn pass_added(&self, address: IpAddr, request: &PassRequest) -> Result<Added, Refusal> {
        let now = Now::read().unix;
        let ttl = request.ttl_seconds.map_or(MANUAL_PASS, Duration::from_secs);
        if ttl.is_zero() {
            return Err(Refusal::Wrong(
                "a pass of no time is none: to take one away use `screener pass del`".to_owned(),
            ));
        }
        let stamps = if request.tests.is_empty() {
            Stamps::all_until(now.plus(ttl))
        } else {
            let mut stamps = Stamps::default();
            for name in &request.tests {
                let test = name.parse().map_err(|error| Refusal::Wrong(format!("'{name}': {error}")))?;
                stamps.set(test, Some(now.plus(ttl)));
            }
            stamps
        };
        let key = self.key(address);
        self.ledger.grant(key, &stamps, Origin::Manual, request.comment.as_deref(), now);
        self.ledger.note(key, What::Granted, request.comment.clone().unwrap_or_default(), now);
        let pass = self.ledger.pass(key);
        let pass =
            pass.ok_or_else(|| Refusal::Failed("the pass was taken away again at the same moment".to_owned()))?;
        let mut notes = Vec::new();
        let owed: Vec<_> = pass.stamps.owed(self.live.load().policy.enabled(), now).iter().map(Test::name).collect();
        if !owed.is_empty() {
            notes.push(format!("it is still screened for {}", owed.join(", ")));
        }
        notes.extend(self.above_a_pass(address));
        Ok(Added { pass: self.pass_shown(key, &pass), network: key.network(self.key_length), notes })
    }

    /// What stands above a pass of this client.
    fn above_a_pass(&self, address: IpAddr) -> Option<String> {
        let statics = self.statics();
        let found = statics.lookup(address.to_canonical())?;
        let (prefix, origin) = (found.prefix, found.source);
        match found.action {
            StaticAction::Permit => {
                Some(format!("it is permitted by {prefix} from {origin}, and not screened whatever passes it has"))
            }
            StaticAction::Deny(DenyAction::Count) => None,
            StaticAction::Deny(DenyAction::Tag) => {
                Some(format!("it is tagged by {prefix} from {origin}: no pass counts for it as long as that stands"))
            }
            StaticAction::Deny(_) => {
                Some(format!("it is denied by {prefix} from {origin}, which stands above any pass"))
            }
        }
    }

    /// Takes a client's pass away, and that of its pool, which would give it another one at once: who does this wants the
    /// client screened.
    pub(super) fn pass_taken(self: &Arc<Self>, address: IpAddr) -> Taken {
        let pool = self.pools.find(address).filter(|pool| pool.stamps != Stamps::default());
        let pool = pool.and_then(|_| self.pools.revoke(address)).map(|pool| pool.domain);
        let had = self.ledger.revoke(self.key(address)) || pool.is_some();
        if pool.is_some() {
            pools::look_again(self);
        }
        Taken { had, pool }
    }

    /// For `pass del`.
    pub(super) fn pass_deleted(self: &Arc<Self>, address: IpAddr) -> Result<Deleted, Refusal> {
        let key = self.key(address);
        let network = key.network(self.key_length);
        let mut notes = Vec::new();
        let Taken { had, pool } = self.pass_taken(address);
        if let Some(domain) = pool {
            notes.push(format!(
                "the pass of its pool {domain} went with it, or it would have had one again at once: the pool's other senders \
                 are screened again too"
            ));
        }
        if !had {
            return Err(Refusal::Missing(format!("{address} has no pass")));
        }
        let now = Now::read().unix;
        self.ledger.note(key, What::Revoked, String::new(), now);
        if self.pools.vouches_for(network, self.live.load().policy.enabled(), now) {
            notes.push(format!(
                "senders of a pool that has passed are in {network}: one of them brings the pass back; `screener pool list` \
                 shows the pools, `screener pool forget DOMAIN` takes a pool's pass away"
            ));
        }
        notes.extend(self.above_a_pass(address));
        Ok(Deleted { network, notes })
    }

    /// For `pass del --prefix`.
    pub(super) fn passes_deleted(&self, request: &DeleteRequest) -> Result<DeletedPage, Refusal> {
        let (now, enabled) = (Now::read().unix, self.live.load().policy.enabled());
        let prefix = canonical(request.prefix);
        let clients = self.clients(Some(prefix));
        let mut page = DeletedPage::default();
        let mut after = request.after.map(|after| self.key(after));
        for _ in 0..DELETED / LOCKED {
            let Found { passes, next } = self.ledger.passes_within(clients.behind(after), clients.last, LOCKED);
            for (client, _) in passes {
                if self.ledger.revoke(client) {
                    page.deleted += 1;
                    self.ledger.note(client, What::Revoked, format!("with all of {prefix}"), now);
                }
            }
            page.next = next.map(ClientKey::address);
            after = next;
            if next.is_none() {
                break;
            }
        }
        if page.next.is_none() {
            let passed = self.pools.status().into_iter().filter(|pool| pool.stamps.owed(enabled, now).is_empty());
            page.notes.extend(passed.filter(|pool| pool.members.meets(prefix)).map(|pool| {
                let domain = pool.domain;
                format!(
                    "the pool {domain} has passed and has senders in {prefix}: they get their passes back when they come, \
                     unless you say `screener pool forget {domain}`"
                )
            }));
        }
        Ok(page)
    }

    /// For `pass restore`.
    pub(super) fn passes_restored(&self, request: &RestoreRequest) -> Result<RestoreReport, Refusal> {
        if request.passes.len() > RestoreRequest::MOST {
            return Err(Refusal::Wrong(format!("at most {} passes are put back at once", RestoreRequest::MOST)));
        }
        let (now, enabled) = (Now::read().unix, self.live.load().policy.enabled());
        let mut report = RestoreReport::default();
        let mut page = Vec::with_capacity(request.passes.len());
        for shown in &request.passes {
            let (address, pass) =
                shown.parsed().map_err(|error| Refusal::Wrong(format!("{}: {error}", shown.client)))?;
            let client = self.key(address);
            if pass.stamps.last_expiry().is_none_or(|until| until <= now) {
                report.expired += 1;
            } else if pass.origin == Origin::Pool
                && !self.pools.vouches_for(client.network(self.key_length), enabled, now)
            {
                report.unvouched += 1;
            } else {
                page.push((client, pass));
            }
        }
        for (grant, stamps) in self.ledger.restore(&page, now, !request.dry_run) {
            match grant {
                Grant::New => report.new += 1,
                Grant::Changed => report.extended += 1,
                Grant::Unchanged => report.unchanged += 1,
            }
            report.owing += u64::from(grant != Grant::Unchanged && !stamps.owed(enabled, now).is_empty());
        }
        if request.last
            && !request.dry_run
            && let Err(error) = self.ledger.flush()
        {
            report.notes.push(format!("the passes count from now on, but are {error}"));
        }
        Ok(report)
    }
}

/// An IPv4-mapped prefix as the IPv4 prefix that it is, and no bits behind the length.
fn canonical(prefix: IpNet) -> IpNet {
    let mapped = match prefix {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        _ => None,
    };
    let mapped = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    mapped.map_or(prefix, IpNet::V4).trunc()
}
