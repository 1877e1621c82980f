//! What all sessions share, and what each of them leaves behind: log lines, history, passes, counts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::{Now, UnixTime};
use crate::config::{Origin, Tagged, XdpMode};
use crate::control::api;
use crate::feed::{DenyAction, StaticAction, StaticSet};
use crate::handoff::HandoffError;
use crate::kernel::{self, Kernel};
use crate::ladder::Rung;
use crate::ledger::{self, Ledger, Pass};
use crate::link::Recent;
use crate::observe::{self, Metrics};
use crate::pass::{Stamps, Test};
use crate::pool::Pools;
use crate::session::{Arrival, Ceiling, Decision, Event, Features, Outcome, Session, SessionId, Standing};

use super::answering::Answering;
use super::degraded::Degraded;
use super::door::{Visit, Whose};
use super::feeds::Feeds;
use super::limits::{Limits, TarpitPlace};
use super::live::Live;
use super::metrics_door::MetricsDoor;
use super::mirror;
use super::noting::Notes;
use super::renewal::LastAddresses;
use super::shared::Sharing;
use super::sockets::Sockets;

/// The daemon.
pub(super) struct Daemon {
    /// What a reload exchanges: see [`Daemon::live`].
    pub(super) live: ArcSwap<Live>,
    /// How much of an IPv6 address is the client: the ledger's and the kernel's keys are cut to it, so it is for good.
    pub(super) key_length: Ipv6KeyLength,
    pub(super) mode: Mode,
    pub(super) features: ArcSwap<Features>,
    /// Told when the MTA seems to offer something else than [`Daemon::features`].
    pub(super) learn_again: Notify,
    pub(super) ledger: Ledger,
    pub(super) pools: Pools,
    pub(super) feeds: Feeds,
    pub(super) links: Recent,
    /// By which address IPv6 clients are asked about.
    pub(super) last_addresses: LastAddresses,
    /// What is shared with other hosts; `None`: nothing.
    pub(super) sharing: Option<Sharing>,
    pub(super) statics: RwLock<StaticSet>,
    /// Held by whoever changes static entries, from the look at what there is until set, kernel and ledger say the same. Only
    /// its holder locks the set for writing, so that those who read it never wait for a long change.
    pub(super) changing: Mutex<()>,
    pub(super) kernel: Option<Kernel>,
    /// Where this executable lay when it was started.
    pub(super) program: io::Result<PathBuf>,
    /// Where the configuration is read again.
    pub(super) origin: Origin,
    /// The front sockets are those of a socket unit.
    pub(super) fixed_fronts: bool,
    pub(super) answering: Answering,
    /// Held by whoever changes attachments or settings of the kernel half beside a reload.
    pub(super) kernel_hand: Mutex<()>,
    /// The daemon before this one, while it has sessions.
    pub(super) predecessor: Mutex<Option<api::Predecessor>>,
    /// Tells the daemon after this one what the last sessions earn.
    pub(super) telling: Mutex<Option<JoinHandle<()>>>,
    /// Nothing is this one's any more but its sessions: another daemon stands in its place, or it is going down.
    pub(super) retired: CancellationToken,
    /// Held during a reload: one at a time.
    pub(super) reloading: Mutex<()>,
    /// Changes with each reload.
    pub(super) reloaded: watch::Sender<()>,
    /// To whoever brings passes to the kernel.
    pub(super) realign: mpsc::Sender<mirror::Realign>,
    pub(super) sockets: Sockets,
    pub(super) metrics_door: MetricsDoor,
    pub(super) metrics: Metrics,
    pub(super) limits: Arc<Limits>,
    pub(super) counts: Counts,
    pub(super) degraded: Degraded,
    pub(super) going_down: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) started: Now,
}

/// How the daemon stands to the MTA (DESIGN.md section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The MTA has port 25; clients without a pass are steered here.
    Steer,
    /// We have port 25.
    Front,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Steer => "steer",
            Self::Front => "front",
        }
    }
}

