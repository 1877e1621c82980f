//! Permits and denies made by command: into the set, the kernel and the ledger, or into none of them.
//!
//! Holds the order of these steps and how they are undone. What may be denied is the set's to judge.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use tracing::{info, warn};

use crate::clock::Now;
use crate::config;
use crate::control::Refusal;
use crate::control::api::{self, DenyRequest, ExportRequest, ImportReport, ImportRequest, PermitRequest};
use crate::feed::{self, Entry, Origin, Said, Source, StaticAction, StaticSet};
use crate::kernel::{Kernel, KernelError, StaticKind};
use crate::ledger::StoredStatic;

use super::answers::{entry, stamp};
use super::daemon::{Daemon, Mode};

/// How many entries of a list go into the set under one lock: a few milliseconds.
pub(super) const CHUNK: usize = 4096;

impl Daemon {
    pub(super) fn static_entries(&self, permits: bool) -> Vec<api::Static> {
        let statics = self.statics();
        let wanted = statics.entries().filter(|found| (found.action == StaticAction::Permit) == permits);
        wanted.map(|found| entry(&found)).collect()
    }

    pub(super) fn add_permit(&self, prefix: IpNet, request: &PermitRequest) -> Result<api::Static, Refusal> {
        let prefix = normal(prefix)?;
        let widest = feed::widest(&prefix);
        if prefix.prefix_len() < widest && !request.force {
            return Err(Refusal::Wrong(format!(
                "permitting {prefix} is wider than /{widest}, and a permit beats every deny and every test: if that is \
                 meant, force it with --force"
            )));
        }
        if self.mode == Mode::Steer && self.live.load().config.listen.meets_proxy(prefix) && !request.force {
            return Err(Refusal::Wrong(format!(
                "{prefix} meets listen.proxy_from: in steer mode the kernel gives what is permitted to the MTA, which expects \
                 no PROXY header; if that is meant, force it with --force"
            )));
        }
        let added = self.add(prefix, StaticAction::Permit, request.comment.as_ref(), StaticSet::insert)?;
        self.pardon(prefix);
        Ok(added)
    }

    pub(super) fn add_deny(&self, prefix: IpNet, request: &DenyRequest) -> Result<api::Static, Refusal> {
        let prefix = normal(prefix)?;
        let action = StaticAction::Deny(request.action);
        {
            let statics = self.statics();
            if let Some(permit) = statics.permit_over(prefix).filter(|_| !request.force) {
                let permit = format!("{} ({})", permit.prefix, permit.source);
                return Err(Refusal::Wrong(format!(
                    "{prefix} lies in the permit {permit}, which wins: the entry would do nothing"
                )));
            }
            if said_by_command(&statics, prefix) == Some(StaticAction::Permit) {
                return Err(Refusal::Wrong(format!(
                    "{prefix} is permitted by command: take that out first with `screener permit del {prefix}`"
                )));
            }
        }
        self.add(prefix, action, request.comment.as_ref(), |statics, new| {
            if request.force { statics.insert_forced(new) } else { statics.insert(new) }
        })
    }

    fn add(
        &self,
        prefix: IpNet,
        action: StaticAction,
        comment: Option<&String>,
        insert: impl FnOnce(&mut StaticSet, Entry) -> Result<Option<Entry>, feed::Refused>,
    ) -> Result<api::Static, Refusal> {
        let added = Now::read().unix;
        let comment = comment.filter(|comment| !comment.is_empty());
        let new = Entry { prefix, action, source: Source::Cli, comment: comment.cloned(), added };
        let _changing = self.changing();
        self.change(prefix, |statics| insert(statics, new).map_err(|refused| Refusal::Wrong(refused.to_string())))?;
        let comment = comment.map(|comment| comment.as_str().into());
        self.ledger.put_static(prefix, StoredStatic { action, comment, added });
        let statics = self.statics();
        let shown = statics.entries_at(prefix).find(|found| *found.source == Source::Cli).map(|found| entry(&found));
        shown.ok_or_else(|| Refusal::Failed("the entry did not stay".to_owned()))
    }

