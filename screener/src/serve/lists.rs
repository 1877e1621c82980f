//! What the daemon does with the DNS lists beside sessions: it keeps them under watch, takes back passes that a late answer
//! speaks against, renews passes in use, and tells how the lists stand.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info};

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::control::{api, api_dnsbl};
use crate::dns::SickServer;
use crate::dnsbl::{Check, Contribution, Dnsbl, ListStatus};
use crate::ledger::{Origin, Pass, What};
use crate::pass::{Stamps, Test};
use crate::session::{Policy, SessionId};

use super::daemon::Daemon;

/// How often passes that expire soon are looked for.
const SWEEP: Duration = Duration::from_secs(20);
/// How many passes are looked at before others may use the table.
const PAGE: usize = 4096;
/// How many clients are asked about at a time: renewal must never crowd out those who wait.
const AT_A_TIME: usize = 16;
/// A pass is renewed at most so long before it expires.
const EARLIEST: Duration = Duration::from_secs(900);
/// A client that has not been seen for so long is no regular correspondent.
const IN_USE: Duration = Duration::from_secs(3600);

/// Puts the lists under watch.
pub(super) fn begin(daemon: &Arc<Daemon>) {
    let live = daemon.live();
    if let Some(lists) = &live.lists {
        lists.watch(&live.watch);
    }
    tokio::spawn(renew(Arc::clone(daemon)));
}

/// A session is over and some list has not answered: what it says may still speak against a pass that was granted.
pub(super) fn follow(daemon: Arc<Daemon>, key: ClientKey, session: SessionId, mut check: Check) {
    let Some(threshold) = daemon.live.load().policy.dnsbl.as_ref().map(|dnsbl| dnsbl.threshold) else { return };
    let tasks = daemon.tasks.clone();
    tasks.spawn(async move {
        let report = tokio::select! {
            report = check.everything() => report,
            () = daemon.going_down.cancelled() => return,
        };
        if report.score < threshold {
            return;
        }
        daemon.withdraw_from_pool(key.address(), Test::Dnsbl);
        if daemon.ledger.withdraw(key, Test::Dnsbl) {
            let said = report.arithmetic();
            info!(%session, "{key}: pass withdrawn, a late answer: DNSBL rank {}: {said}", report.score);
            let detail = format!("late answer, pass withdrawn: DNSBL rank {}: {said}", report.score);
            daemon.ledger.note(key, What::Dnsbl, detail, Now::read().unix);
            daemon.metrics.pass_withdrawn();
        }
    });
}

/// A session is over, and what a list has not said yet changes nothing any more, but is counted: otherwise a client that
/// is refused at the first answer would be that list's alone, and never one of those that answer after it.
pub(super) fn hear_out(daemon: &Arc<Daemon>, mut check: Check) {
    let going_down = daemon.going_down.clone();
    daemon.tasks.spawn(async move {
        tokio::select! {
            _ = check.everything() => {}
            () = going_down.cancelled() => {}
        }
    });
}

