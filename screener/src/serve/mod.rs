//! The daemon's life: it starts, accepts, drives sessions, answers the control socket, and goes down without losing mail.
//!
//! Decides nothing about a client: the engine does, from what stands in the ledger, the static set and the DNS lists.

mod answering;
mod answers;
mod aside;
mod backup;
mod certificate;
mod daemon;
mod degraded;
mod delivered;
mod door;
mod drive;
mod explain;
mod feeds;
mod interfaces;
mod limits;
mod links;
mod listen;
mod lists;
mod live;
mod metrics_door;
mod mirror;
mod news;
mod noting;
mod offenders;
mod passes;
mod pattern;
mod policy;
mod pools;
mod reload;
mod renewal;
mod shared;
mod shared_offenders;
mod signals;
mod sockets;
mod stand;
mod statics;
mod stream;
mod systemd;
mod takeover;
mod tend;
mod upkeep;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::Now;
use crate::config::{Config, Origin};
use crate::control;
use crate::kernel::{Class, Family};
use crate::ledger::{self, Changes, Ledger};
use crate::link::Recent;
use crate::observe::{self, Metrics};
use crate::pool::Pools;
use crate::session::Features;

use answering::Answering;
use daemon::{Counts, Daemon, Mode};
use degraded::Degraded;
use feeds::Feeds;
use limits::Limits;
use live::Live;
use metrics_door::MetricsDoor;
use shared::Sharing;
use signals::{Signals, Told};
use sockets::{Door, Inherited, Listening, Sockets};
use stand::{Content, Filled, Stand};
use takeover::take::{self, Inheritance, Predecessor};

pub(crate) use interfaces::{NONE, kernel_options};

/// How long relays may go on when the daemon is told to stop. Most mails take seconds.
const DRAIN: Duration = Duration::from_secs(30);
/// How long sessions may go on when another daemon has taken the place. Nobody waits for them.
const OUTLIVE: Duration = Duration::from_secs(3600);

/// The file of the pools, beside the ledger.
const POOLS: &str = "pools.json";

/// The directory of the last good copies of feeds, beside the ledger.
const FEEDS: &str = "feeds";

/// Runs the daemon until it is told to stop (SIGTERM, SIGINT), or another one has taken its place.
///
/// # Errors
/// When it cannot stand in any way: no listener, the ledger or the control socket in use by another screener, a
/// configuration that contradicts itself.
pub(crate) async fn run(origin: Origin, config: Config, take_over: bool) -> anyhow::Result<()> {
    // Dropped at the end of everything: then the last lines are written.
    let _flush = observe::init(reload::log_format(&config), config.observe.program.as_str())?;
    let mut signals = Signals::hear()?;
    raise_descriptors();
    let mut place = Place::find(&config, take_over).await?;
    let started = Now::read();
    let (ledger, found) = Ledger::open(&config.ledger.path, ledger_options(&config))?;
    for sentence in &found.degraded {
        warn!("{sentence}");
    }
    let mut statics = policy::statics(&config, &ledger, started.unix)?;
    let copies = config.ledger.path.with_file_name(FEEDS);
    let feeds = Feeds::open(copies, &config.feeds, &mut statics, started.unix);
    let live = Live::new(config)?;
    let config = &live.config;
    let degraded = Degraded::default();
    if let Some(note) = place.control.note() {
        warn!("{note}");
        degraded.set("control", note.to_owned());
    }
    let content = Content { ledger: &ledger, config: &live.config, statics: &statics };
    let stand = Stand::find(&content, &degraded, &mut place.inherited, place.kernel_lock)?;
    let (kernel, changes) = stand.kernel.map(|Filled { kernel, changes }| (kernel, changes)).unzip();
    for note in config.notes() {
        info!("note: {note}");
    }
    let (realign, orders) = mpsc::channel(1);

    let daemon = Arc::new(Daemon {
        mode: stand.mode,
        key_length: config.ledger.ipv6_prefix,
        features: ArcSwap::from_pointee(Features::default()),
        learn_again: Notify::new(),
        limits: Limits::new(),
        ledger,
        links: Recent::new(started.instant),
        last_addresses: renewal::LastAddresses::default(),
        pools: Pools::open(config.ledger.path.with_file_name(POOLS), &config.pools),
        feeds,
        sharing: Sharing::new(config),
        statics: statics.into(),
        changing: Mutex::default(),
        kernel,
        program: std::env::current_exe(),
        origin,
        fixed_fronts: place.inherited.fixed,
        answering: Answering::new(place.control),
        kernel_hand: Mutex::default(),
        predecessor: Mutex::default(),
        telling: Mutex::default(),
        retired: CancellationToken::new(),
        reloading: Mutex::default(),
        reloaded: watch::Sender::new(()),
        realign,
        sockets: Sockets::default(),
        metrics_door: MetricsDoor::default(),
        metrics: Metrics::default(),
        counts: Counts::default(),
        degraded,
        going_down: CancellationToken::new(),
        tasks: TaskTracker::new(),
        started,
        live: ArcSwap::from_pointee(live),
    });
    info!(
        "screener {} in {} mode: {} passes, {} static entries",
        crate::version::own(),
        daemon.mode.name(),
        daemon.ledger.pass_count(),
        daemon.statics().len()
    );

    lists::begin(&daemon);
    pools::begin(&daemon);
    feeds::begin(&daemon);
    shared::begin(&daemon)?;
    certificate::begin(&daemon);
    if let Some(text) = daemon.rate_not_held() {
        warn!("{text}");
    }
    door::look_for_permits(&daemon);
    mirror_kernel(&daemon, changes, orders)?;
    tokio::spawn(offenders::follow(Arc::clone(&daemon)));
    upkeep::learn_features(Arc::clone(&daemon)).await;
    listen(&daemon, stand.fronts, place.inherited.doors)?;
    tokio::spawn(upkeep::expire(Arc::clone(&daemon)));
    serve_metrics(&daemon, place.metrics);
    daemon.answering.start(&daemon)?;
    if let Some(predecessor) = place.predecessor
        && let Err(error) = predecessor.relieve(&daemon)
    {
        warn!("the daemon before this one is gone already: {error}");
    }
    systemd::ready(&daemon.in_a_line());
    let alive = tokio::spawn(systemd::keep_alive());

    let replaced = tokio::select! {
        () = until_told_to_stop(&daemon, &mut signals) => false,
        () = daemon.retired.cancelled() => true,
    };
    if replaced {
        // Only the one in its place says now whether the service is alive.
        alive.abort();
        outlive(&daemon, &mut signals).await;
    } else {
        drain(&daemon, &mut signals).await;
    }
    end(daemon, replaced).await
}