    pub(super) fn remove_static(&self, prefix: IpNet, permit: bool) -> Result<bool, Refusal> {
        let prefix = normal(prefix)?;
        let _changing = self.changing();
        if said_by_command(&self.statics(), prefix).is_none_or(|said| (said == StaticAction::Permit) != permit) {
            return Ok(false);
        }
        self.change(prefix, |statics| Ok(statics.remove(prefix, &Source::Cli)))?;
        self.ledger.del_static(prefix);
        Ok(true)
    }

    /// Changes what commands say about a prefix, in the set and in the kernel or in neither.
    fn change(
        &self,
        prefix: IpNet,
        change: impl FnOnce(&mut StaticSet) -> Result<Option<Entry>, Refusal>,
    ) -> Result<(), Refusal> {
        let mut statics = self.statics_mut();
        let before = Held::at(&statics, prefix);
        let old = change(&mut statics)?;
        let Some(kernel) = &self.kernel else { return Ok(()) };
        if let Err(error) = before.to(&Held::at(&statics, prefix), prefix, kernel) {
            // What the kernel does not hold must not stand in the list as if it did.
            match old {
                Some(old) => drop(statics.insert_forced(old)),
                None => drop(statics.remove(prefix, &Source::Cli)),
            }
            return Err(Refusal::Failed(error.to_string()));
        }
        Ok(())
    }

    pub(super) fn import_denies(&self, request: &ImportRequest) -> Result<ImportReport, Refusal> {
        let begun = Instant::now();
        let mut prefixes = request.prefixes.iter().map(|&prefix| normal(prefix)).collect::<Result<Vec<_>, _>>()?;
        prefixes.sort_unstable();
        prefixes.dedup();
        let action = StaticAction::Deny(request.action);
        let comment: Option<Box<str>> =
            request.comment.as_deref().filter(|comment| !comment.is_empty()).map(Into::into);
        let origin = Arc::new(Origin { source: Source::Cli, comment, added: Now::read().unix });

        let _changing = self.changing();
        let mut report = ImportReport { dry_run: request.dry_run, ..ImportReport::default() };
        let judgement = self.statics().judge(&prefixes);
        match judgement {
            Ok(judgement) => {
                report.covers = judgement.coverage.to_string();
                if !judgement.idle.is_empty() {
                    let idle = judgement.idle;
                    report.notes.push(format!("{} of the prefixes lie in permits, which win: {idle}", idle.len()));
                }
            }
            Err(objections) if request.force => {
                report.covers = objections.coverage.to_string();
                report.notes.push(format!("forced, though: {objections}"));
            }
            Err(objections) => return Err(Refusal::Wrong(objections.to_string())),
        }
        let mut said = Vec::new();
        for prefixes in prefixes.chunks(CHUNK) {
            if request.dry_run {
                self.count_new(prefixes, action, &origin, &mut report);
            } else {
                self.say(prefixes, action, &origin, &mut said, &mut report)?;
            }
        }
        if !said.is_empty() {
            if let Err(error) = self.sync() {
                self.unsay(said, &Source::Cli);
                // What of the list went in goes out again. Should that fail too, the next list or start puts it right.
                if let Err(also) = self.sync() {
                    warn!("the kernel's lists are not what they should be: {also}");
                }
                return Err(Refusal::Failed(error.to_string()));
            }
            let (comment, added) = (origin.comment.clone(), origin.added);
            let changed: Vec<_> = said.into_iter().map(|(prefix, _)| prefix).collect();
            self.ledger.put_statics(&changed, StoredStatic { action, comment, added });
            if let Err(error) = self.ledger.flush() {
                report.notes.push(format!("the list is in force, but {error}"));
            }
            info!("deny list taken in: {} added, {} changed, {} kept", report.added, report.changed, report.kept);
        }
        report.seconds = begun.elapsed().as_secs_f64();
        Ok(report)
    }

