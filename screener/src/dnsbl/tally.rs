//! What each list contributes to decisions, client by client: hits, hits that no other list had, clients that would have
//! been let through without it, and hits that two lists had together.
//!
//! Holds counts. A client is counted once, when everything that will be known about it is known.

use std::sync::{Mutex, PoisonError};

use super::list::sum;

/// The counts, by the position of a list in the configuration.
#[derive(Debug)]
pub(super) struct Tally(Mutex<Counts>);

/// The same, to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Clients that lists have said something about.
    pub clients: u64,
    /// Clients whose score reached the threshold.
    pub failed: u64,
    /// List by list.
    pub lists: Vec<Contribution>,
}

/// What one list contributed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Clients that it answered about.
    pub answered: u64,
    /// Clients that it listed.
    pub hits: u64,
    /// Clients that no other list with a weight of the same sign listed.
    pub alone: u64,
    /// Clients whose score would have been on the other side of the threshold without it.
    pub decisive: u64,
    /// Clients that it listed together with each other list.
    pub with: Vec<u64>,
}

/// What a list said about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    /// Nothing: it was not asked, or did not answer.
    None,
    /// Not listed.
    Miss,
    /// Listed, with this weight.
    Hit(i32),
}

impl Tally {
    pub(super) fn new(lists: usize) -> Self {
        let lists = vec![Contribution { with: vec![0; lists], ..Contribution::default() }; lists];
        Self(Mutex::new(Counts { lists, ..Counts::default() }))
    }

    /// For other lists, with the counts of those that stay. `stood`: where each list stood before, if it did.
    ///
    /// What a client brings that came before and goes after this is lost.
    pub(super) fn carried_on(&self, stood: &[Option<usize>]) -> Self {
        let old = self.counts();
        let of = |at: Option<usize>| at.and_then(|at| old.lists.get(at));
        let both = |list: &Contribution, other: Option<usize>| other.and_then(|at| list.with.get(at)).copied();
        let lists = stood.iter().map(|&at| {
            let list = of(at).cloned().unwrap_or_default();
            let with = stood.iter().map(|&other| both(&list, other).unwrap_or(0)).collect();
            Contribution { with, ..list }
        });
        Self(Mutex::new(Counts { lists: lists.collect(), ..old }))
    }

    /// Counts a client. `scores`: whether a list's weight goes into the score.
    pub(super) fn add(&self, votes: &[Vote], scores: impl Fn(usize) -> bool, threshold: i32) {
        if votes.iter().all(|vote| *vote == Vote::None) {
            return;
        }
        let weight = |index: usize| match votes[index] {
            Vote::Hit(weight) if scores(index) => weight,
            _ => 0,
        };
        let score = sum((0..votes.len()).map(weight));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clients += 1;
        counts.failed += u64::from(score >= threshold);
        for (index, vote) in votes.iter().enumerate() {
            let Some(list) = counts.lists.get_mut(index) else { continue };
            list.answered += u64::from(*vote != Vote::None);
            let Vote::Hit(own) = *vote else { continue };
            list.hits += 1;
            let others = || votes.iter().enumerate().filter(|&(other, _)| other != index);
            let same = |vote: &Vote| matches!(vote, Vote::Hit(weight) if weight.signum() == own.signum());
            list.alone += u64::from(!others().any(|(_, vote)| same(vote)));
            // Also for a list that is only counted: what it would have changed.
            let (with, without) =
                if scores(index) { (score, score.saturating_sub(own)) } else { (score.saturating_add(own), score) };
            list.decisive += u64::from((with >= threshold) != (without >= threshold));
            for (other, vote) in others() {
                list.with[other] += u64::from(matches!(vote, Vote::Hit(_)));
            }
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contributions_are_what_would_have_been_otherwise() {
        let tally = Tally::new(3);
        let all = |_| true;
        tally.add(&[Vote::Hit(3), Vote::Hit(2), Vote::Miss], all, 3);
        tally.add(&[Vote::Hit(3), Vote::Miss, Vote::None], all, 3);
        tally.add(&[Vote::Hit(3), Vote::Miss, Vote::Hit(-2)], all, 3);
        tally.add(&[Vote::None, Vote::None, Vote::None], all, 3);
        let counts = tally.counts();
        assert_eq!((counts.clients, counts.failed), (3, 2));
        let [first, second, third] = &counts.lists[..] else { panic!("three") };
        assert_eq!((first.answered, first.hits, first.alone, first.decisive), (3, 3, 2, 2));
        assert_eq!((second.answered, second.hits, second.alone, second.decisive), (3, 1, 0, 0));
        assert_eq!((third.answered, third.hits, third.alone, third.decisive), (2, 1, 1, 1));
        assert_eq!(first.with, [0, 1, 1]);
    }

    #[test]
    fn lists_that_stay_keep_their_counts_wherever_they_stand() {
        let tally = Tally::new(3);
        tally.add(&[Vote::Hit(3), Vote::Hit(2), Vote::Miss], |_| true, 3);
        tally.add(&[Vote::Miss, Vote::Hit(2), Vote::Hit(2)], |_| true, 3);
        // The first one goes, the others change places, and one is new.
        let tally = tally.carried_on(&[Some(2), None, Some(1)]);
        tally.add(&[Vote::Miss, Vote::Hit(3), Vote::Hit(2)], |_| true, 3);
        let counts = tally.counts();
        assert_eq!((counts.clients, counts.failed), (3, 3));
        let of = |list: &Contribution| (list.answered, list.hits, list.with.clone());
        let [third, new, second] = &counts.lists[..] else { panic!("three") };
        assert_eq!(of(third), (3, 1, vec![0, 0, 1]));
        assert_eq!(of(new), (1, 1, vec![0, 0, 1]));
        assert_eq!(of(second), (3, 3, vec![1, 1, 0]));
    }

    #[test]
    fn a_list_that_is_only_counted_shows_what_it_would_change() {
        let tally = Tally::new(2);
        tally.add(&[Vote::Hit(2), Vote::Hit(1)], |index| index == 0, 3);
        let counts = tally.counts();
        assert_eq!(counts.failed, 0);
        assert_eq!((counts.lists[0].decisive, counts.lists[1].decisive), (0, 1));
    }
}
