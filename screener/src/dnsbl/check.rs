//! One client before all lists: what each has said, and the score so far.
//!
//! Holds no task: questions live on their own ([`super::watched`]). A list that has not answered by its deadline counts for
//! nothing from then on; if it answers later after all, it counts again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Dnsbl;
use super::answer::{Failure, Known, Records, Said};
use super::list::sum;
use super::tally::Vote;
use super::watched::{Asked, News, Subscriber, What};
use crate::config::ListLevel;
use crate::session::{DnsblHit, DnsblReport, DnsblUnknown};

/// The questions about one client.
pub struct Check {
    dnsbl: Dnsbl,
    address: IpAddr,
    news: mpsc::UnboundedReceiver<News>,
    slots: Vec<Slot>,
    /// Whether nothing more can come.
    over: bool,
    /// Whether it is a client that came, and not a renewal.
    counts: bool,
}

/// Where one list stands with the client.
enum Slot {
    /// It is not asked about such clients, or not at all.
    Idle,
    /// It has time until then.
    Pending(Instant),
    /// It cannot say, and why; its answer may still come.
    Unknown(Failure),
    /// It says no, and for how long.
    Miss(Duration),
    /// It says yes.
    Hit(Hit),
    /// It said something that is not to be believed, and what.
    Bad(String),
}

struct Hit {
    weight: i32,
    records: Arc<Records>,
    codes: Vec<std::net::Ipv4Addr>,
    ttl: Duration,
}

impl Check {
    /// `fresh`: whatever the cache says.
    pub(super) fn start(dnsbl: &Dnsbl, address: IpAddr, fresh: bool) -> Self {
        let (to, news) = mpsc::unbounded_channel();
        let now = Instant::now();
        let mut check = Self { dnsbl: dnsbl.clone(), address, news, slots: Vec::new(), over: false, counts: !fresh };
        for (list, watched) in dnsbl.lists.iter().enumerate() {
            if watched.list.level == ListLevel::Off {
                check.slots.push(Slot::Idle);
                continue;
            }
            let subscriber = Subscriber { list, to: to.clone() };
            let slot = match watched.ask(&dnsbl.shared, address, subscriber, fresh) {
                Asked::Never => Slot::Idle,
                Asked::Unknown(failure) => Slot::Unknown(failure),
                Asked::Open => Slot::Pending(now + watched.list.deadline),
                Asked::Known(known, left) => check.judge(list, known, left),
            };
            check.slots.push(slot);
        }
        check
    }

