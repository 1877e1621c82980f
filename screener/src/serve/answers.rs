//! What the control socket is told: the state of the daemon, of a client, of the lists.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::clock::{Now, UnixTime};
use crate::control::api::{self, DenyRequest, ExportRequest, ImportRequest, PermitRequest};
use crate::control::api_pass::{self, DeleteRequest, ListRequest, PassRequest, RestoreRequest, WatchRequest};
use crate::control::{Answers, Refusal, api_dnsbl, api_pool};
use crate::feed::{DenyAction, Match, StaticAction};
use crate::kernel;
use crate::ledger::{History, Pass, What};
use crate::observe;
use crate::pass::Test;

use super::certificate;
use super::daemon::{Daemon, Mode};
use super::{backup, reload, takeover};

impl Answers for Daemon {
    fn status(&self) -> api::Status {
        let ledger = self.ledger.status();
        let kernel = self.kernel.as_ref().and_then(|kernel| {
            let (status, counters) = (kernel.status().ok()?, kernel.counters().ok()?);
            let settings = kernel.settings().ok()?;
            let lost = counters.iter().filter(|counter| counter.name == kernel::EVENTS_LOST);
            Some(api::Kernel {
                pin: status.pin,
                event_sample: settings.event_sample,
                events_lost: lost.map(|counter| counter.packets).sum(),
                reject_early: settings.has(kernel::Settings::REJECT_EARLY),
                attached: status.attached,
                interfaces: status.interfaces.into_iter().map(interface).collect(),
                steer: status.steer.attached,
                counters: counters.into_iter().map(counter).collect(),
            })
        });
        let live = self.live();
        let statics = self.statics();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            predecessor: self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            mode: self.mode.name().to_owned(),
            state: if self.going_down.is_cancelled() { "draining" } else { "serving" }.to_owned(),
            uptime_seconds: self.started.instant.elapsed().as_secs(),
            configuration: api::Configuration {
                file: live.config.file.clone(),
                read: stamp(live.read),
                needs_restart: live.needs_restart.iter().map(|&key| key.to_owned()).collect(),
            },
            sessions: api::Sessions {
                total: count(&self.counts.total),
                active: self.limits.active(),
                tarpitted: self.limits.tarpitted(),
                stress: self.limits.is_stressed(),
                tagged: count(&self.counts.tagged),
                handed_off: count(&self.counts.handed_off),
                refused: count(&self.counts.refused),
            },
            kernel,
            passes: ledger.passes,
            denies: statics.denies(),
            dnsbl: self.lists_status(),
            ledger: api::Ledger {
                histories: ledger.histories,
                queued: ledger.queued,
                last_written: ledger.last_written.map(stamp),
            },
            tls: certificate::shown(&self.live().tls, Now::read().unix),
            degraded: self.conditions().into_iter().map(|(_, text)| text).collect(),
            notes: live.config.notes(),
        }
    }

    fn dnsbl(&self) -> api_dnsbl::Dnsbl {
        self.lists_shown()
    }

    fn explain(&self, address: IpAddr) -> api::Explanation {
        let key = self.key(address);
        let pass = self.ledger.pass(key);
        let valid_until = pass.as_ref().and_then(|pass| self.valid_until(pass));
        let history = self.ledger.history(key);
        let pool = self.membership_shown(address);
        let statics = self.statics();
        let found = statics.lookup(address.to_canonical());
        let deny = found.as_ref().and_then(|found| match found.action {
            StaticAction::Permit => None,
            StaticAction::Deny(action) => Some(action),
        });
        // A tagged client is let in and screened; a dry run changes nothing.
        let verdict = match (&found, deny) {
            (Some(_), None) => "permit",
            (_, Some(DenyAction::Drop | DenyAction::Reject)) => "deny",
            (_, Some(DenyAction::Tag)) => "screen",
            _ if valid_until.is_some() || pool.as_ref().is_some_and(|pool| pool.passed_until.is_some()) => "pass",
            _ => "screen",
        };
        let would =
            Would { daemon: self, found: found.as_ref(), deny, pass: pass.as_ref(), pool: pool.as_ref(), valid_until };
        let proxy = self.live.load().config.listen.is_proxy(address.to_canonical()).then(|| {
            "It is a proxy of listen.proxy_from: each of its connections must begin with a PROXY header, and whoever that \
             names is screened."
                .to_owned()
        });
        let happened = history.as_ref().map_or_else(|| "Nothing is known of what it did.".to_owned(), happened);
        api::Explanation {
            client: key.to_string(),
            verdict: verdict.to_owned(),
            action: deny,
            summary: format!("{} {happened}", proxy.unwrap_or_else(|| would.sentence())),
            pool: pool.clone(),
            hits: found.as_ref().map_or(0, |found| found.hits),
            entry: found.as_ref().map(entry),
            tag: deny == Some(DenyAction::Tag),
            pass: pass.as_ref().map(|pass| self.pass_shown(key, pass)),
            linked: history.as_ref().and_then(linked),
            first_seen: history.as_ref().map(|history| stamp(history.first_seen)),
            last_seen: history.as_ref().map(|history| stamp(history.last_seen)),
            sessions: history.as_ref().map_or(0, |history| history.sessions),
            events: history.iter().flat_map(|history| &history.events).map(happening).collect(),
        }
    }

    fn passes(&self, request: &ListRequest) -> Result<api_pass::Page, Refusal> {
        self.passes_page(request)
    }

    fn pass_add(&self, address: IpAddr, request: &PassRequest) -> Result<api_pass::Added, Refusal> {
        self.pass_added(address, request)
    }

    fn pass_del(self: Arc<Self>, address: IpAddr) -> Result<api_pass::Deleted, Refusal> {
        self.pass_deleted(address)
    }

    fn passes_del(&self, request: &DeleteRequest) -> Result<api_pass::DeletedPage, Refusal> {
        self.passes_deleted(request)
    }

    fn passes_restore(&self, request: &RestoreRequest) -> Result<api_pass::RestoreReport, Refusal> {
        self.passes_restored(request)
    }

    fn pass_watch(self: Arc<Self>, request: &WatchRequest) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        self.passes_watched(request)
    }

    fn pools(&self) -> Vec<api_pool::Pool> {
        self.pools_shown()
    }

    async fn pool_refresh(
        self: Arc<Self>,
        domain: String,
        request: api_pool::RefreshRequest,
    ) -> Result<api_pool::Refreshed, Refusal> {
        self.pool_refreshed(&domain, request).await
    }

    async fn pool_forget(self: Arc<Self>, domain: String) -> Result<(), Refusal> {
        self.pool_forgotten(&domain).await
    }

    fn permits(&self) -> Vec<api::Static> {
        self.static_entries(true)
    }

    fn permit_add(&self, prefix: IpNet, request: &PermitRequest) -> Result<api::Static, Refusal> {
        self.add_permit(prefix, request)
    }

    fn permit_del(&self, prefix: IpNet) -> Result<bool, Refusal> {
        self.remove_static(prefix, true)
    }

    fn denies(&self) -> Vec<api::Static> {
        self.static_entries(false)
    }

    fn deny_add(&self, prefix: IpNet, request: &DenyRequest) -> Result<api::Static, Refusal> {
        self.add_deny(prefix, request)
    }

    fn deny_del(&self, prefix: IpNet) -> Result<bool, Refusal> {
        self.remove_static(prefix, false)
    }

    fn deny_import(&self, request: &ImportRequest) -> Result<api::ImportReport, Refusal> {
        self.import_denies(request)
    }

    fn deny_export(&self, request: &ExportRequest) -> String {
        self.export_denies(request)
    }

    fn ledger_copy(self: Arc<Self>) -> mpsc::Receiver<Bytes> {
        backup::begin(self)
    }

    fn metrics(&self) -> String {
        let kinds: Vec<_> = self.conditions().into_iter().map(|(kind, _)| kind).collect();
        self.metrics.text(&self.status(), &self.lists_shown(), &kinds)
    }

    fn reload(self: Arc<Self>) -> Result<api::ReloadReport, Refusal> {
        reload::reload(&self)
    }

    fn takeover(self: Arc<Self>) -> Result<api::Coming, Refusal> {
        takeover::give::begin(&self)
    }

    fn upgrade(self: Arc<Self>) -> Result<api::Upgraded, Refusal> {
        takeover::upgrade::upgrade(&self)
    }
}

