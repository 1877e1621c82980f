//! The one place that knows hickory: an A lookup with our times and our idea of what an answer is.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};

use super::NoResolver;

/// How long one question waits for its answer; it is asked once more. Twice this lies within the usual deadline of 6 s.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// How long "not listed" is kept where the answer does not say (hickory keeps it not at all otherwise).
const LEAST_NEGATIVE: Duration = Duration::from_secs(60);
/// How long "not listed" is kept at most.
const MOST_NEGATIVE: Duration = Duration::from_secs(3600);
/// Answers kept: about 40 MB when full.
const CACHE: u64 = 100_000;

/// Asks the system's resolver.
#[derive(Clone)]
pub(super) struct Resolver(TokioResolver);

/// What came of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// A records, and how long they hold.
    Records(Vec<Ipv4Addr>, Duration),
    /// There are none (NXDOMAIN or no data), and how long that holds, if it was said.
    Nothing(Option<Duration>),
    /// Nobody can say; why.
    Unknown(String),
}

impl Resolver {
    pub(super) fn of_the_system() -> Result<Self, NoResolver> {
        let (config, _) =
            hickory_resolver::system_conf::read_system_conf().map_err(|error| NoResolver(error.to_string()))?;
        let servers: Vec<_> = config.name_servers().to_vec();
        if servers.is_empty() {
            return Err(NoResolver("it names no server".to_owned()));
        }
        // Without its search domains: a list's name is complete.
        Self::build(ResolverConfig::from_parts(None, Vec::new(), servers))
    }

    /// For one server on a port of its own.
    #[cfg(test)]
    pub(super) fn at(server: std::net::SocketAddr) -> Result<Self, NoResolver> {
        use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig};
        let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = server.port();
            connection
        });
        let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
        Self::build(ResolverConfig::from_parts(None, Vec::new(), vec![server]))
    }

    fn build(config: ResolverConfig) -> Result<Self, NoResolver> {
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        // So many *re*tries.
        options.attempts = 1;
        options.num_concurrent_reqs = 1;
        options.cache_size = CACHE;
        options.negative_min_ttl = Some(LEAST_NEGATIVE);
        options.negative_max_ttl = Some(MOST_NEGATIVE);
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
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if is_an_answer(&none.response_code) => {
                Looked::Nothing(none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into())))
            }
            Err(error) => Looked::Unknown(reason(&error)),
        }
    }
}

/// Why there is no answer, in words that never hold the name that was asked: it may hold the list's secret key.
fn reason(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the resolver answers: {code}"),
        NetError::Dns(DnsError::NoRecordsFound(none)) => format!("the resolver answers: {}", none.response_code),
        NetError::Io(error) => format!("the resolver cannot be reached: {}", error.kind()),
        NetError::NoConnections => "the resolver cannot be reached".to_owned(),
        _ => "the resolver gives no usable answer".to_owned(),
    }
}

/// NXDOMAIN and "no such data" say that the address is not listed; every other code says nothing about it.
fn is_an_answer(code: &hickory_resolver::proto::op::ResponseCode) -> bool {
    use hickory_resolver::proto::op::ResponseCode;
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}
