//! What is still to be told to the other hosts: the names, clients or offenders, never what is to be said about them.
//!
//! The words are read from the ledger when they are sent, so a client that changed ten times is told about once, and what is
//! sent is always the latest. Bounded: where too many wait the queue lets go of them all and asks for everything to be told
//! instead, so nothing is lost. Holds no lock and no clock.

use std::collections::BTreeSet;

/// The queue.
#[derive(Debug)]
pub struct Queue<T> {
    names: BTreeSet<T>,
    /// What is being told.
    in_flight: Vec<T>,
    capacity: usize,
    everything: bool,
    overflows: u64,
}

impl<T: Copy + Ord> Queue<T> {
    /// For at most so many names.
    pub fn new(capacity: usize) -> Self {
        Self { names: BTreeSet::new(), in_flight: Vec::new(), capacity, everything: false, overflows: 0 }
    }

    /// There is something to tell about these.
    pub fn add(&mut self, names: impl IntoIterator<Item = T>) {
        if self.everything {
            return;
        }
        self.names.extend(names);
        if self.names.len() > self.capacity {
            self.tell_everything();
            self.overflows += 1;
        }
    }

    /// Everything is to be told.
    pub fn tell_everything(&mut self) {
        (self.names, self.in_flight) = (BTreeSet::new(), Vec::new());
        self.everything = true;
    }

    /// Whether everything is to be told.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// Everything is about to be told: what comes from now on is told singly again.
    pub fn begin_everything(&mut self) {
        (self.names, self.in_flight) = (BTreeSet::new(), Vec::new());
        self.everything = false;
    }

    /// At most so many of the names, which are being told from now on.
    pub fn take(&mut self, most: usize) -> Vec<T> {
        self.in_flight = std::iter::from_fn(|| self.names.pop_first()).take(most).collect();
        self.in_flight.clone()
    }

    /// What was taken has been told.
    pub fn told(&mut self) {
        self.in_flight.clear();
    }

    /// Whether what was taken has been told is not known.
    pub fn put_back(&mut self) {
        let unfinished = std::mem::take(&mut self.in_flight);
        self.add(unfinished);
    }

    /// How many wait or are being told.
    pub fn len(&self) -> usize {
        self.names.len() + self.in_flight.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !self.everything
    }

    /// How often there were too many.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_waits_once_and_too_many_become_everything() {
        let mut queue = Queue::new(3);
        queue.add([1, 2, 1]);
        assert_eq!((queue.len(), queue.take(1)), (2, vec![1]));
        queue.add(1..=4);
        assert_eq!((queue.is_everything(), queue.len(), queue.is_empty()), (true, 0, false));
        queue.add([9]);
        assert_eq!((queue.len(), queue.overflows()), (0, 1), "it is among everything");
        queue.begin_everything();
        queue.add([9]);
        assert_eq!((queue.take(5), queue.len()), (vec![9], 1));
        queue.told();
        assert!(queue.is_empty());
    }

    #[test]
    fn what_is_being_told_waits_again_when_that_fails_and_when_it_changes_meanwhile() {
        let mut queue = Queue::new(3);
        queue.add([1, 2]);
        assert_eq!(queue.take(5), [1, 2]);
        queue.add([2]);
        queue.told();
        assert_eq!(queue.take(5), [2], "it has changed since");
        queue.put_back();
        assert_eq!(queue.take(5), [2]);
    }
}
