//! Where a configuration comes from, so that it can be read again.
//!
//! Never judges what it reads, and never takes the defaults for a file that has vanished.

use std::io;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, DEFAULT_PATH, Overrides};

/// The file, and what the command line says on top of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file that was named; `None`: the default one, and defaults if there is none.
    pub file: Option<PathBuf>,
    /// What goes on top.
    pub overrides: Overrides,
}

impl Origin {
    /// Reads it.
    ///
    /// # Errors
    /// When the file cannot be read, or what stands in it is wrong.
    pub fn read(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.file {
            Some(path) => Config::load(path)?,
            None => Config::load_default()?,
        };
        self.overrides.apply(&mut config);
        Ok(config)
    }

    /// Reads it again. A file that was there and is not any more is an error: nobody means the defaults by that.
    ///
    /// # Errors
    /// As [`Origin::read`].
    pub fn read_again(&self, running: &Config) -> Result<Config, ConfigError> {
        let config = self.read()?;
        if running.file.is_some() && config.file.is_none() {
            let source =
                io::Error::new(io::ErrorKind::NotFound, "it is gone; put it back (an empty file means defaults)");
            return Err(ConfigError::Read { path: Path::new(DEFAULT_PATH).to_owned(), source });
        }
        Ok(config)
    }
}
