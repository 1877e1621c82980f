//! The daemon's life: it starts, accepts, drives sessions, answers the control socket, and goes down without losing mail.
//!
//! Decides nothing about a client: the engine does, from what stands in the ledger, the static set and the DNS lists.

mod answers;
mod certificate;
mod daemon;
mod degraded;
mod door;
mod drive;
mod interfaces;
mod limits;
mod listen;
mod lists;
mod live;
mod mirror;
mod policy;
mod stand;
mod statics;
mod stream;
mod tend;
mod upkeep;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::Now;
use crate::config::{Config, LogFormat};
use crate::control;
use crate::kernel::{Class, Family};
use crate::ledger::{self, Changes, Ledger};
use crate::observe::{self, Metrics};
use crate::session::Features;

use daemon::{Counts, Daemon, Mode};
use degraded::Degraded;
use limits::Limits;
use live::Live;
use stand::{Content, Filled, Stand};

pub(crate) use interfaces::{NONE, kernel_options};

/// How long relays may go on when the daemon is told to stop. Most mails take seconds.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the daemon until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// When it cannot stand in any way: no listener, the ledger or the control socket in use by another screener, a
/// configuration that contradicts itself.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    // Dropped at the end of everything: then the last lines are written.
    let form = match config.observe.log {
        LogFormat::Postscreen => observe::Format::Postscreen,
        LogFormat::Json => observe::Format::Json,
    };
    let _flush = observe::init(form, config.observe.program.as_str())?;
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

    let daemon = Arc::new(Daemon {
        mode: stand.mode,
        key_length: config.ledger.ipv6_prefix,
        features: ArcSwap::from_pointee(Features::default()),
        learn_again: Notify::new(),
        limits: Limits::new(
            config.limits.connections.get() as usize,
            config.limits.per_client.map_or(0, |most| most.get() as usize),
        ),
        ledger,
        statics: statics.into(),
        changing: Mutex::default(),
        kernel,
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
    mirror_kernel(&daemon, changes)?;
    upkeep::learn_features(Arc::clone(&daemon)).await;
    listen(&daemon, stand.listeners)?;
    tokio::spawn(upkeep::expire(Arc::clone(&daemon)));
    if let Some(address) = daemon.live().config.observe.metrics
        && let Err(error) = control::serve_metrics(address, Arc::clone(&daemon), daemon.going_down.clone()).await
    {
        let text = format!("metrics are only on the control socket: {address} cannot be listened on: {error}");
        warn!("{text}");
        daemon.degraded.set("metrics", text);
    }
    let serving = tokio::spawn(control.serve(Arc::clone(&daemon), daemon.going_down.clone()));
    wait_for_the_end().await?;

    info!("going down: {} sessions, relays have {} s", daemon.limits.active(), DRAIN.as_secs());
    daemon.going_down.cancel();
    daemon.tasks.close();
    if tokio::time::timeout(DRAIN, daemon.tasks.wait()).await.is_err() {
        warn!("{} sessions did not end in time and are cut off", daemon.limits.active());
    }
    serving.await.context("the control socket's task broke")?;
    // The last batch of the ledger; the drop of the daemon would write it too, but could not say what went wrong.
    tokio::task::spawn_blocking(move || daemon.ledger.flush()).await??;
    Ok(())
}

/// Begins to exchange news with the kernel.
fn mirror_kernel(daemon: &Arc<Daemon>, changes: Option<Changes>) -> anyhow::Result<()> {
    let (Some(kernel), Some(changes)) = (&daemon.kernel, changes) else { return Ok(()) };
    tokio::spawn(mirror::follow(Arc::clone(daemon), changes));
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
                tokio::spawn(listen::accept(Arc::clone(daemon), listener, class == Class::Tagged));
            }
        }
    }
    for listener in fronts {
        tokio::spawn(listen::accept(Arc::clone(daemon), listener, false));
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

async fn wait_for_the_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
