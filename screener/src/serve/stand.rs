//! How the daemon comes to stand: behind `steer` if that can be had, else in front of the MTA.
//!
//! Holds the order in which the kernel half is brought up: open, fill, attach. No packet meets a program whose maps are not
//! full yet, whether it is the first one ever or takes over from a daemon of another version.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::Context;
use tracing::warn;

use crate::config::{self, Config};
use crate::feed::StaticSet;
use crate::kernel::{self, Kernel, KernelError, XdpPolicy};
use crate::ledger::{Changes, Ledger};

use super::daemon::Mode;
use super::degraded::Degraded;
use super::sockets::{Door, Inherited, Listening};
use super::{interfaces, listen, mirror, offenders};

/// What the kernel must know before a packet asks it.
pub(super) struct Content<'a> {
    pub(super) ledger: &'a Ledger,
    /// What a pass must cover, and who is a proxy.
    pub(super) config: &'a Config,
    /// The static entries.
    pub(super) statics: &'a StaticSet,
}

/// The way in which the daemon stands, and what it needs for it.
pub(super) struct Stand {
    pub(super) mode: Mode,
    pub(super) kernel: Option<Filled>,
    /// The front sockets.
    pub(super) fronts: Vec<Listening>,
}

/// The kernel half, attached, with the changes of passes since it was filled.
pub(super) struct Filled {
    pub(super) kernel: Kernel,
    pub(super) changes: Changes,
}

impl Filled {
    fn start(options: &kernel::Options, content: &Content<'_>, lock: Option<OwnedFd>) -> Result<Self, KernelError> {
        let kernel = Kernel::open_after(options, lock)?;
        mirror::tell_strangers(content.statics, &kernel);
        kernel.sync_statics(content.statics.effective())?;
        let changes = mirror::align(content.ledger, content.config, &kernel)?;
        offenders::align(content.ledger, content.config, content.statics, &kernel)?;
        kernel.attach()?;
        Ok(Self { kernel, changes })
    }
}

impl Stand {
    /// Takes the best way that the configuration and the system allow, and says what was not to be had. Takes the front sockets
    /// that it needs out of those inherited; `lock`: of the pin directory, given by the daemon before.
    pub(super) fn find(
        content: &Content<'_>,
        degraded: &Degraded,
        inherited: &mut Inherited,
        lock: Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let config = content.config;
        let steer = config.listen.mode != config::Mode::Front;
        let options = options(config, steer, degraded);
        match Filled::start(&options, content, lock) {
            Ok(filled) => {
                let status = filled.kernel.status()?;
                for sentence in &status.degraded {
                    warn!("{sentence}");
                }
                if status.steer.attached {
                    return Ok(Self { mode: Mode::Steer, kernel: Some(filled), fronts: Vec::new() });
                }
                let reason = status.steer.reason.unwrap_or_default();
                anyhow::ensure!(
                    config.listen.mode != config::Mode::Steer,
                    "listen.mode = \"steer\", but no client can be steered: {reason}"
                );
                Self::front(config, Some(filled), steer.then_some(reason), degraded, inherited)
            }
            // Not a lack of anything: two daemons would fight over the same clients.
            Err(error @ KernelError::Busy { .. }) => Err(error.into()),
            Err(error) if config.listen.mode == config::Mode::Steer => {
                Err(error).context("listen.mode = \"steer\", but the kernel half cannot be attached")
            }
            // Nothing was asked of the kernel that front mode needs.
            Err(_) if !steer && options.xdp == XdpPolicy::Off => Self::front(config, None, None, degraded, inherited),
            Err(error) => Self::front(config, None, Some(error.to_string()), degraded, inherited),
        }
    }

    fn front(
        config: &Config,
        kernel: Option<Filled>,
        instead_of_steer: Option<String>,
        degraded: &Degraded,
        inherited: &mut Inherited,
    ) -> anyhow::Result<Self> {
        let why = instead_of_steer.as_deref().map_or_else(String::new, |reason| format!(" (steer mode: {reason})"));
        let bind = |&address: &SocketAddr| {
            let doors = &mut inherited.doors;
            if let Some(at) = doors.iter().position(|it| it.door == Door::Front && it.address == address) {
                return Ok(doors.swap_remove(at));
            }
            let bound = listen::bind(address, false).and_then(|socket| Listening::new(Door::Front, socket));
            bound.with_context(|| {
                format!("{address} cannot be listened on in front mode{why}: if the MTA has the port, move it to backend.address")
            })
        };
        let fronts = if inherited.fixed {
            let (fronts, others) = inherited.doors.drain(..).partition(|listening| listening.door == Door::Front);
            inherited.doors = others;
            fronts
        } else {
            config.listen.addresses.iter().map(bind).collect::<anyhow::Result<_>>()?
        };
        if let Some(reason) = instead_of_steer {
            let text = format!("in front mode, every connection goes through the daemon, because: {reason}");
            warn!("{text}");
            degraded.set("kernel", text);
        }
        Ok(Self { mode: Mode::Front, kernel, fronts })
    }
}

fn options(config: &Config, steer: bool, degraded: &Degraded) -> kernel::Options {
    let options = interfaces::kernel_options(config, steer);
    if options.interfaces.is_empty() && options.xdp != XdpPolicy::Off {
        warn!("{}", interfaces::NONE);
        degraded.set("xdp", interfaces::NONE.to_owned());
    }
    options.following()
}
