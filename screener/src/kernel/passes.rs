//! The passes in the kernel: which clients `steer` leaves to the MTA, until when.
//!
//! Holds the mirror of the ledger's complete passes. Never decides who has one.

use std::hash::Hash;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use aya::maps::{HashMap, MapData, MapError};
use aya::{Ebpf, Pod};
use screener_ebpf::{self as abi, Pass};

use super::boot::BootClock;
use super::error::KernelError;
use super::load;
use super::pin::{PinDirectory, map_pin};
use super::statics::SyncReport;
use super::sys;
use crate::client::ClientKey;
use crate::clock::UnixTime;

/// Two conversions of the same second differ by what passes between reading the two clocks.
const SAME_NS: u64 = 1_000_000_000;

/// How many entries the kernel is given at once.
const BATCH: usize = 8192;

/// Expiries by client. Who is in it cannot be chosen by clients beyond their own addresses, and the hash is seeded.
type Wanted<K> = hashbrown::HashMap<K, u64>;

/// The passes of one family.
struct Table<K: Pod> {
    map: HashMap<MapData, K, Pass>,
    /// The same again, for what aya cannot do.
    fd: OwnedFd,
    name: &'static str,
    max_entries: u32,
    /// How many entries it holds: the kernel does not tell.
    entries: usize,
}

impl<K: Pod + Hash + Eq + Default> Table<K> {
    fn take(object: &mut Ebpf, pin: &PinDirectory, name: &'static str, max_entries: u32) -> Result<Self, KernelError> {
        let map = load::take(object, pin, name)?;
        let fd = Self::descriptor(&pin.map(name), name)?;
        let mut table = Self { map, fd, name, max_entries, entries: 0 };
        table.entries = table.list()?.len();
        Ok(table)
    }

    fn descriptor(pin: &Path, name: &'static str) -> Result<OwnedFd, KernelError> {
        sys::object_get(pin).map_err(|error| KernelError::map(name, 0, MapError::IoError(error)))
    }

    /// Without the count of its entries, which costs a walk and which only a daemon asks for.
    fn open(directory: &Path, name: &'static str, max_entries: u32) -> Result<Self, KernelError> {
        let map = load::pinned(directory, name)?;
        let fd = Self::descriptor(&map_pin(directory, name), name)?;
        Ok(Self { map, fd, name, max_entries, entries: 0 })
    }

    fn failed(&self, error: MapError) -> KernelError {
        KernelError::map(self.name, self.max_entries, error)
    }

    fn get(&self, key: &K) -> Result<Option<Pass>, KernelError> {
        match self.map.get(key, 0) {
            Ok(pass) => Ok(Some(pass)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Sets the expiry; keeps the time of last use.
    fn put(&mut self, key: &K, expires_boot_ns: u64) -> Result<(), KernelError> {
        let old = self.get(key)?;
        let last_used_boot_ns = old.map_or(0, |pass| pass.last_used_boot_ns);
        self.map.insert(key, Pass { expires_boot_ns, last_used_boot_ns }, 0).map_err(|error| self.failed(error))?;
        self.entries += usize::from(old.is_none());
        Ok(())
    }

    /// Forgets the time of last use. False: there is none.
    fn forget_use(&mut self, key: &K) -> Result<bool, KernelError> {
        let Some(pass) = self.get(key)?.filter(|pass| pass.last_used_boot_ns != 0) else { return Ok(false) };
        self.map.insert(key, Pass { last_used_boot_ns: 0, ..pass }, 0).map_err(|error| self.failed(error))?;
        Ok(true)
    }

    fn remove(&mut self, key: &K) -> Result<bool, KernelError> {
        match self.map.remove(key) {
            Ok(()) => {
                self.entries = self.entries.saturating_sub(1);
                Ok(true)
            }
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn list(&self) -> Result<Vec<(K, Pass)>, KernelError> {
        sys::hash_entries(self.fd.as_fd()).map_err(|error| self.failed(MapError::IoError(error)))
    }

    /// An expiry that differs by no more than `same_ns` stays as it is.
    fn sync(&mut self, mut wanted: Wanted<K>, same_ns: u64, report: &mut SyncReport) -> Result<(), KernelError> {
        let (mut surplus, mut changed) = (Vec::new(), Vec::new());
        for (key, Pass { expires_boot_ns: old, last_used_boot_ns }) in self.list()? {
            match wanted.remove(&key) {
                None => surplus.push(key),
                Some(expires) if old.abs_diff(expires) <= same_ns => report.kept += 1,
                Some(expires_boot_ns) => changed.push((key, Pass { expires_boot_ns, last_used_boot_ns })),
            }
        }
        // Here what goes makes room for what comes: a client that is in both is never touched.
        report.removed += self.remove_many(&surplus)?;
        report.changed += self.put_many(changed.into_iter())?;
        let added = wanted.len();
        let wanted = wanted.into_iter();
        let set =
            self.put_many(wanted.map(|(key, expires_boot_ns)| (key, Pass { expires_boot_ns, last_used_boot_ns: 0 })))?;
        report.added += set;
        report.left_out += added - set;
        self.entries = self.entries.saturating_sub(surplus.len()) + set;
        Ok(())
    }

    /// Sets entries until there is no room for more, and says how many were set.
    fn put_many(&self, entries: impl Iterator<Item = (K, Pass)>) -> Result<usize, KernelError> {
        let mut entries = entries.peekable();
        let mut set = 0;
        while entries.peek().is_some() {
            let (keys, passes): (Vec<_>, Vec<_>) = entries.by_ref().take(BATCH).unzip();
            let (done, result) = sys::hash_put_many(self.fd.as_fd(), &keys, &passes);
            set += done;
            match result {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::E2BIG) => break,
                Err(error) => return Err(self.failed(MapError::IoError(error))),
            }
        }
        Ok(set)
    }

    /// Removes entries that are there: nobody else takes any out.
    fn remove_many(&self, keys: &[K]) -> Result<usize, KernelError> {
        let mut removed = 0;
        for keys in keys.chunks(BATCH) {
            let (done, result) = sys::hash_remove_many(self.fd.as_fd(), keys);
            removed += done;
            result.map_err(|error| self.failed(MapError::IoError(error)))?;
        }
        Ok(removed)
    }
}

/// `None`: it has expired.
fn until(clock: BootClock, pass: Pass) -> Option<UnixTime> {
    (pass.expires_boot_ns > clock.now_ns).then(|| clock.to_unix(pass.expires_boot_ns))
}

/// The passes of both families.
pub(super) struct Passes {
    v4: Table<[u8; 4]>,
    v6: Table<[u8; 16]>,
}

impl Passes {
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory) -> Result<Self, KernelError> {
        Ok(Self {
            v4: Table::take(object, pin, abi::maps::PASS4, abi::PASS4_ENTRIES)?,
            v6: Table::take(object, pin, abi::maps::PASS6, abi::PASS6_ENTRIES)?,
        })
    }

    /// From the pins alone.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            v4: Table::open(directory, abi::maps::PASS4, abi::PASS4_ENTRIES)?,
            v6: Table::open(directory, abi::maps::PASS6, abi::PASS6_ENTRIES)?,
        })
    }

