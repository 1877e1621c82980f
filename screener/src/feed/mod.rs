//! Static decisions by prefix: permits and denies, where each came from, and the lookup that precedence asks for.
//!
//! Holds the merged set of what configuration, commands and feeds say. Never decides about a session and never touches
//! the kernel: `kernel/` mirrors what stands here.

mod action;
mod set;

pub use action::{BadAction, DenyAction, StaticAction};
pub use set::{Entry, Match, Refused, Source, StaticSet};
