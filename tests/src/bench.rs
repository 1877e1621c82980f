//! The benches: Screener beside what else one could take, in one run. [`kernel`] measures the kernel half, [`smtp`] the daemon,
//! [`ledger`] what goes from host to host, and a million passes.
//!
//! Nothing here judges a time: goals are printed beside the values. Only something that was done wrong is a failure.

mod greeting;
pub mod kernel;
pub mod ledger;
mod report;
pub mod smtp;

pub use report::{Report, Row};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Little of everything: to see that it works.
    pub quick: bool,
    /// How many rounds; else as many as `quick` or its absence asks for.
    pub rounds: Option<u32>,
}