/// Sessions since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) total: AtomicU64,
    pub(super) tagged: AtomicU64,
    pub(super) handed_off: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Daemon {
    /// The configuration in force and what is made of it, as one snapshot: two calls may give two different ones.
    pub(super) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// How it stands, in a line.
    pub(super) fn in_a_line(&self) -> String {
        format!(
            "{} mode, {} passes, {} static entries",
            self.mode.name(),
            self.ledger.pass_count(),
            self.statics().len()
        )
    }

    /// The key of an address.
    pub(super) fn key(&self, address: IpAddr) -> ClientKey {
        ClientKey::of(address, self.key_length)
    }

    /// The static entries, to read.
    pub(super) fn statics(&self) -> RwLockReadGuard<'_, StaticSet> {
        // An entry goes in or out in one step: a panic elsewhere does not leave half of one.
        self.statics.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whoever changes static entries.
    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The static entries, to change, while [`Daemon::changing`] is held.
    pub(super) fn statics_mut(&self) -> RwLockWriteGuard<'_, StaticSet> {
        self.statics.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when a pass leaves the client to the MTA; `None`: it does not, some test is owed.
    pub(super) fn valid_until(&self, pass: &Pass) -> Option<UnixTime> {
        mirror::valid_until(pass, self.live.load().policy.enabled())
    }

    /// Who came where, with what static entries and passes say of it.
    pub(super) fn arrival(&self, live: &Live, visit: &Visit, tagged: bool) -> Arrival {
        let Visit { client, server, .. } = *visit;
        let (id, terminates_tls) = (self.next_id(), live.tls.is_ready());
        if visit.whose == Whose::Nobody {
            let standing = Standing::Unnamed { mta_answers: !self.degraded.holds("mta") };
            let (stamps, tagged, slow, may_pass, stressed) = (None, false, false, false, false);
            return Arrival { id, client, server, standing, tagged, slow, stamps, may_pass, stressed, terminates_tls };
        }
        let found = {
            let statics = self.statics();
            let found = statics.lookup(client.ip()).map(|found| found.action);
            if matches!(found, Some(StaticAction::Deny(_))) && !self.kernel_tells_of_denied(live) {
                self.met(&statics, client.ip(), 1, Now::read().unix);
            }
            found
        };
        let tagged = tagged || found == Some(StaticAction::Deny(DenyAction::Tag));
        let standing = match found {
            Some(StaticAction::Permit) => Standing::Permitted,
            // Who may say who the clients are need not be screened; a balancer's check wants one line, and at once.
            None if visit.whose == Whose::Proxy => Standing::Permitted,
            Some(StaticAction::Deny(DenyAction::Drop | DenyAction::Reject)) => Standing::Denied,
            _ if tagged && live.config.tests.tagged == Tagged::Tarpit => Standing::Tarpitted,
            Some(StaticAction::Deny(DenyAction::Tag | DenyAction::Count)) | None => Standing::Screened,
        };
        let screened = standing == Standing::Screened && !tagged;
        let stamps = if screened { self.stamps_of(live, client.ip()) } else { None };
        let rung = if standing == Standing::Screened { self.rung(live, client.ip(), stamps) } else { None };
        Arrival {
            id,
            client,
            server,
            standing: if rung == Some(Rung::Dropped) { Standing::Denied } else { standing },
            tagged,
            slow: rung == Some(Rung::Tarpitted),
            stamps,
            may_pass: live.config.listen.earns_pass(server),
            terminates_tls,
            stressed: self.limits.is_stressed(),
        }
    }

    /// Whether the kernel half tells whom entries have met, also those that do not get here: where one of its programs sees them.
    fn kernel_tells_of_denied(&self, live: &Live) -> bool {
        self.kernel.is_some() && (self.mode == Mode::Steer || live.config.kernel.xdp != XdpMode::Off)
    }

    /// Starts a session.
    pub(super) fn begin(&self, live: &Live, arrival: Arrival) -> Session {
        self.counts.total.fetch_add(1, Ordering::Relaxed);
        if arrival.tagged {
            self.counts.tagged.fetch_add(1, Ordering::Relaxed);
        }
        Session::start(Arc::clone(&live.policy), self.features.load_full(), arrival, Now::read())
    }

    /// Sends a client away that met a ceiling.
    pub(super) fn turn_away(&self, live: &Live, arrival: Arrival, ceiling: Ceiling) -> Session {
        let features = self.features.load_full();
        Session::turned_away(Arc::clone(&live.policy), features, arrival, ceiling, Now::read())
    }

    /// Remembers that a client passed. The kernel learns it from the ledger (`mirror`).
    pub(super) fn grant(&self, live: &Live, arrival: &Arrival, stamps: Stamps) {
        let now = Now::read().unix;
        let key = self.key(arrival.client.ip());
        self.ledger.grant(key, &stamps, ledger::Origin::Screened, None, now);
        self.last_addresses.passed(key, arrival.client.ip());
        self.grant_to_pool(live, arrival, &stamps);
    }

    /// A client that has just got a pass has failed a test in the same session.
    pub(super) fn withdraw(self: &Arc<Self>, arrival: &Arrival, test: Test) {
        self.withdraw_from_pool(arrival.client.ip(), test);
        let key = self.key(arrival.client.ip());
        if self.ledger.withdraw(key, test) {
            info!(session = %arrival.id, "{key}: pass withdrawn, {test} failed later in the same session");
            self.metrics.pass_withdrawn();
        }
    }

    /// Logs what happened, and keeps it for the client's history.
    pub(super) fn tell(&self, notes: &mut Notes, arrival: &Arrival, event: &Event) {
        let line = observe::line(arrival, event);
        info!(session = %arrival.id, kind = event.kind(), client = %arrival.client, "{line}");
        match event {
            Event::TlsEstablished(agreed) => self.metrics.handshake(agreed.protocol),
            Event::TlsFailed(_) => self.metrics.handshake("failed"),
            _ => {}
        }
        notes.event(arrival, event, line);
        if let Event::Linked(other, name) = event {
            self.linked(arrival, *other, name);
        }
    }

    /// Counts a decision, and tells it with its evidence.
    pub(super) fn decided(&self, live: &Live, arrival: &Arrival, decision: &Decision) {
        let outcome = match decision.outcome {
            Outcome::HandedOff => "handed_off",
            Outcome::Refused => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                "refused"
            }
            Outcome::Deferred => "deferred",
            Outcome::Limited => "limited",
            Outcome::Left => "left",
        };
        self.metrics.session_decided(outcome);
        for evidence in &decision.evidence {
            self.metrics.test_failed(evidence.test);
        }
        observe::decision(arrival, decision);
        self.judged(live, arrival, decision);
    }

    /// The MTA has taken a session.
    pub(super) fn handed_off(&self, notes: &mut Notes) {
        self.counts.handed_off.fetch_add(1, Ordering::Relaxed);
        notes.taken();
    }

    /// What the MTA offered a client: if that is not what we offer in its place, it has been changed since it was asked.
    pub(super) fn mta_offered(&self, offer: &Features) {
        if **self.features.load() != *offer {
            self.learn_again.notify_one();
        }
    }

    /// How the MTA behaved at a handoff: its being away shows until it is back.
    pub(super) fn mta_answered(&self, error: Option<&HandoffError>) {
        match error {
            Some(error @ HandoffError::Away { .. }) => {
                self.metrics.handoff_failed();
                if self.degraded.set("mta", error.to_string()) {
                    warn!("{error}: clients hear 421 or 451 and come again");
                    // Until it is back it is asked every few seconds: a balancer that has taken this host out sends no client
                    // that would notice.
                    self.learn_again.notify_one();
                }
            }
            Some(error @ HandoffError::DemandsTls { .. }) => {
                self.metrics.handoff_failed();
                if self.degraded.set_for_a_while("mta_tls", error.to_string()) {
                    warn!("{error}: clients under TLS hear 451 and come again");
                }
            }
            Some(HandoffError::Refused { .. }) | None => {
                if self.degraded.clear("mta") {
                    info!("the MTA at {} answers again", self.live.load().config.backend.address);
                }
            }
        }
    }

    /// A client is to be answered slowly: its place, or none.
    pub(super) fn tarpit(&self, live: &Live) -> Option<TarpitPlace> {
        let most = live.config.limits.tarpit as usize;
        let place = self.limits.tarpit(most);
        self.metrics.tarpit(place.is_some());
        if place.is_none() {
            let text = format!(
                "the tarpit is full ({} clients, limits.tarpit is {most}) or closed under stress: clients are dropped instead",
                self.limits.tarpitted()
            );
            if self.degraded.set_for_a_while("tarpit", text.clone()) {
                warn!("{text}");
            }
        }
        place
    }

    /// Accepting had to pause.
    pub(super) fn short_of_resources(&self, error: &io::Error) {
        let text = format!(
            "connections cannot be accepted for the moment: {error}; raise LimitNOFILE, or limits.connections is too high"
        );
        if self.degraded.set_for_a_while("accept", text.clone()) {
            warn!("{text}");
        }
    }

    /// Why the ceiling of new connections holds nobody back, if that is so.
    pub(super) fn rate_not_held(&self) -> Option<String> {
        self.live.load().config.kernel.syn_rate?;
        let interfaces = self.kernel.as_ref().and_then(|kernel| kernel.status().ok()).map(|status| status.interfaces);
        let held = interfaces.iter().flatten().any(|interface| interface.mode != kernel::Mode::None);
        (!held).then(|| "kernel.syn_rate holds nobody back: XDP is attached nowhere".to_owned())
    }

    /// Unique for as long as fewer than 65,536 sessions begin in a second, and sortable by time.
    fn next_id(&self) -> SessionId {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let UnixTime(seconds) = Now::read().unix;
        SessionId((seconds & 0xffff_ffff) << 16 | COUNTER.fetch_add(1, Ordering::Relaxed) & 0xffff)
    }
}

/// The address without an IPv4-mapped form.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
