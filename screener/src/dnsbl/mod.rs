//! DNS lists: what they are asked, what their answers mean, and what that adds up to.
//!
//! Every list is asked at once and on its own: a sick one delays no other, and counts for nothing. What is no listing is
//! never taken for one: error codes, answers outside 127/8 and silence are counted and shown. Never decides about a client:
//! the engine compares the score with its thresholds and has the deadline.

mod check;
mod codes;
mod list;
mod resolver;
mod stats;

use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

pub use check::Check;
pub use codes::{BadFilter, CodeFilter};
pub use stats::ListStatus;

use crate::config::{ConfigError, DnsList};

use list::List;
use resolver::Resolver;
use stats::Stats;

/// The lists and the resolver.
#[derive(Clone)]
pub struct Dnsbl {
    lists: Arc<[Watched]>,
    resolver: Resolver,
}

struct Watched {
    list: List,
    stats: Stats,
}

/// There is nobody to ask.
#[derive(Debug, Error)]
#[error("no resolver for the DNS lists: {0}; name one in /etc/resolv.conf, best of all one of this host's own")]
pub struct NoResolver(String);

/// The lists cannot be asked.
#[derive(Debug, Error)]
pub enum DnsblError {
    /// One of them is not well configured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nobody to ask.
    #[error(transparent)]
    Resolver(#[from] NoResolver),
}

impl Dnsbl {
    /// The lists of a configuration, asked through the system's resolver; `None`: there are no lists.
    ///
    /// # Errors
    /// When a code filter is wrong, or the system names no resolver.
    pub fn configured(config: &[DnsList]) -> Result<Option<Self>, DnsblError> {
        if config.is_empty() {
            return Ok(None);
        }
        let lists: Vec<_> = config.iter().map(List::configured).collect::<Result<_, _>>()?;
        Ok(Some(Self::new(lists, Resolver::of_the_system()?)))
    }

    fn new(lists: Vec<List>, resolver: Resolver) -> Self {
        let watched = lists.into_iter().map(|list| Watched { list, stats: Stats::default() });
        Self { lists: watched.collect(), resolver }
    }

    /// Starts asking every list about an address.
    pub fn start(&self, address: IpAddr) -> Check {
        Check::start(self, address)
    }

    /// How the lists stand.
    pub fn status(&self) -> Vec<ListStatus> {
        self.lists.iter().map(|watched| watched.stats.status(watched.list.name())).collect()
    }
}

#[cfg(test)]
mod tests;
