//! The deny set of one family in the kernel: put in place as a whole, changed in place entry by entry, read back.
//!
//! Holds the order of the steps, which is what keeps both from ever opening a gap. A whole set is compiled beside the old
//! one and takes its place by one pointer. A change writes what is new into free room, and then stores one word that leads
//! there. Never decides which entries there should be.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use screener_ebpf::deny::{Fate, MAGIC, Quads, four as table4, header, six as table6};
use screener_ebpf::{self as abi, action};

use super::flatten::{Item, Prefix, Span, V4, V6, flatten};
use super::list::{self, CHANGES_ROOM, List, entry_words, merge};
use super::permits::Permits;
use super::words::{QuadMap, Words};
use super::{SyncReport, four, six};
use crate::kernel::error::KernelError;
use crate::kernel::load;
use crate::kernel::pin::{self, PinDirectory};
use crate::kernel::sys;

/// Free words that changes must find behind a new IPv4 table: 1 MiB, twice what a /8 needs.
const ROOM4: usize = 1 << 17;
/// The same behind an IPv6 table. A change takes a few.
const ROOM6: usize = 1 << 16;
/// The widest change in place; a wider one compiles anew.
const WIDEST4: u8 = 8;
/// Low bits of an address within an /18.
const IN_18: u8 = 14;

/// How many entries a family may have. So many have room in any mixture but of very many actions side by side.
pub(super) const fn most_entries(bits: u8) -> usize {
    if bits == V4 { 5 << 18 } else { 1 << 17 }
}

/// How many quads its map has.
const fn quads(bits: u8) -> u32 {
    if bits == V4 { abi::DENY4_QUADS } else { abi::DENY6_QUADS }
}

/// The map that the set stands in.
pub(super) struct Outer {
    map: ArrayOfMaps<MapData, QuadMap>,
    /// The same again: aya cannot take a map out of its place.
    fd: OwnedFd,
}

impl TryFrom<Map> for Outer {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        let Map::ArrayOfMaps(data) = &map else { return Err(MapError::InvalidMapType { map_type: 0 }) };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
        Ok(Self { map: map.try_into()?, fd })
    }
}

/// The deny set of one family.
pub(super) struct DenySet {
    bits: u8,
    name: &'static str,
    outer: Outer,
    /// `None`: nothing is denied.
    live: Option<Live>,
    writable: bool,
}

/// What stands in the outer map.
struct Live {
    words: Words,
    changes: BTreeMap<Prefix, u8>,
    /// How many entries there are.
    entries: usize,
}