impl Daemon {
    /// Everything that is not as it should be, with its kind: what was noted as it happened, and what each part says of
    /// itself.
    fn conditions(&self) -> Vec<(&'static str, String)> {
        let mut conditions = self.degraded.list();
        conditions.extend(self.ledger.status().degraded.into_iter().map(|text| ("ledger", text)));
        if let Some(kernel) = &self.kernel {
            match (kernel.status(), kernel.counters()) {
                (Ok(status), Ok(_)) => conditions.extend(status.degraded.into_iter().map(|text| ("kernel", text))),
                (Err(error), _) | (_, Err(error)) => conditions.push(("kernel", error.to_string())),
            }
        }
        conditions.extend(self.pools.troubles().into_iter().map(|text| ("pool", text)));
        conditions.extend(observe::trouble().map(|text| ("log", text)));
        conditions.extend(self.rate_not_held().map(|text| ("syn_rate", text)));
        conditions.extend(self.silent_resolver().map(|text| ("resolver", text)));
        conditions.extend(certificate::conditions(&self.live().tls, Now::read().unix));
        let parked = self.lists_status().into_iter().filter(|list| list.state == "parked");
        conditions.extend(parked.map(|list| {
            let why = list.last_error.unwrap_or_default();
            ("dnsbl", format!("DNS list {} is not believed and left alone for a while: {why}", list.list))
        }));
        conditions
    }
}