    /// What is known now.
    pub fn report(&self) -> DnsblReport {
        let mut report = DnsblReport { complete: true, ..DnsblReport::default() };
        let (mut lowest, mut highest, mut best_ally) = (0_i32, 0_i32, 0_i32);
        for (slot, watched) in self.slots.iter().zip(self.dnsbl.lists.iter()) {
            let list = &watched.list;
            let scores = list.level == ListLevel::Score;
            let unknown = |why: String| DnsblUnknown { list: list.name().to_string(), why };
            match slot {
                Slot::Pending(_) if scores => {
                    report.complete = false;
                    let (least, most) = list.range();
                    lowest = lowest.saturating_add(least);
                    highest = highest.saturating_add(most);
                }
                Slot::Idle | Slot::Pending(_) => {}
                Slot::Unknown(failure) => {
                    report.blind |= scores;
                    report.unknown.push(unknown(failure.to_string()));
                }
                Slot::Bad(bad) => {
                    report.blind |= scores;
                    report.unknown.push(unknown(bad.clone()));
                }
                // What a list that is only counted says changes nothing, nor for how long anything holds.
                Slot::Miss(_) if !scores => {}
                Slot::Miss(ttl) => report.ttl = Some(report.ttl.map_or(*ttl, |least| least.min(*ttl))),
                Slot::Hit(hit) => {
                    let shown = DnsblHit {
                        list: list.name().to_string(),
                        weight: hit.weight,
                        codes: hit.codes.clone(),
                        text: hit.records.text.as_deref().map(str::to_owned),
                        url: list.url(self.address),
                    };
                    if !scores {
                        report.counted.push(shown);
                        continue;
                    }
                    report.ttl = Some(report.ttl.map_or(hit.ttl, |least| least.min(hit.ttl)));
                    best_ally = best_ally.min(hit.weight);
                    report.hits.push(shown);
                }
            }
        }
        report.score = sum(report.hits.iter().map(|hit| hit.weight));
        report.lowest = report.score.saturating_add(lowest);
        report.highest = report.score.saturating_add(highest);
        report.without_best_ally = report.score.saturating_sub(best_ally);
        report.hits.sort_by_key(|hit| std::cmp::Reverse(hit.weight));
        report
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The report after the next piece of news; `None`: there is none to come.
    ///
    /// May be dropped while it waits: nothing is lost by that.
    pub async fn next_report(&mut self) -> Option<DnsblReport> {
        if self.over {
            return None;
        }
        let deadline = self.slots.iter().filter_map(|slot| match slot {
            Slot::Pending(until) => Some(*until),
            _ => None,
        });
        let news = match deadline.min() {
            None => self.news.recv().await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), self.news.recv()).await {
                Ok(news) => news,
                Err(_) => {
                    self.give_up(deadline);
                    return Some(self.report());
                }
            },
        };
        match news {
            Some(news) => {
                self.hear(news);
                // What else is there already belongs to the same report.
                while let Ok(news) = self.news.try_recv() {
                    self.hear(news);
                }
                Some(self.report())
            }
            None => {
                self.over = true;
                let waited = self.slots.iter().any(|slot| matches!(slot, Slot::Pending(_)));
                self.slots.iter_mut().filter(|slot| matches!(slot, Slot::Pending(_))).for_each(|slot| {
                    *slot = Slot::Unknown(Failure::Unusable);
                });
                waited.then(|| self.report())
            }
        }
    }

    /// The report once every list that is waited for has answered or given up.
    pub async fn complete(&mut self) -> DnsblReport {
        let mut report = self.report();
        while !report.complete {
            match self.next_report().await {
                Some(next) => report = next,
                None => return self.report(),
            }
        }
        report
    }

    /// The report once nothing more can come: late answers and texts included.
    pub async fn everything(&mut self) -> DnsblReport {
        while self.next_report().await.is_some() {}
        self.report()
    }

    fn give_up(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if matches!(slot, Slot::Pending(until) if *until <= now) {
                *slot = Slot::Unknown(Failure::Silent);
            }
        }
    }

    fn hear(&mut self, News { list, what }: News) {
        let slot = match what {
            What::GivenUp => Slot::Unknown(Failure::Parked),
            What::Never => Slot::Idle,
            What::Known(Known::Failed(failure, _), _) => Slot::Unknown(failure),
            What::Known(known, ttl) => self.judge(list, known, ttl),
            What::Text(records) => {
                if let Some(Slot::Hit(hit)) = self.slots.get_mut(list) {
                    hit.records = records;
                }
                return;
            }
        };
        if let Some(old) = self.slots.get_mut(list) {
            *old = slot;
        }
    }

    fn judge(&self, list: usize, known: Known, ttl: Duration) -> Slot {
        let records = match known {
            Known::Nothing => return Slot::Miss(ttl),
            Known::Failed(failure, _) => return Slot::Unknown(failure),
            Known::Records(records) => records,
        };
        match self.dnsbl.lists[list].list.judge(&records.codes) {
            Said::Listed { codes, weight } => Slot::Hit(Hit { weight, records, codes, ttl }),
            Said::NotListed => Slot::Miss(ttl),
            Said::Bad(bad) => Slot::Bad(bad.to_string()),
        }
    }
}

/// What became of the client goes into the tally, once.
impl Drop for Check {
    fn drop(&mut self) {
        if !self.counts {
            return;
        }
        let votes: Vec<_> = self
            .slots
            .iter()
            .map(|slot| match slot {
                Slot::Miss(_) => Vote::Miss,
                Slot::Hit(hit) => Vote::Hit(hit.weight),
                Slot::Idle | Slot::Pending(_) | Slot::Unknown(_) | Slot::Bad(_) => Vote::None,
            })
            .collect();
        let scores = |index: usize| self.dnsbl.lists[index].list.level == ListLevel::Score;
        self.dnsbl.tally.add(&votes, scores, self.dnsbl.threshold);
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("report", &self.report()).finish_non_exhaustive()
    }
}
