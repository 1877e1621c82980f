//! The kernel half as the daemon sees it: load, attach, pin, fill, read. The only user of aya.
//!
//! Holds no decision about any client: it mirrors what `ledger/` and `feed/` decide into maps, and tells what the
//! programs saw. What it attaches outlives the process: a daemon that dies takes its listeners along, so that every client
//! reaches the MTA, while denied prefixes stay dropped; the next one takes the attachments over without a gap.

mod attach;
mod boot;
mod counters;
mod driver;
mod error;
mod events;
mod foreign;
mod interface;
mod life;
mod load;
mod netlink;
mod offline;
mod options;
mod passes;
mod pin;
mod probe;
mod sampling;
mod settings;
mod statics;
mod status;
mod survey;
mod sys;
pub mod text;

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aya::maps::{MapData, MapError, RingBuf, SockMap};
use aya_log::EbpfLogger;
use ipnet::IpNet;
use screener_ebpf as abi;

use crate::client::ClientKey;
use crate::clock::UnixTime;
use crate::feed::StaticAction;

pub use self::counters::{CounterValue, EVENTS_LOST};
pub use self::error::KernelError;
pub use self::events::{Event, EventStream, Hook, LogStream, Verdict};
pub use self::foreign::Owner;
pub use self::interface::{LinkNews, Mode};
pub use self::life::{Change, Now};
pub use self::offline::Pinned;
pub use self::options::{Class, DEFAULT_PIN, Family, Options, XdpPolicy};
pub use self::pin::DetachReport;
pub use self::probe::{Feature, Found, Privileges, features, release};
pub use self::settings::{BadSetting, Setting};
pub use self::statics::{StaticKind, SyncReport};
pub use self::status::{Holder, InterfaceStatus, MapStatus, ProgramStatus, SettingsStatus, Status, SteerStatus};
pub use self::survey::{InterfaceSurvey, PinSurvey, Xdp, other_lookups, survey_interface, survey_pins};

pub use screener_ebpf::Settings;

use self::counters::Counters;
use self::life::Life;
use self::load::SettingsMap;
pub use self::passes::PassRoom;
use self::passes::Passes;
use self::pin::PinDirectory;
use self::sampling::Sampling;
use self::statics::Statics;

/// The kernel half of a running daemon.
///
/// May be shared between tasks. The calls are short system calls and do not yield; [`Kernel::sync_statics`] and
/// [`Kernel::sync_passes`] make several a entry: with more than some thousand entries call them from a blocking task.
pub struct Kernel {
    pin: PinDirectory,
    life: Mutex<Life>,
    generic_wanted: AtomicBool,
    settings: Mutex<SettingsMap>,
    sampling: Mutex<Sampling>,
    statics: Mutex<Statics>,
    passes: Mutex<Passes>,
    sockets: Mutex<SockMap<MapData>>,
    counters: Mutex<Counters>,
    events: Mutex<Option<RingBuf<MapData>>>,
    logs: Mutex<Option<EbpfLogger<&'static dyn log::Log>>>,
}

impl Kernel {
    /// Opens and attaches in one step, for those who have nothing to put into the maps between.
    pub fn start(options: &Options) -> Result<Self, KernelError> {
        let kernel = Self::open(options)?;
        kernel.attach()?;
        Ok(kernel)
    }

    /// Takes the pin directory, takes over the maps that are pinned there or makes them, and loads the programs.
    ///
    /// Nothing is attached by this. Programs that an earlier daemon attached see the ports and key lengths of these options
    /// from here on if they are of this version; otherwise they have maps of their own, which stay as they are. It is an
    /// error if nothing of what was asked for can be loaded.
    pub fn open(options: &Options) -> Result<Self, KernelError> {
        Self::open_after(options, None)
    }

    /// As [`Kernel::open`], with the lock that the daemon before gave ([`Kernel::lock_to_give`]).
    pub fn open_after(options: &Options, lock: Option<OwnedFd>) -> Result<Self, KernelError> {
        let pin = PinDirectory::open(&options.pin, lock)?;
        match Self::open_in(&pin, options) {
            Ok(parts) => Ok(parts.with(pin, options)),
            Err(error) => {
                Self::leave(&pin);
                Err(error)
            }
        }
    }

