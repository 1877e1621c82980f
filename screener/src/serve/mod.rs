//! The daemon's life: it starts, accepts, drives sessions, answers the control socket, and goes down without losing mail.
//!
//! Decides nothing about a client: the engine does, from what stands in the ledger, the static set and the DNS lists.

mod answers;
mod daemon;
mod degraded;
mod drive;
mod interfaces;
mod limits;
mod listen;
mod lists;
mod mirror;
mod policy;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::Now;
use crate::config::{self, Config, LogFormat};
use crate::control;
use crate::dnsbl::Dnsbl;
use crate::kernel::{self, Class, Family, Kernel, XdpPolicy};
use crate::ledger::{self, Ledger};
use crate::observe::{self, Metrics};
use crate::session::Features;

use daemon::{Counts, Daemon, Mode};
use degraded::Degraded;
use limits::Limits;

/// How long relays may go on when the daemon is told to stop. Most mails take seconds.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the daemon until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// When it cannot stand in any way: no listener, the ledger or the control socket in use by another screener, a
/// configuration that contradicts itself.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    observe::init(match config.observe.log {
        LogFormat::Postscreen => observe::Format::Postscreen,
        LogFormat::Json => observe::Format::Json,
    })?;
    raise_descriptors();
    // First of all, and until the end: what keeps a second daemon away from the ledger and the kernel.
    let control = control::Server::bind(&config.control)?;
    let started = Now::read();
    let (ledger, found) = Ledger::open(&config.ledger.path, ledger_options(&config))?;
    for sentence in &found.degraded {
        warn!("{sentence}");
    }
    let statics = policy::statics(&config, &ledger, started.unix)?;
    let lists = Dnsbl::configured(&config.tests.dnsbl)?;
    let degraded = Degraded::default();
    if let Some(note) = control.note() {
        warn!("{note}");
        degraded.set("control", note.to_owned());
    }
    let stand = Stand::find(&config, &degraded)?;
    for note in config.notes() {
        info!("note: {note}");
    }

    let daemon = Arc::new(Daemon {
        mode: stand.mode,
        policy: Arc::new(policy::policy(&config)),
        features: ArcSwap::from_pointee(Features::default()),
        limits: Limits::new(
            config.limits.connections.get() as usize,
            config.limits.per_client.map_or(0, |most| most.get() as usize),
        ),
        ledger,
        statics: statics.into(),
        lists,
        kernel: stand.kernel,
        metrics: Metrics::default(),
        counts: Counts::default(),
        degraded,
        going_down: CancellationToken::new(),
        tasks: TaskTracker::new(),
        started,
        config,
    });
    info!(
        "screener {} in {} mode: {} passes, {} static entries",
        env!("CARGO_PKG_VERSION"),
        daemon.mode.name(),
        daemon.ledger.pass_count(),
        daemon.statics().len()
    );

    lists::begin(&daemon);
    fill_kernel(&daemon)?;
    listen(&daemon, stand.listeners)?;
    tokio::spawn(upkeep::learn_features(Arc::clone(&daemon)));
    tokio::spawn(upkeep::expire(Arc::clone(&daemon)));
    if let Some(address) = daemon.config.observe.metrics
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

/// The way in which the daemon stands, and what it needs for it.
struct Stand {
    mode: Mode,
    kernel: Option<Kernel>,
    listeners: Vec<TcpListener>,
}

impl Stand {
    /// Takes the best way that the configuration and the system allow, and says what was not to be had.
    fn find(config: &Config, degraded: &Degraded) -> anyhow::Result<Self> {
        let steer = config.listen.mode != config::Mode::Front;
        match Kernel::start(&kernel_options(config, steer, degraded)) {
            Ok(kernel) => {
                let status = kernel.status()?;
                for sentence in &status.degraded {
                    warn!("{sentence}");
                }
                if status.steer.attached {
                    return Ok(Self { mode: Mode::Steer, kernel: Some(kernel), listeners: Vec::new() });
                }
                let reason = status.steer.reason.unwrap_or_default();
                anyhow::ensure!(
                    config.listen.mode != config::Mode::Steer,
                    "listen.mode = \"steer\", but no client can be steered: {reason}"
                );
                Self::front(config, Some(kernel), steer.then_some(reason), degraded)
            }
            Err(error) if config.listen.mode == config::Mode::Steer => {
                Err(error).context("listen.mode = \"steer\", but the kernel half cannot be attached")
            }
            Err(error) => Self::front(config, None, Some(error.to_string()), degraded),
        }
    }

    fn front(
        config: &Config,
        kernel: Option<Kernel>,
        instead_of_steer: Option<String>,
        degraded: &Degraded,
    ) -> anyhow::Result<Self> {
        let why = instead_of_steer.as_deref().map_or_else(String::new, |reason| format!(" (steer mode: {reason})"));
        let bind = |&address: &SocketAddr| {
            listen::bind(address).with_context(|| {
                format!("{address} cannot be listened on in front mode{why}: if the MTA has the port, move it to backend.address")
            })
        };
        let listeners = config.listen.addresses.iter().map(bind).collect::<Result<_, _>>()?;
        if let Some(reason) = instead_of_steer {
            let text = format!("in front mode, every connection goes through the daemon, because: {reason}");
            warn!("{text}");
            degraded.set("kernel", text);
        }
        Ok(Self { mode: Mode::Front, kernel, listeners })
    }
}

/// Puts what the daemon knows into the kernel, and begins to exchange news with it.
fn fill_kernel(daemon: &Arc<Daemon>) -> anyhow::Result<()> {
    let Some(kernel) = &daemon.kernel else { return Ok(()) };
    kernel.sync_statics(daemon.statics().effective())?;
    let changes = mirror::align(daemon, kernel)?;
    tokio::spawn(mirror::follow(Arc::clone(daemon), changes));
    tokio::spawn(mirror::hear(Arc::clone(daemon), kernel.events()?));
    if let Some(lines) = kernel.logs()? {
        tokio::spawn(lines.run());
    }
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

fn kernel_options(config: &Config, steer: bool, degraded: &Degraded) -> kernel::Options {
    let xdp = match config.kernel.xdp {
        config::XdpMode::Auto => XdpPolicy::Auto,
        config::XdpMode::Native => XdpPolicy::Native,
        config::XdpMode::Generic => XdpPolicy::Generic,
        config::XdpMode::Off => XdpPolicy::Off,
    };
    let mut interfaces: Vec<_> = config.kernel.interfaces.iter().map(ToString::to_string).collect();
    if interfaces.is_empty() && xdp != XdpPolicy::Off {
        interfaces = interfaces::with_default_route();
        if interfaces.is_empty() {
            let text = "XDP is not attached: kernel.interfaces is empty and there is no default route to tell the \
                        interface that faces the Internet; name it there, or set kernel.xdp = \"off\"";
            warn!("{text}");
            degraded.set("xdp", text.to_owned());
        }
    }
    kernel::Options {
        interfaces,
        xdp,
        steer,
        ports: config.kernel.ports.clone(),
        pin: config.kernel.pin.clone(),
        key_length: config.ledger.ipv6_prefix,
        event_sample: 1,
    }
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
