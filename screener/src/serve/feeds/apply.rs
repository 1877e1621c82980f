//! A feed's entries in the set and in the kernel: the next list in the place of the one before, or neither changed.
//!
//! Holds the order of the steps and how they are undone. What may come in was judged before.

use std::sync::Arc;

use ipnet::IpNet;
use tracing::warn;

use crate::feed::{Difference, Origin, Source, StaticAction};
use crate::kernel::KernelError;

use super::super::daemon::Daemon;
use super::super::statics::{CHUNK, Held};

/// So many changes are made in the kernel one by one, each in place; for more the deny set is made anew and exchanged.
const FEW: usize = 256;

impl Daemon {
    /// What a source says, in order. Whoever changes something by it holds [`Daemon::changing`].
    pub(super) fn said_by(&self, source: &Source) -> Vec<IpNet> {
        let statics = self.statics();
        let mut said: Vec<_> =
            statics.entries().filter(|found| found.source == source).map(|found| found.prefix).collect();
        said.sort_unstable();
        said
    }

    /// Brings what a source says from one list to the next. What comes is there before what goes has gone, and what stays is
    /// not touched. Whoever calls holds [`Daemon::changing`].
    pub(super) fn exchange_list(
        &self,
        action: StaticAction,
        origin: &Arc<Origin>,
        difference: &Difference,
    ) -> Result<(), KernelError> {
        let Difference { added, removed, .. } = difference;
        let few = added.len() + removed.len() <= FEW;
        let touched = || added.iter().chain(removed).copied();
        let before: Vec<_> = if few {
            let statics = self.statics();
            touched().map(|prefix| Held::at(&statics, prefix)).collect()
        } else {
            Vec::new()
        };

        let (mut said, mut gone) = (Vec::with_capacity(added.len()), Vec::with_capacity(removed.len()));
        for prefixes in added.chunks(CHUNK) {
            let mut statics = self.statics_mut();
            for &prefix in prefixes {
                // It has been made normal: nothing can be wrong with it.
                let old = statics.say(prefix, action, origin).ok().flatten();
                said.extend(old.map(|old| (prefix, old)));
            }
        }
        for prefixes in removed.chunks(CHUNK) {
            let mut statics = self.statics_mut();
            gone.extend(prefixes.iter().filter_map(|&prefix| statics.remove(prefix, &origin.source)));
        }

        let Some(kernel) = &self.kernel else { return Ok(()) };
        let told = if few {
            touched().zip(&before).try_for_each(|(prefix, before)| {
                let after = Held::at(&self.statics(), prefix);
                before.to(&after, prefix, kernel)
            })
        } else {
            self.sync()
        };
        told.inspect_err(|_| {
            self.unsay(said, &origin.source);
            for entries in gone.chunks(CHUNK) {
                let mut statics = self.statics_mut();
                for entry in entries {
                    // It stood there a moment ago.
                    let _ = statics.insert_forced(entry.clone());
                }
            }
            // Should that fail too, the next change or start puts it right.
            if let Err(also) = self.sync() {
                warn!("the kernel's lists are not what they should be: {also}");
            }
        })
    }
}
