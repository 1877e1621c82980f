//! The new daemon's side: asking, taking, saying that it stands.
//!
//! Never waits for anything without an end. Whatever fails before it says that it stands ends this process, and with that
//! everything that it was given here; the old daemon has copies.

use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use tracing::{info, warn};

use super::super::daemon::Daemon;
use super::super::live::Live;
use super::super::sockets::Listening;
use super::super::{interfaces, policy};
use super::{ANSWER, GivenDoor, Offer, PROTOCOL, Reply, Rest, Word, hear, meeting, say};
use crate::clock::Now;
use crate::config::{Config, Mode};
use crate::control::{self, Client, ClientError, api};
use crate::kernel::{self, KernelError, XdpPolicy};

/// What was given.
pub(in super::super) struct Inheritance {
    pub(in super::super) control: control::Server,
    pub(in super::super) kernel_lock: Option<OwnedFd>,
    pub(in super::super) doors: Vec<Listening>,
    /// The front ones are those of a socket unit.
    pub(in super::super) fixed: bool,
    pub(in super::super) metrics: Option<TcpListener>,
    pub(in super::super) predecessor: Predecessor,
}

/// The old daemon, which waits to hear that this one stands.
pub(in super::super) struct Predecessor {
    stream: UnixStream,
    pid: u32,
    asked: Instant,
}

/// Finds what is wrong with this daemon before anybody leaves a place for it.
///
/// # Errors
/// With what would keep it from standing.
pub(in super::super) fn rehearse(config: &Config) -> anyhow::Result<()> {
    Live::new(config.clone())?;
    policy::configured_statics(config, Now::read().unix)?;
    let options = interfaces::kernel_options(config, config.listen.mode != Mode::Front);
    let wants_screen = options.xdp != XdpPolicy::Off && !options.interfaces.is_empty();
    match kernel::rehearse(options.steer, wants_screen) {
        Err(error @ KernelError::Verifier { .. }) => {
            Err(error).context("the kernel would not take this version's programs")
        }
        // What it lacks it lacked before: this daemon then stands in the best way there is, as at any start.
        Err(_) if config.listen.mode != Mode::Steer => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Asks the daemon that runs for its place. `None`: none runs.
///
/// # Errors
/// When it does not give it; it goes on then.
pub(in super::super) async fn ask(config: &Config) -> anyhow::Result<Option<Inheritance>> {
    let asked = Instant::now();
    let place = meeting(&config.control.socket);
    // Of one that broke; nobody waits there, or the old daemon would be giving.
    let _ = std::fs::remove_file(&place);
    let waiting = match UnixListener::bind(&place) {
        Ok(waiting) => waiting,
        // No directory for a control socket: nobody runs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be made", place.display())),
    };
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o600))?;
    let coming = Client::new(config.control.socket.clone()).post::<api::Coming>("/v1/takeover", &()).await;
    let taken = match coming {
        Err(ClientError::NotRunning(_)) => Ok(None),
        Err(ClientError::Broken { .. }) => Err(anyhow::anyhow!(
            "the daemon that runs does not know how to hand over: stop it (systemctl restart screener does both)"
        )),
        Err(error) => Err(error.into()),
        Ok(_) => {
            let config = config.clone();
            tokio::task::spawn_blocking(move || take(&waiting, &config, asked)).await?.map(Some)
        }
    };
    let _ = std::fs::remove_file(&place);
    taken
}

fn take(waiting: &UnixListener, config: &Config, asked: Instant) -> anyhow::Result<Inheritance> {
    // It connected before it answered, so this waits for nothing.
    waiting.set_nonblocking(true)?;
    let (stream, _) = waiting.accept().context("the daemon that runs did not come")?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let (offer, _) = hear::<Offer>(&stream).context("the daemon that runs said nothing")?;
    ensure!(
        offer.protocol == PROTOCOL,
        "the daemon that runs (version {}) hands over in another way: stop it (systemctl restart screener does both)",
        offer.version
    );
    say(&stream, &Word::Go, &[])?;
    let (reply, descriptors) = hear::<Reply>(&stream).context("the daemon that runs gave nothing")?;
    let given = match reply {
        Reply::Given(given) => given,
        Reply::Cannot(why) => bail!("the daemon that runs keeps its place: {why}"),
    };
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().context("the daemon that runs gave fewer descriptors than it said");
    let control = control::Server::inherited(&config.control, next()?, next()?)?;
    let kernel_lock = given.kernel.then(&mut next).transpose()?;
    let metrics = given.metrics.then(&mut next).transpose()?.map(TcpListener::from);
    let door = |door: GivenDoor| Ok(Listening::new(door.into(), TcpListener::from(next()?))?);
    let doors = given.doors.into_iter().map(door).collect::<anyhow::Result<Vec<_>>>()?;
    info!("taking over from process {} (version {}): {} listening sockets", offer.pid, offer.version, doors.len());
    let predecessor = Predecessor { stream, pid: offer.pid, asked };
    Ok(Inheritance { control, kernel_lock, doors, fixed: given.fixed, metrics, predecessor })
}

impl Predecessor {
    /// Tells the old daemon that this one stands, and hears what its sessions still earn.
    ///
    /// # Errors
    /// When it is gone: nobody is left who could go on, so that is no reason not to stand.
    pub(in super::super) fn relieve(self, daemon: &Arc<Daemon>) -> io::Result<()> {
        say(&self.stream, &Word::Standing, &[])?;
        info!("taken over from process {} in {:.2} s", self.pid, self.asked.elapsed().as_secs_f64());
        self.stream.set_read_timeout(None)?;
        daemon.set_predecessor(Some(api::Predecessor { pid: self.pid, sessions: 0 }));
        let daemon = Arc::clone(daemon);
        // It lives as long as the old daemon, which ends by itself.
        std::thread::Builder::new().name("predecessor".to_owned()).spawn(move || self.listen(&daemon))?;
        Ok(())
    }

    fn listen(self, daemon: &Daemon) {
        for line in BufReader::new(self.stream).lines() {
            let heard = line.and_then(|line| Ok(serde_json::from_str(&line)?));
            match heard {
                Ok(Rest::Said(said)) => daemon.ledger.hear(said),
                Ok(Rest::Sessions(sessions)) => {
                    daemon.set_predecessor(Some(api::Predecessor { pid: self.pid, sessions }));
                }
                Err(error) => {
                    warn!("process {} is not heard any more: {error}", self.pid);
                    break;
                }
            }
        }
        daemon.set_predecessor(None);
        info!("process {}, from which this one took over, has ended its sessions", self.pid);
    }
}

impl Daemon {
    fn set_predecessor(&self, predecessor: Option<api::Predecessor>) {
        *self.predecessor.lock().unwrap_or_else(PoisonError::into_inner) = predecessor;
    }
}
