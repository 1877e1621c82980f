//! postscreen's cache, as `postmap -s btree:/var/lib/postfix/postscreen_cache` prints it: the address, a tab, and for each of
//! the five tests in our order until when it is passed.
//!
//! 0 is "never passed" and 1 "was not done when this was written"; what is missing at the end was not done either
//! (reference/postscreen.md section 5). Neither is a pass of the test here.

use crate::clock::UnixTime;
use crate::feed::quoted;
use crate::ledger::{Origin, Pass};
use crate::pass::{Stamps, Test};

use super::{Line, address, seconds};

/// A record of the cache that is no client: when it was last cleaned.
const CLEANED: &str = "_LAST_CACHE_CLEANUP_COMPLETED_";
/// Up to here a number is no time.
const NO_TIME: UnixTime = UnixTime(1);

pub(super) fn begins(line: &str) -> bool {
    let Some((key, value)) = line.split_once(char::is_whitespace) else { return false };
    let number = |byte: u8| byte.is_ascii_digit() || byte == b';';
    (key == CLEANED || address(key).is_ok()) && value.trim().bytes().all(number)
}

pub(super) fn read(line: &str, now: UnixTime) -> Result<Line, String> {
    let (key, value) = line.split_once(char::is_whitespace).ok_or_else(|| {
        format!("'{}' is no record of the cache: an address, a tab, and times with ; between them", quoted(line))
    })?;
    if key == CLEANED {
        return Ok(Line::Other("when the cache was cleaned"));
    }
    let client = address(key)?;
    let mut stamps = Stamps::default();
    let mut tests = Test::ALL.into_iter();
    for word in value.trim().split(';') {
        let until = seconds(word)?;
        let test = tests.next().ok_or_else(|| format!("'{}' has more than five tests", quoted(value)))?;
        stamps.set(test, (until > NO_TIME).then_some(until));
    }
    Ok(Line::Pass(client, Pass { stamps, created: now, origin: Origin::Screened, comment: None }))
}
