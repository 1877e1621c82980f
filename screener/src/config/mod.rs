//! The configuration: one typed tree, read once, never changed afterwards.
//!
//! A file goes through two stages. [`raw`] is what may be written, with every default; [`check`] makes [`Config`] of it,
//! whose types cannot hold a wrong value, and reports everything that is wrong with its file, line, column and key.
//! Never falls back to a default for a value that is written and wrong, and never shows a secret.

mod changes;
mod check;
mod dnsbl;
mod error;
mod feed;
mod origin;
mod places;
mod pool;
mod raw;
mod replies;
mod shared;
mod source;
mod tree;
mod value;

use std::io;
use std::path::Path;

pub use changes::Changes;
pub use error::{ConfigError, Place, Problem};
pub use feed::{Feed, FeedName, FeedSource, FeedUrl};
pub use origin::Origin;
pub use places::Places;
pub use shared::{Shared, SharedStore, StoreHost, StorePlace};
pub use tree::{
    Backend, Code, Config, Control, DeepTest, Deny, DnsList, DnsblTest, ErrorCode, Kernel, Ledger, Limits, Link,
    Listen, Observe, Permit, Pool, PregreetTest, Replies, Tests, Tls,
};
pub use value::{
    AfterTests, BackendAddress, Family, HandoffMethod, Hostname, InterfaceName, ListLevel, LocalAddress, LogFormat,
    Mode, PrivateRanges, ProgramName, Secret, Stressed, Tagged, TestAction, XdpMode, Zone,
};

use source::Source;

/// Where the configuration stands unless a command says otherwise.
pub const DEFAULT_PATH: &str = "/etc/screener/screener.toml";
/// Where the control socket is unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/screener/control.sock";

/// What the command line says on top of the file. It stays when the file is read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In the place of `kernel.interfaces`, unless empty.
    pub interfaces: Vec<InterfaceName>,
}

impl Overrides {
    /// Puts them into a configuration.
    pub fn apply(&self, config: &mut Config) {
        if !self.interfaces.is_empty() {
            config.kernel.interfaces.clone_from(&self.interfaces);
        }
    }
}

impl Default for Config {
    /// The configuration of an empty file.
    fn default() -> Self {
        check::defaults()
    }
}

impl Config {
    /// Reads the file at `path`, which must exist.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
            unreadable(io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8")))
        })?;
        let mut config = Self::parse(&text, &path.display().to_string())?;
        config.file = Some(path.to_owned());
        Ok(config)
    }

    /// Reads the file at [`DEFAULT_PATH`]; where there is none every setting has its default.
    pub fn load_default() -> Result<Self, ConfigError> {
        match Self::load(Path::new(DEFAULT_PATH)) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            result => result,
        }
    }

    /// Reads a text; `name` stands for it in errors.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let (source, raw) = Source::read(text, name)?;
        check::config(&raw, &source)
    }

    /// Compares this configuration, just read, with the one that runs. Where a change cannot take effect while the daemon
    /// runs, what runs stays in the tree. `kernel`: whether there is a kernel half to tell.
    pub fn follow(&mut self, running: &Self, kernel: bool) -> Changes {
        let mut changes = changes::between(running, self);
        if !kernel {
            changes.no_kernel(running, self);
        }
        changes
    }

    /// What an operator should know about this configuration though nothing is wrong with it; for `check-config` and
    /// `status`.
    pub fn notes(&self) -> Vec<String> {
        check::notes(self)
    }
}

#[cfg(test)]
mod tests;
