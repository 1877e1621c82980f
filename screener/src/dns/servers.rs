//! The resolvers that this host may ask: of those that are well, always the one that is named first.
//!
//! hickory alone chooses by speed, and takes any reply for a sign of health. But the second resolver is often a public one,
//! which many lists refuse, and which is fast; and one that can find out nothing says so faster than any. Keeps no answers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{IntoName, Name, RecordType};
use tracing::{info, warn};

use super::{NoResolver, TIMEOUT, is_an_answer, reason, system};

/// After so many questions in a row without an answer a resolver is asked for the root: if it cannot find that, it is sick.
/// Fewer than cost a list its good name.
const SUSPECT: u32 = 5;
/// So long after its last failure one question tries a sick resolver again.
const AGAIN: Duration = Duration::from_secs(30);
/// How often a question is asked at most; with the question for the root that lies within the usual deadline of 6 s.
const TRIES: usize = 3;

/// The resolvers.
#[derive(Clone)]
pub(crate) struct Servers(Arc<[Server]>);

struct Server {
    address: SocketAddr,
    resolver: TokioResolver,
    health: Mutex<Health>,
    /// Held while it is asked for the root.
    suspicion: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Health {
    /// Questions in a row without an answer.
    failed: u32,
    /// Set while it is sick.
    sick: Option<Sick>,
}

struct Sick {
    why: String,
    /// When it is tried again.
    again: Instant,
}

/// A resolver that is passed over while another one is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SickServer {
    /// Its address.
    pub address: SocketAddr,
    /// What became of the last question to it.
    pub why: String,
}

impl fmt::Display for SickServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, why } = self;
        write!(f, "the resolver {address} is sick ({why}): others are asked in its place")
    }
}

impl Servers {
    /// These, or the system's where there are none.
    ///
    /// # Errors
    /// When the system's are not to be found out.
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, NoResolver> {
        let of_the_system = if servers.is_empty() { system::servers()? } else { Vec::new() };
        servers.iter().chain(&of_the_system).map(|&address| Server::new(address)).collect::<Result<_, _>>().map(Self)
    }

    /// Asks about a complete name. What one resolver says holds, also that it cannot find out; only where one is sick, the
    /// next one is asked.
    ///
    /// # Errors
    /// When there is no answer, or the answer is that there is nothing.
    pub(crate) async fn lookup(&self, name: impl IntoName, kind: RecordType) -> Result<Lookup, NetError> {
        let name = name.into_name()?;
        let order = self.order(Instant::now());
        let (mut at, mut tries) = (0, 0);
        loop {
            let server = order[at];
            let error = match server.resolver.lookup(name.clone(), kind).await {
                Err(error) if !says_something(&error) => error,
                answer => {
                    server.answered();
                    return answer;
                }
            };
            tries += 1;
            let sick = order.len() > 1 && server.failed(&error).await;
            let again = if sick { at + 1 < order.len() } else { is_silence(&error) };
            if !again || tries == TRIES || (!sick && tries > 1) {
                return Err(error);
            }
            at += usize::from(sick);
        }
    }

    /// Those that are passed over; none, if no other is well.
    pub(crate) fn sick(&self) -> Vec<SickServer> {
        let sick = |server: &Server| {
            let why = server.health().sick.as_ref()?.why.clone();
            Some(SickServer { address: server.address, why })
        };
        let sick: Vec<_> = self.0.iter().filter_map(sick).collect();
        if sick.len() < self.0.len() { sick } else { Vec::new() }
    }

    /// In which order they are asked now: the sick ones last, but for one that is to be tried again.
    fn order(&self, now: Instant) -> Vec<&Server> {
        let (mut order, sick): (Vec<_>, Vec<_>) = self.0.iter().partition(|server| server.is_to_be_asked(now));
        order.extend(sick);
        order
    }
}

impl Server {
    fn new(address: SocketAddr) -> Result<Self, NoResolver> {
        let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
            let mut connection = ConnectionConfig::new(protocol);
            connection.port = address.port();
            connection
        });
        let server = NameServerConfig::new(address.ip(), true, connections.to_vec());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        // So many *re*tries: those are ours.
        options.attempts = 0;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = builder.build().map_err(|error| NoResolver(error.to_string()))?;
        Ok(Self { address, resolver, health: Mutex::default(), suspicion: tokio::sync::Mutex::default() })
    }

    /// Whether it is well, or was sick for long enough; then this question tries it, and no other for a while.
    fn is_to_be_asked(&self, now: Instant) -> bool {
        match &mut self.health().sick {
            None => true,
            Some(sick) if sick.again <= now => {
                sick.again = now + AGAIN;
                true
            }
            Some(_) => false,
        }
    }

    fn answered(&self) {
        let mut health = self.health();
        health.failed = 0;
        if health.sick.take().is_some() {
            info!("the resolver {} is well again", self.address);
        }
    }

    /// It did not answer a question. Whether it is sick: it may be the question.
    async fn failed(&self, error: &NetError) -> bool {
        {
            let mut health = self.health();
            health.failed = health.failed.saturating_add(1);
            if let Some(sick) = &mut health.sick {
                sick.again = Instant::now() + AGAIN;
                return true;
            }
            if health.failed < SUSPECT {
                return false;
            }
        }
        // One asks for the root, and the others wait for what comes of it.
        let _turn = self.suspicion.lock().await;
        let known = {
            let health = self.health();
            (health.sick.is_some() || health.failed < SUSPECT).then_some(health.sick.is_some())
        };
        if let Some(sick) = known {
            return sick;
        }
        match self.resolver.lookup(Name::root(), RecordType::SOA).await {
            Err(root) if !says_something(&root) => {
                let sick = SickServer { address: self.address, why: reason(error) };
                warn!("{sick}");
                self.health().sick = Some(Sick { why: sick.why, again: Instant::now() + AGAIN });
                true
            }
            _ => {
                self.answered();
                false
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error is an answer: that there is no such name, or no such record.
fn says_something(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(none)) if is_an_answer(none.response_code))
}

fn is_silence(error: &NetError) -> bool {
    matches!(error, NetError::Timeout | NetError::Io(_) | NetError::NoConnections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sick_resolver_comes_last_and_is_tried_by_one_question_now_and_then() {
        let named: Vec<SocketAddr> = (1..=3).map(|last| SocketAddr::from(([192, 0, 2, last], 53))).collect();
        let servers = Servers::new(&named).unwrap();
        let now = Instant::now();
        let order = |now| -> Vec<u8> {
            let last = |server: &&Server| match server.address.ip() {
                std::net::IpAddr::V4(v4) => v4.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            };
            servers.order(now).iter().map(last).collect()
        };
        assert_eq!(order(now), [1, 2, 3]);
        servers.0[0].health().sick = Some(Sick { why: "no answer in time".to_owned(), again: now + AGAIN });
        assert_eq!(order(now), [2, 3, 1]);
        assert_eq!(order(now + AGAIN), [1, 2, 3]);
        assert_eq!(order(now + AGAIN), [2, 3, 1], "one question only");
        assert_eq!(
            servers.sick()[0].to_string(),
            "the resolver 192.0.2.1:53 is sick (no answer in time): others are asked in its place"
        );
        servers.0[0].answered();
        assert_eq!(order(now), [1, 2, 3]);
        assert!(servers.sick().is_empty());
    }
}
