//! Taking in the configuration anew while the daemon runs: as a whole or not at all.
//!
//! Holds the order of the steps. Everything that can be judged or fail without leaving a trace comes first: the file, the DNS
//! lists, new sockets, the guard rails. Then what can fail and be undone: attachments, static entries. Then the exchange,
//! which cannot fail. Sessions under test go on by what they began with; sessions in relay never look at it again.

use std::net::TcpListener;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::clock::Now;
use crate::config::{self, Changes, Config, ConfigError, LogFormat};
use crate::control::{self, Refusal, api};
use crate::dnsbl::DnsblError;
use crate::kernel::{Kernel, KernelError};
use crate::observe;
use crate::tls::TlsError;

use super::daemon::{Daemon, Mode};
use super::sockets::Fronts;
use super::statics::Renewed;
use super::{certificate, door, interfaces, offenders, policy, pools, systemd};

/// Why the running configuration stays.
#[derive(Debug, Error)]
pub(super) enum ReloadError {
    /// The file cannot be read, or what stands in it is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The DNS lists cannot be asked.
    #[error(transparent)]
    Lists(#[from] DnsblError),
    /// The certificate cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The kernel half does not take it.
    #[error("kernel: {0}")]
    Kernel(#[from] KernelError),
    /// What the system does not give.
    #[error("{0:#}")]
    System(#[from] anyhow::Error),
}

/// Reads the configuration again and takes it in. Blocks: not for an async task, but within a runtime.
pub(super) fn reload(daemon: &Arc<Daemon>) -> Result<api::ReloadReport, Refusal> {
    let _one_at_a_time = daemon.reloading.lock().unwrap_or_else(PoisonError::into_inner);
    if daemon.retired.is_cancelled() {
        return Err(Refusal::Failed("the daemon is going down: the next one reads the configuration".to_owned()));
    }
    let begun = Instant::now();
    systemd::reloading();
    let outcome = take_in(daemon);
    systemd::ready(&daemon.in_a_line());
    daemon.metrics.reloaded(outcome.is_ok());
    match outcome {
        Ok(report) => {
            if daemon.degraded.clear("config") {
                info!("the configuration in the file is in force again");
            }
            tell(&report);
            Ok(api::ReloadReport { seconds: begun.elapsed().as_secs_f64(), ..report })
        }
        Err(refused) => {
            let text = refused.to_string();
            error!("reload refused, the configuration stays as it was: {}", one_line(&text));
            let since = daemon.live.load().read;
            let shown =
                format!("the configuration read at {since} is in force, not the one in the file: {}", one_line(&text));
            daemon.degraded.set("config", shown);
            Err(match refused {
                ReloadError::Config(_) | ReloadError::Lists(_) | ReloadError::Tls(_) => Refusal::Wrong(text),
                ReloadError::Kernel(_) | ReloadError::System(_) => Refusal::Failed(text),
            })
        }
    }
}

fn take_in(daemon: &Arc<Daemon>) -> Result<api::ReloadReport, ReloadError> {
    let running = daemon.live();
    let mut config = daemon.origin.read_again(&running.config)?;
    let changes = config.follow(&running.config, daemon.kernel.is_some());
    let mut report = api::ReloadReport {
        file: config.file.clone(),
        changed: changes.now.iter().map(|&key| key.to_owned()).collect(),
        needs_restart: changes.at_restart.iter().map(|&key| key.to_owned()).collect(),
        ..api::ReloadReport::default()
    };

    let next = Arc::new(running.next(config, &changes)?);
    let config = &next.config;
    let statics = policy::configured_statics(config, Now::read().unix)?;
    let fronts = match daemon.mode {
        Mode::Front if !daemon.fixed_fronts => daemon.sockets.prepare(&config.listen.addresses)?,
        Mode::Front | Mode::Steer => Fronts::default(),
    };
    let metrics = prepare_metrics(daemon, config, &changes)?;

    if let Some(kernel) = &daemon.kernel {
        kernel.reconfigure(&interfaces::kernel_options(config, daemon.wants_steer()).following())?;
    }
    // From here on no list comes in for a feed that is no more.
    let feeds = daemon.feeds.reconfigure(&config.feeds, Now::read().unix);
    let renewed = match daemon.renew_statics(&statics, &config.feeds) {
        Ok(renewed) => renewed,
        Err(error) => {
            daemon.feeds.give_back(feeds);
            give_back(daemon, &running.config);
            return Err(error.into());
        }
    };
    say(&renewed, &mut report);
    if !fronts.is_empty() {
        // A descriptor that cannot be doubled costs one listener; the others go on.
        if let Err(error) = daemon.sockets.exchange(daemon, fronts) {
            report.notes.push(format!("listen.addresses: one of them is not listened on: {error}"));
        }
        systemd::store(&daemon.sockets);
    } else if daemon.fixed_fronts && changes.has("listen.addresses") {
        report.notes.push("listen.addresses: the socket unit says where to listen, not this".to_owned());
    }

    let other_passes = running.policy.enabled() != next.policy.enabled() || changes.has("listen.proxy_from");
    daemon.live.store(Arc::clone(&next));
    // From here on new sessions go by it.
    if changes.has("ladder") || changes.has("kernel.offenders") {
        daemon.ledger.set_ladder(offenders::rules(config));
    }
    if let Some(lists) = &next.lists {
        lists.watch(&next.watch);
    }
    running.watch.cancel();
    if changes.has("pool") {
        pools::reconfigured(daemon, &config.pools);
    }
    if changes.has("feed") {
        daemon.feeds.reconfigured();
    }
    observe::set_format(log_format(config));
    apply_metrics(daemon, config, metrics, &mut report);
    if changes.has("control.group") {
        match control::give(&config.control) {
            Ok(()) => drop(daemon.degraded.clear("control")),
            Err(note) => {
                report.notes.push(note.clone());
                daemon.degraded.set("control", note);
            }
        }
    }
    report.notes.extend(certificate::conditions(&next.tls, Now::read().unix).into_iter().map(|(_, text)| text));
    daemon.reloaded.send_replace(());
    door::look_for_permits(daemon);
    if other_passes && let Some(note) = realign(daemon) {
        report.notes.push(note);
    }
    Ok(report)
}

/// The kernel half as it was, after what came behind it failed.
fn give_back(daemon: &Daemon, running: &Config) {
    let options = interfaces::kernel_options(running, daemon.wants_steer()).following();
    if let Some(Err(error)) = daemon.kernel.as_ref().map(|kernel| kernel.reconfigure(&options)) {
        warn!("the kernel half is not as it was before the reload: {error}");
    }
}

/// Tells the kernel which passes count under the tests that are done and the proxies that are known now. Returns what went wrong.
pub(super) fn realign(daemon: &Daemon) -> Option<String> {
    let kernel: Option<&Kernel> = daemon.kernel.as_ref();
    kernel?;
    let (done, heard) = oneshot::channel();
    let asked = daemon.realign.blocking_send(done);
    let outcome = asked.ok().and_then(|()| heard.blocking_recv().ok());
    match outcome {
        Some(Ok(())) => None,
        Some(Err(error)) => Some(format!("the kernel still goes by the passes as they were: {error}")),
        None => Some("the kernel still goes by the passes as they were: nobody follows them any more".to_owned()),
    }
}

/// The socket for the metrics, if there is to be another one.
fn prepare_metrics(daemon: &Daemon, config: &Config, changes: &Changes) -> Result<Option<TcpListener>, ReloadError> {
    let Some(wanted) = config.observe.metrics.filter(|&wanted| daemon.metrics_door.address() != Some(wanted)) else {
        return Ok(None);
    };
    match control::bind_metrics(wanted) {
        Ok(listener) => Ok(Some(listener)),
        // It could not be had at the start either, and nobody says that it should be another one.
        Err(_) if !changes.has("observe.metrics") => Ok(None),
        Err(error) => {
            Err(anyhow::anyhow!("observe.metrics: {wanted} cannot be listened on: {error}; is another program there?")
                .into())
        }
    }
}

fn apply_metrics(daemon: &Arc<Daemon>, config: &Config, listener: Option<TcpListener>, report: &mut api::ReloadReport) {
    match (listener, config.observe.metrics) {
        (Some(listener), _) => {
            if let Err(error) = daemon.metrics_door.open(daemon, listener) {
                report.notes.push(format!("observe.metrics: {error}"));
            }
            daemon.degraded.clear("metrics");
        }
        (None, None) => {
            daemon.metrics_door.close();
            daemon.degraded.clear("metrics");
        }
        (None, Some(_)) => {}
    }
}

fn say(renewed: &Renewed, report: &mut api::ReloadReport) {
    if !renewed.is_empty() {
        report.notes.push(renewed.to_string());
    }
}

fn tell(report: &api::ReloadReport) {
    let file = report.file.as_ref().map_or_else(|| "the defaults".to_owned(), |file| file.display().to_string());
    let changed = if report.changed.is_empty() { "nothing".to_owned() } else { report.changed.join(", ") };
    info!("{file} taken in anew, changed: {changed}");
    if !report.needs_restart.is_empty() {
        warn!("these need a restart: {}", report.needs_restart.join(", "));
    }
    for note in &report.notes {
        info!("reload: {note}");
    }
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

/// The form of the log.
pub(super) fn log_format(config: &Config) -> observe::Format {
    match config.observe.log {
        LogFormat::Postscreen => observe::Format::Postscreen,
        LogFormat::Json => observe::Format::Json,
    }
}

impl Daemon {
    /// Whether clients are to be steered, as far as the configuration goes.
    pub(super) fn wants_steer(&self) -> bool {
        self.live.load().config.listen.mode != config::Mode::Front
    }
}
