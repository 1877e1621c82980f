//! The kernel half as the daemon sees it: load, attach, pin, fill, read. The only user of aya.
//!
//! Holds no decision about any client: it mirrors what `ledger/` and `feed/` decide into maps, and tells what the
//! programs saw. What it attaches outlives the process: a daemon that dies takes its listeners along, so that every client
//! reaches the MTA, while denied prefixes stay dropped; the next one takes the attachments over without a gap.

mod attach;
mod boot;
mod counters;
mod error;
mod events;
mod interface;
mod load;
mod offline;
mod options;
mod passes;
mod pin;
mod settings;
mod statics;
mod status;
pub mod text;

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{MapData, MapError, RingBuf, SockMap};
use aya_log::EbpfLogger;
use ipnet::IpNet;
use screener_ebpf as abi;

use crate::client::ClientKey;
use crate::clock::UnixTime;
use crate::feed::StaticAction;

pub use self::counters::CounterValue;
pub use self::error::KernelError;
pub use self::events::{Event, EventStream, Hook, LogStream, Verdict};
pub use self::interface::Mode;
pub use self::offline::Pinned;
pub use self::options::{Class, DEFAULT_PIN, Family, Options, XdpPolicy};
pub use self::pin::DetachReport;
pub use self::settings::{BadSetting, Setting};
pub use self::statics::{StaticKind, SyncReport};
pub use self::status::{InterfaceStatus, MapStatus, Status, SteerStatus};

use self::counters::Counters;
use self::passes::Passes;
use self::pin::PinDirectory;
use self::statics::Statics;

/// The kernel half of a running daemon.
///
/// May be shared between tasks. The calls are short system calls and do not yield; [`Kernel::sync_statics`] and
/// [`Kernel::sync_passes`] make several a entry: with more than some thousand entries call them from a blocking task.
pub struct Kernel {
    pin: PinDirectory,
    known: status::Known,
    statics: Mutex<Statics>,
    passes: Mutex<Passes>,
    sockets: Mutex<SockMap<MapData>>,
    counters: Counters,
    events: Mutex<Option<RingBuf<MapData>>>,
    logs: Mutex<Option<EbpfLogger<&'static dyn log::Log>>>,
}

impl Kernel {
    /// Loads the programs, takes over what is pinned or makes it, attaches and pins.
    ///
    /// What could be attached stays attached when something else could not: [`Kernel::status`] says what and why. It is
    /// an error if nothing of what was asked for could be attached, and then the cause is the first one met. The
    /// listeners are not set: until [`Kernel::set_listener`] every client goes to the MTA.
    pub fn start(options: &Options) -> Result<Self, KernelError> {
        let pin = PinDirectory::open(&options.pin)?;
        let started = Self::start_in(&pin, options);
        match started {
            Ok(parts) => Ok(parts.with(pin)),
            Err(error) => {
                if let Err(also) = pin.remove_if_unused() {
                    log::warn!("{also}");
                }
                Err(error)
            }
        }
    }

    fn start_in(pin: &PinDirectory, options: &Options) -> Result<Parts, KernelError> {
        let mut object = load::object(pin)?;
        let mut settings = load::SettingsMap::take(&mut object, pin)?;
        let mut passes = Passes::take(&mut object, pin)?;
        let before = settings.read()?;
        // Until `steer` stands, keep saying what is true now: that an earlier daemon attached it, or not.
        let steered = before.flags & abi::Settings::STEERED != 0;
        let wanted = load::settings(options, steered)?;
        if before.key_mask != wanted.key_mask {
            passes.clear_v6()?;
        }
        settings.write(wanted)?;
        let parts = Parts {
            known: status::Known::default(),
            statics: Statics::take(&mut object, pin)?,
            passes,
            sockets: load::take(&mut object, pin, abi::maps::SOCKETS)?,
            counters: Counters::take(&mut object, pin)?,
            events: load::take(&mut object, pin, abi::maps::EVENTS)?,
            logs: if load::logs_wanted() { EbpfLogger::init(&mut object).ok() } else { None },
        };
        let known = attach_all(&mut object, pin, options)?;
        settings.write(load::settings(options, options.steer && known.steer.is_none())?)?;
        pin.remove_other_versions()?;
        Ok(Parts { known, ..parts })
    }

