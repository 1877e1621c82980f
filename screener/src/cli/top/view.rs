//! What two looks say together: how many of each a second. Knows no clock and no screen.

use std::collections::BTreeMap;

use serde::Serialize;

use super::look::Look;

/// What is shown, and what a line of JSON holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    /// The daemon as it is.
    Daemon(Box<View>),
    /// There is none.
    Away {
        /// Why it did not answer.
        error: String,
    },
}

/// The daemon at the second of two looks. A rate is of events a second between them; `null` where there is nothing to compare with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct View {
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) mode: String,
    pub(super) state: String,
    pub(super) uptime_seconds: u64,
    /// The time between the looks.
    pub(super) seconds: Option<f64>,
    pub(super) connections: Connections,
    pub(super) passes: usize,
    pub(super) denies: usize,
    pub(super) offenders: Offenders,
    /// Sessions by outcome.
    pub(super) outcomes: BTreeMap<String, Rate>,
    /// Failed tests by name.
    pub(super) failed: BTreeMap<String, Rate>,
    /// Sessions that the MTA did not take.
    pub(super) handoffs_failed: Rate,
    /// What the kernel counts, that of which there is most first.
    pub(super) kernel: Vec<Packets>,
    /// The DNS lists, in the order of the configuration.
    pub(super) lists: Vec<List>,
    pub(super) degraded: Vec<String>,
}

/// How many there were since the daemon's start, and how many there are a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) total: u64,
    pub(super) rate: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Connections {
    pub(super) now: usize,
    /// `limits.connections`
    pub(super) limit: usize,
    /// Those of them that are answered slowly.
    pub(super) tarpitted: usize,
    /// So many that waits are shortened.
    pub(super) stress: bool,
    pub(super) accepted: Rate,
    /// Greetings of the daemon's own that were sent to their end. The MTA greets whom it gets before that.
    pub(super) greeted: Rate,
    /// By the listener of the tagged class.
    pub(super) tagged: Rate,
}

