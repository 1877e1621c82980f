//! The lab's vocabulary: a leak-proof [`cell`], [`net`]works of [`host`]s inside it, and real servers and clients on
//! those hosts.
//!
//! Nothing here fakes a component: the MTA and the sender are Postfix, the DNS list is rbldnsd, the screener is the
//! daemon's own executable. The exceptions are [`scripted`] and [`scripted_mta`],
//! for what no real DNS list and no real MTA can be made to do. Nothing here leaves the machine, needs a network, or cleans up after itself: the cell does.

pub mod bench;
mod bpf;
pub mod cell;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod control;
pub mod correspondence;
pub mod crowd;
pub mod dns;
pub mod dnsl;
mod ethtool;
pub mod exim;
pub mod frames;
pub mod haproxy;
pub mod host;
pub mod journald;
pub mod letter;
pub mod listener;
pub mod mailbox;
pub mod mailer;
pub mod mta;
pub mod mxs;
pub mod names;
pub mod net;
pub mod opensmtpd;
pub mod operator;
pub mod postfix;
pub mod proc;
pub mod pty;
pub mod redis;
pub mod screener;
pub mod scripted;
pub mod scripted_mta;
pub mod sender;
pub mod sink;
pub mod software;
pub mod sshd;
pub mod tls;
pub mod unbound;
pub mod versus;
pub mod wait;
pub mod way;
pub mod web;
pub mod xdp;
