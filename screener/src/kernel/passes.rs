//! The passes in the kernel: which clients `steer` leaves to the MTA, until when.
//!
//! Holds the mirror of the ledger's complete passes. Never decides who has one.

use std::collections::HashSet;
use std::hash::Hash;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData, MapError};
use aya::{Ebpf, Pod};
use screener_ebpf::{self as abi, Pass};

use super::boot::BootClock;
use super::error::{KernelError, found, removed};
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

/// A full map is not walked through for every pass that finds no room.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(30);

/// So many clients without room are counted.
const MOST_LEFT_OUT: usize = 1 << 16;

/// How full a map of passes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassRoom {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// The map's name.
    pub map: &'static str,
    /// Entries, expired ones included that nobody has needed the room of.
    pub entries: usize,
    /// How many there can be.
    pub capacity: usize,
    /// Clients with a pass that found no room since the map was last made equal to the ledger; counted up to 65,536.
    pub left_out: usize,
}

/// The passes of one family.
struct Table<K: Pod> {
    map: HashMap<MapData, K, Pass>,
    /// The same again, for what aya cannot do.
    fd: OwnedFd,
    name: &'static str,
    max_entries: u32,
    /// How many entries it holds: the kernel does not tell.
    entries: usize,
    /// When expired entries were last looked for because it was full.
    swept: Option<Instant>,
    /// Who found no room since it was last made equal to the ledger.
    left_out: HashSet<K>,
}

impl<K: Pod + Hash + Eq + Default> Table<K> {
    fn take(object: &mut Ebpf, pin: &PinDirectory, name: &'static str, max_entries: u32) -> Result<Self, KernelError> {
        let map = load::take(object, pin, name)?;
        let fd = Self::descriptor(&pin.map(name), name)?;
        let mut table = Self { map, fd, name, max_entries, entries: 0, swept: None, left_out: HashSet::new() };
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
        Ok(Self { map, fd, name, max_entries, entries: 0, swept: None, left_out: HashSet::new() })
    }

    fn failed(&self, error: MapError) -> KernelError {
        KernelError::map(self.name, self.max_entries, error)
    }

    fn get(&self, key: &K) -> Result<Option<Pass>, KernelError> {
        found(self.map.get(key, 0)).map_err(|error| self.failed(error))
    }

    /// Sets the expiry; keeps the time of last use.
    fn put(&mut self, key: &K, expires_boot_ns: u64) -> Result<(), KernelError> {
        let old = self.get(key)?;
        let last_used_boot_ns = old.map_or(0, |pass| pass.last_used_boot_ns);
        let pass = Pass { expires_boot_ns, last_used_boot_ns };
        match self.insert(key, pass) {
            Err(KernelError::MapFull { .. }) if self.sweep_if_due()? > 0 => self.insert(key, pass)?,
            Err(full @ KernelError::MapFull { .. }) => {
                if self.left_out.len() < MOST_LEFT_OUT {
                    self.left_out.insert(*key);
                }
                return Err(full);
            }
            done => done?,
        }
        self.left_out.remove(key);
        self.entries += usize::from(old.is_none());
        Ok(())
    }

    fn insert(&mut self, key: &K, pass: Pass) -> Result<(), KernelError> {
        self.map.insert(key, pass, 0).map_err(|error| self.failed(error))
    }

    /// Removes what has expired, unless that was done a moment ago: a walk takes up to a second.
    fn sweep_if_due(&mut self) -> Result<usize, KernelError> {
        if self.swept.is_some_and(|at| at.elapsed() < BETWEEN_SWEEPS) {
            return Ok(0);
        }
        self.swept = Some(Instant::now());
        self.sweep()
    }

    /// Removes what has expired: it lies there until its client comes again or is forgotten. Says how many.
    fn sweep(&mut self) -> Result<usize, KernelError> {
        let now = BootClock::read().now_ns;
        let expired = self.list()?.into_iter().filter(|(_, pass)| pass.expires_boot_ns <= now);
        let expired: Vec<_> = expired.map(|(key, _)| key).collect();
        let mut removed = 0;
        for key in expired {
            removed += usize::from(self.remove(&key)?);
        }
        Ok(removed)
    }

    fn room(&self, family: &'static str) -> PassRoom {
        let (entries, capacity, left_out) = (self.entries, self.max_entries as usize, self.left_out.len());
        PassRoom { family, map: self.name, entries, capacity, left_out }
    }

    /// Forgets the time of last use. False: there is none.
    fn forget_use(&mut self, key: &K) -> Result<bool, KernelError> {
        let Some(pass) = self.get(key)?.filter(|pass| pass.last_used_boot_ns != 0) else { return Ok(false) };
        self.map.insert(key, Pass { last_used_boot_ns: 0, ..pass }, 0).map_err(|error| self.failed(error))?;
        Ok(true)
    }

