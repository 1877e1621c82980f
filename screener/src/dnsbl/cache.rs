//! What the lists have said, for as long as it holds: a table of bounded size, 40 bytes an answer and some for the index.
//!
//! (A listing's codes and text lie outside the table.)
//!
//! Knows nothing of lists: a zone is a number here, and a zone whose answers turned out to be lies gets another one, so that
//! nobody finds them any more. When the table is full the answer goes that has not been asked for longest (CLOCK).

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use super::answer::{Failure, Known, Records};

/// Sessions on all cores look things up at once; each shard has a lock of its own.
const SHARDS: usize = 16;
/// The table grows by so many answers of a shard at a time: doubling would leave up to half of it empty.
const STEP: usize = 4096;

/// The table.
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    born: Instant,
    most: AtomicUsize,
    evicted: AtomicU64,
}

#[derive(Default)]
struct Shard {
    index: HashTable<u32>,
    slots: Vec<Slot>,
    hand: usize,
}

/// 40 bytes.
struct Slot {
    address: [u8; 16],
    zone: u32,
    /// Seconds since the table was made.
    until: u32,
    what: What,
}

/// What was said, and whether it was asked for since the hand came by.
enum What {
    Nothing { used: bool },
    Records { used: bool, records: Arc<Records> },
    Failed { used: bool, failure: Failure, times: u8 },
}
const _: () = assert!(size_of::<Slot>() <= 40);

impl What {
    fn used(&mut self) -> &mut bool {
        match self {
            Self::Nothing { used } | Self::Records { used, .. } | Self::Failed { used, .. } => used,
        }
    }

    fn known(&self) -> Known {
        match self {
            Self::Nothing { .. } => Known::Nothing,
            Self::Records { records, .. } => Known::Records(Arc::clone(records)),
            Self::Failed { failure, times, .. } => Known::Failed(*failure, *times),
        }
    }
}

impl From<Known> for What {
    fn from(known: Known) -> Self {
        match known {
            Known::Nothing => Self::Nothing { used: false },
            Known::Records(records) => Self::Records { used: false, records },
            Known::Failed(failure, times) => Self::Failed { used: false, failure, times },
        }
    }
}

impl Cache {
    /// Keeps at most `most` answers.
    pub(super) fn new(most: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), born: Instant::now(), most: most.into(), evicted: AtomicU64::new(0) }
    }

    /// Keeps at most `most` answers from now on. Where there are more, some of them go.
    pub(super) fn set_most(&self, most: usize) {
        if self.most.swap(most, Ordering::Relaxed) <= most {
            return;
        }
        for shard in &self.shards {
            lock(shard).cut(most.div_ceil(SHARDS), |slot| self.hash(slot.zone, &slot.address));
        }
    }

    /// What is known, and for how long it holds.
    pub(super) fn get(&self, zone: u32, address: IpAddr, now: Instant) -> Option<(Known, Duration)> {
        let address = octets(address);
        let hash = self.hash(zone, &address);
        let mut shard = self.shard(hash);
        let slot = shard.find(hash, zone, &address)?;
        let slot = &mut shard.slots[slot];
        let left = u64::from(slot.until).checked_sub(self.seconds(now)).filter(|&left| left > 0)?;
        *slot.what.used() = true;
        Some((slot.what.known(), Duration::from_secs(left)))
    }

    /// How many times in a row it could not be found out, by what was known last.
    pub(super) fn failures(&self, zone: u32, address: IpAddr) -> u8 {
        let address = octets(address);
        let hash = self.hash(zone, &address);
        let shard = self.shard(hash);
        let slot = shard.find(hash, zone, &address);
        match slot.map(|slot| &shard.slots[slot].what) {
            Some(What::Failed { times, .. }) => *times,
            _ => 0,
        }
    }

    /// Keeps an answer for a while.
    pub(super) fn put(&self, zone: u32, address: IpAddr, known: Known, ttl: Duration, now: Instant) {
        let address = octets(address);
        let hash = self.hash(zone, &address);
        let until = u32::try_from(self.seconds(now).saturating_add(ttl.as_secs())).unwrap_or(u32::MAX);
        let now = u32::try_from(self.seconds(now)).unwrap_or(u32::MAX);
        let new = Slot { address, zone, until, what: known.into() };
        let most = self.most.load(Ordering::Relaxed).div_ceil(SHARDS);
        let mut guard = self.shard(hash);
        let shard = &mut *guard;
        let at = match shard.find(hash, zone, &address) {
            Some(at) => {
                shard.slots[at] = new;
                return;
            }
            None if shard.slots.len() < most => {
                if shard.slots.len() == shard.slots.capacity() {
                    shard.slots.reserve_exact(STEP.min(most - shard.slots.len()));
                }
                shard.slots.push(new);
                shard.slots.len() - 1
            }
            None => {
                let at = shard.evict(now);
                let old = std::mem::replace(&mut shard.slots[at], new);
                let old_hash = self.hash(old.zone, &old.address);
                if let Ok(entry) = shard.index.find_entry(old_hash, |&slot| slot as usize == at) {
                    entry.remove();
                }
                if old.until > now {
                    self.evicted.fetch_add(1, Ordering::Relaxed);
                }
                at
            }
        };
        let Shard { index, slots, .. } = shard;
        let rehash = |&slot: &u32| self.hash(slots[slot as usize].zone, &slots[slot as usize].address);
        if let Ok(at) = u32::try_from(at) {
            index.insert_unique(hash, at, rehash);
        }
    }

    /// How many answers are kept, expired ones that nobody has replaced yet included.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).slots.len()).sum()
    }

    /// How many had to go before their time.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn hash(&self, zone: u32, address: &[u8; 16]) -> u64 {
        self.hasher.hash_one((zone, address))
    }

    /// By the low bits: the table inside takes the high ones for its tags.
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // Below 16, whatever the width.
        lock(&self.shards[(hash as usize >> 7) % SHARDS])
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs()
    }
}

