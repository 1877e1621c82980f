//! What a reload exchanges: the configuration and what is made of it.
//!
//! Holds one [`Live`] at a time, exchanged in one step. Whoever needs several parts of it takes one snapshot and reads them
//! all there, so that they belong together; a session takes its own at its start and keeps it to the end of its tests.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::clock::{Now, UnixTime};
use crate::config::{Changes, Config};
use crate::dnsbl::{Dnsbl, DnsblError};
use crate::session::Policy;

use super::policy;

/// The configuration in force, and what is made of it.
pub(super) struct Live {
    /// What runs: the file as it was read, but for what has to wait for a restart.
    pub(super) config: Config,
    /// What the engine is told.
    pub(super) policy: Arc<Policy>,
    /// The DNS lists; `None`: there are none.
    pub(super) lists: Option<Dnsbl>,
    /// Ends the watch over these lists.
    pub(super) watch: CancellationToken,
    /// When the file was read.
    pub(super) read: UnixTime,
    /// What stands otherwise in the file and has to wait for a restart.
    pub(super) needs_restart: Vec<&'static str>,
}

impl Live {
    /// What a configuration means, at the daemon's start.
    ///
    /// # Errors
    /// When the DNS lists cannot be asked.
    pub(super) fn new(config: Config) -> Result<Self, DnsblError> {
        let lists = Dnsbl::configured(&config.tests.dnsbl)?;
        Ok(Self::of(config, lists, Vec::new()))
    }

    /// What a configuration means that was read while this one ran: with all that is known of the DNS lists.
    ///
    /// # Errors
    /// As [`Live::new`]; then this one is to stay.
    pub(super) fn next(&self, config: Config, changes: &Changes) -> Result<Self, DnsblError> {
        let lists = match &self.lists {
            // Also where nothing has changed: the system may have other resolvers by now.
            Some(lists) => lists.reconfigured(&config.tests.dnsbl)?,
            None => Dnsbl::configured(&config.tests.dnsbl)?,
        };
        Ok(Self::of(config, lists, changes.at_restart.clone()))
    }

    fn of(config: Config, lists: Option<Dnsbl>, needs_restart: Vec<&'static str>) -> Self {
        let policy = Arc::new(policy::policy(&config));
        Self { policy, lists, config, watch: CancellationToken::new(), read: Now::read().unix, needs_restart }
    }
}
