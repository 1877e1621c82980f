//! Before the greeting is complete: the greet wait and the DNS lists, side by side.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::clock::Now;
use crate::pass::Test;

use super::dialogue::Dialogue;
use super::event::{Event, Evidence, Moment, Outcome};
use super::reply::{self, Refusal};
use super::{Action, Core, DnsblReport, Input, Output, Phase};

/// How much a client may say before the greeting and still be listened to. Plenty for a session's commands sent at once.
const MOST_EARLY_INPUT: usize = 16 * 1024;

/// The greet wait.
#[derive(Debug)]
pub(super) struct Greeting {
    silence_until: Option<Instant>,
    lists_until: Option<Instant>,
    report: DnsblReport,
}

impl Greeting {
    /// Begins whatever early test is due; with none, goes on to the dialogue.
    pub(super) fn enter(core: &mut Core, now: Now) -> Phase {
        let mut greeting = Self { silence_until: None, lists_until: None, report: DnsblReport::default() };
        if core.lattice.is_open(Test::Pregreet) {
            let teaser = reply::teaser(&core.policy);
            core.send(&teaser);
            core.teaser_sent = true;
            greeting.silence_until = Some(now.instant + core.policy.pregreet.wait);
        }
        if let Some(dnsbl) = &core.policy.dnsbl
            && core.lattice.is_open(Test::Dnsbl)
        {
            greeting.lists_until = Some(now.instant + dnsbl.deadline);
            core.output.push_back(Output::AskDnsbl);
        }
        greeting.settle(core, now)
    }

    pub(super) fn deadline(&self) -> Instant {
        // `settle` leaves this phase when neither is set.
        self.silence_until
            .into_iter()
            .chain(self.lists_until)
            .min()
            .unwrap_or_else(|| unreachable!("nothing to wait for"))
    }

    pub(super) fn handle(mut self, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
        match input {
            Input::Bytes(bytes) => {
                let first = core.input.is_empty();
                core.input.extend_from_slice(bytes);
                if core.input.len() > MOST_EARLY_INPUT {
                    core.log(Event::LengthLimit("CONNECT".to_owned()));
                    let limit = reply::limit(&core.policy);
                    return core.end_with(&limit);
                }
                if first && core.lattice.is_open(Test::Pregreet) && spoke_early(core, now) == Action::Drop {
                    return core.drop_with(&reply::PROTOCOL_ERROR);
                }
            }
            Input::Dnsbl(report) => self.report = report,
            Input::Eof => {
                core.log(Event::Hangup(now.instant - core.began, Moment::BeforeHandshake));
                core.log(Event::Disconnect);
                return core.close();
            }
            Input::Tick | Input::HandoffFailed(_) | Input::Shutdown => {}
        }
        self.settle(core, now)
    }

    /// Decides what can be decided, and moves on when nothing is left.
    fn settle(mut self, core: &mut Core, now: Now) -> Phase {
        if let Some(until) = self.lists_until {
            match self.judge_lists(core, now, now.instant >= until) {
                Judgement::Open => {}
                Judgement::Decided => self.lists_until = None,
                Judgement::Drop(refusal) => return core.drop_with(&refusal),
            }
        }
        if let Some(until) = self.silence_until {
            let failed = core.lattice.has_failed(Test::Pregreet);
            let decided = !core.lattice.is_open(Test::Pregreet) && !failed;
            // Under `ignore` an early talker waits as long as everybody else: talking early must not pay.
            let refused = failed && core.policy.pregreet.action != Action::Ignore;
            if now.instant >= until {
                core.lattice.pass(Test::Pregreet, now.unix.plus(core.policy.pregreet.ttl));
            }
            if decided || refused || now.instant >= until {
                self.silence_until = None;
            }
        }
        if self.silence_until.is_some() || self.lists_until.is_some() {
            return Phase::Greeting(self);
        }
        if core.is_refused() || core.lattice.deep_open() || core.vetoes() {
            return Dialogue::enter(core, now);
        }
        core.conclude(Outcome::HandedOff);
        core.hand_off(Vec::new(), None)
    }

    /// What the lists' answers so far amount to.
    fn judge_lists(&self, core: &mut Core, now: Now, time_is_up: bool) -> Judgement {
        let Some(policy) = core.policy.dnsbl.clone() else { return Judgement::Decided };
        let report = &self.report;
        let last_word = report.complete || time_is_up;
        if report.score >= policy.threshold && (last_word || report.lowest >= policy.threshold) {
            core.log(Event::DnsblRank(report.score));
            let (list, _) = report.hits.first().cloned().unwrap_or_default();
            let refusal = Refusal::listed(&core.arrival, &list);
            let lists: Vec<_> = report.hits.iter().map(|(name, weight)| format!("{name} {weight:+}")).collect();
            let evidence = Evidence {
                test: Test::Dnsbl,
                weight: report.score,
                reason: format!("score {} at threshold {}: {}", report.score, policy.threshold, lists.join(", ")),
                remedy: format!("ask {list} to remove the address"),
            };
            return match core.fail(Test::Dnsbl, &refusal, evidence) {
                Action::Drop => Judgement::Drop(refusal),
                Action::Ignore | Action::Enforce => Judgement::Decided,
            };
        }
        if last_word {
            let ttl = report.ttl.unwrap_or(Duration::ZERO).clamp(policy.min_ttl, policy.max_ttl);
            let until = now.unix.plus(ttl);
            core.lattice.pass(Test::Dnsbl, until);
            if policy.allow_threshold.is_some_and(|allow| report.score <= allow) && !core.lattice.any_failed() {
                for test in Test::ALL {
                    core.lattice.pass(test, until);
                }
            }
            return Judgement::Decided;
        }
        Judgement::Open
    }
}

enum Judgement {
    Open,
    Decided,
    Drop(Refusal),
}

fn spoke_early(core: &mut Core, now: Now) -> Action {
    let after = now.instant - core.began;
    let said = Bytes::copy_from_slice(&core.input);
    core.log(Event::Pregreet(said.len(), after, said));
    let evidence = Evidence {
        test: Test::Pregreet,
        weight: 1,
        reason: format!("spoke {:.1} s after it connected, before the greeting", after.as_secs_f64()),
        remedy: "wait for the line that begins with 220 and a space before the first command".to_owned(),
    };
    core.fail(Test::Pregreet, &reply::PROTOCOL_ERROR, evidence)
}
