//! A file that a command is given by name, or standard input as `-`.
//!
//! Holds the reading. Never looks into what was read.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;

/// What a list of millions does not reach. Beyond it is no list.
const MOST: u64 = 1 << 30;

/// A file, or standard input.
#[derive(Clone, Debug, Args)]
pub(super) struct Input {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Input {
    /// As messages name it.
    pub(super) fn name(&self) -> String {
        if self.is_stdin() { "standard input".to_owned() } else { self.file.display().to_string() }
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    /// Everything in it. What is no UTF-8 is replaced, so that a complaint can name the line.
    pub(super) fn read(&self) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        let mut read = |from: &mut dyn Read| from.take(MOST + 1).read_to_end(&mut bytes);
        let done = if self.is_stdin() {
            read(&mut std::io::stdin().lock())
        } else {
            std::fs::File::open(&self.file).and_then(|mut file| read(&mut file))
        };
        done.with_context(|| format!("cannot read {}", self.name()))?;
        ensure!(bytes.len() as u64 <= MOST, "{} is longer than {} MiB: that is no list", self.name(), MOST >> 20);
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}
