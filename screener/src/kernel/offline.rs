//! The pinned maps by themselves: what commands read and change, with or without a daemon.
//!
//! Opens the maps by their pins and loads nothing. Reading needs no lock; changing takes the lock of the pin directory, so
//! that a daemon which mirrors its own lists into the maps is never contradicted. Never judges what is put in.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use screener_ebpf::Settings;

use super::counters::{CounterValue, Counters};
use super::error::KernelError;
use super::load::SettingsMap;
use super::offenders::{KeptOut, Offenders};
use super::passes::Passes;
use super::pin::{self, PinDirectory};
use super::settings::{self, BadSetting, Setting};
use super::statics::{StaticKind, Statics, SyncReport};
use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::UnixTime;
use crate::feed::StaticAction;

/// A dump holds whole seconds, and time passes between a dump and what is restored of it: an expiry that differs by no more
/// than this is the same one.
const SAME_NS: u64 = 60_000_000_000;

/// The pinned maps.
pub struct Pinned {
    statics: Statics,
    passes: Passes,
    offenders: Offenders,
    settings: SettingsMap,
    counters: Counters,
    _lock: Option<PinDirectory>,
}

impl Pinned {
    /// Opens the maps to read them.
    ///
    /// # Errors
    /// [`KernelError::NothingPinned`] if there are none.
    pub fn open(directory: &Path) -> Result<Self, KernelError> {
        if !pin::map_pin(directory, screener_ebpf::maps::SETTINGS).exists() {
            return Err(KernelError::NothingPinned { path: directory.to_owned() });
        }
        Self::with(directory, None)
    }

    /// Opens the maps to change them, and keeps daemons and other commands away meanwhile.
    ///
    /// # Errors
    /// [`KernelError::NothingPinned`] if there are none, [`KernelError::Busy`] if a daemon holds them.
    pub fn open_to_change(directory: &Path) -> Result<Self, KernelError> {
        let lock = PinDirectory::of_existing(directory)?;
        Self::with(directory, Some(lock))
    }

    fn with(directory: &Path, lock: Option<PinDirectory>) -> Result<Self, KernelError> {
        let settings = SettingsMap::open(directory)?;
        Ok(Self {
            offenders: Offenders::open(directory, key_length(&settings.read()?))?,
            statics: Statics::open(directory, lock.is_some())?
                .ok_or_else(|| KernelError::NothingPinned { path: directory.to_owned() })?,
            passes: Passes::open(directory)?,
            settings,
            counters: Counters::open(directory)?
                .ok_or_else(|| KernelError::NothingPinned { path: directory.to_owned() })?,
            _lock: lock,
        })
    }

    /// Every permit and deny, in the order of the prefixes.
    ///
    pub fn statics(&self) -> impl Iterator<Item = (IpNet, StaticAction)> {
        self.statics.list()
    }

    /// Every permit, in the order of the prefixes.
    pub fn permits(&self) -> impl Iterator<Item = IpNet> {
        self.statics.permits()
    }

    /// What exactly this prefix's entry says.
    pub fn get_static(&self, net: IpNet, kind: StaticKind) -> Option<StaticAction> {
        self.statics.get(net, kind)
    }

    /// What the programs would find for an address.
    pub fn lookup(&self, address: IpAddr) -> Option<StaticAction> {
        self.statics.lookup(address)
    }

    /// Adds an entry or changes its action.
    pub fn put_static(&mut self, net: IpNet, action: StaticAction) -> Result<(), KernelError> {
        self.statics.put(net, action)
    }

    /// Removes an entry. Returns whether it was there.
    pub fn del_static(&mut self, net: IpNet, kind: StaticKind) -> Result<bool, KernelError> {
        self.statics.remove(net, kind)
    }

    /// Replaces permits and denies, as a whole and without a gap.
    pub fn replace_statics(&mut self, entries: Vec<(IpNet, StaticAction)>) -> Result<(), KernelError> {
        self.statics.sync(entries).map(drop)
    }

    /// Every pass that counts, in the order of the clients.
    pub fn passes(&self) -> Result<Vec<(ClientKey, UnixTime)>, KernelError> {
        self.passes.list()
    }

    /// Until when a client has a pass.
    pub fn get_pass(&self, client: ClientKey) -> Result<Option<UnixTime>, KernelError> {
        self.passes.get(client)
    }

    /// Gives a pass, or changes its end.
    pub fn put_pass(&mut self, client: ClientKey, until: UnixTime) -> Result<(), KernelError> {
        self.passes.put(client, until)
    }

    /// Takes a pass away. Returns whether it was there.
    pub fn del_pass(&mut self, client: ClientKey) -> Result<bool, KernelError> {
        self.passes.remove(client)
    }

    /// Replaces the passes as a whole. A pass whose end is the same to the minute stays as it is.
    pub fn replace_passes(&mut self, passes: Vec<(ClientKey, UnixTime)>) -> Result<SyncReport, KernelError> {
        self.passes.sync_within(passes, SAME_NS)
    }

    /// Everybody who is kept out as an offender, in the order of the networks.
    pub fn offenders(&self) -> Result<Vec<KeptOut>, KernelError> {
        self.offenders.list()
    }

    /// Lets a client or prefix in again. Returns whether it was kept out.
    pub fn del_offender(&mut self, network: IpNet) -> Result<bool, KernelError> {
        let had = self.offenders.remove(network)?;
        self.settings.update(|settings| self.offenders.tell(settings))?;
        Ok(had)
    }

    /// Every counter that can be other than zero.
    pub fn counters(&self) -> Result<Vec<CounterValue>, KernelError> {
        self.counters.read()
    }

    /// Every setting.
    pub fn settings(&self) -> Result<Vec<Setting>, KernelError> {
        Ok(settings::all(&self.settings.read()?))
    }

    /// Changes a setting: the outer error is the kernel's, the inner one the caller's.
    pub fn set(&mut self, name: &str, value: &str) -> Result<Result<(), BadSetting>, KernelError> {
        let mut outcome = Ok(());
        self.settings.update(|settings| outcome = settings::set(settings, name, value))?;
        Ok(outcome)
    }

    /// How much of an IPv6 address makes a client.
    pub fn key_length(&self) -> Result<Ipv6KeyLength, KernelError> {
        Ok(key_length(&self.settings.read()?))
    }
}

fn key_length(settings: &Settings) -> Ipv6KeyLength {
    let bits = u128::from_be_bytes(settings.key_mask).count_ones();
    // Zeros: nobody has written the settings yet.
    u8::try_from(bits).ok().and_then(|bits| bits.try_into().ok()).unwrap_or_default()
}