/// What would happen to a client now.
struct Would<'a> {
    daemon: &'a Daemon,
    found: Option<&'a Match<'a>>,
    deny: Option<DenyAction>,
    pass: Option<&'a Pass>,
    pool: Option<&'a api_pool::Membership>,
    valid_until: Option<UnixTime>,
}

impl Would<'_> {
    fn sentence(&self) -> String {
        let listed = self.found.map_or_else(String::new, |found| {
            let comment = found.comment.map_or_else(String::new, |comment| format!(" ({comment})"));
            let origin = found.source;
            format!("{} from {origin}{comment}, since {}", found.prefix, stamp(found.added))
        });
        match (self.found, self.deny) {
            (Some(_), None) => format!("Permitted by {listed}: it goes straight to the MTA, whatever else is known."),
            (Some(found), Some(DenyAction::Drop)) => {
                format!("Denied by {listed}: its SYNs are dropped without an answer ({} so far).", found.hits)
            }
            (Some(found), Some(DenyAction::Reject)) => {
                format!("Denied by {listed}: its connections are refused ({} so far).", found.hits)
            }
            (Some(_), Some(DenyAction::Tag)) => {
                format!("Tagged by {listed}: it is let in, does every test again each time, and earns no pass.")
            }
            (Some(found), Some(DenyAction::Count)) => {
                format!("A dry run covers it, {listed}: {} SYNs counted, nothing else. {}", found.hits, self.unlisted())
            }
            (None, _) => self.unlisted(),
        }
    }

    fn unlisted(&self) -> String {
        if let Some(until) = self.valid_until {
            let by = match self.daemon.mode {
                Mode::Steer => "it goes straight to the MTA's own socket",
                Mode::Front => "it is relayed to the MTA without a wait",
            };
            return format!("It has passed and {by} until {}.", stamp(until));
        }
        if let Some((pool, until)) = self.pool.and_then(|pool| Some((pool, pool.passed_until.as_ref()?))) {
            let by = pool.passed_by.map_or_else(String::new, |by| format!(" by {by}"));
            let (domain, prefix) = (&pool.domain, pool.prefix);
            return format!(
                "It belongs to the pool {domain} ({prefix}), which has passed{by}: when it comes it is given to the MTA at \
                 once, until {until}."
            );
        }
        let enabled = self.daemon.live.load().policy.enabled();
        let stamps = self.pass.map(|pass| pass.stamps).unwrap_or_default();
        let owed: Vec<_> = stamps.owed(enabled, Now::read().unix).iter().map(Test::name).collect();
        let before = if self.pass.is_some() { "Its pass does not cover everything any more" } else { "It has no pass" };
        format!("{before}: it would be screened ({}).", owed.join(", "))
    }
}

/// With which other address the client was linked last, and by what.
fn linked(history: &History) -> Option<String> {
    history
        .events
        .iter()
        .rev()
        .find(|event| event.what == What::Linked)
        .map(|event| event.detail.trim_start_matches("LINKED with ").to_owned())
}

/// What the client did last, in a sentence.
fn happened(history: &History) -> String {
    let last = history.events.iter().rev().find(|event| event.what != What::Connected);
    let last = last.map_or_else(String::new, |event| {
        let times = if event.times > 1 { format!(" ({} times)", event.times) } else { String::new() };
        let detail = if event.detail.is_empty() { name_of(event.what) } else { event.detail.clone() };
        format!(" The last was at {}{times}: {detail}.", stamp(event.at))
    });
    let sessions = match history.sessions {
        0 => "It never reached the daemon.".to_owned(),
        1 => "It reached the daemon once.".to_owned(),
        many => format!("It reached the daemon {many} times."),
    };
    format!("{sessions}{last}")
}

fn happening(event: &crate::ledger::Event) -> api::Happening {
    api::Happening { at: stamp(event.at), times: event.times, what: name_of(event.what), detail: event.detail.clone() }
}

/// The name in JSON, which is also the one in the ledger's file.
fn name_of(what: What) -> String {
    serde_json::to_value(what).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) fn entry(found: &Match<'_>) -> api::Static {
    api::Static {
        prefix: found.prefix.to_string(),
        action: match found.action {
            StaticAction::Permit => "permit",
            StaticAction::Deny(action) => action.name(),
        }
        .to_owned(),
        origin: found.source.to_string(),
        comment: found.comment.map(str::to_owned),
        added: stamp(found.added),
        hits: found.hits,
        last_seen: found.last_seen.map(stamp),
    }
}

fn interface(interface: crate::kernel::InterfaceStatus) -> api::Interface {
    api::Interface { name: interface.name, mode: interface.mode.to_string(), reason: interface.reason }
}

fn counter(counter: crate::kernel::CounterValue) -> api::Counter {
    api::Counter {
        name: counter.name.to_owned(),
        verdict: counter.verdict.to_owned(),
        family: counter.family.to_owned(),
        hook: counter.hook.to_owned(),
        packets: counter.packets,
    }
}

pub(super) fn stamp(at: UnixTime) -> String {
    at.to_string()
}