    /// What [`Daemon::say`] would do.
    fn count_new(&self, prefixes: &[IpNet], action: StaticAction, origin: &Origin, report: &mut ImportReport) {
        let statics = self.statics();
        for &prefix in prefixes {
            let said = statics.entries_at(prefix).find(|found| *found.source == Source::Cli);
            match said {
                None => report.added += 1,
                Some(said) if said.action == StaticAction::Permit => report.kept += 1,
                Some(said) if said.action == action && said.comment == origin.comment.as_deref() => report.kept += 1,
                Some(_) => report.changed += 1,
            }
        }
    }

    fn say(
        &self,
        prefixes: &[IpNet],
        action: StaticAction,
        origin: &Arc<Origin>,
        said: &mut Vec<(IpNet, Said)>,
        report: &mut ImportReport,
    ) -> Result<(), Refusal> {
        let mut statics = self.statics_mut();
        for &prefix in prefixes {
            let old = statics.say(prefix, action, origin).map_err(|refused| Refusal::Wrong(refused.to_string()))?;
            match old {
                None => report.kept += 1,
                Some(old) => {
                    if old.action().is_some() {
                        report.changed += 1;
                    } else {
                        report.added += 1;
                    }
                    said.push((prefix, old));
                }
            }
        }
        Ok(())
    }

    /// Makes the kernel's lists equal to the set. The set is let go of before anybody looks at the outcome.
    pub(super) fn sync(&self) -> Result<(), KernelError> {
        let Some(kernel) = &self.kernel else { return Ok(()) };
        kernel.sync_statics(self.statics().effective()).map(drop)
    }

    /// Puts back what a source said before, the last first.
    pub(super) fn unsay(&self, mut said: Vec<(IpNet, Said)>, source: &Source) {
        while !said.is_empty() {
            let mut statics = self.statics_mut();
            for (prefix, old) in said.drain(said.len().saturating_sub(CHUNK)..) {
                statics.unsay(prefix, source, old);
            }
        }
    }

    pub(super) fn export_denies(&self, request: &ExportRequest) -> String {
        let mut text = format!("# deny entries of {}, {}\n", self.live.load().config.hostname, stamp(Now::read().unix));
        for found in self.statics().entries() {
            let StaticAction::Deny(action) = found.action else { continue };
            let origin = found.source.to_string();
            let other = request.action.is_some_and(|wanted| wanted != action)
                || request.origin.as_ref().is_some_and(|wanted| *wanted != origin);
            if !other {
                let comment = found.comment.map_or_else(String::new, |comment| format!(": {}", one_line(comment)));
                // To a string it cannot fail.
                let _ = writeln!(text, "{} # {action}, {origin}{comment}", found.prefix);
            }
        }
        text
    }
}

