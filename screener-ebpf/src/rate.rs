//! A token bucket in one number, so that a map value of eight bytes holds a client's, and two CPUs that change it at once
//! spoil nothing.
//!
//! The number is the moment at which the bucket would be full again (the "theoretical arrival time" of the generic cell
//! rate algorithm). A SYN moves it one interval ahead; a SYN that finds it further ahead than the tolerance is over
//! the limit and moves nothing. With the tolerance at `burst - 1` intervals this is the token bucket of that size.
//!
//! Holds the arithmetic. Never reads a clock and never holds a bucket.

/// The interval and the tolerance of a rate, in nanoseconds, for [`admit`]. A burst of 0 is one of 1.
pub const fn parameters(per_second: u32, burst: u32) -> (u64, u64) {
    if per_second == 0 {
        return (0, 0);
    }
    let interval = 1_000_000_000 / per_second as u64;
    // More than one a nanosecond is no limit, but must not read as "off".
    let interval = if interval == 0 { 1 } else { interval };
    (interval, interval * (burst as u64).saturating_sub(1))
}

/// The rate and the burst of an interval and a tolerance, for showing; `None`: off.
pub const fn rate(interval: u64, tolerance: u64) -> Option<(u32, u32)> {
    if interval == 0 {
        return None;
    }
    let per_second = 1_000_000_000u64.div_euclid(interval);
    Some((per_second as u32, (tolerance / interval + 1) as u32))
}

/// What becomes of a bucket when a SYN comes at `now`: its new number; `None`: over the limit, and the bucket stays.
#[inline(always)]
pub const fn admit(full_at: u64, now: u64, interval: u64, tolerance: u64) -> Option<u64> {
    let from = if full_at > now { full_at } else { now };
    if from - now > tolerance { None } else { Some(from.saturating_add(interval)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of `count` SYNs get through that come one every `gap` nanoseconds.
    fn through(full_at: &mut u64, start: u64, gap: u64, count: u64, (interval, tolerance): (u64, u64)) -> u64 {
        let mut passed = 0;
        for number in 0..count {
            if let Some(new) = admit(*full_at, start + number * gap, interval, tolerance) {
                *full_at = new;
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_an_interval() {
        let rate = parameters(20, 40);
        assert_eq!(rate, (SECOND / 20, 39 * SECOND / 20));
        let mut bucket = 0;
        assert_eq!(through(&mut bucket, SECOND, 0, 1000, rate), 40);
        assert_eq!(through(&mut bucket, SECOND, SECOND / 1000, 10_001, rate), 200, "ten seconds of it");
        assert_eq!(through(&mut bucket, 12 * SECOND, 0, 1000, rate), 20, "a second of rest");
        assert_eq!(through(&mut bucket, 100 * SECOND, 0, 1000, rate), 40, "a long rest fills it, no more");
    }

    #[test]
    fn a_burst_of_one_is_a_plain_distance() {
        for burst in [0, 1] {
            let rate = parameters(10, burst);
            let mut bucket = 0;
            assert_eq!(through(&mut bucket, SECOND, SECOND / 10, 100, rate), 100);
            assert_eq!(through(&mut bucket, 20 * SECOND, SECOND / 20, 100, rate), 50);
        }
    }

    #[test]
    fn no_rate_is_off_and_the_highest_is_not() {
        assert_eq!(parameters(0, 7), (0, 0));
        assert_eq!(parameters(u32::MAX, u32::MAX), (1, u64::from(u32::MAX) - 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// In any stretch of time no more get through than the burst and what is earned meanwhile.
        #[test]
        fn never_more_than_burst_and_rate(
            per_second in 1..10_000u32,
            burst in 1..1000u32,
            gaps in proptest::collection::vec(0..3_000_000u64, 1..2000),
        ) {
            let (interval, tolerance) = parameters(per_second, burst);
            let (mut bucket, mut now, mut passed) = (0, SECOND, 0u64);
            for gap in gaps {
                now += gap;
                if let Some(new) = admit(bucket, now, interval, tolerance) {
                    bucket = new;
                    passed += 1;
                }
                prop_assert!(passed <= u64::from(burst) + (now - SECOND) / interval);
            }
        }

        #[test]
        fn any_number_in_the_map_is_survived(full_at: u64, now: u64, interval: u64, tolerance: u64) {
            let _ = admit(full_at, now, interval, tolerance);
        }
    }
}