impl DenySet {
    /// Takes the map out of the object, to write.
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory, bits: u8) -> Result<Self, KernelError> {
        Self::over(load::take(object, pin, name(bits))?, bits, pin.map(name(bits)), true)
    }

    /// Opens the map by its pin; `None`: it is not there.
    pub(super) fn open(directory: &Path, bits: u8, writable: bool) -> Result<Option<Self>, KernelError> {
        let Some(map) = load::open(directory, name(bits))? else { return Ok(None) };
        Self::over(map, bits, pin::map_pin(directory, name(bits)), writable).map(Some)
    }

    pub(super) fn over(outer: Outer, bits: u8, path: PathBuf, writable: bool) -> Result<Self, KernelError> {
        let mut set = Self { bits, name: name(bits), outer, live: None, writable };
        match set.outer.map.get(&0, 0) {
            Ok(map) => {
                let words = Words::over(map, writable).map_err(|error| set.failed(error))?;
                set.live = Some(Live::read(words, bits).ok_or(KernelError::ForeignMap { path })?);
            }
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(set.failed(error)),
        }
        Ok(set)
    }

    fn failed(&self, error: MapError) -> KernelError {
        KernelError::map(self.name, 1, error)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn entries(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.entries)
    }

    /// Bytes of memory that the kernel holds for it.
    pub(super) fn bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.words.bytes())
    }

    /// What the programs find for an address.
    pub(super) fn find(&self, address: u128) -> Fate {
        let Some(live) = &self.live else { return Fate::NONE };
        if self.bits == V4 {
            table4::find(&live.words, (address as u32).to_be_bytes())
        } else {
            table6::find(&live.words, (address >> 64) as u64, address as u64)
        }
    }

    /// The action of the entry of exactly this prefix.
    pub(super) fn get(&self, prefix: Prefix) -> Option<u8> {
        self.live.as_ref()?.list(self.bits).get(prefix)
    }

    /// Every entry, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Item> {
        self.live.iter().flat_map(|live| live.list(self.bits).iter())
    }

    /// Makes the set equal to these entries, which come in order, each prefix once.
    ///
    /// Compiles anew only if something differs, or if `holes` (permits) changed.
    pub(super) fn sync(
        &mut self,
        items: &[Item],
        permits: &Permits,
        holes: bool,
        report: &mut SyncReport,
    ) -> Result<(), KernelError> {
        let before = *report;
        compare(self.iter(), items.iter().copied(), report);
        let same = report.kept - before.kept == items.len() && report.removed == before.removed;
        let dirty = self.live.as_ref().is_some_and(Live::is_dirty);
        if same && !holes && !dirty { Ok(()) } else { self.compile(items, permits) }
    }

    /// Whether so many entries have room.
    pub(super) fn holds(&self, entries: usize) -> Result<(), KernelError> {
        let max_entries = most_entries(self.bits);
        if entries <= max_entries {
            return Ok(());
        }
        Err(KernelError::MapFull { map: self.name, max_entries: max_entries as u32 })
    }

    /// Adds an entry, or changes what it does.
    pub(super) fn put(&mut self, item: Item, permits: &Permits) -> Result<(), KernelError> {
        match self.get(item.prefix) {
            Some(action) if action == item.action => return Ok(()),
            Some(_) => {}
            None => self.holds(self.entries() + 1)?,
        }
        self.change(item, permits)
    }

    /// Whether the entry was there.
    pub(super) fn remove(&mut self, prefix: Prefix, permits: &Permits) -> Result<bool, KernelError> {
        if self.get(prefix).is_none() {
            return Ok(false);
        }
        self.change(Item { prefix, action: action::NONE }, permits)?;
        Ok(true)
    }

    fn change(&mut self, item: Item, permits: &Permits) -> Result<(), KernelError> {
        let noted = self.live.as_mut().is_some_and(|live| live.note(item, self.bits));
        if noted && self.patch(item.prefix, permits) {
            return Ok(());
        }
        // No room, or too wide: everything anew, with the change.
        let one = std::iter::once(item);
        let items: Vec<Item> = {
            let others = self.iter().filter(|other| other.prefix != item.prefix);
            merge(others, one).filter(|item| item.action != action::NONE).collect()
        };
        self.compile(&items, permits)
    }

    /// Brings the table up to date after a permit has come or gone.
    pub(super) fn refresh(&mut self, region: Prefix, permits: &Permits) -> Result<(), KernelError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        live.words.publish(header::DIRTY, 1);
        if self.patch(region, permits) {
            return Ok(());
        }
        self.fold(permits)
    }

    /// Compiles anew from the list, so that changes have room again.
    pub(super) fn fold(&mut self, permits: &Permits) -> Result<(), KernelError> {
        let items: Vec<Item> = self.iter().collect();
        self.compile(&items, permits)
    }

    /// Whether more than half of the room for changes is used.
    pub(super) fn wants_folding(&self) -> bool {
        self.live.as_ref().is_some_and(|live| {
            let room = if self.bits == V4 { ROOM4 } else { ROOM6 };
            live.changes.len() > CHANGES_ROOM / 2 || live.word(header::LIST) - live.word(header::FREE) < room / 2
        })
    }

    /// Writes what now holds within a prefix. False: not in place, all must be compiled anew.
    fn patch(&mut self, region: Prefix, permits: &Permits) -> bool {
        let Some(live) = &mut self.live else { return false };
        let done = if self.bits == V4 { live.patch4(region, permits) } else { live.patch6(region, permits) };
        if done {
            live.words.publish(header::DIRTY, 0);
        }
        done
    }

    /// Compiles entries, which come in order, and puts the result in place.
    fn compile(&mut self, items: &[Item], permits: &Permits) -> Result<(), KernelError> {
        if items.is_empty() {
            return self.clear();
        }
        self.holds(items.len())?;
        let live = compile(items, permits, self.bits).map_err(|error| self.failed(error))?;
        let full = || KernelError::MapFull { map: self.name, max_entries: items.len() as u32 };
        let live = live.ok_or_else(full)?;
        // Whoever looks up now sees the old set or the new one, whole. The kernel returns when the old one has no reader.
        self.outer.map.set(0, live.words.map(), 0).map_err(|error| self.failed(error))?;
        self.live = Some(live);
        Ok(())
    }

    fn clear(&mut self) -> Result<(), KernelError> {
        if self.live.take().is_none() {
            return Ok(());
        }
        // In an empty place nothing is found.
        sys::map_delete(self.outer.fd.as_fd(), 0).map_err(|error| self.failed(MapError::IoError(error)))
    }

    /// Whether a writer died within a change.
    pub(super) fn heal(&mut self, permits: &Permits) -> Result<bool, KernelError> {
        let dirty = self.writable && self.live.as_ref().is_some_and(Live::is_dirty);
        if dirty {
            self.fold(permits)?;
        }
        Ok(dirty)
    }
}

