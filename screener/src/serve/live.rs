//! What a reload exchanges: the configuration and what is made of it.
//!
//! Holds one [`Live`] at a time, exchanged in one step. Whoever needs several parts of it takes one snapshot and reads them
//! all there, so that they belong together; a session takes its own at its start and keeps it to the end of its tests.

use std::sync::Arc;

use crate::clock::Now;
use crate::config::Config;
use crate::dnsbl::{Dnsbl, DnsblError};
use crate::session::Policy;
use crate::tls;

use super::policy;

/// The configuration in force, and what is made of it.
pub(super) struct Live {
    /// The file as it was read.
    pub(super) config: Config,
    /// What the engine is told.
    pub(super) policy: Arc<Policy>,
    /// The DNS lists; `None`: there are none.
    pub(super) lists: Option<Dnsbl>,
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
        Ok(Self { policy: Arc::new(policy::policy(&config)), lists, tls, config })
    }
}