/// What a daemon stands on: what it bound itself, or what the one before it and the service manager gave.
struct Place {
    control: control::Server,
    kernel_lock: Option<OwnedFd>,
    inherited: Inherited,
    metrics: Option<TcpListener>,
    predecessor: Option<Predecessor>,
}

impl Place {
    /// First of all, and until the end: what keeps a second daemon away from the ledger and the kernel.
    async fn find(config: &Config, take_over: bool) -> anyhow::Result<Self> {
        let mut inherited = systemd::sockets()?;
        let given = if take_over {
            take::rehearse(config)?;
            take::ask(config).await?
        } else {
            None
        };
        let Some(given) = given else {
            if take_over {
                info!("no daemon runs from which this one could take over: it starts as usual");
            }
            let control = control::Server::bind(&config.control)?;
            return Ok(Self { control, kernel_lock: None, inherited, metrics: None, predecessor: None });
        };
        let Inheritance { control, kernel_lock, doors, fixed, metrics, predecessor } = given;
        inherited.doors.extend(doors);
        inherited.fixed |= fixed;
        Ok(Self { control, kernel_lock, inherited, metrics, predecessor: Some(predecessor) })
    }
}

async fn until_told_to_stop(daemon: &Arc<Daemon>, signals: &mut Signals) {
    while signals.next().await == Told::Reload {
        let daemon = Arc::clone(daemon);
        // What comes of it stands in the log and in `status`.
        tokio::task::spawn_blocking(move || reload::reload(&daemon));
    }
}

/// Takes no connections any more, and waits for those that are there: for a while, or until it is told to stop again.
async fn drain(daemon: &Arc<Daemon>, signals: &mut Signals) {
    let text = format!("going down: {} sessions, relays have {} s", daemon.limits.active(), DRAIN.as_secs());
    info!("{text}");
    systemd::stopping(&text);
    daemon.retired.cancel();
    daemon.going_down.cancel();
    daemon.limits.end();
    daemon.live().watch.cancel();
    if daemon.fixed_fronts || systemd::keeps_sockets() {
        // Whoever waits in their queues is served by the next daemon.
        daemon.sockets.close();
    } else {
        daemon.sockets.end_all(daemon);
    }
    daemon.tasks.close();
    tokio::select! {
        () = daemon.tasks.wait() => {}
        () = tokio::time::sleep(DRAIN) => {
            warn!("{} sessions did not end in time and are cut off", daemon.limits.active());
        }
        () = signals.stop() => warn!("told to stop again: {} sessions are cut off", daemon.limits.active()),
    }
}

