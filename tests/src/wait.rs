//! Waiting on conditions with deadlines.
//!
//! Holds the one loop every other module waits in. Never sleeps for synchronisation: the short pause below is only
//! the distance between two looks at a condition, and a look that succeeds ends the wait at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The distance between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Lines of a log that an error shows.
const SHOWN: usize = 25;

/// Looks until `look` finds something; `what` completes the sentence "waited … for".
///
/// # Errors
/// When `timeout` has passed without a find. There is always one last look after the deadline, so that a machine
/// that stalled for the whole time does not report a condition that had long come true.
pub fn until<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    until_or_show(what, timeout, String::new, || Ok(look()))
}

/// Like [`until`], with a look that may fail for good (which ends the wait) and with evidence, such as a log, whose
/// last lines the error shows.
///
/// # Errors
/// When a look fails, or when `timeout` has passed without a find.
pub fn until_or_show<T>(
    what: &str,
    timeout: Duration,
    evidence: impl Fn() -> String,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let late = Instant::now() >= deadline;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if late {
            break;
        }
        sleep(PAUSE);
    }
    let shown = tail(&evidence(), SHOWN);
    if shown.is_empty() {
        bail!("waited {timeout:?} for {what}");
    }
    bail!("waited {timeout:?} for {what}; the last lines seen:\n{shown}");
}

/// The last `lines` lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_awaited_and_shows_the_evidence() {
        let error = until_or_show::<()>("rain", Duration::ZERO, || "sun\nmore sun".to_owned(), || Ok(None))
            .expect_err("nothing was found");
        let text = error.to_string();
        assert!(text.contains("rain"), "{text}");
        assert!(text.ends_with("sun\nmore sun"), "{text}");
    }

    #[test]
    fn a_condition_that_is_true_needs_no_time() {
        assert_eq!(until("now", Duration::ZERO, || Some(1)).ok(), Some(1));
    }
}
