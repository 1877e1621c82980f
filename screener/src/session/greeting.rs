//! Before the greeting is complete: the greet wait and the DNS lists, side by side.

use std::time::Instant;

use bytes::Bytes;

use crate::clock::Now;
use crate::pass::Test;

use super::dialogue::Dialogue;
use super::event::{Event, Evidence, Moment, Outcome};
use super::lists::{self, Judgement};
use super::reply;
use super::{Action, Core, Input, Output, Phase};

/// How much a client may say before the greeting and still be listened to. Plenty for a session's commands sent at once.
const MOST_EARLY_INPUT: usize = 16 * 1024;

/// The greet wait.
#[derive(Debug)]
pub(super) struct Greeting {
    silence_until: Option<Instant>,
    lists_until: Option<Instant>,
}

impl Greeting {
    /// Begins whatever early test is due; with none, goes on to the dialogue.
    pub(super) fn enter(core: &mut Core, now: Now) -> Phase {
        let mut greeting = Self { silence_until: None, lists_until: None };
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

    pub(super) fn handle(self, core: &mut Core, now: Now, input: Input<'_>) -> Phase {
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
            Input::Dnsbl(report) => core.lists = Some(report),
            Input::Eof => {
                core.log(Event::Hangup(now.instant - core.began, Moment::BeforeHandshake));
                core.log(Event::Disconnect);
                return core.close();
            }
            Input::Tick | Input::TlsUp(_) | Input::TlsFailed(_) | Input::HandoffFailed(_) | Input::Shutdown => {}
        }
        self.settle(core, now)
    }

    /// Decides what can be decided, and moves on when nothing is left.
    fn settle(mut self, core: &mut Core, now: Now) -> Phase {
        if let Some(until) = self.lists_until {
            match lists::judge(core, now, now.instant >= until) {
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
