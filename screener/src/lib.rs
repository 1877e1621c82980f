//! Screener: a connection screener for mail servers. See docs/architecture.md for the map.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod dns;
pub mod dnsbl;
pub mod dump;
pub mod feed;
pub mod handoff;
pub mod host;
pub mod kernel;
pub mod ladder;
pub mod ledger;
pub mod link;
pub mod named;
pub mod observe;
pub mod pass;
pub mod pool;
pub mod proxy;
pub mod rate;
pub mod serve;
pub mod session;
pub mod share;
pub mod tls;
mod version;
