//! `$TIMESTAMP`: when a list was made, and until when it holds.

use std::time::Duration;

use super::super::quoted;
use crate::clock::UnixTime;

/// So far may the clock of whoever made a list be ahead of ours.
const SKEW: Duration = Duration::from_secs(300);

/// Whether a list holds now.
///
/// # Errors
/// If it was made in the future, no longer holds, or does not say when.
pub(super) fn hold(text: &str, now: UnixTime) -> Result<(), String> {
    let (made, expires) = read(text).ok_or_else(|| {
        format!("$TIMESTAMP '{}': write yyyy:mm:dd:hh:mi:ss, and behind it the end alike, or as +7d", quoted(text))
    })?;
    if let Some(made) = made.filter(|made| *made > now.plus(SKEW)) {
        return Err(format!("the list says that it was made at {made}, and now it is {now}: set the clock right"));
    }
    match expires {
        Some(expires) if expires < now => {
            Err(format!("the list says that it holds until {expires} only: fetch it again"))
        }
        _ => Ok(()),
    }
}

/// When it was made, and when it expires.
fn read(text: &str) -> Option<(Option<UnixTime>, Option<UnixTime>)> {
    let mut words = text.split_whitespace();
    let made = moment(words.next()?)?;
    let expires = match words.next() {
        None => None,
        Some(word) => match word.strip_prefix('+') {
            Some(span) => Some(made?.plus(period(span)?)),
            None => moment(word)?,
        },
    };
    words.next().is_none().then_some((made, expires))
}

/// `2026:11:26:12:00:00`, also with `-` or nothing in between and without the last parts; `0` and `-`: not said.
fn moment(word: &str) -> Option<Option<UnixTime>> {
    if ["0", "-", ":"].contains(&word) {
        return Some(None);
    }
    let (year, mut rest) = part(word, 4)?;
    // Month and day must be there.
    let mut parts = [0_i8; 5];
    for (at, place) in parts.iter_mut().enumerate() {
        if at < 2 || !rest.is_empty() {
            let (number, behind) = part(rest, 2)?;
            *place = number.try_into().ok()?;
            rest = behind;
        }
    }
    let [month, day, hour, minute, second] = parts;
    let time = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let stamp = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
    let seconds = u64::try_from(stamp.as_second()).ok()?;
    rest.is_empty().then_some(Some(UnixTime(seconds)))
}

/// A number of at most so many digits, and what follows it and a `:` or `-`.
fn part(text: &str, digits: usize) -> Option<(i16, &str)> {
    let end = text.bytes().take(digits).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest.strip_prefix([':', '-']).unwrap_or(rest)))
}

/// `7d`: a number, and a unit unless it is seconds.
fn period(text: &str) -> Option<Duration> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: u64 = match unit.to_ascii_lowercase().as_str() {
        "w" => 7 * 24 * 3600,
        "d" => 24 * 3600,
        "h" => 3600,
        "m" => 60,
        "" | "s" => 1,
        _ => return None,
    };
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    number.checked_mul(unit).map(Duration::from_secs)
}