/// Asks about clients again whose pass is in use and expires soon.
async fn renew(daemon: Arc<Daemon>) {
    let work = async {
        loop {
            tokio::time::sleep(SWEEP).await;
            let due = {
                let daemon = Arc::clone(&daemon);
                tokio::task::spawn_blocking(move || due(&daemon)).await.unwrap_or_default()
            };
            if due.is_empty() {
                continue;
            }
            debug!("{} passes are renewed", due.len());
            // Evenly over the time until the next look.
            let pause = SWEEP / u32::try_from(due.len().div_ceil(AT_A_TIME)).unwrap_or(u32::MAX);
            for clients in due.chunks(AT_A_TIME) {
                let asking = clients.iter().map(|&client| {
                    let daemon = Arc::clone(&daemon);
                    tokio::spawn(async move { renew_one(&daemon, client).await })
                });
                let asking: Vec<_> = asking.collect();
                tokio::time::sleep(pause).await;
                for task in asking {
                    // A task that broke has said so.
                    let _ = task.await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = daemon.retired.cancelled() => {}
    }
}

/// The clients whose pass is to be renewed now.
fn due(daemon: &Daemon) -> Vec<ClientKey> {
    let live = daemon.live();
    let mut due = Vec::new();
    let mut after = None;
    loop {
        let page = daemon.ledger.passes_after(after, PAGE);
        let Some((last, _)) = page.last() else { return due };
        after = Some(*last);
        let now = Now::read().unix;
        let wanted = page.iter().filter(|(client, pass)| is_due(daemon, &live.policy, *client, pass, now));
        due.extend(wanted.map(|(client, _)| *client));
    }
}

fn is_due(daemon: &Daemon, policy: &Policy, client: ClientKey, pass: &Pass, now: UnixTime) -> bool {
    let Some(until) = pass.stamps.get(Test::Dnsbl).filter(|&until| until > now) else { return false };
    let longest = policy.dnsbl.as_ref().map_or(EARLIEST, |dnsbl| dnsbl.max_ttl);
    let own = matches!(pass.origin, Origin::Screened | Origin::Shared);
    if !own || until.since(now) > moment(client, longest) {
        return false;
    }
    // The lists' is the one stamp that has to be renewed: where another expires first, the client is screened anyway.
    let other_first = pass.stamps.complete_until(policy.enabled()).is_none_or(|complete| complete < until);
    let seen_by_kernel = daemon.kernel.as_ref().and_then(|kernel| kernel.pass_last_used(client).ok().flatten());
    let seen_by_us = || daemon.ledger.history(client).filter(|history| history.sessions > 1).map(|it| it.last_seen);
    let seen = seen_by_kernel.max(seen_by_us());
    !other_first && seen.is_some_and(|seen| now.since(seen) <= IN_USE)
}

/// How long before its expiry a client's pass is renewed: another time for each client, so that those who came together
/// are not asked about together; never so late that the next look would miss it.
fn moment(client: ClientKey, longest: Duration) -> Duration {
    thread_local!(static HASHER: RandomState = RandomState::new());
    let share = HASHER.with(|hasher| hasher.hash_one(client)) % 1000;
    let earliest = EARLIEST.min(longest / 2);
    earliest.mul_f64(1.0 / 3.0 + share as f64 / 1500.0).max(SWEEP * 3 / 2)
}

async fn renew_one(daemon: &Daemon, client: ClientKey) {
    let live = daemon.live();
    let (Some(policy), Some(lists)) = (&live.policy.dnsbl, &live.lists) else { return };
    let mut check = lists.start_fresh(client.address());
    let report = check.complete().await;
    if report.score >= policy.threshold {
        daemon.pools.withdraw(client.address(), Test::Dnsbl);
        if daemon.ledger.withdraw(client, Test::Dnsbl) {
            let detail = format!("at renewal: DNSBL rank {}: {}", report.score, report.arithmetic());
            info!("{client}: pass withdrawn {detail}");
            daemon.ledger.note(client, What::Dnsbl, detail, Now::read().unix);
            daemon.metrics.pass_withdrawn();
        }
        return;
    }
    // What nobody vouches for is not prolonged.
    let Some(ttl) = report.ttl.filter(|_| report.unknown.is_empty() && report.without_best_ally < policy.threshold)
    else {
        return;
    };
    // It may have been taken away while the lists were asked.
    if daemon.ledger.pass(client).is_none_or(|pass| pass.stamps.get(Test::Dnsbl).is_none()) {
        return;
    }
    let now = Now::read().unix;
    let mut stamps = Stamps::default();
    stamps.set(Test::Dnsbl, Some(now.plus(ttl.clamp(policy.min_ttl, policy.max_ttl))));
    daemon.ledger.grant(client, &stamps, Origin::Screened, None, now);
    daemon.metrics.pass_renewed();
}

impl Daemon {
    /// The DNS lists, for `status`.
    pub(super) fn lists_status(&self) -> Vec<api::List> {
        let lists = self.live.load().lists.as_ref().map(|lists| lists.status().lists).unwrap_or_default();
        let shown = lists.into_iter().map(|list| api::List {
            list: list.name,
            queries: list.questions,
            hits: list.hits,
            errors: list.errors,
            unknown: list.unknown,
            state: list.state.to_owned(),
            last_error: list.why.map(|(_, why)| why).or(list.last_error),
        });
        shown.collect()
    }

    /// Why no list can be asked, or not by the resolver that is meant to be asked first.
    pub(super) fn resolver_troubles(&self) -> Vec<String> {
        let Some(status) = self.live.load().lists.as_ref().map(Dnsbl::status) else { return Vec::new() };
        let silent =
            "no DNS list answers, so clients are screened without them: is the resolver alive? See `screener doctor`";
        let silent = status.resolver_is_silent.then(|| silent.to_owned());
        silent.into_iter().chain(status.sick_resolvers.iter().map(SickServer::to_string)).collect()
    }

    /// The DNS lists, for `dnsbl status` and the metrics.
    pub(super) fn lists_shown(&self) -> api_dnsbl::Dnsbl {
        let Some(status) = self.live.load().lists.as_ref().map(Dnsbl::status) else {
            return api_dnsbl::Dnsbl::default();
        };
        let names: Vec<_> = status.lists.iter().map(|list| list.name.clone()).collect();
        let mut overlap = Vec::new();
        for (first, counts) in status.counts.lists.iter().enumerate() {
            for (second, &clients) in
                counts.with.iter().enumerate().skip(first + 1).filter(|(_, clients)| **clients > 0)
            {
                let (first, second) = (names[first].clone(), names[second].clone());
                overlap.push(api_dnsbl::Overlap { first, second, clients });
            }
        }
        let counts = status.counts.lists.into_iter().chain(std::iter::repeat_with(Contribution::default));
        api_dnsbl::Dnsbl {
            lists: status.lists.into_iter().zip(counts).map(|(list, counts)| list_shown(list, &counts)).collect(),
            clients: status.counts.clients,
            failed: status.counts.failed,
            overlap,
            cached_answers: status.cache.answers,
            evicted_answers: status.cache.evicted,
            resolver_is_silent: status.resolver_is_silent,
            sick_resolvers: status.sick_resolvers.iter().map(SickServer::to_string).collect(),
        }
    }
}

fn list_shown(list: ListStatus, counts: &Contribution) -> api_dnsbl::List {
    let (reason, why) = list.why.map_or((None, None), |(reason, why)| (Some(reason.to_owned()), Some(why)));
    let (since, again) = list.parked.map_or((None, None), |(since, again)| (Some(since), Some(again)));
    let bound = |seconds: f64| seconds.is_finite().then_some(seconds);
    api_dnsbl::List {
        list: list.name,
        level: list.level.name().to_owned(),
        state: list.state.to_owned(),
        reason,
        why,
        parked_seconds: since.map(|since| since.as_secs()),
        again_in_seconds: again.map(|again| again.as_secs()),
        parkings: list.parkings,
        ipv4_only: list.ipv4_only,
        questions: list.questions,
        rate: list.rate,
        cached: list.cached,
        shared: list.shared,
        open: list.open,
        hits: list.hits,
        hit_rate: list.hit_rate,
        misses: list.misses,
        errors: list.errors,
        unknown: list.unknown,
        p50: list.times.quantile(0.5),
        p90: list.times.quantile(0.9),
        p99: list.times.quantile(0.99),
        times: list.times.buckets.iter().map(|&(seconds, count)| (bound(seconds), count)).collect(),
        times_sum: list.times.sum,
        last_error: list.last_error,
        clients: counts.answered,
        listed: counts.hits,
        alone: counts.alone,
        decisive: counts.decisive,
    }
}