/// Who stands where on the offence ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Offenders {
    pub(super) dropped: usize,
    pub(super) tarpitted: usize,
    pub(super) refused: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Packets {
    pub(super) hook: String,
    pub(super) family: String,
    pub(super) name: String,
    pub(super) verdict: String,
    #[serde(flatten)]
    pub(super) packets: Rate,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct List {
    pub(super) list: String,
    pub(super) state: String,
    pub(super) questions: Rate,
    /// The share of listings among the answers of late.
    pub(super) hit_rate: f64,
    /// Half of the answers took at most so many seconds.
    pub(super) p50: Option<f64>,
    /// Questions that are open now.
    pub(super) open: usize,
}

/// Two looks at counters that only grow.
#[derive(Clone, Copy)]
struct Span(Option<f64>);

impl Span {
    /// A counter that is smaller than before has begun anew.
    fn rate(self, before: Option<u64>, total: u64) -> Rate {
        let rate = |seconds: f64| Some(total.checked_sub(before?)? as f64 / seconds);
        Rate { total, rate: self.0.and_then(rate) }
    }
}

impl View {
    pub(super) fn between(before: Option<&Look>, now: &Look) -> Self {
        let seconds = before.map(|before| now.at.duration_since(before.at).as_secs_f64()).filter(|&span| span > 0.0);
        // The kernel counts on from daemon to daemon; a daemon begins with nothing.
        let kernels = Span(seconds);
        let known = before.filter(|before| before.status.pid == now.status.pid);
        let own = Span(seconds.filter(|_| known.is_some()));
        let status = &now.status;
        let of = |what: fn(&Look) -> u64| own.rate(known.map(what), what(now));
        let by_name = |what: fn(&Look) -> &BTreeMap<String, u64>| {
            // What was not there before has not happened before.
            let before = |name: &String| known.map(|known| what(known).get(name).copied().unwrap_or(0));
            what(now).iter().map(|(name, &total)| (name.clone(), own.rate(before(name), total))).collect()
        };
        Self {
            version: status.version.clone(),
            pid: status.pid,
            mode: status.mode.clone(),
            state: status.state.clone(),
            uptime_seconds: status.uptime_seconds,
            seconds,
            connections: Connections {
                now: status.sessions.active,
                limit: status.sessions.limit,
                tarpitted: status.sessions.tarpitted,
                stress: status.sessions.stress,
                accepted: of(|look| look.status.sessions.total),
                greeted: of(|look| look.counted.greetings),
                tagged: of(|look| look.status.sessions.tagged),
            },
            passes: status.passes,
            denies: status.denies,
            offenders: Offenders {
                dropped: status.offenders.dropped,
                tarpitted: status.offenders.tarpitted,
                refused: status.offenders.refused,
            },
            outcomes: by_name(|look| &look.counted.outcomes),
            failed: by_name(|look| &look.counted.failed),
            handoffs_failed: of(|look| look.counted.handoffs_failed),
            kernel: packets(before, now, kernels),
            lists: now
                .dnsbl
                .lists
                .iter()
                .map(|list| {
                    let was = known.and_then(|known| known.dnsbl.lists.iter().find(|was| was.list == list.list));
                    List {
                        list: list.list.clone(),
                        state: list.state.clone(),
                        questions: own.rate(was.map(|was| was.questions), list.questions),
                        hit_rate: list.hit_rate,
                        p50: list.p50,
                        open: list.open,
                    }
                })
                .collect(),
            degraded: status.degraded.clone(),
        }
    }
}

fn packets(before: Option<&Look>, now: &Look, span: Span) -> Vec<Packets> {
    let counters = |look: &Look| look.status.kernel.clone().map(|kernel| kernel.counters).unwrap_or_default();
    let was = before.map(counters);
    let mut all: Vec<Packets> = counters(now)
        .into_iter()
        .map(|counter| {
            let same = |was: &&crate::control::api::Counter| {
                (&was.hook, &was.family, &was.name) == (&counter.hook, &counter.family, &counter.name)
            };
            let before = was.as_ref().and_then(|was| was.iter().find(same)).map(|was| was.packets);
            Packets {
                packets: span.rate(before, counter.packets),
                hook: counter.hook,
                family: counter.family,
                name: counter.name,
                verdict: counter.verdict,
            }
        })
        .collect();
    all.sort_by(|one, other| {
        let key = |packets: &Packets| (packets.packets.rate.unwrap_or(0.0), packets.packets.total);
        let ((one, many), (other, more)) = (key(one), key(other));
        other.total_cmp(&one).then(more.cmp(&many))
    });
    all
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::control::api::{Counter, Kernel, Status};
    use crate::control::api_dnsbl::{self, Dnsbl};

    use super::super::look::Counted;

    fn counter(name: &str, packets: u64) -> Counter {
        let text = str::to_owned;
        Counter { name: text(name), verdict: text("drop"), family: text("ipv4"), hook: text("screen"), packets }
    }

    /// A look of a daemon that has counted `n` of everything.
    pub(in super::super) fn look(at: Instant, pid: u32, n: u64) -> Look {
        let mut status = Status { pid, mode: "steer".to_owned(), version: "0.1.0".to_owned(), ..Status::default() };
        status.sessions.total = n;
        status.sessions.active = 7;
        status.sessions.limit = 100;
        status.kernel =
            Some(Kernel { counters: vec![counter("few", n / 10), counter("many", n)], ..Kernel::default() });
        let list = api_dnsbl::List { list: "zen.example".to_owned(), questions: n, ..api_dnsbl::List::default() };
        let counted = Counted {
            outcomes: [("handed_off".to_owned(), n)].into(),
            failed: if n > 100 { [("pregreet".to_owned(), n - 100)].into() } else { BTreeMap::new() },
            handoffs_failed: 0,
            greetings: n / 2,
        };
        Look { at, status, dnsbl: Dnsbl { lists: vec![list], ..Dnsbl::default() }, counted }
    }

    #[test]
    fn a_rate_is_the_difference_by_the_time_between() {
        let begin = Instant::now();
        let view = View::between(Some(&look(begin, 1, 100)), &look(begin + Duration::from_secs(2), 1, 150));
        assert_eq!(view.seconds, Some(2.0));
        assert_eq!(view.connections.accepted, Rate { total: 150, rate: Some(25.0) });
        assert_eq!(view.connections.greeted, Rate { total: 75, rate: Some(12.5) });
        assert_eq!(view.outcomes["handed_off"].rate, Some(25.0));
        // What happened for the first time has happened too.
        assert_eq!(view.failed["pregreet"], Rate { total: 50, rate: Some(25.0) });
        assert_eq!(view.lists[0].questions.rate, Some(25.0));
        assert_eq!(view.handoffs_failed.rate, Some(0.0));
        let kernel: Vec<_> = view.kernel.iter().map(|packets| (packets.name.as_str(), packets.packets.rate)).collect();
        assert_eq!(kernel, [("many", Some(25.0)), ("few", Some(2.5))]);
    }

    #[test]
    fn the_first_look_has_totals_and_no_rates() {
        let view = View::between(None, &look(Instant::now(), 1, 150));
        assert_eq!((view.seconds, view.connections.accepted), (None, Rate { total: 150, rate: None }));
        assert_eq!(view.kernel[0].packets.rate, None);
    }

    #[test]
    fn with_another_daemon_only_the_kernel_counts_on() {
        let begin = Instant::now();
        let view = View::between(Some(&look(begin, 1, 100)), &look(begin + Duration::from_secs(1), 2, 120));
        assert_eq!(view.connections.accepted.rate, None);
        assert_eq!(view.outcomes["handed_off"].rate, None);
        assert_eq!(view.lists[0].questions.rate, None);
        assert_eq!(view.kernel[0].packets.rate, Some(20.0));
    }

    #[test]
    fn counters_that_began_anew_and_looks_at_the_same_moment_have_no_rate() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(1);
        assert_eq!(View::between(Some(&look(begin, 1, 100)), &look(later, 1, 50)).connections.accepted.rate, None);
        let view = View::between(Some(&look(begin, 1, 100)), &look(begin, 1, 150));
        assert_eq!((view.seconds, view.connections.accepted.rate), (None, None));
    }
}
