//! The shared store: several MX hosts that tell each other who has passed and who is revoked.
//!
//! Holds the merge algebra (pure), the queue of what is still to be told, and the link to Redis or Valkey. Never touches a
//! ledger or a kernel map (`serve/shared.rs` does), and is never awaited by a session.

mod error;
mod link;
mod offence;
mod queue;
mod state;

pub use error::Error;
pub use link::{Content, Finder, Link, News, Position, Reader, Report, Settings, Word};
pub use offence::{OffenceWord, is_remembered};
pub use queue::Queue;
pub use state::{Given, REMEMBERED, Register, State, seconds};
