//! What is said about one prefix, packed: a list may have a million of them.
//!
//! Holds the entries of one prefix in the order in which they decide, and the prefix's counters. What the entries of a list
//! have in common (source, comment, time) they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::UnixTime;
use crate::feed::{DenyAction, Source, StaticAction};

/// Who says something, why, and since when: the same for all entries of one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who.
    pub source: Source,
    /// Why.
    pub comment: Option<Box<str>>,
    /// Since when.
    pub added: UnixTime,
}

/// An entry as it lies in the tree; the prefix is its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) origin: Arc<Origin>,
    pub(super) action: StaticAction,
}
const _: () = assert!(size_of::<Item>() == 16);

impl Item {
    pub(super) fn is_permit(&self) -> bool {
        self.action == StaticAction::Permit
    }

    pub(super) fn is_count(&self) -> bool {
        self.action == StaticAction::Deny(DenyAction::Count)
    }

    /// The least one decides. A dry run never does where another entry stands: it must not lift what it lies upon.
    fn rank(&self) -> (bool, bool, u8, u8) {
        let softness = match self.action {
            // Never beside a deny of the same rank: permits come first.
            StaticAction::Permit | StaticAction::Deny(DenyAction::Drop) => 0,
            StaticAction::Deny(DenyAction::Reject) => 1,
            StaticAction::Deny(DenyAction::Tag) => 2,
            StaticAction::Deny(DenyAction::Count) => 3,
        };
        (!self.is_permit(), self.is_count(), self.origin.source.rank(), softness)
    }
}

/// The entries of a prefix: nearly always one.
#[derive(Debug)]
enum Items {
    One(Item),
    #[expect(
        clippy::box_collection,
        reason = "a vector by itself would make every slot larger for the few with several"
    )]
    Many(Box<Vec<Item>>),
}

/// All that is said about one prefix: never empty, the deciding entry first.
#[derive(Debug)]
pub(super) struct Slot {
    items: Items,
    hits: AtomicU64,
    /// Zero: never. Good until 2106.
    last_seen: AtomicU32,
}
const _: () = assert!(size_of::<Slot>() == 32);

impl Slot {
    pub(super) fn new(item: Item) -> Self {
        Self { items: Items::One(item), hits: AtomicU64::new(0), last_seen: AtomicU32::new(0) }
    }

    /// The entries, the deciding one first.
    pub(super) fn items(&self) -> &[Item] {
        match &self.items {
            Items::One(item) => std::slice::from_ref(item),
            Items::Many(items) => items,
        }
    }

    /// The entry that decides among the permits, or among the denies.
    pub(super) fn first(&self, permit: bool) -> Option<&Item> {
        self.items().iter().find(|item| item.is_permit() == permit)
    }

    /// What a source says.
    pub(super) fn of(&self, source: &Source) -> Option<&Item> {
        self.items().iter().find(|item| item.origin.source == *source)
    }

    /// Adds an entry, or replaces the one of the same source.
    pub(super) fn put(&mut self, item: Item) -> Option<Item> {
        if let Items::One(only) = &mut self.items
            && only.origin.source == item.origin.source
        {
            return Some(std::mem::replace(only, item));
        }
        let mut items = self.items().to_vec();
        let same = items.iter_mut().find(|old| old.origin.source == item.origin.source);
        let old = match same {
            Some(old) => Some(std::mem::replace(old, item)),
            None => {
                items.push(item);
                None
            }
        };
        items.sort_by_key(Item::rank);
        self.items = Items::Many(Box::new(items));
        old
    }

    /// Removes what a source says beside others. `None`: it says nothing, or it is the only one, and then the slot must go.
    pub(super) fn remove(&mut self, source: &Source) -> Option<Item> {
        let mut items = self.items().to_vec();
        let at = items.iter().position(|item| item.origin.source == *source)?;
        let item = items.remove(at);
        self.items = match (items.pop(), items.is_empty()) {
            (None, _) => return None,
            (Some(only), true) => Items::One(only),
            (Some(last), false) => {
                items.push(last);
                Items::Many(Box::new(items))
            }
        };
        Some(item)
    }

    /// Credits hits.
    pub(super) fn hit(&self, weight: u64, at: UnixTime) {
        self.hits.fetch_add(weight, Ordering::Relaxed);
        self.last_seen.fetch_max(u32::try_from(at.0).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(super) fn last_seen(&self) -> Option<UnixTime> {
        let last_seen = self.last_seen.load(Ordering::Relaxed);
        (last_seen != 0).then_some(UnixTime(last_seen.into()))
    }
}
