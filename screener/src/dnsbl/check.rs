//! One client before all lists: the questions in flight, and the score so far.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use super::Dnsbl;
use super::list::{Said, sum};
use super::resolver::Looked;
use crate::session::DnsblReport;

/// The questions about one client.
#[derive(Debug)]
pub struct Check {
    answers: mpsc::Receiver<Answer>,
    /// What each list that has not answered could still add, lowest and highest.
    pending: Vec<Option<(i32, i32)>>,
    report: DnsblReport,
}

#[derive(Debug)]
struct Answer {
    list: usize,
    verdict: Verdict,
}

#[derive(Debug)]
enum Verdict {
    Listed { name: String, weight: i32, ttl: Duration },
    NotListed { ttl: Option<Duration> },
    Unknown,
}

impl Check {
    pub(super) fn start(dnsbl: &Dnsbl, address: IpAddr) -> Self {
        let (sender, answers) = mpsc::channel(dnsbl.lists.len().max(1));
        let mut pending = Vec::with_capacity(dnsbl.lists.len());
        let mut report = DnsblReport::default();
        for (list, watched) in dnsbl.lists.iter().enumerate() {
            let Some(name) = watched.list.query_name(address) else {
                pending.push(None);
                continue;
            };
            if !watched.stats.ask() {
                report.unknown += 1;
                pending.push(None);
                continue;
            }
            pending.push(Some(watched.list.range()));
            let (dnsbl, sender) = (dnsbl.clone(), sender.clone());
            // On its own, not in the session: an answer that comes late still goes to the resolver's cache.
            tokio::spawn(async move {
                let verdict = dnsbl.judge(list, dnsbl.resolver.a(name).await);
                // The session may be over.
                let _ = sender.send(Answer { list, verdict }).await;
            });
        }
        let mut check = Self { answers, pending, report };
        check.settle();
        check
    }

    /// The report after the next answer; complete when there is none to come. After a complete one: the same again.
    ///
    /// May be dropped while it waits: no answer is lost by that.
    pub async fn next_report(&mut self) -> DnsblReport {
        if !self.report.complete {
            match self.answers.recv().await {
                Some(answer) => self.take(answer),
                // The askers are gone without a word: the runtime is shutting down.
                None => self.pending.fill(None),
            }
            self.settle();
        }
        self.report.clone()
    }

    fn take(&mut self, Answer { list, verdict }: Answer) {
        self.pending[list] = None;
        match verdict {
            Verdict::Listed { name, weight, ttl } => {
                self.report.score = self.report.score.saturating_add(weight);
                self.report.hits.push((name, weight));
                self.report.hits.sort_by_key(|&(_, weight)| std::cmp::Reverse(weight));
                self.holds_for(ttl);
            }
            Verdict::NotListed { ttl } => ttl.into_iter().for_each(|ttl| self.holds_for(ttl)),
            Verdict::Unknown => self.report.unknown += 1,
        }
    }

    /// The whole holds no longer than any part of it.
    fn holds_for(&mut self, ttl: Duration) {
        self.report.ttl = Some(self.report.ttl.map_or(ttl, |least| least.min(ttl)));
    }

    fn settle(&mut self) {
        let open = || self.pending.iter().flatten();
        self.report.lowest = self.report.score.saturating_add(sum(open().map(|&(lowest, _)| lowest)));
        self.report.highest = self.report.score.saturating_add(sum(open().map(|&(_, highest)| highest)));
        self.report.complete = open().next().is_none();
    }
}

impl Dnsbl {
    /// What a list's answer means; counts it.
    fn judge(&self, list: usize, looked: Looked) -> Verdict {
        let watched = &self.lists[list];
        let name = watched.list.name();
        match looked {
            Looked::Nothing(ttl) => Verdict::NotListed { ttl },
            Looked::Unknown(why) => {
                watched.stats.unknown(why);
                Verdict::Unknown
            }
            Looked::Records(records, ttl) => match watched.list.judge(&records) {
                Said::Listed { weight, .. } => {
                    watched.stats.hit();
                    Verdict::Listed { name: name.to_string(), weight, ttl }
                }
                Said::NotListed => Verdict::NotListed { ttl: Some(ttl) },
                Said::Bad(bad) => {
                    if watched.stats.error(&bad) {
                        warn!("DNS list {name} is not believed for a while: {bad}");
                    }
                    Verdict::Unknown
                }
            },
        }
    }
}
