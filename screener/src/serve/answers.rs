//! What the control socket is told: the state of the daemon, of a client, of the lists.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use crate::clock::{Now, UnixTime};
use crate::control::api::{self, DenyRequest, ExportRequest, ImportRequest, PageRequest, PassRequest, PermitRequest};
use crate::control::api_explain::{Explanation, ForgetRequest, Forgotten};
use crate::control::{Answers, Refusal, api_dnsbl, api_offender, api_pool};
use crate::feed::{Match, StaticAction};
use crate::kernel;
use crate::ledger::{Origin, Pass, What};
use crate::observe;
use crate::pass::{Stamps, Test};

use super::certificate;
use super::daemon::Daemon;
use super::shared::Sharing;
use super::{reload, takeover};

/// How long a pass by hand lasts unless it is said.
const MANUAL_PASS: Duration = Duration::from_secs(30 * 86_400);

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
            offenders: self.offenders_counted(),
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

    fn forget(&self, request: &ForgetRequest) -> Result<Forgotten, Refusal> {
        self.forgotten(request)
    }

    fn passes(&self, page: &PageRequest) -> Vec<api::Pass> {
        let most = page.most.unwrap_or(PageRequest::MOST).min(PageRequest::MOST);
        let passes = self.ledger.passes_after(page.after.map(|after| self.key(after)), most);
        passes.iter().map(|(client, pass)| self.pass_shown(&client.to_string(), pass)).collect()
    }

    fn pass_add(&self, address: IpAddr, request: &PassRequest) -> Result<api::Pass, Refusal> {
        let now = Now::read().unix;
        let ttl = request.ttl_seconds.map_or(MANUAL_PASS, Duration::from_secs);
        if ttl.is_zero() {
            return Err(Refusal::Wrong(
                "a pass of no time is none: to take one away use `screener pass del`".to_owned(),
            ));
        }
        let key = self.key(address);
        let stamps = Stamps::all_until(now.plus(ttl));
        self.ledger.grant(key, &stamps, Origin::Manual, request.comment.as_deref(), now);
        self.ledger.note(key, What::Granted, request.comment.clone().unwrap_or_default(), now);
        let pass = self.ledger.pass(key);
        let shown = pass.map(|pass| self.pass_shown(&key.to_string(), &pass));
        shown.ok_or_else(|| Refusal::Failed("the pass was taken away again at the same moment".to_owned()))
    }

    fn pass_del(&self, address: IpAddr) -> bool {
        let had = self.pass_taken(address);
        if had {
            self.ledger.note(self.key(address), What::Revoked, String::new(), Now::read().unix);
        }
        had
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

    fn offenders(&self) -> Vec<api_offender::Offender> {
        self.offenders_shown()
    }

    fn offender_forgive(&self, request: &api_offender::ForgiveRequest) -> api_offender::Forgiven {
        self.forgive(request.network)
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

    /// Takes a client's pass away, and that of its pool, which would give it another one at once: who does this wants the
    /// client screened. False: there was none.
    pub(super) fn pass_taken(&self, address: IpAddr) -> bool {
        let pool = self.pools.find(address).filter(|pool| pool.stamps != Stamps::default());
        let by_pool = pool.and_then(|_| self.pools.revoke(address)).is_some();
        self.ledger.revoke(self.key(address)) || by_pool
    }

    pub(super) fn pass_shown(&self, client: &str, pass: &Pass) -> api::Pass {
        let enabled = self.live.load().policy.enabled();
        let expires = Test::ALL
            .into_iter()
            // A test that is not done has no say; what an operator granted for it is kept for when it is.
            .filter(|&test| enabled.contains(test) || pass.stamps.get(test).is_some())
            .map(|test| (test.name().to_owned(), pass.stamps.get(test).map(stamp)))
            .collect();
        api::Pass {
            client: client.to_owned(),
            expires,
            created: stamp(pass.created),
            origin: match pass.origin {
                Origin::Screened => "screened",
                Origin::Manual => "manual",
                Origin::Pool => "pool",
                Origin::Shared => "shared",
            }
            .to_owned(),
            comment: pass.comment.clone(),
        }
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
