//! What is still to be told to the other hosts: the clients, never what is to be said about them.
//!
//! The words are read from the ledger when they are sent, so a client that changed ten times is told about once, and what is
//! sent is always the latest. Bounded: where too many wait the queue lets go of them all and asks for everything to be told
//! instead, so nothing is lost. Holds no lock and no clock.

use std::collections::BTreeSet;

use crate::client::ClientKey;

/// The queue.
#[derive(Debug)]
pub struct Queue {
    clients: BTreeSet<ClientKey>,
    capacity: usize,
    everything: bool,
    overflows: u64,
}

impl Queue {
    /// For at most so many clients.
    pub fn new(capacity: usize) -> Self {
        Self { clients: BTreeSet::new(), capacity, everything: false, overflows: 0 }
    }

    /// There is something to tell about these.
    pub fn add(&mut self, clients: impl IntoIterator<Item = ClientKey>) {
        if self.everything {
            return;
        }
        self.clients.extend(clients);
        if self.clients.len() > self.capacity {
            self.tell_everything();
            self.overflows += 1;
        }
    }

    /// Everything is to be told.
    pub fn tell_everything(&mut self) {
        self.clients = BTreeSet::new();
        self.everything = true;
    }

    /// Whether everything is to be told.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Everything is about to be told: what comes from now on is told singly again.
    pub fn begin_everything(&mut self) {
        self.clients = BTreeSet::new();
        self.everything = false;
    }

    /// At most so many of the clients.
    pub fn take(&mut self, most: usize) -> Vec<ClientKey> {
        let taken: Vec<_> = self.clients.iter().copied().take(most).collect();
        for client in &taken {
            self.clients.remove(client);
        }
        taken
    }

    /// How many clients wait.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty() && !self.everything
    }

    /// How often there were too many.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Ipv6KeyLength;

    fn client(last: u8) -> ClientKey {
        ClientKey::of(std::net::Ipv4Addr::new(192, 0, 2, last).into(), Ipv6KeyLength::default())
    }

    #[test]
    fn a_client_waits_once_and_too_many_become_everything() {
        let mut queue = Queue::new(3);
        queue.add([client(1), client(2), client(1)]);
        assert_eq!((queue.len(), queue.take(1)), (2, vec![client(1)]));
        queue.add((1..=4).map(client));
        assert_eq!((queue.is_everything(), queue.len(), queue.is_empty()), (true, 0, false));
        queue.add([client(9)]);
        assert_eq!((queue.len(), queue.overflows()), (0, 1), "it is among everything");
        queue.begin_everything();
        queue.add([client(9)]);
        assert_eq!((queue.take(5), queue.is_empty()), (vec![client(9)], true));
    }
}
