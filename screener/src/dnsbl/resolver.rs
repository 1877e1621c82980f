//! How the lists are asked: A and TXT lookups with our idea of what an answer is.
//!
//! Keeps nothing: hickory's own cache is off, ours ([`super::cache`]) knows what a list is. Twice [`crate::dns::TIMEOUT`] lies
//! within the usual deadline of 6 s.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use super::NoResolver;
use super::answer::{Failure, Looked};
use super::list::List;
use crate::dns::{Servers, is_an_answer};

/// More records than any list has for one address: what has more is no list, and shall not fill the memory.
const MOST_RECORDS: usize = 64;
/// The longest text that is kept.
const LONGEST_TEXT: usize = 255;

/// Asks the resolvers of the configuration or of the system.
#[derive(Clone)]
pub(super) struct Resolver(Servers);

impl Resolver {
    /// Asks these servers, or the system's where there are none.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, NoResolver> {
        Servers::new(servers).map(Self)
    }

    /// Whom it asks.
    pub(super) fn servers(&self) -> &Servers {
        &self.0
    }

    /// Looks up the A records of a complete name.
    pub(super) async fn a(&self, name: String) -> Looked {
        match self.0.lookup(name, RecordType::A).await {
            Ok(found) => {
                let address = |record: &Record| match record.data {
                    RData::A(address) => Some(address.0),
                    _ => None,
                };
                let records: Vec<_> = found.answers().iter().filter_map(address).collect();
                if records.len() > MOST_RECORDS {
                    return Looked::Failed(Failure::Unusable);
                }
                Looked::Records(records, found.valid_until().saturating_duration_since(Instant::now()))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if is_an_answer(none.response_code) => {
                // Without a SOA nothing says how long it holds.
                Looked::Nothing(none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into())))
            }
            Err(error) => Looked::Failed(failure(&error)),
        }
    }

    /// A list's text under a complete name, made fit to be shown.
    pub(super) async fn text(&self, name: String, list: &List) -> Option<String> {
        let found = self.0.lookup(name, RecordType::TXT).await.ok()?;
        let strings = found.answers().iter().find_map(|record| match &record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        })?;
        let text: String =
            String::from_utf8_lossy(&strings).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Before it is cut: a part of a key is too much, too.
        let text = list.shown(text);
        let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        Some(text[..end].trim().to_owned()).filter(|text| !text.is_empty())
    }
}

fn failure(error: &NetError) -> Failure {
    let of_code = |code| match code {
        ResponseCode::ServFail => Failure::ServFail,
        ResponseCode::Refused => Failure::Refused,
        _ => Failure::Unusable,
    };
    match error {
        NetError::Timeout => Failure::Silent,
        NetError::Dns(DnsError::ResponseCode(code)) => of_code(*code),
        NetError::Dns(DnsError::NoRecordsFound(none)) => of_code(none.response_code),
        NetError::Io(_) | NetError::NoConnections => Failure::Unreachable,
        _ => Failure::Unusable,
    }
}