fn name(bits: u8) -> &'static str {
    if bits == V4 { abi::maps::DENY4 } else { abi::maps::DENY6 }
}

/// Notes how two lists differ, both in order.
fn compare(old: impl Iterator<Item = Item>, new: impl Iterator<Item = Item>, report: &mut SyncReport) {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if a.prefix == b.prefix => {
                if a.action == b.action {
                    report.kept += 1;
                } else {
                    report.changed += 1;
                }
                (old.next(), new.next())
            }
            (Some(a), Some(b)) if a.prefix < b.prefix => {
                report.removed += 1;
                (old.next(), None)
            }
            (_, Some(_)) => {
                report.added += 1;
                (None, new.next())
            }
            (Some(_), None) => {
                report.removed += 1;
                (old.next(), None)
            }
            (None, None) => return,
        };
    }
}

/// A new set of these entries, in no place yet; `None`: they do not fit.
fn compile(items: &[Item], permits: &Permits, bits: u8) -> Result<Option<Live>, MapError> {
    let whole = Prefix { first: 0, length: 0 };
    let all = merge(items.iter().copied(), permits.about(whole, bits));
    let (parts, mask, wide) = if bits == V4 {
        let mut table = four::Builder::new();
        flatten(all, whole, bits, |span| table.take(span));
        (table.finish().to_vec(), 0, 0)
    } else {
        let mut table = six::Builder::new();
        flatten(all, whole, bits, |span| table.take(span));
        let six::Table { parts, mask, wide } = table.finish();
        (parts.to_vec(), mask, wide)
    };
    let room = if bits == V4 { ROOM4 } else { ROOM6 };
    let head = header::QUADS as usize * 4;
    let free = head + parts.iter().map(Vec::len).sum::<usize>();
    let entry = entry_words(bits);
    let end = quads(bits) as usize * 4;
    let list = end.checked_sub((items.len() + CHANGES_ROOM) * entry).filter(|list| free + room <= *list);
    let Some(list) = list else { return Ok(None) };
    let mut words = Words::create(quads(bits))?;
    let memory = words.get_mut();
    let mut at = head;
    for part in parts {
        memory[at..at + part.len()].copy_from_slice(&part);
        at += part.len();
    }
    for (place, &item) in memory[list..].chunks_exact_mut(entry).zip(items) {
        list::encode(item, bits, place);
    }
    for (index, word) in [
        (header::MAGIC, MAGIC),
        (header::BUCKET_MASK, mask),
        (header::WIDE, wide),
        (header::LIST, list as u64),
        (header::LISTED, items.len() as u64),
        (header::FREE, free as u64),
    ] {
        memory[index] = word;
    }
    Ok(Some(Live { words, changes: BTreeMap::new(), entries: items.len() }))
}

