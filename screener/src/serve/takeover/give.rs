//! The old daemon's side: stopping, giving, and either leaving or going on.
//!
//! Keeps a copy of whatever it gives until the new one stands.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use tracing::{error, info, warn};

use super::super::daemon::Daemon;
use super::super::{offenders, reload, systemd};
use super::process::Process;
use super::{ANSWER, Given, Offer, PROTOCOL, Reply, Rest, STAND, Word, hear, meeting, say};
use crate::control::Refusal;
use crate::control::api;
use crate::kernel::Kernel;
use crate::ledger::Said;

/// How much sessions may say while nobody reads it.
const QUEUE: usize = 65_536;
/// How long a new daemon that is sent away has to end by itself.
const LEAVE: Duration = Duration::from_secs(2);
/// How often the new daemon is told how many sessions are left.
const COUNT: Duration = Duration::from_millis(500);

/// Goes to meet the new daemon; the rest happens on a thread of its own. Blocks for a moment.
pub(in super::super) fn begin(daemon: &Arc<Daemon>) -> Result<api::Coming, Refusal> {
    if daemon.retired.is_cancelled() {
        return Err(Refusal::Failed("it is going down: wait for its end, then start".to_owned()));
    }
    let place = meeting(&daemon.live.load().config.control.socket);
    let failed = |error: io::Error| Refusal::Failed(format!("nobody is met at {}: {error}", place.display()));
    let stream = UnixStream::connect(&place).map_err(failed)?;
    let peer = socket_peercred(&stream).map_err(|error| failed(error.into()))?;
    let own = rustix::process::geteuid();
    if peer.uid != own && !peer.uid.is_root() {
        return Err(Refusal::Wrong("only root or the daemon's own user takes over".to_owned()));
    }
    let heir = Process::open(peer.pid).map_err(failed)?;
    let daemon = Arc::clone(daemon);
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("heir".to_owned()).spawn(move || {
        let _runtime = runtime.enter();
        give(&daemon, &stream, &heir);
    });
    thread.map_err(|error| Refusal::Failed(format!("no thread: {error}")))?;
    Ok(api::Coming { pid: std::process::id() })
}

fn give(daemon: &Arc<Daemon>, stream: &UnixStream, heir: &Process) {
    let pid = heir.id();
    // Nobody changes anything from here on: no reload, no static entry, no setting of the kernel half.
    let _no_reload = daemon.reloading.lock().unwrap_or_else(PoisonError::into_inner);
    if daemon.retired.is_cancelled() {
        return;
    }
    if let Err(error) = agree(stream) {
        return warn!("process {pid} did not take over: {error}");
    }
    let _no_change = daemon.changing();
    let _no_setting = daemon.kernel_hand.lock().unwrap_or_else(PoisonError::into_inner);
    info!("process {pid} takes over: no connections are accepted for the moment, they wait");
    daemon.sockets.pause();
    daemon.answering.stop();
    let (to, said) = sync_channel(QUEUE);
    daemon.ledger.tell_on(Some(to));
    match hand_over(daemon, stream) {
        Ok(()) => retire(daemon, stream, said, pid),
        Err(why) => {
            error!("process {pid} did not take over, this one goes on: {why}");
            send_away(stream, heir, &why.to_string());
            drop(said);
            go_on(daemon);
        }
    }
}

fn agree(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let version = crate::version::own().to_owned();
    say(stream, &Offer { protocol: PROTOCOL, version, pid: std::process::id() }, &[])?;
    match hear::<Word>(stream)? {
        (Word::Go, _) => Ok(()),
        (word, _) => Err(io::Error::other(format!("it said {word:?}"))),
    }
}

