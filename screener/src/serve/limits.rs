//! How many sessions there may be, in total and of one client.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::ClientKey;
use crate::config;

/// The ceilings and what stands under them.
#[derive(Debug)]
pub(super) struct Limits {
    total: AtomicUsize,
    per_client: AtomicUsize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_client: HashMap<ClientKey, usize>,
}

/// Which ceiling a client has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All sessions there may be are there.
    Total,
    /// This client has as many as one may have.
    Client,
}

/// One session under the ceilings, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    limits: Arc<Limits>,
    client: ClientKey,
}

impl Limits {
    /// `per_client` 0: as many as it likes.
    pub(super) fn new(total: usize, per_client: usize) -> Arc<Self> {
        let (total, per_client) = (total.into(), per_client.into());
        Arc::new(Self { total, per_client, open: Mutex::default() })
    }

    /// As a configuration says.
    pub(super) fn configured(limits: &config::Limits) -> Arc<Self> {
        let (total, per_client) = ceilings(limits);
        Self::new(total, per_client)
    }

    /// Holds other ceilings from now on. Whoever is in stays in.
    pub(super) fn set(&self, limits: &config::Limits) {
        let (total, per_client) = ceilings(limits);
        self.total.store(total, Ordering::Relaxed);
        self.per_client.store(per_client, Ordering::Relaxed);
    }

    pub(super) fn admit(self: &Arc<Self>, client: ClientKey) -> Result<Slot, Full> {
        let (total, per_client) = (self.total.load(Ordering::Relaxed), self.per_client.load(Ordering::Relaxed));
        let mut open = self.lock();
        if open.total >= total {
            return Err(Full::Total);
        }
        let of_client = open.by_client.entry(client).or_default();
        if per_client != 0 && *of_client >= per_client {
            return Err(Full::Client);
        }
        *of_client += 1;
        open.total += 1;
        Ok(Slot { limits: Arc::clone(self), client })
    }

    /// How many sessions there are.
    pub(super) fn active(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // Counting cannot leave the state half done: a panic elsewhere does not make it wrong.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ceilings(limits: &config::Limits) -> (usize, usize) {
    (limits.connections.get() as usize, limits.per_client.map_or(0, |most| most.get() as usize))
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Ipv6KeyLength;

    fn client(text: &str) -> ClientKey {
        ClientKey::of(text.parse().unwrap(), Ipv6KeyLength::default())
    }

    #[test]
    fn a_client_at_its_ceiling_does_not_keep_others_out() {
        let limits = Limits::new(10, 1);
        let held = limits.admit(client("192.0.2.1")).unwrap();
        assert_eq!(limits.admit(client("192.0.2.1")).unwrap_err(), Full::Client);
        limits.admit(client("192.0.2.2")).unwrap();
        drop(held);
        limits.admit(client("192.0.2.1")).unwrap();
        assert_eq!(limits.active(), 0);
        assert!(limits.lock().by_client.is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn the_total_is_a_ceiling_for_everybody() {
        let limits = Limits::new(1, 0);
        let _held = limits.admit(client("192.0.2.1")).unwrap();
        assert_eq!(limits.admit(client("192.0.2.2")).unwrap_err(), Full::Total);
    }
}
