//! The kernel's clock and ours: map values count nanoseconds since boot, everything else in the program Unix seconds.
//!
//! Holds the conversion. When the calendar is set (NTP), times converted before stay as they were: the next
//! [`sync_passes`](super::Kernel::sync_passes) puts the passes right.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::clock::UnixTime;

const NANOS: i128 = 1_000_000_000;

/// Both clocks, read at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootClock {
    /// Nanoseconds since boot, sleep included (`CLOCK_BOOTTIME`, as `bpf_ktime_get_boot_ns`, kernel 5.8).
    pub(super) now_ns: u64,
    /// What to add to boot nanoseconds to get Unix nanoseconds.
    offset: i128,
}

impl BootClock {
    pub(super) fn read() -> Self {
        let boot = clock_gettime(ClockId::Boottime);
        let boot_ns = i128::from(boot.tv_sec) * NANOS + i128::from(boot.tv_nsec);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ns = i128::try_from(unix.as_nanos()).unwrap_or(i128::MAX);
        Self { now_ns: u64::try_from(boot_ns).unwrap_or(0), offset: unix_ns - boot_ns }
    }

    /// A moment in nanoseconds since boot; 0 if it was before boot, the end of time if it is beyond.
    pub(super) fn to_boot(self, time: UnixTime) -> u64 {
        let boot = i128::from(time.0) * NANOS - self.offset;
        u64::try_from(boot.max(0)).unwrap_or(u64::MAX)
    }

    /// A moment in Unix seconds, the fraction cut off.
    pub(super) fn to_unix(self, boot_ns: u64) -> UnixTime {
        UnixTime(u64::try_from((i128::from(boot_ns) + self.offset) / NANOS).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_survives_the_way_there_and_back() {
        let clock = BootClock::read();
        let now = clock.to_unix(clock.now_ns);
        assert!(UnixTime(now.0 + 1) >= crate::clock::Now::read().unix);
        let later = UnixTime(now.0 + 3600);
        assert_eq!(clock.to_unix(clock.to_boot(later)), later);
    }

    #[test]
    fn moments_before_boot_and_beyond_the_clock_stop_at_its_ends() {
        let clock = BootClock::read();
        assert_eq!(clock.to_boot(UnixTime(0)), 0);
        assert_eq!(clock.to_boot(UnixTime(u64::MAX)), u64::MAX);
    }
}