impl Shard {
    fn find(&self, hash: u64, zone: u32, address: &[u8; 16]) -> Option<usize> {
        let same = |&slot: &u32| {
            let slot = &self.slots[slot as usize];
            slot.zone == zone && slot.address == *address
        };
        self.index.find(hash, same).map(|&slot| slot as usize)
    }

    /// Lets go of all but `most` answers.
    fn cut(&mut self, most: usize, hash: impl Fn(&Slot) -> u64) {
        if self.slots.len() <= most {
            return;
        }
        self.slots.truncate(most);
        self.slots.shrink_to_fit();
        self.index.clear();
        self.hand = 0;
        let Self { index, slots, .. } = self;
        index.shrink_to(slots.len(), |&slot| hash(&slots[slot as usize]));
        for (at, slot) in (0..).zip(slots.iter()) {
            index.insert_unique(hash(slot), at, |&other| hash(&slots[other as usize]));
        }
    }

    /// The slot to give up: expired, or not asked for since the hand came by.
    fn evict(&mut self, now: u32) -> usize {
        // Two rounds at most: in the first every mark may be cleared.
        for _ in 0..self.slots.len() * 2 {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[at];
            if slot.until <= now || !std::mem::take(slot.what.used()) {
                return at;
            }
        }
        0
    }
}

/// IPv4 as IPv4-mapped IPv6: one form for both.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // No step of a change can panic half way.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn records(code: [u8; 4]) -> Known {
        Known::Records(Arc::new(Records { codes: [code.into()].into(), text: None }))
    }

    #[test]
    fn an_answer_holds_as_long_as_it_was_put_in_for() {
        let cache = Cache::new(1000);
        let now = Instant::now();
        cache.put(1, address(7), records([127, 0, 0, 2]), MINUTE, now);
        let (known, left) = cache.get(1, address(7), now + Duration::from_secs(20)).unwrap();
        assert_eq!((known, left), (records([127, 0, 0, 2]), Duration::from_secs(40)));
        assert_eq!(cache.get(1, address(7), now + MINUTE), None);
        assert_eq!(cache.get(2, address(7), now), None, "another zone");
        let mapped: IpAddr = Ipv4Addr::from_bits(7).to_ipv6_mapped().into();
        assert!(cache.get(1, mapped, now).is_some(), "the same client");
        cache.put(1, address(7), Known::Nothing, MINUTE, now);
        assert_eq!(cache.get(1, address(7), now).unwrap().0, Known::Nothing);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_table_never_grows_beyond_its_bound_and_keeps_what_is_asked_for() {
        let most = 16 * 64;
        let cache = Cache::new(most);
        let now = Instant::now();
        for number in 0..100_000 {
            cache.put(1, address(number), Known::Nothing, MINUTE, now);
            assert!(cache.get(1, address(0), now).is_some(), "asked for all the time, gone after {number}");
        }
        assert!(cache.len() <= most, "{}", cache.len());
        assert!(cache.get(1, address(99_999), now).is_some());
        assert!(cache.evicted() > 90_000);
        let known = (0..100_000).filter(|&number| cache.get(1, address(number), now).is_some()).count();
        assert_eq!(known, cache.len(), "what is kept is found");
    }

    #[test]
    fn the_table_shrinks_and_grows_while_it_is_used() {
        let cache = Cache::new(16 * 64);
        let now = Instant::now();
        let known = |cache: &Cache| (0..1000).filter(|&number| cache.get(1, address(number), now).is_some()).count();
        (0..1000).for_each(|number| cache.put(1, address(number), Known::Nothing, MINUTE, now));
        cache.set_most(16 * 8);
        assert!(cache.len() <= 16 * 8, "{}", cache.len());
        assert_eq!(known(&cache), cache.len(), "what is kept is found");
        (0..1000).for_each(|number| cache.put(1, address(number), Known::Nothing, MINUTE, now));
        assert!(cache.len() <= 16 * 8);
        cache.set_most(16 * 128);
        (0..1000).for_each(|number| cache.put(1, address(number), Known::Nothing, MINUTE, now));
        assert_eq!(known(&cache), 1000);
    }

    #[test]
    fn failures_in_a_row_are_counted_past_their_expiry() {
        let cache = Cache::new(1000);
        let now = Instant::now();
        cache.put(1, address(7), Known::Failed(Failure::Silent, 3), Duration::from_secs(1), now);
        assert_eq!(cache.get(1, address(7), now + MINUTE), None);
        assert_eq!(cache.failures(1, address(7)), 3);
        cache.put(1, address(7), Known::Nothing, MINUTE, now);
        assert_eq!(cache.failures(1, address(7)), 0);
    }
}
