//! What stands in memory, as it goes into a file: some of it by its keys, or all of it.
//!
//! Holds the walk. Takes one lock at a time, and each for a page.

use std::ops::Bound;

use ipnet::IpNet;

use super::Shared;
use super::store::Batch;
use crate::client::ClientKey;

/// How many records are taken under one lock, and written in one transaction.
pub(super) const CHUNK: usize = 4096;

/// Under which something stands.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Pass(ClientKey),
    History(ClientKey),
    Static(IpNet),
    Offender(IpNet),
}

/// The present values under some keys.
pub(super) fn present(shared: &Shared, keys: &[Key]) -> Batch {
    let mut batch = Batch::default();
    // One lock after the other, never two at once.
    {
        let passes = shared.passes();
        let keys = keys.iter().filter_map(|key| if let Key::Pass(client) = key { Some(*client) } else { None });
        let keep_epochs = shared.options.shared || !passes.epochs.is_empty();
        for client in keys {
            batch.passes.push((client, passes.by_client.get(&client).cloned()));
            if keep_epochs {
                batch.epochs.push((client, passes.epochs.get(&client).copied()));
            }
        }
    }
    {
        let histories = shared.histories();
        let keys = keys.iter().filter_map(|key| if let Key::History(client) = key { Some(*client) } else { None });
        batch.histories.extend(keys.map(|client| (client, histories.get(client).cloned())));
    }
    {
        let statics = shared.statics();
        let keys = keys.iter().filter_map(|key| if let Key::Static(prefix) = key { Some(*prefix) } else { None });
        batch.statics.extend(keys.map(|prefix| (prefix, statics.get(&prefix).cloned())));
    }
    {
        let offenders = shared.offenders();
        let keys = keys.iter().filter_map(|key| if let Key::Offender(network) = key { Some(*network) } else { None });
        for network in keys {
            batch.offenders.push((network, offenders.ladder.get(network).cloned()));
            if offenders.pardons.filed {
                batch.pardons.push((network, offenders.pardons.get(network)));
            }
        }
    }
    batch
}

/// All there is, in batches. What changes meanwhile is noted as pending and follows.
pub(super) fn everything(shared: &Shared) -> impl Iterator<Item = Batch> + '_ {
    let mut after = Bound::Unbounded;
    let passes = std::iter::from_fn(move || {
        let table = shared.passes();
        let page: Vec<_> = table
            .by_client
            .range((after, Bound::Unbounded))
            .take(CHUNK)
            .map(|(&key, pass)| (key, Some(pass.clone())))
            .collect();
        after = Bound::Excluded(page.last()?.0);
        Some(Batch { passes: page, ..Batch::default() })
    });
    let mut after = Bound::Unbounded;
    let epochs = std::iter::from_fn(move || {
        let table = shared.passes();
        let page = table.epochs.range((after, Bound::Unbounded)).take(CHUNK);
        let page: Vec<_> = page.map(|(&client, &epochs)| (client, Some(epochs))).collect();
        after = Bound::Excluded(page.last()?.0);
        Some(Batch { epochs: page, ..Batch::default() })
    });
    let clients: Vec<ClientKey> = shared.histories().keys().collect();
    let mut clients = clients.into_iter();
    let histories = std::iter::from_fn(move || {
        let keys: Vec<_> = clients.by_ref().take(CHUNK).map(Key::History).collect();
        (!keys.is_empty()).then(|| present(shared, &keys))
    });
    let prefixes: Vec<_> = shared.statics().keys().copied().map(Key::Static).collect();
    let offenders: Vec<_> = shared.offenders().networks().into_iter().map(Key::Offender).collect();
    let statics = std::iter::once_with(move || present(shared, &prefixes));
    passes
        .chain(epochs)
        .chain(histories)
        .chain(statics)
        .chain(std::iter::once_with(move || present(shared, &offenders)))
}