impl Live {
    /// Reads a set that stands; `None`: it is none of this version.
    fn read(words: Words, bits: u8) -> Option<Self> {
        let mut live = Self { words, changes: BTreeMap::new(), entries: 0 };
        let memory = live.words.get();
        let head = |index: usize| memory.get(index).copied().and_then(|word| usize::try_from(word).ok());
        let (list, listed, changes) = (head(header::LIST)?, head(header::LISTED)?, head(header::CHANGES)?);
        let entry = entry_words(bits);
        if memory.first() != Some(&MAGIC) || head(header::FREE)? > list || list > memory.len() {
            return None;
        }
        let noted = list.checked_add(listed.checked_mul(entry)?)?;
        let noted = memory.get(noted..noted.checked_add(changes.checked_mul(entry)?)?)?;
        let noted: Option<BTreeMap<_, _>> = noted
            .chunks_exact(entry)
            .map(|words| list::decode(words, bits).map(|item| (item.prefix, item.action)))
            .collect();
        live.changes = noted?;
        // Not by counting a million of them: the few that have changed were listed or not, and are there or not.
        let before = List { changes: &BTreeMap::new(), ..live.list(bits) };
        let gone = live.changes.keys().filter(|&&prefix| before.get(prefix).is_some()).count();
        let there = live.changes.values().filter(|&&action| action != action::NONE).count();
        live.entries = listed + there - gone;
        Some(live)
    }

    fn word(&self, index: usize) -> usize {
        self.words.get().get(index).map_or(0, |&word| word as usize)
    }

    fn is_dirty(&self) -> bool {
        self.word(header::DIRTY) != 0
    }

