//! What the control socket is told: the state of the daemon, of a client, of the lists.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::clock::{Now, UnixTime};
use crate::control::api::{self, DenyRequest, ExportRequest, ImportRequest, PermitRequest};
use crate::control::api_explain::{Explanation, ForgetRequest, Forgotten};
use crate::control::api_pass::{self, DeleteRequest, ListRequest, PassRequest, RestoreRequest, WatchRequest};
use crate::control::{Answers, Refusal, api_dnsbl, api_feed, api_offender, api_pool};
use crate::feed::{Match, StaticAction};
use crate::kernel;
use crate::observe;

use super::certificate;
use super::daemon::Daemon;
use super::shared::Sharing;
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
                passes: kernel.pass_room().into_iter().map(room).collect(),
            })
        });
        let live = self.live();
        let statics = self.statics();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        api::Status {
            version: crate::version::own().to_owned(),
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
                limit: live.config.limits.connections.get() as usize,
                tarpitted: self.limits.tarpitted(),
                stress: self.limits.is_stressed(),
                tagged: count(&self.counts.tagged),
                handed_off: count(&self.counts.handed_off),
                refused: count(&self.counts.refused),
            },
            kernel,
            passes: ledger.passes,
            denies: statics.denies(),
            offenders: self.ledger.offender_count(Now::read().unix),
            dnsbl: self.lists_status(),
            ledger: api::Ledger {
                histories: ledger.histories,
                queued: ledger.queued,
                last_written: ledger.last_written.map(stamp),
            },
            shared: self.sharing.as_ref().map(Sharing::shown),
            tls: certificate::shown(&self.live().tls, Now::read().unix),
            degraded: self.conditions().into_iter().map(|(_, text)| text).collect(),
            notes: live.config.notes(),
        }
    }

    fn dnsbl(&self) -> api_dnsbl::Dnsbl {
        self.lists_shown()
    }

    fn explain(&self, address: IpAddr) -> Explanation {
        self.explained(address)
    }

    fn forget(self: Arc<Self>, request: &ForgetRequest) -> Result<Forgotten, Refusal> {
        self.forgotten(request)
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

    fn feeds(&self) -> Vec<api_feed::Feed> {
        self.feeds_shown()
    }

    fn feed(&self, name: &str) -> Result<api_feed::Feed, Refusal> {
        self.feed_shown(name)
    }

    async fn feed_refresh(
        self: Arc<Self>,
        name: String,
        request: api_feed::RefreshRequest,
    ) -> Result<api_feed::Refreshed, Refusal> {
        self.feed_refreshed(&name, request).await
    }

    fn feed_diff(&self, name: &str) -> Result<api_feed::Diff, Refusal> {
        self.feed_differs(name)
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

    fn offenders(&self) -> Vec<api_offender::Offender> {
        self.offenders_shown()
    }

    fn offender_forgive(&self, request: &api_offender::ForgiveRequest) -> api_offender::Forgiven {
        self.forgive(request.network)
    }

    fn ledger_copy(self: Arc<Self>) -> mpsc::Receiver<Bytes> {
        backup::begin(self)
    }

    fn metrics(&self) -> String {
        let kinds: Vec<_> = self.conditions().into_iter().map(|(kind, _)| kind).collect();
        self.metrics.text(&self.status(), &self.lists_shown(), &self.feeds_shown(), &kinds)
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
        conditions.extend(self.feeds.troubles().into_iter().map(|text| ("feed", text)));
        conditions.extend(observe::trouble().map(|text| ("log", text)));
        conditions.extend(observe::without_fields().map(|text| ("journal", text)));
        conditions.extend(self.rate_not_held().map(|text| ("syn_rate", text)));
        conditions.extend(self.resolver_troubles().into_iter().map(|text| ("resolver", text)));
        conditions.extend(certificate::conditions(&self.live().tls, Now::read().unix));
        let parked = self.lists_status().into_iter().filter(|list| list.state == "parked");
        conditions.extend(parked.map(|list| {
            let why = list.last_error.unwrap_or_default();
            ("dnsbl", format!("DNS list {} is not believed and left alone for a while: {why}", list.list))
        }));
        conditions
    }
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

fn room(room: kernel::PassRoom) -> api::PassRoom {
    let kernel::PassRoom { family, entries, capacity, left_out, .. } = room;
    api::PassRoom { family: family.to_owned(), entries, capacity, left_out }
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
