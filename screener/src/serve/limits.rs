//! How many sessions there may be, in total, of one client, and in the tarpit; and whether they are so many that waits have
//! to shrink.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::info;

use crate::client::ClientKey;
use crate::config;
use crate::session::Ceiling;

/// What there may be at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Sessions.
    pub(super) total: usize,
    /// Sessions of one client; `None`: as many as it likes.
    pub(super) per_client: Option<usize>,
}

impl Most {
    /// What the configuration allows, for a client that static entries permit, or for any other. A permitted client is
    /// the operator's own affair.
    pub(super) fn of(limits: &config::Limits, permitted: bool) -> Self {
        let per_client = limits.per_client.filter(|_| !permitted).map(|most| most.get() as usize);
        Self { total: limits.connections.get() as usize, per_client }
    }

    /// From so many sessions on there is stress: nine tenths, as in postscreen (reference/postscreen.md section 1.1).
    fn too_many(self) -> usize {
        (self.total * 9 / 10).max(1)
    }

    /// With so many or fewer it ends: seven tenths.
    fn few_again(self) -> usize {
        self.total * 7 / 10
    }
}

/// What there is.
#[derive(Debug)]
pub(super) struct Limits {
    open: Mutex<Open>,
    stress: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_client: HashMap<ClientKey, usize>,
    tarpitted: usize,
    /// As the last session that came was told: a reload changes it.
    few_again: usize,
}

/// One session under the ceilings, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    limits: Arc<Limits>,
    client: ClientKey,
}

/// A place in the tarpit, until it is dropped.
#[derive(Debug)]
pub(super) struct TarpitPlace(Arc<Limits>);

impl Limits {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), stress: watch::Sender::new(false) })
    }

    /// Takes a session in, or says which ceiling keeps it out.
    pub(super) fn admit(self: &Arc<Self>, client: ClientKey, most: Most) -> Result<Slot, Ceiling> {
        let mut open = self.lock();
        if open.total >= most.total {
            return Err(Ceiling::Screening);
        }
        let of_client = open.by_client.entry(client).or_default();
        if most.per_client.is_some_and(|most| *of_client >= most) {
            return Err(Ceiling::Client);
        }
        *of_client += 1;
        open.total += 1;
        open.few_again = most.few_again();
        let total = open.total;
        // Under the lock, so that no two changes overtake each other.
        if total >= most.too_many() && self.set_stress(true) {
            info!("entering STRESS mode with {total} connections");
        }
        drop(open);
        Ok(Slot { limits: Arc::clone(self), client })
    }

    /// A place in the tarpit, unless there are `most` clients in it, or there is no room to spare.
    pub(super) fn tarpit(self: &Arc<Self>, most: usize) -> Option<TarpitPlace> {
        let mut open = self.lock();
        if open.tarpitted >= most || self.is_stressed() {
            return None;
        }
        open.tarpitted += 1;
        drop(open);
        Some(TarpitPlace(Arc::clone(self)))
    }

    /// How many sessions there are.
    pub(super) fn active(&self) -> usize {
        self.lock().total
    }

    /// How many sessions one client has.
    pub(super) fn of(&self, client: ClientKey) -> usize {
        self.lock().by_client.get(&client).copied().unwrap_or(0)
    }

    /// How many of them are in the tarpit.
    pub(super) fn tarpitted(&self) -> usize {
        self.lock().tarpitted
    }

    /// Whether there are so many that waits have to shrink.
    pub(super) fn is_stressed(&self) -> bool {
        *self.stress.borrow()
    }

    /// Tells of every change of [`Limits::is_stressed`].
    pub(super) fn stress(&self) -> watch::Receiver<bool> {
        self.stress.subscribe()
    }

    /// True: it was not so before.
    fn set_stress(&self, on: bool) -> bool {
        self.stress.send_if_modified(|stressed| std::mem::replace(stressed, on) != on)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Counting cannot leave the state half done: a panic elsewhere does not make it wrong.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        open.total -= 1;
        if let Entry::Occupied(mut of_client) = open.by_client.entry(self.client) {
            *of_client.get_mut() -= 1;
            if *of_client.get() == 0 {
                of_client.remove();
            }
        }
        let total = open.total;
        if total <= open.few_again && self.limits.set_stress(false) {
            info!("leaving STRESS mode with {total} connections");
        }
    }
}

impl Drop for TarpitPlace {
    fn drop(&mut self) {
        self.0.lock().tarpitted -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Ipv6KeyLength;

    fn client(number: u8) -> ClientKey {
        ClientKey::of([192, 0, 2, number].into(), Ipv6KeyLength::default())
    }

    #[test]
    fn a_client_at_its_ceiling_does_not_keep_others_out() {
        let (limits, most) = (Limits::new(), Most { total: 10, per_client: Some(1) });
        let held = limits.admit(client(1), most).unwrap();
        assert_eq!(limits.admit(client(1), most).unwrap_err(), Ceiling::Client);
        limits.admit(client(2), most).unwrap();
        drop(held);
        limits.admit(client(1), most).unwrap();
        assert_eq!(limits.active(), 0);
        assert!(limits.lock().by_client.is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn the_total_is_a_ceiling_for_everybody() {
        let (limits, most) = (Limits::new(), Most { total: 1, per_client: None });
        let _held = limits.admit(client(1), most).unwrap();
        assert_eq!(limits.admit(client(2), most).unwrap_err(), Ceiling::Screening);
    }

    #[test]
    fn stress_begins_at_nine_tenths_and_ends_at_seven() {
        let (limits, most) = (Limits::new(), Most { total: 10, per_client: None });
        let mut changes = limits.stress();
        let mut held: Vec<_> = (0..8).map(|number| limits.admit(client(number), most).unwrap()).collect();
        assert!(!limits.is_stressed() && !changes.has_changed().unwrap());
        held.push(limits.admit(client(9), most).unwrap());
        assert!(limits.is_stressed() && changes.has_changed().unwrap());
        changes.mark_unchanged();
        held.pop();
        assert!(limits.is_stressed(), "eight are still many");
        held.pop();
        assert!(!limits.is_stressed() && changes.has_changed().unwrap());
    }

    #[test]
    fn the_tarpit_has_a_ceiling_of_its_own_and_is_closed_under_stress() {
        let (limits, most) = (Limits::new(), Most { total: 2, per_client: None });
        let first = limits.tarpit(1).unwrap();
        assert!(limits.tarpit(1).is_none());
        drop(first);
        let _session = limits.admit(client(1), most).unwrap();
        assert!(limits.is_stressed() && limits.tarpit(1).is_none());
        assert_eq!(limits.tarpitted(), 0);
    }
}
