//! Static decisions by prefix: permits and denies, where each came from, and the lookup that precedence asks for.
//!
//! Holds the merged set of what configuration, commands and feeds say, the formats of lists, the guard rails, and what a list
//! must look like to follow on the one before. Never decides about a session and never touches the kernel: `kernel/` mirrors
//! what stands here. No I/O.

mod action;
mod change;
mod format;
mod private;
mod rails;
mod set;
mod source;
mod span;

pub use action::{BadAction, DenyAction, StaticAction};
pub use change::{Difference, Implausible, check_change, check_permits};
pub(crate) use format::quoted;
pub use format::{BadList, Format, List, SpamdConf, parse_prefix};
pub use private::{leave_out, meets_private};
pub use rails::{
    Coverage, Covered, Few, Guarded, Judgement, Objections, Protected, WIDEST_V4, WIDEST_V6, judge, widest,
};
pub use set::{Entry, Match, Origin, Refused, Said, StaticSet, normal};
pub use source::Source;
pub(crate) use span::{Holes, Span};