/// Another daemon stands in this one's place: its sessions go on to their ends, those under test too.
async fn outlive(daemon: &Arc<Daemon>, signals: &mut Signals) {
    daemon.live().watch.cancel();
    daemon.tasks.close();
    tokio::select! {
        () = daemon.tasks.wait() => info!("the last session has ended"),
        () = tokio::time::sleep(OUTLIVE) => {
            warn!("{} sessions did not end within an hour and are cut off", daemon.limits.active());
        }
        () = signals.stop() => drain(daemon, signals).await,
    }
}

/// Ends what is left when no session is.
async fn end(daemon: Arc<Daemon>, replaced: bool) -> anyhow::Result<()> {
    daemon.answering.finish().await;
    tokio::task::spawn_blocking(move || {
        if !replaced {
            daemon.pools.save();
            // The last batch of the ledger; the drop of the daemon would write it too, but could not say what went wrong.
            return daemon.ledger.flush().map_err(Into::into);
        }
        let lost = daemon.ledger.tell_on(None);
        if lost > 0 {
            warn!("{lost} things that the last sessions did were not told on");
        }
        let teller = daemon.telling.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A thread that broke has said so.
        teller.map(std::thread::JoinHandle::join);
        Ok(())
    })
    .await?
}

/// Serves the metrics over TCP, if that is wanted and can be had.
fn serve_metrics(daemon: &Arc<Daemon>, inherited: Option<TcpListener>) {
    let Some(address) = daemon.live.load().config.observe.metrics else { return };
    let inherited = inherited.filter(|socket| socket.local_addr().is_ok_and(|given| given == address));
    let bound = inherited.map_or_else(|| control::bind_metrics(address), Ok);
    if let Err(error) = bound.and_then(|socket| daemon.metrics_door.open(daemon, socket)) {
        let text = format!("metrics are only on the control socket: {address} cannot be listened on: {error}");
        warn!("{text}");
        daemon.degraded.set("metrics", text);
    }
}

/// Begins to exchange news with the kernel.
fn mirror_kernel(
    daemon: &Arc<Daemon>,
    changes: Option<Changes>,
    orders: mpsc::Receiver<mirror::Realign>,
) -> anyhow::Result<()> {
    let (Some(kernel), Some(changes)) = (&daemon.kernel, changes) else { return Ok(()) };
    let follower = Arc::clone(daemon);
    aside::run("kernel-passes", move || mirror::follow(follower, changes, orders))?;
    tokio::spawn(mirror::hear(Arc::clone(daemon), kernel.events()?));
    tokio::spawn(mirror::adapt(Arc::clone(daemon)));
    tokio::spawn(mirror::tend_passes(Arc::clone(daemon)));
    if let Some(lines) = kernel.logs()? {
        tokio::spawn(lines.run());
    }
    tokio::spawn(tend::interfaces(Arc::clone(daemon)));
    Ok(())
}

/// Begins to accept. `old`: sockets of an earlier daemon that this one has no use for but for those who wait in their queues.
fn listen(daemon: &Arc<Daemon>, fronts: Vec<Listening>, old: Vec<Listening>) -> anyhow::Result<()> {
    if let (Mode::Steer, Some(kernel)) = (daemon.mode, &daemon.kernel) {
        for class in Class::ALL {
            for family in Family::ALL {
                let listener = listen::behind_steer(family).context("no listener on loopback")?;
                kernel.set_listener(class, family, &listener)?;
                daemon.sockets.begin(daemon, Listening::new(Door::Steer(class, family), listener)?)?;
            }
        }
        if let Some(unit) = old.iter().find(|listening| listening.door == Door::Front) {
            let text = format!(
                "{} was listened on for this daemon, but in steer mode the port is the MTA's: disable the socket unit, or set \
                 listen.mode = \"front\"",
                unit.address
            );
            warn!("{text}");
            daemon.degraded.set("socket-unit", text);
        }
    }
    for listening in fronts {
        daemon.sockets.begin(daemon, listening)?;
    }
    for listening in old {
        daemon.sockets.begin_for_a_while(daemon, listening)?;
    }
    if !daemon.fixed_fronts {
        systemd::store(&daemon.sockets);
    }
    Ok(())
}

fn ledger_options(config: &Config) -> ledger::Options {
    ledger::Options {
        ipv6_key: config.ledger.ipv6_prefix,
        shared: config.ledger.shared.is_some(),
        ladder: offenders::rules(config),
        ..ledger::Options::default()
    }
}

/// As many descriptors as the system allows: a session takes one, a relayed one two.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        warn!("the limit of open descriptors stays at {:?}: {error}", limit.current);
    }
}
