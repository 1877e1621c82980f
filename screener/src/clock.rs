//! Points in time as they are stored and passed in.
//!
//! Holds the two clocks of the program as values. Only [`Now::read`] looks at a real clock; the session engine never calls it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Whole seconds since 1970-01-01T00:00:00Z: how expiries and events are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// This time and `span` later, whole seconds, stopping at the end of time.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.as_secs()))
    }

    /// Whether this time has come, for what is never put off for longer than `longest`: a time that is farther off was set by
    /// a clock that has been set back since, and nobody waits for it.
    pub fn is_due(self, now: Self, longest: Duration) -> bool {
        self <= now || self > now.plus(longest)
    }

    /// How long from `earlier` to this time; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

/// As RFC 3339 in UTC, e.g. `2026-11-24T04:30:00Z`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
            Some(stamp) => stamp.fmt(f),
            None => write!(f, "@{}", self.0),
        }
    }
}

/// What [`UnixTime`]'s `Display` writes. Other offsets than UTC and fractions are read too; the fraction is cut off.
impl FromStr for UnixTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = match text.strip_prefix('@') {
            Some(number) => number.parse().ok(),
            None => text.parse::<jiff::Timestamp>().ok().and_then(|stamp| u64::try_from(stamp.as_second()).ok()),
        };
        seconds.map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            format!("'{shown}' is no time: write it as 2026-11-24T04:30:00Z")
        })
    }
}

/// One moment on both clocks: the monotonic one for deadlines, the calendar for expiries.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines and for measuring how long something took.
    pub instant: Instant,
    /// For expiries, which must survive a restart.
    pub unix: UnixTime,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix: UnixTime(unix.as_secs()) }
    }

    /// The moment `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self { instant: self.instant + span, unix: self.unix.plus(span) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_a_wrong_clock_has_set_has_come() {
        let (now, hour) = (UnixTime(1_000_000), Duration::from_secs(3600));
        assert!(now.is_due(now, hour) && UnixTime(1).is_due(now, hour));
        assert!(!now.plus(Duration::from_secs(1)).is_due(now, hour) && !now.plus(hour).is_due(now, hour));
        assert!(UnixTime(now.0 + 3601).is_due(now, hour) && UnixTime(u64::MAX).is_due(now, hour));
    }

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for seconds in [0, 1, 1_795_572_274, 253_402_207_200, 253_402_300_800, u64::MAX] {
            let time = UnixTime(seconds);
            assert_eq!(time.to_string().parse(), Ok(time), "{time}");
        }
        assert_eq!("2026-11-24T05:30:00.5+01:00".parse(), "2026-11-24T04:30:00Z".parse::<UnixTime>());
        for wrong in ["", "@", "@-1", "tomorrow", "1969-12-31T23:59:59Z", "@18446744073709551616"] {
            assert!(wrong.parse::<UnixTime>().is_err(), "{wrong}");
        }
    }
}
