//! What the outside sees of the daemon's work: log lines in postscreen's vocabulary, JSON events, metrics.
//!
//! Never puts a client's address into a metric label, and decides nothing.

mod init;
mod journal;
mod json;
mod metrics;
mod metrics_dnsbl;
mod metrics_feed;
mod sink;
mod text;

pub use init::{Format, init, set_format, without_fields};
pub use json::decision;
pub use metrics::Metrics;
pub use sink::{Flush, lost, trouble};
pub use text::{endpoint, line};