/// Closes the file and gives everything; returns when the new daemon stands.
fn hand_over(daemon: &Daemon, stream: &UnixStream) -> anyhow::Result<()> {
    daemon.ledger.let_go()?;
    // What could not be written the new one looks up itself.
    daemon.pools.save();
    let mut descriptors: Vec<OwnedFd> = daemon.answering.descriptors()?.into();
    let lock = daemon.kernel.as_ref().map(Kernel::lock_to_give).transpose()?.flatten();
    let metrics = daemon.metrics_door.descriptor()?;
    let doors = daemon.sockets.descriptors()?;
    let given = Given {
        kernel: lock.is_some(),
        metrics: metrics.is_some(),
        fixed: daemon.fixed_fronts,
        doors: doors.iter().map(|(door, _)| (*door).into()).collect(),
    };
    descriptors.extend(lock.into_iter().chain(metrics).chain(doors.into_iter().map(|(_, descriptor)| descriptor)));
    let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    say(stream, &Reply::Given(given), &borrowed)?;
    stream.set_read_timeout(Some(STAND))?;
    match hear::<Word>(stream) {
        Ok((Word::Standing, _)) => Ok(()),
        Ok((word, _)) => anyhow::bail!("it said {word:?}"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            anyhow::bail!("it ended before it stood: its own output says why")
        }
        Err(error) => anyhow::bail!("it did not stand in time: {error}"),
    }
}

/// Sees to it that the new daemon, which may only be slow, ends before anything is taken back: it would stand one day, and two would
/// serve in one place, with one file and one socket.
fn send_away(stream: &UnixStream, heir: &Process, why: &str) {
    // It may still be listening for a reason; then it goes by itself.
    let _ = say(stream, &Reply::Cannot(why.to_owned()), &[]);
    if heir.ends_within(LEAVE) {
        return;
    }
    warn!("process {} does not go by itself and is killed", heir.id());
    if let Err(error) = heir.kill() {
        error!("process {} cannot be killed: {error}; kill it, or two daemons serve here", heir.id());
    }
    heir.ends_within(ANSWER);
}

/// The new daemon stands: nothing here is this one's any more but its sessions.
fn retire(daemon: &Arc<Daemon>, stream: &UnixStream, said: Receiver<Said>, pid: u32) {
    systemd::main_process_is(pid);
    if let Some(kernel) = &daemon.kernel {
        kernel.leave_to_heir();
    }
    daemon.answering.close();
    daemon.metrics_door.close();
    daemon.sockets.close();
    let sessions = daemon.limits.active();
    info!("process {pid} stands in this one's place; {sessions} sessions go on here until they end");
    let teller = {
        let (daemon, stream) = (Arc::clone(daemon), stream.try_clone());
        std::thread::Builder::new().name("heir-news".to_owned()).spawn(move || {
            if let Err(error) = stream.and_then(|stream| tell(&daemon, &stream, &said)) {
                warn!("what the last sessions earn is not told on: {error}");
            }
        })
    };
    match teller {
        Ok(teller) => *daemon.telling.lock().unwrap_or_else(PoisonError::into_inner) = Some(teller),
        Err(error) => warn!("what the last sessions earn is not told on: {error}"),
    }
    // Last: whoever waits for it ends the process when the sessions have ended.
    daemon.retired.cancel();
}

fn tell(daemon: &Daemon, stream: &UnixStream, said: &Receiver<Said>) -> io::Result<()> {
    loop {
        let rest = match said.recv_timeout(COUNT) {
            Ok(said) => Rest::Said(said),
            Err(RecvTimeoutError::Timeout) => Rest::Sessions(daemon.limits.active()),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        say(stream, &rest, &[])?;
    }
}

/// The new daemon came to nothing: as it was before.
fn go_on(daemon: &Arc<Daemon>) {
    daemon.ledger.tell_on(None);
    daemon.ledger.take_back();
    if let Err(error) = stand_again(daemon) {
        let text = format!("the kernel half is not as it was before another daemon tried to take over: {error}");
        warn!("{text}");
        daemon.degraded.set("takeover", text);
    }
    if let Err(error) = daemon.sockets.resume(daemon) {
        error!("connections are not accepted any more: {error}; start the daemon again");
    }
    if let Err(error) = daemon.answering.start(daemon) {
        error!("the control socket is not answered any more: {error}; start the daemon again");
    }
}

fn stand_again(daemon: &Arc<Daemon>) -> anyhow::Result<()> {
    let Some(kernel) = &daemon.kernel else { return Ok(()) };
    kernel.attach()?;
    daemon.sockets.put_behind_steer(kernel)?;
    kernel.sync_statics(daemon.statics().effective())?;
    offenders::align(&daemon.ledger, &daemon.live().config, &daemon.statics(), kernel)?;
    if let Some(note) = reload::realign(daemon) {
        anyhow::bail!(note);
    }
    Ok(())
}