    /// Gives `steer` the daemon's listener for a class and family, in place of the one before. It leaves the map by
    /// itself when it is closed. A dual-stack listener takes both families and is set twice.
    ///
    /// The listener needs `SO_REUSEADDR`, or the MTA cannot restart while connections of it live.
    pub fn set_listener(&self, class: Class, family: Family, listener: &impl AsFd) -> Result<(), KernelError> {
        let slot = abi::socket_slot(class.to_abi(), family.to_abi());
        let set = lock(&self.sockets).set(slot, &listener.as_fd().as_raw_fd(), 0);
        set.map_err(|error| match error {
            MapError::SyscallError(error) => KernelError::Listener { class: class.name(), source: error.io_error },
            error => KernelError::map(abi::maps::SOCKETS, abi::SOCKET_SLOTS, error),
        })
    }

    /// Takes a listener out: its clients go to the MTA. Nothing happens if there is none.
    pub fn clear_listener(&self, class: Class, family: Family) -> Result<(), KernelError> {
        let slot = abi::socket_slot(class.to_abi(), family.to_abi());
        match lock(&self.sockets).clear_index(&slot) {
            // EINVAL is the socket map's word for an empty slot.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other.map_err(|error| KernelError::map(abi::maps::SOCKETS, abi::SOCKET_SLOTS, error)),
        }
    }

    /// Makes the static lists in the kernel equal to `entries`; of two entries with one prefix in one list the later
    /// holds. An address that is covered before and after is covered at every moment between.
    pub fn sync_statics(
        &self,
        entries: impl IntoIterator<Item = (IpNet, StaticAction)>,
    ) -> Result<SyncReport, KernelError> {
        lock(&self.statics).sync(entries)
    }

    /// Adds one entry, or changes the action of the one with this prefix.
    pub fn put_static(&self, net: IpNet, action: StaticAction) -> Result<(), KernelError> {
        lock(&self.statics).put(net, action)
    }

    /// Removes the entry with exactly this prefix from one of the lists. Returns whether it was there.
    pub fn del_static(&self, net: IpNet, kind: StaticKind) -> Result<bool, KernelError> {
        lock(&self.statics).remove(net, kind)
    }

    /// Every permit and deny in the kernel, in the order of the prefixes.
    pub fn list_statics(&self) -> Result<Vec<(IpNet, StaticAction)>, KernelError> {
        lock(&self.statics).list()
    }

    /// Leaves a client to the MTA until a moment. The key must be cut to the key length in the options.
    pub fn put_pass(&self, client: ClientKey, until: UnixTime) -> Result<(), KernelError> {
        lock(&self.passes).put(client, until)
    }

    /// Screens a client again. Returns whether it had a pass.
    pub fn del_pass(&self, client: ClientKey) -> Result<bool, KernelError> {
        lock(&self.passes).remove(client)
    }

    /// Makes the passes in the kernel equal to `passes`, leaving out what has expired; times of last use are kept.
    pub fn sync_passes(
        &self,
        passes: impl IntoIterator<Item = (ClientKey, UnixTime)>,
    ) -> Result<SyncReport, KernelError> {
        lock(&self.passes).sync(passes)
    }

    /// When the kernel last let a client through to the MTA by its pass; `None`: never, or it has none.
    pub fn pass_last_used(&self, client: ClientKey) -> Result<Option<UnixTime>, KernelError> {
        lock(&self.passes).last_used(client)
    }

    /// Every counter, in a fixed order. They count on from daemon to daemon.
    pub fn counters(&self) -> Result<Vec<CounterValue>, KernelError> {
        self.counters.read()
    }

    /// The stream of events. There is one: a second call fails. Must be called within a tokio runtime.
    pub fn events(&self) -> Result<EventStream, KernelError> {
        EventStream::new(lock(&self.events).take().ok_or(KernelError::EventsTaken)?)
    }

