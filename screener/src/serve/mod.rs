//! The daemon's life: it starts, accepts, drives sessions, answers the control socket, and goes down without losing mail.
//!
//! Decides nothing about a client: the engine does, from what stands in the ledger, the static set and the DNS lists.

mod answers;
mod certificate;
mod daemon;
mod degraded;
mod delivered;
mod door;
mod drive;
mod interfaces;
mod limits;
mod listen;
mod lists;
mod live;
mod metrics_door;
mod mirror;
mod policy;
mod reload;
mod signals;
mod sockets;
mod stand;
mod statics;
mod stream;
mod tend;
mod upkeep;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
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
use crate::observe::{self, Metrics};
use crate::session::Features;

use daemon::{Counts, Daemon, Mode};
use degraded::Degraded;
use limits::Limits;
use live::Live;
use metrics_door::MetricsDoor;
use signals::{Signals, Told};
use sockets::{Door, Listening, Sockets};
use stand::{Content, Filled, Stand};

pub(crate) use interfaces::{NONE, kernel_options};

/// How long relays may go on when the daemon is told to stop. Most mails take seconds.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the daemon until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// When it cannot stand in any way: no listener, the ledger or the control socket in use by another screener, a
/// configuration that contradicts itself.
pub(crate) async fn run(origin: Origin, config: Config) -> anyhow::Result<()> {
    // Dropped at the end of everything: then the last lines are written.
    let _flush = observe::init(reload::log_format(&config), config.observe.program.as_str())?;
    let mut signals = Signals::hear()?;
    raise_descriptors();
    // First of all, and until the end: what keeps a second daemon away from the ledger and the kernel.
    let control = control::Server::bind(&config.control)?;
    let started = Now::read();
    let (ledger, found) = Ledger::open(&config.ledger.path, ledger_options(&config))?;
    for sentence in &found.degraded {
        warn!("{sentence}");
    }
    let statics = policy::statics(&config, &ledger, started.unix)?;
    let live = Live::new(config)?;
    let config = &live.config;
    let degraded = Degraded::default();
    if let Some(note) = control.note() {
        warn!("{note}");
        degraded.set("control", note.to_owned());
    }
    let content = Content { ledger: &ledger, config: &live.config, statics: &statics };
    let stand = Stand::find(config, &content, &degraded)?;
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
        statics: statics.into(),
        changing: Mutex::default(),
        kernel,
        origin,
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
        env!("CARGO_PKG_VERSION"),
        daemon.mode.name(),
        daemon.ledger.pass_count(),
        daemon.statics().len()
    );

    lists::begin(&daemon);
    certificate::begin(&daemon);
    if let Some(text) = daemon.rate_not_held() {
        warn!("{text}");
    }
    door::look_for_permits(&daemon);
    mirror_kernel(&daemon, changes, orders)?;
    upkeep::learn_features(Arc::clone(&daemon)).await;
    listen(&daemon, stand.listeners)?;
    tokio::spawn(upkeep::expire(Arc::clone(&daemon)));
    serve_metrics(&daemon);
    let answering = CancellationToken::new();
    let serving = tokio::spawn(control.serve(Arc::clone(&daemon), answering.clone()));
    until_told_to_stop(&daemon, &mut signals).await;

    drain(&daemon, &mut signals).await;
    answering.cancel();
    serving.await.context("the control socket's task broke")?;
    // The last batch of the ledger; the drop of the daemon would write it too, but could not say what went wrong.
    tokio::task::spawn_blocking(move || daemon.ledger.flush()).await??;
    Ok(())
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
    info!("going down: {} sessions, relays have {} s", daemon.limits.active(), DRAIN.as_secs());
    daemon.going_down.cancel();
    daemon.live().watch.cancel();
    daemon.sockets.end_all(daemon);
    daemon.tasks.close();
    tokio::select! {
        () = daemon.tasks.wait() => {}
        () = tokio::time::sleep(DRAIN) => {
            warn!("{} sessions did not end in time and are cut off", daemon.limits.active());
        }
        () = signals.stop() => warn!("told to stop again: {} sessions are cut off", daemon.limits.active()),
    }
}

/// Serves the metrics over TCP, if that is wanted and can be had.
fn serve_metrics(daemon: &Arc<Daemon>) {
    let Some(address) = daemon.live.load().config.observe.metrics else { return };
    if let Err(error) = control::bind_metrics(address).and_then(|listener| daemon.metrics_door.open(daemon, listener)) {
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
    tokio::spawn(mirror::follow(Arc::clone(daemon), changes, orders));
    tokio::spawn(mirror::hear(Arc::clone(daemon), kernel.events()?));
    tokio::spawn(mirror::adapt(Arc::clone(daemon)));
    if let Some(lines) = kernel.logs()? {
        tokio::spawn(lines.run());
    }
    tokio::spawn(tend::interfaces(Arc::clone(daemon)));
    Ok(())
}

/// Begins to accept.
fn listen(daemon: &Arc<Daemon>, fronts: Vec<TcpListener>) -> anyhow::Result<()> {
    if let (Mode::Steer, Some(kernel)) = (daemon.mode, &daemon.kernel) {
        for class in Class::ALL {
            for family in Family::ALL {
                let listener = listen::behind_steer(family).context("no listener on loopback")?;
                kernel.set_listener(class, family, &listener)?;
                daemon.sockets.begin(daemon, Listening::new(Door::Steer(class, family), listener)?)?;
            }
        }
    }
    for listener in fronts {
        daemon.sockets.begin(daemon, Listening::new(Door::Front, listener)?)?;
    }
    Ok(())
}

fn ledger_options(config: &Config) -> ledger::Options {
    ledger::Options { ipv6_key: config.ledger.ipv6_prefix, ..ledger::Options::default() }
}

/// As many descriptors as the system allows: a session takes one, a relayed one two.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        warn!("the limit of open descriptors stays at {:?}: {error}", limit.current);
    }
}
