//! What a list was asked and what it answered: counts, the rate of the last minute, and how long answers took.
//!
//! Holds numbers only. Questions are those that went out; clients are counted in [`super::tally`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Failure;

/// The bounds of the buckets of times, in microseconds: half a millisecond to eight seconds, each twice the one before.
pub(super) const BOUNDS: [u64; 15] = {
    let mut bounds = [500; 15];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

/// Seconds over which the rate is taken.
const WINDOW: usize = 60;

/// The counts of one list.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) questions: AtomicU64,
    /// Answered from the cache.
    pub(super) cached: AtomicU64,
    /// Joined a question that was open already.
    pub(super) shared: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    /// Answers that are none: the list is at fault.
    pub(super) errors: AtomicU64,
    /// Questions without an answer.
    pub(super) failures: AtomicU64,
    /// How often the list was parked.
    pub(super) parkings: AtomicU64,
    times: [AtomicU64; BOUNDS.len() + 1],
    times_sum_us: AtomicU64,
    rate: Mutex<Rate>,
    last_error: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Rate {
    began: Instant,
    second: u64,
    counts: [u32; WINDOW],
}

/// How long answers took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// How many took at most so many seconds; the last bound is infinity. Not cumulative.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds in all.
    pub sum: f64,
    /// Answers in all.
    pub count: u64,
}

impl Times {
    /// The time that this share of the answers did not exceed, by the bucket's upper bound; `None`: there are none, or it is
    /// beyond the last bound.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        // A count of answers fits into 53 bits.
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for &(bound, count) in &self.buckets {
            seen += count;
            if seen >= wanted.max(1) {
                return bound.is_finite().then_some(bound);
            }
        }
        None
    }
}

impl Stats {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            questions: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            parkings: AtomicU64::new(0),
            times: std::array::from_fn(|_| AtomicU64::new(0)),
            times_sum_us: AtomicU64::new(0),
            rate: Mutex::new(Rate { began: now, second: 0, counts: [0; WINDOW] }),
            last_error: Mutex::new(None),
        }
    }

    /// A question goes out.
    pub(super) fn asked(&self, now: Instant) {
        add(&self.questions);
        let mut rate = lock(&self.rate);
        rate.turn_to(now);
        let at = rate.second as usize % WINDOW;
        rate.counts[at] += 1;
    }

    /// An answer came, of whatever kind.
    pub(super) fn took(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|&bound| us <= bound).unwrap_or(BOUNDS.len());
        add(&self.times[bucket]);
        self.times_sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// No answer came.
    pub(super) fn failed(&self, failure: Failure) {
        add(&self.failures);
        self.error(failure.to_string());
    }

    /// Keeps what was wrong last.
    pub(super) fn error(&self, what: String) {
        *lock(&self.last_error) = Some(what);
    }

    pub(super) fn last_error(&self) -> Option<String> {
        lock(&self.last_error).clone()
    }

    /// Questions a second over the last minute, or since the start if that is less.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let mut rate = lock(&self.rate);
        rate.turn_to(now);
        let seconds = (rate.second + 1).min(WINDOW as u64);
        rate.counts.iter().sum::<u32>() as f64 / seconds as f64
    }

    pub(super) fn times(&self) -> Times {
        let counts = self.times.iter().map(|count| count.load(Ordering::Relaxed));
        let bounds = BOUNDS.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|&(_, count)| count).sum();
        Times { buckets, sum: self.times_sum_us.load(Ordering::Relaxed) as f64 / 1e6, count }
    }
}

impl Rate {
    fn turn_to(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs();
        let passed = usize::try_from(second.saturating_sub(self.second)).unwrap_or(WINDOW).min(WINDOW);
        for step in 1..=passed {
            self.counts[(self.second as usize + step) % WINDOW] = 0;
        }
        self.second = self.second.max(second);
        if passed == WINDOW {
            self.counts = [0; WINDOW];
        }
    }
}

pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let start = Instant::now();
        let stats = Stats::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..10 {
            (0..5).for_each(|_| stats.asked(at(second)));
        }
        assert!((stats.rate(at(9)) - 5.0).abs() < 0.01, "{}", stats.rate(at(9)));
        assert!((stats.rate(at(59)) - 50.0 / 60.0).abs() < 0.01);
        assert!(stats.rate(at(65)) < 50.0 / 60.0 && stats.rate(at(65)) > 0.0);
        assert!(stats.rate(at(5000)).abs() < f64::EPSILON);
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let stats = Stats::new(Instant::now());
        assert_eq!(stats.times().quantile(0.5), None);
        for ms in [1, 1, 1, 1, 1, 1, 1, 1, 1, 100] {
            stats.took(Duration::from_millis(ms));
        }
        let times = stats.times();
        assert_eq!(times.count, 10);
        assert_eq!(times.quantile(0.5), Some(0.001));
        assert_eq!(times.quantile(0.99), Some(0.128));
        stats.took(Duration::from_secs(100));
        assert_eq!(stats.times().quantile(1.0), None);
    }
}