    /// The programs' debug lines; `None` if the log target `screener_ebpf` was not enabled at level debug when this
    /// started, or at the second call. Must be called within a tokio runtime.
    pub fn logs(&self) -> Result<Option<LogStream>, KernelError> {
        lock(&self.logs).take().map(LogStream::new).transpose()
    }

    /// What is attached and how, asked of the kernel now.
    pub fn status(&self) -> Result<Status, KernelError> {
        let entries: Vec<_> = lock(&self.statics).entries().into_iter().chain(lock(&self.passes).entries()).collect();
        let directory = self.pin.path();
        let maps = status::maps(directory, |name, _| {
            Ok(entries.iter().find(|(known, _)| *known == name).map(|&(_, entries)| entries))
        })?;
        status::read(directory, &self.known, maps)
    }
}

/// A [`Kernel`] without its pin directory.
struct Parts {
    known: status::Known,
    statics: Statics,
    passes: Passes,
    sockets: SockMap<MapData>,
    counters: Counters,
    events: RingBuf<MapData>,
    logs: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl Parts {
    fn with(self, pin: PinDirectory) -> Kernel {
        Kernel {
            pin,
            known: self.known,
            statics: Mutex::new(self.statics),
            passes: Mutex::new(self.passes),
            sockets: Mutex::new(self.sockets),
            counters: self.counters,
            events: Mutex::new(Some(self.events)),
            logs: Mutex::new(self.logs),
        }
    }
}

/// Attaches both programs as far as possible, and detaches what is not wanted any more.
fn attach_all(object: &mut Ebpf, pin: &PinDirectory, options: &Options) -> Result<status::Known, KernelError> {
    let mut known = status::Known { steer_wanted: options.steer, ..status::Known::default() };
    let mut attached = false;
    let mut first_error = None;
    let mut failed = |error: KernelError| {
        let reason = error.to_string();
        first_error.get_or_insert(error);
        reason
    };
    if options.steer {
        match load::steer(object).and_then(|program| attach::steer(program, pin)) {
            Ok(()) => attached = true,
            Err(error) => known.steer = Some(failed(error)),
        }
    } else {
        pin::remove_file(&pin.steer_link())?;
        known.steer = Some("not asked for".to_owned());
    }

    let interfaces = if options.xdp == XdpPolicy::Off { &[][..] } else { &options.interfaces };
    for (name, path) in pin::screen_links(pin.path())? {
        if !interfaces.contains(&name) {
            pin::remove_file(&path)?;
        }
    }
    let mut program = if interfaces.is_empty() { None } else { Some(load::screen(object)) };
    for name in interfaces {
        let outcome = match &mut program {
            Some(Ok(program)) => attach::screen(program, pin, name, options.xdp).map_err(&mut failed),
            Some(Err(error)) => Err(error.to_string()),
            None => continue,
        };
        let reason = match outcome {
            Ok(outcome) => {
                attached = true;
                log::info!("screen attached to {name} in {} mode", outcome.mode);
                outcome.reason
            }
            Err(reason) => Some(reason),
        };
        known.interfaces.insert(name.clone(), reason);
    }
    let load_error = program.and_then(Result::err);
    match first_error.or(load_error) {
        Some(error) if !attached => Err(error),
        _ => Ok(known),
    }
}

/// Removes everything under a pin directory: attachments, programs, maps. Needs no daemon.
///
/// Where a daemon runs, it is left without any program of ours; it serves on, but no client is steered to it.
pub fn detach(pin: &Path) -> Result<DetachReport, KernelError> {
    let in_use = pin::in_use(pin);
    pin::remove(pin).map(|report| DetachReport { in_use, ..report })
}

/// What is attached and how, from the pins alone. Counts the entries of the maps one by one.
pub fn pinned_status(pin: &Path) -> Result<Status, KernelError> {
    status::read(pin, &status::Known::default(), status::maps(pin, status::count)?)
}

/// The programs do not care about a panic of ours, and a map is never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
