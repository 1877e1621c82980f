//! How many findings become an event: all of them on a quiet day, few under a flood.
//!
//! Holds the choice of the rate, once a second, from what the counters say. Each event carries its weight, so that hits
//! stay right in expectation whatever the rate is.

use std::time::Instant;

/// About how many events a second are worth reading: the daemon takes in ten times as many.
const EVENTS_PER_SECOND: u64 = 2000;
/// Not fewer than one of so many.
const RAREST: u64 = 1 << 20;

/// What the programs were last seen to have found.
#[derive(Debug, Default)]
pub(super) struct Sampling(Option<(Instant, u64)>);

impl Sampling {
    /// The rate to set, given how many findings there have been until now; `None` at the first call.
    pub(super) fn next(&mut self, now: Instant, findings: u64) -> Option<u32> {
        let before = self.0.replace((now, findings));
        let (then, found) = before?;
        let millis = now.saturating_duration_since(then).as_millis().max(1);
        let per_second = u128::from(findings.saturating_sub(found)) * 1000 / millis;
        Some(sample(u64::try_from(per_second).unwrap_or(u64::MAX)))
    }
}

/// The smallest power of two that keeps so many findings a second at [`EVENTS_PER_SECOND`] events or fewer.
fn sample(per_second: u64) -> u32 {
    let sample = per_second.div_ceil(EVENTS_PER_SECOND).clamp(1, RAREST).next_power_of_two();
    u32::try_from(sample).unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_quiet_day_tells_everything_and_a_flood_little() {
        for (per_second, expected) in
            [(0, 1), (2000, 1), (2001, 2), (8000, 4), (8001, 8), (1_000_000, 512), (u64::MAX, 1 << 20)]
        {
            assert_eq!(sample(per_second), expected, "{per_second}");
        }
    }

    #[test]
    fn the_rate_is_that_of_the_time_between_two_looks() {
        let mut sampling = Sampling::default();
        let start = Instant::now();
        assert_eq!(sampling.next(start, 1_000_000), None);
        assert_eq!(sampling.next(start + Duration::from_secs(2), 1_032_000), Some(8));
        assert_eq!(sampling.next(start + Duration::from_secs(3), 1_032_000), Some(1));
        assert_eq!(sampling.next(start + Duration::from_secs(4), 0), Some(1), "counters that were made anew");
    }
}