    /// Until when a client has a pass; `None`: it has none that counts.
    pub(super) fn get(&self, client: ClientKey) -> Result<Option<UnixTime>, KernelError> {
        let clock = BootClock::read();
        Ok(self.read(client)?.and_then(|pass| until(clock, pass)))
    }

    /// Every pass that counts, in the order of the clients.
    pub(super) fn list(&self) -> Result<Vec<(ClientKey, UnixTime)>, KernelError> {
        let clock = BootClock::read();
        let v4 = self.v4.list()?.into_iter().map(|(key, pass)| (ClientKey::V4(key.into()), pass));
        let v6 = self.v6.list()?.into_iter().map(|(key, pass)| (ClientKey::V6(key.into()), pass));
        let mut passes: Vec<_> =
            v4.chain(v6).filter_map(|(client, pass)| Some((client, until(clock, pass)?))).collect();
        passes.sort_unstable();
        Ok(passes)
    }

    fn read(&self, client: ClientKey) -> Result<Option<Pass>, KernelError> {
        match client {
            ClientKey::V4(address) => self.v4.get(&address.octets()),
            ClientKey::V6(address) => self.v6.get(&address.octets()),
        }
    }

    /// Removes the IPv6 passes: their keys were cut to another length.
    pub(super) fn clear_v6(&mut self) -> Result<(), KernelError> {
        self.v6.sync(Wanted::new(), SAME_NS, &mut SyncReport::default())
    }

    /// A pass that has expired already is as good as none, and is removed.
    pub(super) fn put(&mut self, client: ClientKey, until: UnixTime) -> Result<(), KernelError> {
        let clock = BootClock::read();
        let expires = clock.to_boot(until);
        if expires <= clock.now_ns {
            return self.remove(client).map(drop);
        }
        match client {
            ClientKey::V4(address) => self.v4.put(&address.octets(), expires),
            ClientKey::V6(address) => self.v6.put(&address.octets(), expires),
        }
    }

    pub(super) fn remove(&mut self, client: ClientKey) -> Result<bool, KernelError> {
        match client {
            ClientKey::V4(address) => self.v4.remove(&address.octets()),
            ClientKey::V6(address) => self.v6.remove(&address.octets()),
        }
    }

    pub(super) fn sync(
        &mut self,
        passes: impl IntoIterator<Item = (ClientKey, UnixTime)>,
    ) -> Result<SyncReport, KernelError> {
        self.sync_within(passes, SAME_NS)
    }

    /// As [`Passes::sync`]; an expiry that differs by no more than `same_ns` stays as it is.
    pub(super) fn sync_within(
        &mut self,
        passes: impl IntoIterator<Item = (ClientKey, UnixTime)>,
        same_ns: u64,
    ) -> Result<SyncReport, KernelError> {
        let clock = BootClock::read();
        let (mut v4, mut v6) = (Wanted::new(), Wanted::new());
        for (client, until) in passes {
            let expires = clock.to_boot(until);
            if expires <= clock.now_ns {
                continue;
            }
            match client {
                ClientKey::V4(address) => v4.insert(address.octets(), expires),
                ClientKey::V6(address) => v6.insert(address.octets(), expires),
            };
        }
        let mut report = SyncReport::default();
        self.v4.sync(v4, same_ns, &mut report)?;
        self.v6.sync(v6, same_ns, &mut report)?;
        Ok(report)
    }

    pub(super) fn last_used(&self, client: ClientKey) -> Result<Option<UnixTime>, KernelError> {
        let used = self.read(client)?.map(|pass| pass.last_used_boot_ns).filter(|&used| used != 0);
        Ok(used.map(|used| BootClock::read().to_unix(used)))
    }

    pub(super) fn forget_use(&mut self, client: ClientKey) -> Result<bool, KernelError> {
        match client {
            ClientKey::V4(address) => self.v4.forget_use(&address.octets()),
            ClientKey::V6(address) => self.v6.forget_use(&address.octets()),
        }
    }

    /// How many entries each map holds.
    pub(super) fn entries(&self) -> [(&'static str, usize); 2] {
        [(self.v4.name, self.v4.entries), (self.v6.name, self.v6.entries)]
    }
}