    fn remove(&mut self, key: &K) -> Result<bool, KernelError> {
        self.left_out.remove(key);
        let there = removed(self.map.remove(key)).map_err(|error| self.failed(error))?;
        self.entries = self.entries.saturating_sub(usize::from(there));
        Ok(there)
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
        let wanted: Vec<_> = wanted.into_iter().collect();
        let new = |&(key, expires_boot_ns): &(K, u64)| (key, Pass { expires_boot_ns, last_used_boot_ns: 0 });
        let set = self.put_many(wanted.iter().map(new))?;
        let left_out = wanted.get(set..).unwrap_or_default();
        report.added += set;
        report.left_out += left_out.len();
        self.left_out = left_out.iter().take(MOST_LEFT_OUT).map(|(key, _)| *key).collect();
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

    /// Every client that was let through by a pass, and when last.
    pub(super) fn used(&self) -> Result<Vec<(ClientKey, UnixTime)>, KernelError> {
        let clock = BootClock::read();
        let v4 = self.v4.list()?.into_iter().map(|(key, pass)| (ClientKey::V4(key.into()), pass));
        let v6 = self.v6.list()?.into_iter().map(|(key, pass)| (ClientKey::V6(key.into()), pass));
        let used = v4.chain(v6).filter(|(_, pass)| pass.last_used_boot_ns != 0);
        Ok(used.map(|(client, pass)| (client, clock.to_unix(pass.last_used_boot_ns))).collect())
    }

    /// Removes what has expired, and says how many.
    pub(super) fn sweep(&mut self) -> Result<usize, KernelError> {
        Ok(self.v4.sweep()? + self.v6.sweep()?)
    }

    /// How full each map is.
    pub(super) fn room(&self) -> [PassRoom; 2] {
        [self.v4.room("ipv4"), self.v6.room("ipv6")]
    }

    /// How many entries each map holds.
    pub(super) fn entries(&self) -> [(&'static str, usize); 2] {
        [(self.v4.name, self.v4.entries), (self.v6.name, self.v6.entries)]
    }
}

#[cfg(test)]
mod tests {
    use aya::EbpfLoader;
    use aya::maps::Map;

    use super::*;
    use crate::kernel::load::OBJECT;

    /// A map of four passes, pinned nowhere.
    fn small() -> Table<[u8; 4]> {
        let mut object = EbpfLoader::new().map_max_entries(abi::maps::PASS4, 4).load(OBJECT).unwrap();
        let map = object.take_map(abi::maps::PASS4).unwrap();
        let Map::HashMap(data) = &map else { panic!("another kind of map") };
        let fd = data.fd().as_fd().try_clone_to_owned().unwrap();
        let map = map.try_into().unwrap();
        Table { map, fd, name: abi::maps::PASS4, max_entries: 4, entries: 0, swept: None, left_out: HashSet::new() }
    }

    #[test]
    fn passes_are_made_equal_at_once_and_what_finds_no_room_is_counted() {
        let mut table = small();
        let sync = |table: &mut Table<_>, wanted: &[(u8, u64)]| {
            let mut report = SyncReport::default();
            let wanted = wanted.iter().map(|&(last, until)| ([192, 0, 2, last], until)).collect();
            table.sync(wanted, 10, &mut report).unwrap();
            let SyncReport { added, changed, removed, kept, left_out } = report;
            assert_eq!(table.entries, table.list().unwrap().len());
            (added, changed, removed, kept, left_out)
        };
        assert_eq!(sync(&mut table, &[(1, 100), (2, 100), (3, 100)]), (3, 0, 0, 0, 0));
        table.insert(&[192, 0, 2, 2], Pass { expires_boot_ns: 100, last_used_boot_ns: 7 }).unwrap();
        assert_eq!(sync(&mut table, &[(1, 105), (2, 200), (4, 100)]), (1, 1, 1, 1, 0));
        let used = Pass { expires_boot_ns: 200, last_used_boot_ns: 7 };
        assert_eq!(table.get(&[192, 0, 2, 2]).unwrap(), Some(used), "the last use is kept");
        let many: Vec<_> = (1..=7).map(|last| (last, 200)).collect();
        assert_eq!(sync(&mut table, &many), (1, 2, 0, 1, 3));
        assert_eq!(table.room("ipv4").left_out, 3);
        assert_eq!(sync(&mut table, &[]), (0, 0, 4, 0, 0));
        assert_eq!(table.room("ipv4").left_out, 0);
    }

    #[test]
    fn a_full_map_makes_room_of_what_has_expired_and_else_says_that_it_is_full() {
        let mut table = small();
        let now = BootClock::read().now_ns;
        let hour = 3_600_000_000_000;
        for last in 1..=4 {
            table.put(&[192, 0, 2, last], if last == 1 { now } else { now + hour }).unwrap();
        }
        assert_eq!(table.room("ipv4"), PassRoom { family: "ipv4", map: "PASS4", entries: 4, capacity: 4, left_out: 0 });
        table.put(&[192, 0, 2, 5], now + hour).unwrap();
        assert_eq!(table.get(&[192, 0, 2, 1]).unwrap(), None, "it had expired");
        let full = table.put(&[192, 0, 2, 6], now + hour).unwrap_err();
        assert!(matches!(full, KernelError::MapFull { map: "PASS4", max_entries: 4 }), "{full}");
        assert_eq!((table.entries, table.room("ipv4").left_out), (4, 1));
        // Who is in it is renewed all the same, and whoever goes makes room.
        table.put(&[192, 0, 2, 5], now + 2 * hour).unwrap();
        assert!(table.remove(&[192, 0, 2, 5]).unwrap());
        table.put(&[192, 0, 2, 6], now + hour).unwrap();
        assert_eq!((table.entries, table.room("ipv4").left_out, table.sweep().unwrap()), (4, 0, 0));
    }

    #[test]
    fn a_use_is_forgotten_and_the_pass_stays() {
        let mut table = small();
        let (key, pass) = ([192, 0, 2, 1], Pass { expires_boot_ns: u64::MAX, last_used_boot_ns: 7 });
        assert!(!table.forget_use(&key).unwrap());
        table.insert(&key, pass).unwrap();
        assert!(table.forget_use(&key).unwrap());
        assert_eq!(table.get(&key).unwrap(), Some(Pass { last_used_boot_ns: 0, ..pass }));
        assert!(!table.forget_use(&key).unwrap());
    }
}
