//! Walking through a part of the passes, page by page.
//!
//! Holds reads only. Never keeps the table locked for longer than a page takes.

use std::ops::Bound;

use super::Ledger;
use super::pass::Pass;
use crate::client::ClientKey;
use crate::clock::UnixTime;
use crate::pass::TestSet;

/// A page of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What was wanted of it, in the order of the clients.
    pub passes: Vec<(ClientKey, Pass)>,
    /// Behind which client the walk goes on; `None`: it is over.
    pub next: Option<ClientKey>,
}

impl Ledger {
    /// At most `most` passes from one client to another, as [`Ledger::passes_after`] gives them.
    pub fn passes_within(&self, from: Bound<ClientKey>, to: ClientKey, most: usize) -> Found {
        if matches!(from, Bound::Included(from) | Bound::Excluded(from) if from > to) {
            return Found::default();
        }
        // A range from behind a client to the same client is empty, and one that panics in the tree.
        if matches!(from, Bound::Excluded(from) if from == to) {
            return Found::default();
        }
        let table = self.shared.passes();
        let page = table.by_client.range((from, Bound::Included(to))).take(most.max(1));
        let passes: Vec<_> = page.map(|(&client, pass)| (client, pass.unpack())).collect();
        let next = passes.last().filter(|_| passes.len() == most.max(1)).map(|(last, _)| *last);
        Found { passes, next }
    }

    /// The passes among the `look` behind `after` that left their clients to the MTA until `now` and no longer, but did at
    /// `before`, if a pass must cover these tests.
    pub fn lapsed(
        &self,
        after: Option<ClientKey>,
        look: usize,
        enabled: TestSet,
        before: UnixTime,
        now: UnixTime,
    ) -> Found {
        let table = self.shared.passes();
        let (mut found, mut looked) = (Found::default(), 0);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (&client, pass) in table.by_client.range((from, Bound::Unbounded)).take(look.max(1)) {
            looked += 1;
            found.next = Some(client);
            let until = pass.stamps().complete_until(enabled);
            if until.is_some_and(|until| before < until && until <= now) {
                found.passes.push((client, pass.unpack()));
            }
        }
        found.next = found.next.filter(|_| looked == look.max(1));
        found
    }
}
