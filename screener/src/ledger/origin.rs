//! The names of where a pass came from, as commands, answers and dumps write them.
//!
//! Holds names. Never decides whose word counts: `pass` does.

use std::fmt;
use std::str::FromStr;

use super::pass::Origin;
use crate::named;

impl Origin {
    /// Every origin.
    pub const ALL: [Self; 4] = [Self::Screened, Self::Manual, Self::Pool, Self::Shared];

    /// The name in commands, JSON and dumps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Screened => "screened",
            Self::Manual => "manual",
            Self::Pool => "pool",
            Self::Shared => "shared",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        named::find(Self::ALL, Self::name, word)
            .map_err(|known| format!("'{word}' is no origin of a pass: it is one of {known}"))
    }
}