    fn list(&self, bits: u8) -> List<'_> {
        let (from, listed) = (self.word(header::LIST), self.word(header::LISTED));
        let base = self.words.get().get(from..from + listed * entry_words(bits)).unwrap_or_default();
        List { bits, base, changes: &self.changes }
    }

    /// Notes a change in the list; the table is behind until it is patched. False: there is no room.
    fn note(&mut self, item: Item, bits: u8) -> bool {
        let (count, entry) = (self.word(header::CHANGES), entry_words(bits));
        if count >= CHANGES_ROOM {
            return false;
        }
        let was = self.list(bits).get(item.prefix).is_some();
        let at = self.word(header::LIST) + (self.word(header::LISTED) + count) * entry;
        let Some(place) = self.words.get_mut().get_mut(at..at + entry) else { return false };
        list::encode(item, bits, place);
        self.words.publish(header::DIRTY, 1);
        self.words.publish(header::CHANGES, count as u64 + 1);
        self.changes.insert(item.prefix, item.action);
        let is = item.action != action::NONE;
        self.entries = self.entries + usize::from(is) - usize::from(was);
        true
    }

    /// Puts words into free room; where they are, or `None` if there is too little.
    fn allot(words: &mut Words, new: &[u64]) -> Option<u64> {
        let (free, end) = (words.get()[header::FREE] as usize, words.get()[header::LIST] as usize);
        let next = free.checked_add(new.len()).filter(|&next| next <= end)?;
        words.get_mut().get_mut(free..next)?.copy_from_slice(new);
        words.publish(header::FREE, next as u64);
        Some(free as u64)
    }

    /// What holds within a region, which is given to `take` span by span.
    fn spans(list: List<'_>, permits: &Permits, region: Prefix, take: impl FnMut(Span)) {
        let bits = list.bits;
        flatten(merge(list.about(region), permits.about(region, bits)), region, bits, take);
    }

    /// IPv4: writes 64 leaves for each /18 of the region, and leads the record there.
    fn patch4(&mut self, region: Prefix, permits: &Permits) -> bool {
        if region.length < WIDEST4 {
            return false;
        }
        let region = if region.length > 32 - IN_18 { region.cut(32 - IN_18, V4) } else { region };
        let (first, last) = ((region.first >> IN_18) as u32, (region.last(V4) >> IN_18) as u32);
        let mut spans = Vec::new();
        Self::spans(self.list(V4), permits, region, |span| spans.push(span));
        let words = &mut self.words;
        let count = (last - first + 1) as usize;
        let mut patch = four::Patch::new(first, count, |block| Self::allot(words, block));
        spans.into_iter().for_each(|span| patch.take(span));
        let Some(leaves) = patch.finish() else { return false };
        for (eighteen, leaves) in (first..=last).zip(leaves.chunks_exact(four::PATCH_WORDS)) {
            let record = four::record_of(eighteen);
            if self.words.quad(record) == Some(&[0; 4]) && leaves.iter().all(|&leaf| leaf == 0) {
                continue;
            }
            let Some(at) = Self::allot(&mut self.words, leaves) else { return false };
            let base = record as usize * 4 + table4::record::BASE;
            self.words.publish(base, at | table4::record::DIRECT);
        }
        true
    }

    /// IPv6: writes the blocks of the region's roots, and leads their slots there.
    fn patch6(&mut self, region: Prefix, permits: &Permits) -> bool {
        const ROOT: u8 = 32;
        let root_of = |address: u128| (address >> (V6 - ROOT)) as u32;
        if region.length >= ROOT {
            return self.patch_root(region.cut(ROOT, V6), root_of(region.first), permits);
        }
        let (first, last) = (root_of(region.first), root_of(region.last(V6)));
        let mut spans = Vec::new();
        Self::spans(self.list(V6), permits, region, |span| spans.push(span));
        let new = six::Region::of(spans);
        let inside = first..=last;
        let known = self.slots().filter(|&slot| slot != 0).map(|slot| (slot >> 32) as u32);
        let roots: BTreeSet<u32> =
            known.filter(|root| inside.contains(root)).chain(new.mixed.iter().copied()).collect();
        for root in roots {
            let prefix = Prefix { first: u128::from(root) << (V6 - ROOT), length: ROOT };
            if !self.patch_root(prefix, root, permits) {
                return false;
            }
        }
        let block = new.wide_block(self.block(self.word(header::WIDE)), first, last);
        let at = block.map_or(Some(0), |block| Self::allot(&mut self.words, &block));
        if let Some(at) = at {
            self.words.publish(header::WIDE, at);
        }
        at.is_some()
    }

    fn patch_root(&mut self, prefix: Prefix, root: u32, permits: &Permits) -> bool {
        let mut parts = Vec::new();
        Self::spans(self.list(V6), permits, prefix, |span| parts.push(span));
        let mask = self.word(header::BUCKET_MASK) as u32;
        let mut places = six::places(root, mask).map(|slot| table6::BUCKETS as usize * 4 + slot);
        let slot = places.find(|&slot| self.word(slot) == 0 || self.word(slot) >> 32 == root as usize);
        let Some(slot) = slot else { return false };
        let block = six::block_of(root, &parts, self.word(header::FREE) as u64);
        let Some(at) = Self::allot(&mut self.words, &block) else { return false };
        self.words.publish(slot, u64::from(root) << 32 | at);
        true
    }

    /// IPv6: every slot.
    fn slots(&self) -> impl Iterator<Item = u64> {
        let buckets = self.word(header::BUCKET_MASK) + 1;
        self.words.get().iter().skip(table6::BUCKETS as usize * 4).take(buckets * 4).copied()
    }

    /// IPv6: the spans of a block; 0 is none.
    fn block(&self, at: usize) -> &[u64] {
        let count = if at == 0 { 0 } else { self.word(at) };
        self.words.get().get(at + 1..at + 1 + count).unwrap_or_default()
    }
}
