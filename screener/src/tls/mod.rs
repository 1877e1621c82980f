//! TLS that the daemon terminates: the certificate with its key, kept current while the daemon runs, and the words in which
//! handshakes are told.
//!
//! Holds the files' reading and judging and the one certificate that stands at a time. Never sees a connection or the
//! session engine's state, and never logs: whoever asks it is told what is wrong.
//!
//! One chain, no client certificates, no choice by server name: senders take whatever certificate an MX host shows. TLS 1.2
//! and 1.3 with rustls and ring; a sender that knows neither falls back to plain text by itself (reference/rust.md section
//! 5.7).

mod error;
mod identity;
mod keeper;
mod words;

pub use error::TlsError;
pub use identity::Identity;
pub use keeper::{Keeper, News};
pub use words::{agreed, why_failed};