    fn open_in(pin: &PinDirectory, options: &Options) -> Result<Parts, KernelError> {
        let mut object = load::object(pin)?;
        let logs = if load::logs_wanted() { EbpfLogger::init(&mut object).ok() } else { None };
        let life = Life::load(&mut object, options)?;
        let mut settings = SettingsMap::take(&mut object, pin)?;
        let mut passes = Passes::take(&mut object, pin)?;
        let before = settings.read()?;
        let mut wanted = before;
        load::put_options(&mut wanted, options)?;
        if before.key_mask != wanted.key_mask {
            passes.clear_v6()?;
        }
        settings.update(|settings| *settings = wanted)?;
        Ok(Parts {
            life,
            settings,
            statics: Statics::take(&mut object, pin)?,
            passes,
            sockets: load::take(&mut object, pin, abi::maps::SOCKETS)?,
            counters: Counters::take(&mut object, pin)?,
            events: load::take(&mut object, pin, abi::maps::EVENTS)?,
            logs,
        })
    }

    /// Attaches the programs and pins them: in place of our own earlier ones, each in one step, otherwise anew. So what the
    /// maps hold by now is what every packet meets, from the first one on.
    ///
    /// What could be attached stays attached when something else could not: [`Kernel::status`] says what and why. It is
    /// an error if nothing of what was asked for could be attached, and then the cause is the first one met. The
    /// listeners are not set: until [`Kernel::set_listener`] every client goes to the MTA.
    pub fn attach(&self) -> Result<(), KernelError> {
        let mut life = lock(&self.life);
        if let Err(error) = life.attach(&self.pin, &mut lock(&self.settings)) {
            Self::leave(&self.pin);
            return Err(error);
        }
        if life.is_everywhere(&self.pin)? {
            self.pin.remove_other_versions()
        } else {
            log::warn!("an attachment of an earlier version is still in place: its maps stay");
            Ok(())
        }
    }

    /// The lock of the pin directory, for a daemon that takes over: as long as a copy lives no third one gets in.
    pub fn lock_to_give(&self) -> std::io::Result<Option<OwnedFd>> {
        self.pin.lock_to_give()
    }

    /// Leaves the pin directory to the daemon that was given the lock. From then on nothing may be changed here.
    pub fn leave_to_heir(&self) {
        self.pin.leave();
    }

    /// Takes up other ports, ceilings and interfaces while it runs; the pin directory and the key length stay. Where the same
    /// is to be attached as before, no attachment is touched; otherwise the programs are loaded anew and take the places of
    /// the old ones, each in one step. If nothing of it can be attached all is as it was before.
    pub fn reconfigure(&self, options: &Options) -> Result<(), KernelError> {
        let mut life = lock(&self.life);
        if !life.is_for(options) {
            if self.pin.is_gone() {
                return Err(KernelError::NothingPinned { path: self.pin.path().to_owned() });
            }
            let mut object = load::object(&self.pin)?;
            let mut next = Life::load(&mut object, options)?;
            let mut settings = lock(&self.settings);
            if let Err(error) = next.attach(&self.pin, &mut settings) {
                if let Err(also) = life.attach(&self.pin, &mut settings) {
                    log::warn!("the attachments are not as they were before: {also}");
                }
                return Err(error);
            }
            *life = next;
            self.generic_wanted.store(options.xdp == XdpPolicy::Generic, Ordering::Relaxed);
        }
        let mut outcome = Ok(());
        lock(&self.settings).update(|settings| {
            let mut wanted = *settings;
            outcome = load::put_options(&mut wanted, options);
            if outcome.is_ok() {
                *settings = Settings { event_sample: settings.event_sample, ..wanted };
            }
        })?;
        outcome
    }

    /// Looks after the attachments: interfaces come, go and come again. Tells what has changed. Best called from a blocking
    /// task: attaching to a network card can take it a second.
    pub fn tend(&self) -> Vec<Change> {
        lock(&self.life).tend(&self.pin, &mut lock(&self.settings))
    }

