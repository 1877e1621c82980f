//! The one place that knows hickory: A and TXT lookups with our times and our idea of what an answer is.
//!
//! Keeps nothing: hickory's own cache is off, ours ([`super::cache`]) knows what a list is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::NoResolver;
use super::answer::{Failure, Looked};

/// How long one question waits for its answer; it is asked once more. Twice this lies within the usual deadline of 6 s.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// The longest text that is kept.
const LONGEST_TEXT: usize = 255;

/// Asks the resolvers of the configuration or of the system.
#[derive(Clone)]
pub(super) struct Resolver(TokioResolver);

impl Resolver {
    /// Asks these servers, or the system's where there are none.
    pub(super) fn new(servers: &[SocketAddr]) -> Result<Self, NoResolver> {
        let servers = if servers.is_empty() { of_the_system()? } else { servers.iter().map(name_server).collect() };
        // Without the system's search domains: a list's name is complete.
        Self::build(ResolverConfig::from_parts(None, Vec::new(), servers))
    }

    fn build(config: ResolverConfig) -> Result<Self, NoResolver> {
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        // So many *re*tries.
        options.attempts = 1;
        options.num_concurrent_reqs = 1;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map(Self).map_err(|error| NoResolver(error.to_string()))
    }

    /// Looks up the A records of a complete name.
    pub(super) async fn a(&self, name: String) -> Looked {
        match self.0.lookup(name, RecordType::A).await {
            Ok(found) => {
                let records = found.answers().iter().filter_map(|record| match record.data {
                    RData::A(address) => Some(address.0),
                    _ => None,
                });
                Looked::Records(records.collect(), found.valid_until().saturating_duration_since(Instant::now()))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if is_an_answer(none.response_code) => {
                // Without a SOA nothing says how long it holds.
                Looked::Nothing(none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into())))
            }
            Err(error) => Looked::Failed(failure(&error)),
        }
    }

    /// The text under a complete name, made fit to be shown.
    pub(super) async fn text(&self, name: String) -> Option<String> {
        let found = self.0.lookup(name, RecordType::TXT).await.ok()?;
        let strings = found.answers().iter().find_map(|record| match &record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        })?;
        let text: String =
            String::from_utf8_lossy(&strings).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        Some(text[..end].trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// The name servers that the system names.
pub(super) fn of_the_system() -> Result<Vec<NameServerConfig>, NoResolver> {
    let (config, _) =
        hickory_resolver::system_conf::read_system_conf().map_err(|error| NoResolver(error.to_string()))?;
    let servers = config.name_servers().to_vec();
    if servers.is_empty() { Err(NoResolver("it names no server".to_owned())) } else { Ok(servers) }
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.to_vec())
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

/// NXDOMAIN and "no such data" say that the address is not listed; every other code says nothing about it.
fn is_an_answer(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}
