//! The names of where a pass came from, as commands, answers and dumps write them.
//!
//! Holds names. Never decides whose word counts: `pass` does.

use std::fmt;
use std::str::FromStr;

use super::pass::Origin;

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
        Self::ALL.into_iter().find(|origin| origin.name() == word).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("'{word}' is no origin of a pass: it is one of {known}")
        })
    }
}