impl Daemon {
    /// Makes what the configuration and the host itself say equal to `wanted`, in the set and in the kernel or in neither;
    /// what commands say stays, and so do the hits of what stays. `wanted` has been judged. What `feeds` are no more leaves
    /// with it, and the entries of those that do something else now change what they do.
    pub(super) fn renew_statics(&self, wanted: &StaticSet, feeds: &[config::Feed]) -> Result<Renewed, KernelError> {
        let _changing = self.changing();
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        {
            let statics = self.statics();
            let there = |set: &StaticSet, entry: &feed::Match<'_>| {
                set.entries_at(entry.prefix).any(|other| {
                    (other.source, other.action, other.comment) == (entry.source, entry.action, entry.comment)
                })
            };
            let ours = statics.entries().filter(|entry| is_configured(entry.source));
            gone.extend(ours.filter(|entry| !there(wanted, entry)).map(|entry| entry.to_entry()));
            new.extend(wanted.entries().filter(|entry| !there(&statics, entry)).map(|entry| entry.to_entry()));
            for entry in statics.entries() {
                let Source::Feed(name) = entry.source else { continue };
                let action = feeds.iter().find(|feed| feed.name.as_str() == &**name).map(|feed| feed.action);
                if action == Some(entry.action) {
                    continue;
                }
                gone.push(entry.to_entry());
                // Between permitting and denying there is no way: that list has to pass other rails first.
                let deny = |action: &StaticAction| *action != StaticAction::Permit;
                let other = action.filter(deny).filter(|_| deny(&entry.action));
                new.extend(other.map(|action| Entry { action, ..entry.to_entry() }));
            }
        }
        let renewed = Renewed { new: new.len(), gone: gone.len() };
        self.statics_mut().guard_gateways(wanted.gateways().to_vec());
        self.exchange(&gone, &new);
        if renewed.is_empty() {
            return Ok(renewed);
        }
        self.sync().inspect_err(|_| {
            self.exchange(&new, &gone);
            // Should that fail too, the next change or start puts it right.
            if let Err(also) = self.sync() {
                warn!("the kernel's lists are not what they should be: {also}");
            }
        })?;
        new.iter().filter(|entry| entry.action == StaticAction::Permit).for_each(|permit| self.pardon(permit.prefix));
        Ok(renewed)
    }

    /// Exchanges entries in the set, what comes before what goes, a few thousand under one lock.
    fn exchange(&self, out: &[Entry], into: &[Entry]) {
        for entries in into.chunks(CHUNK) {
            let mut statics = self.statics_mut();
            for entry in entries {
                // It stood in a set already: there are no bits behind its length.
                let _ = statics.insert_forced(entry.clone());
            }
        }
        let replaced: HashSet<_> = into.iter().map(|entry| (entry.prefix, &entry.source)).collect();
        for entries in out.chunks(CHUNK) {
            let mut statics = self.statics_mut();
            for entry in entries.iter().filter(|entry| !replaced.contains(&(entry.prefix, &entry.source))) {
                statics.remove(entry.prefix, &entry.source);
            }
        }
    }
}

/// What a reload did to the static entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Renewed {
    new: usize,
    gone: usize,
}

impl Renewed {
    /// Whether nothing.
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "static entries of the configuration, of this host and of feeds: {} new, {} gone",
            self.new, self.gone
        )
    }
}

/// Whether the configuration or the host itself says it.
fn is_configured(source: &Source) -> bool {
    match source {
        Source::Config | Source::OwnAddress | Source::OwnNetwork => true,
        Source::Cli | Source::Feed(_) => false,
    }
}

fn normal(prefix: IpNet) -> Result<IpNet, Refusal> {
    feed::normal(prefix).map_err(|refused| Refusal::Wrong(refused.to_string()))
}

fn said_by_command(statics: &StaticSet, prefix: IpNet) -> Option<StaticAction> {
    statics.entries_at(prefix).find(|found| *found.source == Source::Cli).map(|found| found.action)
}

fn one_line(comment: &str) -> String {
    comment.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What the kernel's two lists should hold for a prefix.
pub(super) struct Held {
    permit: bool,
    deny: Option<StaticAction>,
}

impl Held {
    pub(super) fn at(statics: &StaticSet, prefix: IpNet) -> Self {
        Self { permit: statics.permits_exactly(prefix), deny: statics.denies_exactly(prefix) }
    }

    /// Brings the kernel from one to the other. A permit comes first and goes last.
    pub(super) fn to(&self, after: &Self, prefix: IpNet, kernel: &Kernel) -> Result<(), KernelError> {
        if after.permit && !self.permit {
            kernel.put_static(prefix, StaticAction::Permit)?;
        }
        match after.deny {
            Some(action) if self.deny != Some(action) => kernel.put_static(prefix, action)?,
            None if self.deny.is_some() => drop(kernel.del_static(prefix, StaticKind::Deny)?),
            _ => {}
        }
        if self.permit && !after.permit {
            kernel.del_static(prefix, StaticKind::Permit)?;
        }
        Ok(())
    }
}
