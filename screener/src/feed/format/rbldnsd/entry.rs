//! One entry of rbldnsd's: addresses in any of its notations, and what stands behind them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::super::set::normal;
use super::super::super::span::Span;
use super::super::quoted;

/// The addresses of an entry, and what stands behind them.
///
/// # Errors
/// If it is none.
pub(in super::super) fn read(line: &str) -> Result<(Span, &str), String> {
    let is_v6 = line.trim_start_matches(|letter: char| letter.is_ascii_hexdigit()).starts_with(':');
    let of_v6 = |letter: char| letter.is_ascii_hexdigit() || letter == ':';
    let of_v4 = |letter: char| letter.is_ascii_digit() || letter == '.' || letter == '-';
    let (addresses, rest) = if is_v6 { split(line, of_v6) } else { split(line, of_v4) };
    let (length, rest) = match rest.strip_prefix('/') {
        Some(rest) => {
            let (length, rest) = split(rest, |letter| letter.is_ascii_digit());
            (Some(length.parse().map_err(|_| no_entry(line))?), rest)
        }
        None => (None, rest),
    };
    let span = if is_v6 { v6(addresses, length) } else { v4(addresses, length) };
    let span = span?.ok_or_else(|| no_entry(line))?;
    let behind = rest.trim_start();
    if behind.len() == rest.len() && !(rest.is_empty() || rest.starts_with(['#', ';', ':'])) {
        return Err(no_entry(line));
    }
    Ok((span, behind))
}

/// The beginning that is made of such letters, and the rest.
fn split(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|letter| !of(letter)).unwrap_or(text.len()))
}

fn no_entry(line: &str) -> String {
    let line = quoted(line);
    format!("'{line}' is no address, prefix or range: write 192.0.2.7, 192.0.2/24, 192.0.2.8-15 or 2001:db8::/32")
}

/// Whether these are the test points of RFC 5782, or others that list keepers put beside them. No client has such an address.
pub(super) fn are_test_points(span: Span) -> bool {
    let (first, last) = (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 0, 0, 255));
    Span::between(first.into(), last.into()).is_some_and(|points| points.covers(span))
}

/// `127.0.0`, `127/8`, `127.0.0.1-127.0.0.9`, `127.16-31`.
fn v4(text: &str, length: Option<u8>) -> Result<Option<Span>, String> {
    if let Some((first, last)) = text.split_once('-') {
        return Ok(length.is_none().then(|| range(first, last)).flatten());
    }
    let Some((address, given)) = octets(text) else { return Ok(None) };
    let length = match length {
        Some(length) => length,
        // A number alone may be anything.
        None if given == 1 => {
            return Err(format!("'{0}' alone is no address: write {0}/8 if that is meant", quoted(text)));
        }
        None => 8 * given,
    };
    prefix(Ipv4Addr::from(address).into(), length)
}

/// The last address is completed with 255, and if it has one octet only, that takes the place of the first one's last.
fn range(first: &str, last: &str) -> Option<Span> {
    let (low, given) = octets(first)?;
    let (end, given_last) = octets(last)?;
    let given = usize::from(given);
    let mut high = [255; 4];
    match usize::from(given_last) {
        1 => {
            high[..given].copy_from_slice(&low[..given]);
            high[given - 1] = end[0];
        }
        both if both == given => high[..given].copy_from_slice(&end[..given]),
        _ => return None,
    }
    Span::between(Ipv4Addr::from(low).into(), Ipv4Addr::from(high).into())
}

/// One to four octets, the others zero, and how many were given.
fn octets(text: &str) -> Option<([u8; 4], u8)> {
    let mut octets = [0; 4];
    let mut given = 0;
    for part in text.split('.') {
        *octets.get_mut(usize::from(given))? = part.parse().ok()?;
        given += 1;
    }
    Some((octets, given))
}

/// As usual, and without the last words: `2001:21ab:c000/36`, and `2001:db8:1:2` for a /64.
fn v6(text: &str, length: Option<u8>) -> Result<Option<Span>, String> {
    let words = text.split(':').count();
    // Eight words, or all that there is with what is between the two colons.
    let whole = text.contains("::") || words >= 8;
    let address = if whole { text.parse::<Ipv6Addr>() } else { format!("{text}::").parse() };
    let given = if whole { Some(128) } else { u8::try_from(16 * words).ok() };
    match (address, length.or(given)) {
        (Ok(address), Some(length)) => prefix(address.into(), length),
        _ => Ok(None),
    }
}

fn prefix(address: IpAddr, length: u8) -> Result<Option<Span>, String> {
    let Ok(net) = IpNet::new(address, length) else { return Ok(None) };
    Ok(Some(normal(net).map_err(|refused| refused.to_string())?.into()))
}

/// `:127.0.0.3:text`, `:3`: what the server answers.
///
/// # Errors
/// If there is no address in it, for then rbldnsd would skip the line.
pub(super) fn value(text: &str) -> Result<(), String> {
    let address = text.strip_prefix(':').unwrap_or(text).split(':').next().unwrap_or_default().trim_end();
    match octets(address) {
        Some((octets, _)) if octets != [0; 4] => Ok(()),
        _ => Err(format!("'{}': between the colons an address must stand, as in :127.0.0.2:text", quoted(text))),
    }
}
