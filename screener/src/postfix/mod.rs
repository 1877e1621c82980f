//! What a Postfix is configured to do as postscreen, and the same in our words.
//!
//! Holds the reading of `main.cf`, `master.cf` and the tables that they name, as Postfix reads them, and the writing of our
//! configuration ([`import`]). No I/O: files are asked of the caller. Never lets anybody in of whom it is not certain that
//! postscreen would: what is not understood is left out and said.

mod access;
mod claims;
mod expand;
pub mod import;
mod lines;
mod networks;
mod parameters;
pub mod services;
mod table;

use std::path::Path;

pub use parameters::Parameters;

/// The files that a configuration names.
pub trait Files {
    /// The text of one.
    ///
    /// # Errors
    /// If it cannot be read, in words.
    fn read(&self, path: &Path) -> Result<String, String>;
}

#[cfg(test)]
mod tests;
