//! postscreen and the screener side by side: the same clients play the same transcripts to both, and what they hear and
//! what is logged is compared.
//!
//! Holds the vocabulary ([`script`]), the transcripts ([`scripts`]), both configurations ([`setting`]), the hosts
//! ([`lab`]), the playing, the comparing, and the table of the differences that are wanted ([`differences`]). Never
//! decides what is right: postscreen is, except where that table has a reason.

mod compare;
pub mod differences;
mod imported;
pub mod lab;
mod play;
pub mod readers;
pub mod script;
pub mod scripts;
pub mod setting;

pub use compare::{Comparison, Ledger};