    /// When [`Kernel::tend`] should be called. Must be called within a tokio runtime.
    pub fn link_news(&self) -> std::io::Result<LinkNews> {
        LinkNews::subscribe()
    }

    /// After a start that came to nothing.
    fn leave(pin: &PinDirectory) {
        if let Err(error) = pin.remove_if_unused() {
            log::warn!("{error}");
        }
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

    /// What the programs find for an address in the static lists; a dry run only where nothing else is said.
    pub fn lookup_static(&self, address: IpAddr) -> Option<StaticAction> {
        lock(&self.statics).lookup(address)
    }

    /// What the entry with exactly this prefix says.
    pub fn static_at(&self, net: IpNet, kind: StaticKind) -> Option<StaticAction> {
        lock(&self.statics).get(net, kind)
    }

    /// Every static entry: permits, then denies, IPv4 first, in the order of their prefixes.
    pub fn statics(&self) -> Vec<(IpNet, StaticAction)> {
        lock(&self.statics).list().collect()
    }

    /// Makes room again for changes of single entries, where they have used up half of it. Returns whether they had.
    pub fn fold_statics(&self) -> Result<bool, KernelError> {
        lock(&self.statics).fold()
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

    /// Until when the kernel leaves a client to the MTA; `None`: it does not.
    pub fn pass_until(&self, client: ClientKey) -> Result<Option<UnixTime>, KernelError> {
        lock(&self.passes).get(client)
    }

    /// Every client that the kernel has let through by its pass, and when last. Takes up to a second.
    pub fn passes_used(&self) -> Result<Vec<(ClientKey, UnixTime)>, KernelError> {
        lock(&self.passes).used()
    }

    /// Removes passes that have expired, to make room, and says how many. Takes up to a second.
    pub fn sweep_passes(&self) -> Result<usize, KernelError> {
        lock(&self.passes).sweep()
    }

    /// How full the maps of passes are.
    pub fn pass_room(&self) -> [PassRoom; 2] {
        lock(&self.passes).room()
    }

    /// Forgets when a client's pass was last used. False: it was not, or there is none.
    pub fn forget_pass_use(&self, client: ClientKey) -> Result<bool, KernelError> {
        lock(&self.passes).forget_use(client)
    }

    /// Every counter, in a fixed order. They count on from daemon to daemon.
    pub fn counters(&self) -> Result<Vec<CounterValue>, KernelError> {
        lock(&self.counters).read()
    }

    /// What the programs are told, as it is now.
    pub fn settings(&self) -> Result<abi::Settings, KernelError> {
        lock(&self.settings).read()
    }

    /// Changes what the programs are told, at once and without loading them anew. Gives it back.
    pub fn update_settings(&self, change: impl FnOnce(&mut abi::Settings)) -> Result<abi::Settings, KernelError> {
        lock(&self.settings).update(change)
    }

    /// Sets how many findings become an event by how many there have been since the last call; returns it. To be called
    /// every second or so.
    pub fn adapt_sampling(&self) -> Result<u32, KernelError> {
        let findings = lock(&self.counters).findings()?;
        let wanted = lock(&self.sampling).next(Instant::now(), findings);
        let mut settings = lock(&self.settings);
        let now = settings.read()?.event_sample;
        match wanted {
            // 0 is somebody's choice not to be told anything.
            Some(wanted) if now != 0 && wanted != now => {
                settings.update(|settings| settings.event_sample = wanted).map(|settings| settings.event_sample)
            }
            _ => Ok(now),
        }
    }

    /// The stream of events. There is one: a second call fails. Must be called within a tokio runtime.
    pub fn events(&self) -> Result<EventStream, KernelError> {
        lock(&self.counters).be_heard()?;
        EventStream::new(lock(&self.events).take().ok_or(KernelError::EventsTaken)?)
    }

    /// The programs' debug lines; `None` if the log target `screener_ebpf` was not enabled at level debug when this
    /// started, or at the second call. Must be called within a tokio runtime.
    pub fn logs(&self) -> Result<Option<LogStream>, KernelError> {
        lock(&self.logs).take().map(LogStream::new).transpose()
    }

    /// What is attached and how, asked of the kernel now.
    pub fn status(&self) -> Result<Status, KernelError> {
        let (entries, bytes) = {
            let statics = lock(&self.statics);
            (statics.entries(), statics.bytes())
        };
        let entries: Vec<_> = entries.into_iter().chain(lock(&self.passes).entries()).collect();
        let directory = self.pin.path();
        let maps = status::maps(directory, |name, _| {
            let entries = entries.iter().find(|(known, _)| *known == name).map(|&(_, entries)| entries);
            Ok((entries, bytes.iter().find(|(known, _)| *known == name).map(|&(_, bytes)| bytes)))
        })?;
        status::read(directory, &self.known(), maps, self.counters()?)
    }

    /// What is known here beyond the pins.
    fn known(&self) -> status::Known {
        let life = lock(&self.life);
        let interfaces = life.state().iter().map(|(name, now)| {
            let reason = match now {
                Now::Attached { reason, .. } => reason.clone(),
                Now::Missing { why } => Some(why.clone()),
                Now::Renamed { .. } => None,
            };
            (name.clone(), reason)
        });
        let (steer, steer_wanted) = life.steer();
        status::Known {
            interfaces: interfaces.collect(),
            generic_wanted: self.generic_wanted.load(Ordering::Relaxed),
            steer: steer.map(str::to_owned),
            steer_wanted,
        }
    }
}

/// A [`Kernel`] without its pin directory.
struct Parts {
    life: Life,
    settings: SettingsMap,
    statics: Statics,
    passes: Passes,
    sockets: SockMap<MapData>,
    counters: Counters,
    events: RingBuf<MapData>,
    logs: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl Parts {
    fn with(self, pin: PinDirectory, options: &Options) -> Kernel {
        Kernel {
            pin,
            life: Mutex::new(self.life),
            generic_wanted: (options.xdp == XdpPolicy::Generic).into(),
            settings: Mutex::new(self.settings),
            sampling: Mutex::default(),
            statics: Mutex::new(self.statics),
            passes: Mutex::new(self.passes),
            sockets: Mutex::new(self.sockets),
            counters: Mutex::new(self.counters),
            events: Mutex::new(Some(self.events)),
            logs: Mutex::new(self.logs),
        }
    }
}

/// Whether the kernel takes the programs: loads them with maps of their own, which go again at once. For a daemon that wants to
/// know before it takes over from another one.
pub fn rehearse(steer: bool, screen: bool) -> Result<(), KernelError> {
    let mut object = aya::EbpfLoader::new().load(load::OBJECT).map_err(|error| KernelError::load(error).explained())?;
    if steer {
        load::steer(&mut object).map_err(KernelError::explained)?;
    }
    if screen {
        load::screen(&mut object).map_err(KernelError::explained)?;
    }
    Ok(())
}

/// Removes everything under a pin directory: attachments, programs, maps. Needs no daemon.
///
/// Where a daemon runs, it is left without any program of ours; it serves on, but no client is steered to it.
pub fn detach(pin: &Path) -> Result<DetachReport, KernelError> {
    let there = pin.exists();
    // Held until everything is gone: no daemon starts in between.
    let lock = pin::lock_to_remove(pin);
    pin::remove(pin).map(|report| DetachReport { in_use: there && lock.is_none(), ..report })
}

/// What is attached and how, from the pins alone. Counts the passes one by one.
pub fn pinned_status(pin: &Path) -> Result<Status, KernelError> {
    let statics = Statics::open(pin, false)?;
    let maps = status::maps(pin, |name, path| {
        let of = |known: &[(&str, usize)]| known.iter().find(|(known, _)| *known == name).map(|&(_, number)| number);
        let (entries, bytes) = statics.as_ref().map_or((None, None), |all| (of(&all.entries()), of(&all.bytes())));
        Ok((entries.map_or_else(|| status::count(name, path), |entries| Ok(Some(entries)))?, bytes))
    })?;
    let counters = Counters::open(pin)?.map_or_else(|| Ok(Vec::new()), |counters| counters.read())?;
    status::read(pin, &status::Known::default(), maps, counters)
}

/// The programs do not care about a panic of ours, and a map is never half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
