//! What the schema knows and this version does not do.
//!
//! Holds the one list of such settings. A setting is never silently ignored: whoever sets one of these is told so, at
//! its line. When something gets built, its entry here goes.

use std::ops::Range;

use super::raw::Raw;

/// One setting, or one value of it, that is not built.
struct Unbuilt {
    /// Where it is set to what we cannot do.
    set: fn(&Raw) -> Vec<Range<usize>>,
    /// What to do: follows "not in this version yet: ".
    instead: &'static str,
}

/// The list.
const UNBUILT: &[Unbuilt] = &[Unbuilt {
    set: |raw| raw.feed.iter().map(|feed| feed.get_ref().name.span()).collect(),
    instead: "remove this [[feed]]; single prefixes can stand under [[deny]]",
}];

/// What is accepted because it is a default, though nothing comes of it yet. Shown in `status`.
pub(super) fn notes(config: &super::Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.kernel.offenders {
        notes.push(
            "kernel.offenders: not active in this version yet: a client that keeps failing is refused each time, never \
             dropped in the kernel"
                .to_owned(),
        );
    }
    notes
}

/// Every place where something is asked for that is not built, and what to say there.
pub(super) fn find(raw: &Raw) -> Vec<(Range<usize>, String)> {
    let message = |instead| format!("not in this version yet: {instead}");
    UNBUILT
        .iter()
        .flat_map(|unbuilt| (unbuilt.set)(raw).into_iter().map(move |span| (span, message(unbuilt.instead))))
        .collect()
}
