//! The control socket: HTTP/JSON over a Unix socket, its client (the CLI), and the metrics.
//!
//! Holds the questions and the form of the answers. Decides nothing: the answers are the daemon's ([`Answers`]).

pub mod api;
pub mod api_dnsbl;
pub mod api_explain;
pub mod api_feed;
pub mod api_offender;
pub mod api_pass;
pub mod api_pool;
mod client;
mod feeds;
mod lock;
mod passes;
mod server;

pub use client::{Client, ClientError, Lines, query};
pub use server::{Answers, BindError, Refusal, Server, bind_metrics, give, serve_metrics};
