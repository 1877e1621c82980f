//! What a reload exchanges: the configuration and what is made of it.
//!
//! Holds one [`Live`] at a time, exchanged in one step. Whoever needs several parts of it takes one snapshot and reads them
//! all there, so that they belong together; a session takes its own at its start and keeps it to the end of its tests.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::clock::{Now, UnixTime};
use crate::config::{Changes, Config};
use crate::dns::Resolver;
use crate::dnsbl::{Dnsbl, DnsblError};
use crate::session::Policy;
use crate::tls;

use super::policy;
use super::reload::ReloadError;

/// The configuration in force, and what is made of it.
pub(super) struct Live {
    /// What runs: the file as it was read, but for what has to wait for a restart.
    pub(super) config: Config,
    /// What the engine is told.
    pub(super) policy: Arc<Policy>,
    /// The DNS lists; `None`: there are none.
    pub(super) lists: Option<Dnsbl>,
    /// Who is asked about senders' names; or why nobody can be.
    pub(super) names: Result<Resolver, String>,
    /// Ends the watch over these lists.
    pub(super) watch: CancellationToken,
    /// When the file was read.
    pub(super) read: UnixTime,
    /// What stands otherwise in the file and has to wait for a restart.
    pub(super) needs_restart: Vec<&'static str>,
    /// The certificate, if `[tls]` names one.
    pub(super) tls: Arc<tls::Keeper>,
}

impl Live {
    /// What a configuration means, at the daemon's start. A bad certificate does not keep it from starting: mail must flow
    /// after a reboot, too ([`super::certificate`] is loud about it).
    ///
    /// # Errors
    /// When the DNS lists cannot be asked.
    pub(super) fn new(config: Config) -> Result<Self, DnsblError> {
        let lists = Dnsbl::configured(&config.tests.dnsbl)?;
        let tls = Arc::new(tls::Keeper::begin(config.tls.as_ref(), Now::read().unix));
        Ok(Self::of(config, lists, tls, Vec::new()))
    }

    /// What a configuration means that was read while this one ran: with all that is known of the DNS lists.
    ///
    /// # Errors
    /// As [`Live::new`], and when there is another certificate which cannot be used; then this one is to stay.
    pub(super) fn next(&self, config: Config, changes: &Changes) -> Result<Self, ReloadError> {
        let lists = match &self.lists {
            // Also where nothing has changed: the system may have other resolvers by now.
            Some(lists) => lists.reconfigured(&config.tests.dnsbl)?,
            None => Dnsbl::configured(&config.tests.dnsbl)?,
        };
        let tls = self.tls.follow(config.tls.as_ref(), Now::read().unix)?;
        Ok(Self::of(config, lists, tls, changes.at_restart.clone()))
    }

    fn of(config: Config, lists: Option<Dnsbl>, tls: Arc<tls::Keeper>, needs_restart: Vec<&'static str>) -> Self {
        let policy = Arc::new(policy::policy(&config));
        // The system may have other resolvers by now.
        let names = match &lists {
            Some(lists) => Ok(lists.names()),
            None => Resolver::new(&config.tests.dnsbl.resolvers).map_err(|error| error.to_string()),
        };
        let (watch, read) = (CancellationToken::new(), Now::read().unix);
        Self { policy, lists, names, tls, config, watch, read, needs_restart }
    }
}
