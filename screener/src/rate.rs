//! How often one client may ask for a connection.
//!
//! Holds the value and its text form. Never counts: the kernel half does.

use std::fmt;
use std::str::FromStr;

/// The ceiling of new connections of one client: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynRate {
    /// Tokens a second.
    pub per_second: u32,
    /// The size of the bucket.
    pub burst: u32,
}

impl FromStr for SynRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |word: &str| word.parse::<u32>().ok().filter(|&number| number > 0);
        let words: Vec<&str> = text.split_whitespace().collect();
        let rate = match words.as_slice() {
            [rate, "burst", burst] => rate.strip_suffix("/s").and_then(number).zip(number(burst)),
            [rate] => rate.strip_suffix("/s").and_then(number).map(|rate| (rate, rate)),
            _ => None,
        };
        rate.map(|(per_second, burst)| Self { per_second, burst })
            .ok_or_else(|| format!("{text:?} is no rate: write it like \"20/s burst 40\""))
    }
}

impl fmt::Display for SynRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s burst {}", self.per_second, self.burst)
    }
}
