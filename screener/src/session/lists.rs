//! What the DNS lists' answers amount to: a failure or a pass as soon as no answer that is missing can change it.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::pass::Test;

use super::event::{Event, Evidence};
use super::policy::DnsblPolicy;
use super::reply::Refusal;
use super::state::Core;
use super::{Action, DnsblHit, DnsblReport};

/// Whether the lists have decided.
pub(super) enum Judgement {
    /// Not yet.
    Open,
    /// They have.
    Decided,
    /// They have, and the session ends here.
    Drop(Refusal),
    /// They have, and the session ends slowly.
    Tarpit(Refusal),
}

/// Judges what is known. With `time_is_up` there is nothing more to wait for.
pub(super) fn judge(core: &mut Core, now: Now, time_is_up: bool) -> Judgement {
    let Some(policy) = core.policy.dnsbl.clone() else { return Judgement::Decided };
    let report = match core.lists.as_deref().cloned() {
        Some(report) => report,
        None if time_is_up => DnsblReport::default(),
        None => return Judgement::Open,
    };
    let last_word = report.complete || time_is_up;
    // Who is let through waits anyway; its whole score is told.
    let at_once = policy.action != Action::Ignore && report.lowest >= policy.threshold;
    if report.score >= policy.threshold && (last_word || at_once) {
        return fail(core, &policy, &report);
    }
    if last_word || (cannot_change(&policy, &report) && !may_be_remembered_yet(&policy, &report)) {
        pass(core, &policy, &report, now);
        return Judgement::Decided;
    }
    Judgement::Open
}

/// Judges an answer that came after the lists were decided, while the client has not been handed over yet.
pub(super) fn judge_late(core: &mut Core, report: DnsblReport) -> Judgement {
    let policy = core.policy.dnsbl.clone().filter(|_| core.lattice.was_due(Test::Dnsbl));
    let failed = core.lattice.has_failed(Test::Dnsbl);
    let judgement = match policy {
        Some(policy) if !failed && report.score >= policy.threshold && report.lowest >= policy.threshold => {
            fail(core, &policy, &report)
        }
        // As in `pass`: it may go on, and asking again next time is due.
        Some(policy) if report.without_best_ally >= policy.threshold => {
            core.take_back(Test::Dnsbl);
            Judgement::Decided
        }
        _ => Judgement::Decided,
    };
    let complete = report.complete;
    core.lists = Some(Box::new(report));
    if complete {
        tell(core);
    }
    judgement
}

/// Takes an answer that came after the wait, while the client is still here: the next recipient hears what it led to, as
/// nothing but 421 may be said unasked.
pub(super) fn hear_late(core: &mut Core, report: DnsblReport) {
    if let Judgement::Drop(refusal) | Judgement::Tarpit(refusal) = judge_late(core, report) {
        core.refusal = Some(Box::new(refusal));
    }
}

/// Whether the client passes whatever is still to come, and nothing can excuse it from the other tests or take that back.
fn cannot_change(policy: &DnsblPolicy, report: &DnsblReport) -> bool {
    let settled = |allow: i32| report.lowest > allow || report.highest <= allow;
    report.highest < policy.threshold && policy.allow_threshold.is_none_or(settled)
}

/// Whether another allow list that has not answered can still make of a client that is let in for once one that is
/// remembered: it is let in either way, and asked about again each time if this is not waited for.
fn may_be_remembered_yet(policy: &DnsblPolicy, report: &DnsblReport) -> bool {
    let rests_on_one =
        policy.allow_threshold.is_some_and(|allow| report.score <= allow && report.without_best_ally > allow)
            || report.without_best_ally >= policy.threshold;
    rests_on_one && report.lowest < report.score
}

fn fail(core: &mut Core, policy: &DnsblPolicy, report: &DnsblReport) -> Judgement {
    core.untold = true;
    let worst = report.hits.first().cloned().unwrap_or_default();
    let refusal = Refusal::listed(&core.arrival, &worst.list, worst.url.as_deref());
    let see = worst.url.map_or_else(String::new, |url| format!(", see {url}"));
    let evidence = Evidence {
        test: Test::Dnsbl,
        weight: report.score,
        reason: reason(policy, report),
        remedy: format!("ask {} to remove the address{see}", worst.list),
    };
    let action = core.fail(Test::Dnsbl, &refusal, evidence);
    // Who goes on to the dialogue under `enforce` leaves the missing lists the time to answer.
    if report.complete || action != Action::Enforce {
        core.lists = Some(Box::new(report.clone()));
        tell(core);
    }
    match action {
        Action::Drop => Judgement::Drop(refusal),
        Action::Tarpit => Judgement::Tarpit(refusal),
        Action::Ignore | Action::Enforce => Judgement::Decided,
    }
}

fn reason(policy: &DnsblPolicy, report: &DnsblReport) -> String {
    let (score, threshold, sum) = (report.score, policy.threshold, report.arithmetic());
    let text = |hit: &DnsblHit| hit.text.as_ref().map(|text| format!("; {} says: {text}", hit.list));
    let said = report.hits.first().and_then(text).unwrap_or_default();
    format!("score {score} at threshold {threshold}: {sum}{said}")
}

/// Logs the rank of a client that has failed, once, with all that the lists have said by now: at the last answer, at the
/// first recipient, or at the decision, whichever comes first.
pub(super) fn tell(core: &mut Core) {
    if !std::mem::replace(&mut core.untold, false) {
        return;
    }
    let policy = Arc::clone(&core.policy);
    let (Some(policy), Some(report)) = (&policy.dnsbl, core.lists.as_deref().cloned()) else { return };
    if let Some(evidence) = core.evidence.iter_mut().find(|evidence| evidence.test == Test::Dnsbl) {
        evidence.weight = report.score;
        evidence.reason = reason(policy, &report);
    }
    core.log(Event::DnsblRank(report.score));
}

fn pass(core: &mut Core, policy: &DnsblPolicy, report: &DnsblReport, now: Now) {
    let ttl = report.ttl.unwrap_or(Duration::ZERO).clamp(policy.min_ttl, policy.max_ttl);
    let until = now.unix.plus(ttl);
    // What rests on one allow list alone holds for this session: such a list answers everybody with "allowed" when it
    // dies or is asked too much (reference/peers.md section 4.2).
    if report.without_best_ally < policy.threshold {
        core.lattice.pass(Test::Dnsbl, until);
    } else {
        core.lattice.excuse(Test::Dnsbl);
    }
    let Some(allow) = policy.allow_threshold.filter(|&allow| report.score <= allow) else { return };
    if core.lattice.any_failed() {
        return;
    }
    for test in Test::ALL {
        if report.without_best_ally <= allow {
            core.lattice.pass(test, until);
        } else {
            core.lattice.excuse(test);
        }
    }
}
