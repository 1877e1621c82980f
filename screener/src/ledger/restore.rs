//! Putting back passes that were written down before, or by somebody else.
//!
//! Holds the page-wise way in. Never shortens a pass, and never holds the table for longer than a few hundred of them take.

use super::Ledger;
use super::news::Happened;
use super::pass::{Grant, Packed, Pass};
use crate::client::ClientKey;
use crate::clock::UnixTime;
use crate::pass::Stamps;

/// How many are put back under one lock.
const PAGE: usize = 256;

impl Ledger {
    /// Puts passes back, with who gave them, since when and why; says of each what it did and what has been passed then. With `change` false nothing is
    /// changed, and the answer says what would be.
    ///
    /// Where a pass counts for anything already, the two become one: no expiry is shortened, the earlier beginning stays, and
    /// what the ledger has of origin and comment comes first.
    pub fn restore(&self, passes: &[(ClientKey, Pass)], now: UnixTime, change: bool) -> Vec<(Grant, Stamps)> {
        let mut grants = Vec::with_capacity(passes.len());
        for page in passes.chunks(PAGE) {
            let mut table = self.shared.passes();
            for (client, back) in page {
                let (pass, grant) = Packed::restored(table.by_client.get(client), back, now);
                grants.push((grant, pass.stamps()));
                if grant == Grant::Unchanged || !change {
                    continue;
                }
                self.shared.heirs.granted(*client, &back.stamps, back.origin, now);
                table.news.tell(*client, || (grant.into(), Some(pass.unpack())));
                table.by_client.insert(*client, pass);
                self.shared.pass_changed(&mut table, *client);
            }
        }
        grants
    }
}

impl From<Grant> for Happened {
    fn from(grant: Grant) -> Self {
        match grant {
            Grant::New => Self::Granted,
            Grant::Changed | Grant::Unchanged => Self::Extended,
        }
    }
}
