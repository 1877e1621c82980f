//! What a reload exchanges: the configuration and what is made of it.
//!
//! Holds one [`Live`] at a time, exchanged in one step. Whoever needs several parts of it takes one snapshot and reads them
//! all there, so that they belong together; a session takes its own at its start and keeps it to the end of its tests.

use std::sync::Arc;

use crate::config::Config;
use crate::dnsbl::{Dnsbl, DnsblError};
use crate::session::Policy;

use super::policy;

/// The configuration in force, and what is made of it.
pub(super) struct Live {
    /// The file as it was read.
    pub(super) config: Config,
    /// What the engine is told.
    pub(super) policy: Arc<Policy>,
    /// The DNS lists; `None`: there are none.
    pub(super) lists: Option<Dnsbl>,
}

impl Live {
    /// What a configuration means, at the daemon's start.
    ///
    /// # Errors
    /// When the DNS lists cannot be asked.
    pub(super) fn new(config: Config) -> Result<Self, DnsblError> {
        let lists = Dnsbl::configured(&config.tests.dnsbl)?;
        Ok(Self { policy: Arc::new(policy::policy(&config)), lists, config })
    }
}
