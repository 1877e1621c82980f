//! What the daemon does with the DNS lists beside sessions: it keeps them under watch, takes back passes that a late answer
//! speaks against, and tells how the lists stand. Passes in use are renewed in `renewal`.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::info;

use crate::client::ClientKey;
use crate::clock::Now;
use crate::control::{api, api_dnsbl};
use crate::dns::SickServer;
use crate::dnsbl::{Check, Contribution, Dnsbl, ListStatus};
use crate::ledger::What;
use crate::pass::Test;
use crate::session::{DnsblReport, SessionId};

use super::daemon::Daemon;
use super::renewal;

/// Puts the lists under watch.
pub(super) fn begin(daemon: &Arc<Daemon>) {
    let live = daemon.live();
    if let Some(lists) = &live.lists {
        lists.watch(&live.watch);
    }
    tokio::spawn(renewal::renew(Arc::clone(daemon)));
}

/// A session is over and some list has not answered: what it says may still speak against a pass that was granted.
pub(super) fn follow(daemon: Arc<Daemon>, address: IpAddr, session: SessionId, mut check: Check) {
    let key = daemon.key(address);
    let Some(threshold) = daemon.live.load().policy.dnsbl.as_ref().map(|dnsbl| dnsbl.threshold) else { return };
    let tasks = daemon.tasks.clone();
    tasks.spawn(async move {
        let report = tokio::select! {
            report = check.everything() => report,
            () = daemon.going_down.cancelled() => return,
        };
        let Some((what, why)) = speaks_against_a_pass(&report, threshold) else { return };
        if daemon.take_pass_back(key, address, what, format!("late answer, pass withdrawn: {why}")) {
            info!(%session, "{key}: pass withdrawn, a late answer: {why}");
        }
    });
}

/// Why a pass is not to be kept by what the lists say, as in a session: the client would fail now, or nothing but one allow
/// list keeps it from that, and it is to be asked about each time.
fn speaks_against_a_pass(report: &DnsblReport, threshold: i32) -> Option<(What, String)> {
    let rank = format!("DNSBL rank {}: {}", report.score, report.arithmetic());
    if report.score >= threshold {
        Some((What::Dnsbl, rank))
    } else if report.without_best_ally >= threshold {
        Some((What::Revoked, format!("it rests on one allow list alone: {rank}")))
    } else {
        None
    }
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

impl Daemon {
    /// Takes a client's pass of the lists' back, and its pool's with it, and notes why. False: it had none.
    pub(super) fn take_pass_back(
        self: &Arc<Self>,
        client: ClientKey,
        address: IpAddr,
        what: What,
        why: String,
    ) -> bool {
        self.withdraw_from_pool(address, Test::Dnsbl);
        let had = self.ledger.withdraw(client, Test::Dnsbl);
        if had {
            self.ledger.note(client, what, why, Now::read().unix);
            self.metrics.pass_withdrawn();
        }
        had
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_rests_on_one_allow_list_is_spoken_against() {
        let report = |score, without_best_ally| DnsblReport { score, without_best_ally, ..DnsblReport::default() };
        let what = |report| speaks_against_a_pass(&report, 3).map(|(what, _)| what);
        assert_eq!(what(report(3, 3)), Some(What::Dnsbl));
        assert_eq!(what(report(2, 3)), Some(What::Revoked));
        assert_eq!(what(report(2, 2)), None);
        assert_eq!(what(report(-2, 0)), None);
    }
}
